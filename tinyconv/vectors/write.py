"""Test vectors: an operator's tensors in files, for whoever writes a kernel in another language.

A folder holds one case: an .npz file, and each tensor as raw little-endian bytes beside vectors.json, which
says all that is needed to read them.

What is random is drawn from one `numpy.random.default_rng(seed)`, in float64 and in this order: the
parameters as the layer draws them (those of a normalisation, which begins with ones and zeros, standard
normal), running_mean (standard normal) and running_var (uniform in 0.5 to 1.5), the input and the upstream
gradient (standard normal). For a loss: the prediction (standard normal; of nll_loss the log_softmax of
that, of binary_cross_entropy the sigmoid), the target (standard normal, uniform in 0 to 1, or uniform class
indices, of which every fourth is `ignore_index` unless that is -100), the factors (uniform in 0.5 to 1.5)
and the upstream gradient (standard normal for the reduction "none", else 1). These are rounded to the
dtype. All else is computed from the rounded values in float64 and rounded once, so that a kernel is not
compared with the rounding errors of another one.
"""

import inspect
import io
import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import boolean, floating_dtype, given, integer, one_of
from tinyconv.arrays import Array
from tinyconv.files import write_whole
from tinyconv.layers import Layer, LogSoftmax, Loss, Sigmoid
from tinyconv.signature import arguments
from tinyconv.vectors.operators import FACTORS, NOT_ATTRIBUTES, OPERATORS, signature
from tinyconv.vectors.tolerances import tolerance

__all__ = ["VALUES", "write_vectors"]

Attributes = Mapping[str, Any]
Shape = Sequence[int]

# What is done to the standard normal numbers of an input, a prediction or a target of real numbers.
VALUES: dict[str, Callable[[Array], Array]] = {
    "normal": lambda x: x,
    "rounded": np.round,
    "large": lambda x: 100 * x,
    "negative": lambda x: -abs(x),
    "offset": lambda x: 1000 + x,
}


class Case(NamedTuple):
    """A case's description (what vectors.json holds) and its arrays by name, as they are stored."""

    description: dict[str, Any]
    arrays: dict[str, Array]

    def text(self) -> str:
        """The description as JSON."""
        try:
            return json.dumps(self.description, indent=2, allow_nan=False, default=_plain) + "\n"
        except ValueError:
            raise ValueError("`attributes` must be finite numbers, which JSON can hold") from None


def write_vectors(
    operator: str,
    attributes: Mapping[str, Any],
    input_shape: Sequence[int],
    out: str | os.PathLike[str],
    seed: int = 0,
    dtype: npt.DTypeLike = np.float32,
    values: str = "normal",
) -> Path:
    """Write one operator's tensors to the folder `out`: equal arguments, equal bytes.

    Args:
        operator: a name in `OPERATORS`.
        attributes: arguments of the operator's layer, by name; others have their defaults. `weight` and
            `pos_weight` of a loss are True or False: whether there are such factors.
        input_shape: shape of the input, or of a loss's prediction: (batch, classes, ...) for classes.
        out: a folder, which is made where there is none; files of these names are replaced in it.
        seed: of the parameters, the input and the upstream gradient; see the top of this module.
        dtype: float32 or float64.
        values: what the input is: "normal", "rounded" (to integers: ties and zeros), "large" (100 times the
            normal), "negative" or "offset" (1000 more).

    Writes vectors.npz, NAME.bin (in C order) for each tensor, and last vectors.json: operator, attributes (in
    the layer's normal form: a kernel size is a pair), seed, and of each tensor its name, role, file, dtype,
    byte order, shape and strides in bytes. Names are input, output, grad_output (the upstream gradient) and
    grad_input; those of the layer's parameters and buffers; grad_ and a parameter's name; updated_ and the
    name of a buffer, for its value after forward. Those of a loss are prediction, target, weight, pos_weight,
    loss, grad_loss and grad_prediction. What a kernel computes also has `rtol` and `atol`: it should be
    within atol + rtol * |value|.

    Returns:
        The path of vectors.json.

    Raises:
        ValueError, TypeError: an argument that the layer refuses, or that is out of range.
        OSError: the folder or a file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_vectors("linear", {"in_features": 3, "out_features": 2}, (4, 3), folder)
    ...     case = json.loads(path.read_bytes())
    >>> case["attributes"], case["tensors"][3]["file"], case["tensors"][3]["shape"]
    ({'in_features': 3, 'out_features': 2, 'bias': True}, 'output.bin', [4, 2])
    """
    case = make_case(operator, attributes, input_shape, seed, dtype, values)
    case.description["npz"] = "vectors.npz"
    text = case.text()
    npz = io.BytesIO()
    np.savez(npz, **case.arrays)  # type: ignore[arg-type]  # its stub takes `allow_pickle` for one of them
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "vectors.json").unlink(missing_ok=True)  # it never describes another case's files
    write_whole(out / "vectors.npz", npz.getvalue())
    for name, array in case.arrays.items():
        write_whole(out / f"{name}.bin", array.tobytes())
    write_whole(out / "vectors.json", text.encode())
    return out / "vectors.json"


def make_case(
    operator: str, attributes: Attributes, shape: Shape, seed: int, dtype: npt.DTypeLike, values: str
) -> Case:
    """What `write_vectors` writes, without the .npz file."""
    one_of("operator", operator, tuple(OPERATORS))
    one_of("values", values, tuple(VALUES))
    dtype = floating_dtype(dtype)
    seed = integer("seed", seed, minimum=0)
    tensors_of = _loss_tensors if OPERATORS[operator].target else _layer_tensors
    bound = signature(operator).bind(**attributes).arguments
    draw = _Draw(np.random.default_rng(seed), dtype, VALUES[values])
    made, tensors = tensors_of(operator, bound, shape, draw)
    arrays = {name: _stored(array, dtype) for _, name, array in tensors}
    kept = {name: value for name, value in arguments(made).items() if name not in NOT_ATTRIBUTES}
    if OPERATORS[operator].target:
        kept |= {name: kept[name] is not None for name in FACTORS if name in kept}
    description: dict[str, Any] = {
        "format": "tinyconv test vectors",
        "version": 1,
        "operator": operator,
        "pytorch": f"torch.nn.{OPERATORS[operator].layer.__name__}",  # whose arguments the attributes are
        "attributes": kept,
        "seed": seed,
        "values": values,
        "tensors": [_described(role, name, arrays[name]) for role, name, _ in tensors],
    }
    for tensor in description["tensors"]:
        if tensor["role"] in COMPUTED:
            tensor["rtol"], tensor["atol"] = tolerance(operator, kept, tensor["name"], arrays)
    return Case(description, arrays)


COMPUTED = ("output", "gradient", "updated_buffer")  # roles of the tensors that a kernel computes
Tensors = list[tuple[str, str, Array]]  # role, name and values


class _Draw(NamedTuple):
    """Draws the random tensors of a case: in float64, and if rounded with values that `dtype` has."""

    rng: np.random.Generator
    dtype: np.dtype[Any]
    change: Callable[[Array], Array]

    def rounded(self, array: Array) -> Array:
        return np.asarray(array).astype(self.dtype).astype(np.float64)

    def normal(self, shape: Shape) -> Array:
        return self.rounded(self.rng.standard_normal(shape))

    def changed(self, shape: Shape) -> Array:
        """Standard normal numbers that are changed as the case's `values` say, and not rounded."""
        return self.change(self.rng.standard_normal(shape))


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"`attributes` holds {reprlib.repr(value)}, which JSON cannot hold")


def _layer(operator: str, attributes: Attributes, rng: np.random.Generator) -> Layer:
    """The float64 layer with random parameters and running statistics."""
    make = OPERATORS[operator].layer
    own = inspect.signature(make).parameters
    common = {"dtype": np.float64, "generator": rng}
    layer: Layer = make(**attributes, **{name: common[name] for name in common if name in own})
    if "generator" not in own:
        for param in layer.params.values():
            param[...] = rng.standard_normal(param.shape)
    if "running_mean" in layer.buffers:
        mean, var = layer.buffers["running_mean"], layer.buffers["running_var"]
        mean[...], var[...] = rng.standard_normal(mean.shape), rng.uniform(0.5, 1.5, var.shape)
    return layer


def _layer_tensors(operator: str, attributes: Attributes, shape: Shape, draw: _Draw) -> tuple[Layer, Tensors]:
    """The layer, and the tensors of a forward and a backward in float64."""
    layer = _layer(operator, attributes, draw.rng)
    for array in (*layer.params.values(), *layer.buffers.values()):
        array[...] = draw.rounded(array)
    before = {name: buffer.copy() for name, buffer in layer.buffers.items()}
    x = draw.rounded(draw.changed(_checked_shape(shape)))
    output = layer.forward(x)
    grad_output = draw.normal(output.shape)
    grad_input = layer.backward(grad_output)
    return layer, [
        ("input", "input", x),
        *(("parameter", name, param) for name, param in layer.params.items()),
        *(("buffer", name, buffer) for name, buffer in before.items()),
        ("output", "output", output),
        ("grad_output", "grad_output", grad_output),
        ("gradient", "grad_input", grad_input),
        *(("gradient", f"grad_{name}", grad) for name, grad in layer.grads.items()),
        *(("updated_buffer", f"updated_{name}", buffer) for name, buffer in layer.buffers.items()),
    ]


def _loss_tensors(operator: str, attributes: Attributes, shape: Shape, draw: _Draw) -> tuple[Loss, Tensors]:
    """The loss, and the tensors of a forward and a backward in float64."""
    chosen = {name: value for name, value in attributes.items() if name not in FACTORS}
    loss: Loss = OPERATORS[operator].layer(**chosen)
    shape = _checked_shape(shape)
    prediction = draw.rounded(_prediction(operator, draw.changed(shape)))
    target = _target(operator, loss, shape, draw)
    classes = shape[1:2] if OPERATORS[operator].target == "classes" else shape[-1:]
    wanted = [name for name in FACTORS if boolean(name, attributes.get(name, False))]
    factors = {name: draw.rounded(draw.rng.uniform(0.5, 1.5, classes)) for name in wanted}
    for name, factor in factors.items():
        setattr(loss, name, factor)
    output = np.asarray(loss.forward(prediction, target))
    grad_output = draw.normal(output.shape) if loss.reduction == "none" else np.ones(())
    return loss, [
        ("input", "prediction", prediction),
        ("target", "target", target),
        *(("factor", name, factor) for name, factor in factors.items()),
        ("output", "loss", output),
        ("grad_output", "grad_loss", grad_output),
        ("gradient", "grad_prediction", loss.backward(grad_output)),
    ]


def _checked_shape(input_shape: Shape) -> tuple[int, ...]:
    """`input_shape` as a tuple of ints."""
    if not isinstance(input_shape, Sequence):
        raise TypeError(f"`input_shape` ({given(input_shape)}) must be a sequence of ints")
    return tuple(integer("input_shape", length, minimum=0) for length in input_shape)


def _prediction(operator: str, x: Array) -> Array:
    """What the loss takes: real numbers, log-probabilities or probabilities."""
    if operator == "nll_loss":
        return LogSoftmax(1).forward(x)
    if operator == "binary_cross_entropy":  # multiples of 2^-24, so that none is subnormal
        return np.round(Sigmoid().forward(x) * 2**24) / 2**24
    return x


def _target(operator: str, loss: Loss, shape: Shape, draw: _Draw) -> Array:
    kind = OPERATORS[operator].target
    if kind == "values":
        return draw.rounded(draw.changed(shape))
    if kind == "probabilities":
        return draw.rounded(draw.rng.uniform(size=shape))
    if len(shape) < 2:
        raise ValueError(f"`input_shape` (={shape}) must have the form (batch, classes, ...)")
    target = draw.rng.integers(0, integer("classes", shape[1]), (shape[0], *shape[2:]))
    ignore_index = loss.ignore_index  # type: ignore[attr-defined]
    if ignore_index != -100:
        target.reshape(-1)[1::4] = ignore_index
    return target


def _stored(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` in C order and little-endian, in `dtype` where it is floating."""
    stored = dtype if array.dtype.kind == "f" else array.dtype
    return array.astype(stored.newbyteorder("<"), order="C")


def _described(role: str, name: str, array: Array) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "file": f"{name}.bin",
        "dtype": array.dtype.name,
        "byte_order": "little",
        "shape": array.shape,
        "strides": array.strides,
    }

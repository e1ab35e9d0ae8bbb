"""Test vectors: an operator's tensors in files, for whoever writes a kernel in another language.

A folder holds one case: an .npz file, and each tensor as raw little-endian bytes beside vectors.json, which
says all that is needed to read them.

What is random is drawn from one `numpy.random.default_rng(seed)`, in float64 and in this order: the
parameters as the layer draws them (those of a normalisation, which begins with ones and zeros, standard
normal), running_mean (standard normal) and running_var (uniform in 0.5 to 1.5), the input and the upstream
gradient (standard normal). These are rounded to the dtype. All else is computed from the rounded values in
float64 and rounded once, so that a kernel is not compared with the rounding errors of another one.
"""

import inspect
import io
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import tinyconv.layers as layers
from tinyconv.arguments import floating_dtype, given, integer, one_of
from tinyconv.arrays import Array
from tinyconv.files import write_whole
from tinyconv.layers import Layer
from tinyconv.signature import arguments, constructor


class Operator(NamedTuple):
    """A layer, the form of its input in options and attributes, and the default of the option size.

    The layer has the name and the arguments of PyTorch's.
    """

    layer: type[Any]
    form: str
    size: tuple[int, ...] = ()


OPERATORS = {
    "conv1d": Operator(layers.Conv1d, "batch in_channels size", (32,)),
    "conv2d": Operator(layers.Conv2d, "batch in_channels size", (32, 32)),
    "conv_transpose2d": Operator(layers.ConvTranspose2d, "batch in_channels size", (32, 32)),
    "unfold": Operator(layers.Unfold, "batch channels size", (32, 32)),
    "fold": Operator(layers.Fold, "batch channels output_size"),  # of the images; the input is their columns
    "max_pool2d": Operator(layers.MaxPool2d, "batch channels size", (32, 32)),
    "avg_pool2d": Operator(layers.AvgPool2d, "batch channels size", (32, 32)),
    "adaptive_avg_pool2d": Operator(layers.AdaptiveAvgPool2d, "batch channels size", (32, 32)),
    "linear": Operator(layers.Linear, "batch size in_features"),
    "batch_norm1d": Operator(layers.BatchNorm1d, "batch num_features size", (32,)),
    "batch_norm2d": Operator(layers.BatchNorm2d, "batch num_features size", (32, 32)),
    "layer_norm": Operator(layers.LayerNorm, "batch size normalized_shape"),
    "group_norm": Operator(layers.GroupNorm, "batch num_channels size", (32, 32)),
    "relu": Operator(layers.ReLU, "batch size", (3, 32, 32)),
    "leaky_relu": Operator(layers.LeakyReLU, "batch size", (3, 32, 32)),
    "elu": Operator(layers.ELU, "batch size", (3, 32, 32)),
    "gelu": Operator(layers.GELU, "batch size", (3, 32, 32)),
    "silu": Operator(layers.SiLU, "batch size", (3, 32, 32)),
    "sigmoid": Operator(layers.Sigmoid, "batch size", (3, 32, 32)),
    "tanh": Operator(layers.Tanh, "batch size", (3, 32, 32)),
    "softplus": Operator(layers.Softplus, "batch size", (3, 32, 32)),
    "softmax": Operator(layers.Softmax, "batch size", (10,)),
    "log_softmax": Operator(layers.LogSoftmax, "batch size", (10,)),
}

# Arguments of layers that change no tensor of a case, or the number of outputs.
_NOT_ATTRIBUTES = ("algorithm", "inplace", "return_indices")


def signature(operator: str) -> inspect.Signature:
    """The operator's attributes and their defaults: arguments of its layer's constructor."""
    parameters = constructor(OPERATORS[operator].layer)
    return inspect.Signature([p for name, p in parameters.items() if name not in _NOT_ATTRIBUTES])


def write_vectors(
    operator: str,
    attributes: Mapping[str, Any],
    input_shape: Sequence[int],
    out: str | os.PathLike[str],
    seed: int = 0,
    dtype: npt.DTypeLike = np.float32,
) -> Path:
    """Write one operator's tensors to the folder `out`: equal arguments, equal bytes.

    Args:
        operator: a name in `OPERATORS`.
        attributes: arguments of the operator's layer, by name; others have their defaults.
        input_shape: shape of the input.
        out: a folder, which is made where there is none; files of these names are replaced in it.
        seed: of the parameters, the input and the upstream gradient; see the top of this module.
        dtype: float32 or float64.

    Writes vectors.npz, NAME.bin (in C order) for each tensor, and last vectors.json: operator, attributes (in
    the layer's normal form: a kernel size is a pair), seed, and of each tensor its name, role, file, dtype,
    byte order, shape and strides in bytes. Names are input, output, grad_output (the upstream gradient) and
    grad_input; those of the layer's parameters and buffers; grad_ and a parameter's name; updated_ and the
    name of a buffer, for its value after forward.

    Returns:
        The path of vectors.json.

    Raises:
        ValueError, TypeError: an argument that the layer refuses, or that is out of range.
        OSError: the folder or a file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_vectors("linear", {"in_features": 3, "out_features": 2}, (4, 3), folder)
    ...     case = json.loads(path.read_text())
    >>> case["attributes"], case["tensors"][3]["file"], case["tensors"][3]["shape"]
    ({'in_features': 3, 'out_features': 2, 'bias': True}, 'output.bin', [4, 2])
    """
    one_of("operator", operator, tuple(OPERATORS))
    dtype = floating_dtype(dtype)
    seed = integer("seed", seed, minimum=0)
    rng = np.random.default_rng(seed)
    bound = signature(operator).bind(**attributes)
    layer = _layer(operator, bound.arguments, rng)
    if not isinstance(input_shape, Sequence):
        raise TypeError(f"`input_shape` ({given(input_shape)}) must be a sequence of ints")
    shape = tuple(integer("input_shape", length, minimum=0) for length in input_shape)
    tensors = _tensors(layer, shape, rng, dtype)
    description = {
        "format": "tinyconv test vectors",
        "version": 1,
        "operator": operator,
        "pytorch": f"torch.nn.{OPERATORS[operator].layer.__name__}",  # whose arguments the attributes are
        "attributes": {n: value for n, value in arguments(layer).items() if n not in _NOT_ATTRIBUTES},
        "seed": seed,
        "npz": "vectors.npz",
        "tensors": [_described(*tensor) for tensor in tensors],
    }
    text = _json(description) + "\n"
    arrays: dict[str, Any] = {name: array for _, name, array in tensors}
    npz = io.BytesIO()
    np.savez(npz, **arrays)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "vectors.json").unlink(missing_ok=True)  # it never describes another case's files
    write_whole(out / "vectors.npz", npz.getvalue())
    for name, array in arrays.items():
        write_whole(out / f"{name}.bin", array.tobytes())
    write_whole(out / "vectors.json", text.encode())
    return out / "vectors.json"


def _json(description: dict[str, Any]) -> str:
    try:
        return json.dumps(description, indent=2, allow_nan=False, default=_plain)
    except ValueError:
        raise ValueError("`attributes` must be finite numbers, which JSON can hold") from None


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"`attributes` holds {reprlib.repr(value)}, which JSON cannot hold")


def _layer(operator: str, attributes: Mapping[str, Any], rng: np.random.Generator) -> Layer:
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


def _tensors(
    layer: Layer, shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype[Any]
) -> list[tuple[str, str, Array]]:
    """Role, name and values of each tensor, as they are stored, of a forward and a backward in float64."""
    for array in (*layer.params.values(), *layer.buffers.values()):
        array[...] = array.astype(dtype)
    before = {name: buffer.copy() for name, buffer in layer.buffers.items()}
    x = rng.standard_normal(shape).astype(dtype).astype(np.float64)
    output = layer.forward(x)
    grad_output = rng.standard_normal(output.shape).astype(dtype).astype(np.float64)
    grad_input = layer.backward(grad_output)
    tensors = [
        ("input", "input", x),
        *(("parameter", name, param) for name, param in layer.params.items()),
        *(("buffer", name, buffer) for name, buffer in before.items()),
        ("output", "output", output),
        ("grad_output", "grad_output", grad_output),
        ("gradient", "grad_input", grad_input),
        *(("gradient", f"grad_{name}", grad) for name, grad in layer.grads.items()),
        *(("updated_buffer", f"updated_{name}", buffer) for name, buffer in layer.buffers.items()),
    ]
    return [(role, name, _stored(array, dtype)) for role, name, array in tensors]


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

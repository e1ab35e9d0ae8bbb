"""What people write in place of an operator's gradient: a table of wrong formulas, operator by operator.

Each entry says which texts of mistakes.toml the mistake has and how it is computed. A formula that
does not fit the arguments (a kernel of another shape, no running statistics) is passed over. Those of
convolutions are in conv_formulas.py; what pooling and normalization need is in window_formulas.py and
norm_formulas.py.
"""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import tinyconv.functional as F
from tinyconv.arguments import given, pair
from tinyconv.arrays import Array
from tinyconv.gradients import conv_formulas, window_formulas
from tinyconv.gradients import norm_formulas as norm
from tinyconv.gradients.mistakes import Mistake, mistake
from tinyconv.gradients.operators import ALL_GRADIENTS, Given


class Case(Given):
    """An operator, its arguments and the gradient `want` that is asked for; see `diagnose` for errors."""

    def __init__(self, operator: str, wrt: str | None, arguments: dict[str, Any]) -> None:
        with np.errstate(all="ignore"):
            super().__init__(operator, wrt, arguments)
            self.want = self.gradient()
        if self.want is None:
            raise ValueError(f"`wrt` (='{wrt}') must be an argument that is given, and `{wrt}` is None")
        self.subject = f"the gradient of {operator} with respect to `{self.wrt}`"
        if self.wrt == "output":
            self.subject = f"the output of {operator}"

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers that a factor may be, by name."""
        shape, size, is_conv = self.input.shape, self.grad_output.shape, "conv" in self.operator
        if is_conv and len(shape) == self.weight.ndim - 1:  # one sample
            shape, size = (1, *shape), (1, *size)
        sizes = {"the batch size": shape[0] if shape else 1}
        if len(size) > 2:
            sizes["the number of output positions"] = prod(size[2:])
            sizes["the number of output positions of the whole batch"] = size[0] * prod(size[2:])
        if len(shape) > 1:
            has_classes = "softmax" in self.operator or "entropy" in self.operator
            name = "classes" if has_classes else "channels" if len(shape) > 2 else "features"
            sizes[f"the number of {name}"] = shape[1]
        if len(shape) > 2:
            sizes["the number of values in a channel"] = shape[0] * prod(shape[2:])
        if is_conv:
            sizes["the area of the kernel"] = prod(self.weight.shape[2:])
            sizes["the number of groups"] = self.groups
        if "pool" in self.operator:
            sizes["the area of the window"] = prod(pair("kernel_size", self.kernel_size))
        return sizes

    def wrong(self) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
        """What the wrong formulas give, and what each is."""
        for key, formula, wrts, values in (*COMMON, *TABLE.get(self.operator, ())):
            if self.wrt in wrts:
                try:
                    array = formula(self)
                except (ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError):
                    continue  # it does not fit these arguments
                yield np.asarray(array), (mistake(key, **values),)
        if "conv" in self.operator:
            yield from conv_formulas.wrong(self)

    def wrong_twice(self) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
        """What two wrong formulas give together."""
        if "conv" in self.operator:
            yield from conv_formulas.wrong_twice(self)


# The table


class Row(NamedTuple):
    """A wrong formula: the key of its texts, what computes it, for which gradients, what its texts need."""

    key: str
    formula: Callable[[Given], Any]
    wrts: tuple[str, ...] = ("input",)
    values: Mapping[str, Any] = MappingProxyType({})


ANY = (*ALL_GRADIENTS, "output")
PARAMETERS = ("weight", "bias")
VALUES = ("input", "output")
STATISTICS = ("input", "weight", "output")


def _with(**changed: Any) -> Callable[[Given], Any]:
    """The right formula with some arguments changed."""
    return lambda k: k.gradient(**changed)


def _default(argument: str, value: Any) -> Row:
    values = {"argument": argument, "value": given(value)}
    return Row(f"{argument} ignored", _with(**{argument: value}), ANY, values)


def _of_output(derivative: Callable[[Given], Array], shown: str) -> Row:
    """A derivative that is a function of the output, taken at the input."""
    return Row("input in place of output", lambda k: k.grad_output * derivative(k), values={"shown": shown})


def _sample(k: Given, part: slice) -> Any:
    """The gradient of linear from some samples."""
    return k.gradient(grad_output=k.grad_output[part], input=k.input[part])


def _slope(s: Array) -> Array:
    """The derivative of a sigmoid s, and of one class of a softmax."""
    return np.asarray(s * (1 - s))


def _sigmoid(k: Given) -> Array:
    return F.sigmoid(np.asarray(k.input))


def _softmax(k: Given) -> Array:
    return F.softmax(k.input, getattr(k, "dim", 1))


def _sign_of_difference(k: Given) -> Array:
    return F.l1_loss_backward(k.grad_output, k.input, k.target, k.reduction)[0]


def _entropy(k: Given, first: Array, hot: bool = True) -> Array:
    """The gradient of cross_entropy as `first` - onehot(target), without class weights."""
    if k.weight is not None or k.label_smoothing:
        raise ValueError("not a multiple of such a difference")
    if hot and k.input.shape == k.target.shape:
        first = first - k.target
    elif hot:
        classes = np.arange(k.input.shape[1]).reshape(-1, *[1] * (k.input.ndim - 2))
        first = first - (np.expand_dims(k.target, 1) == classes)
    if k.reduction == "none":
        return np.asarray(first * np.expand_dims(k.grad_output, 1))
    number = k.input.size / k.input.shape[1] if k.reduction == "mean" else 1
    return np.asarray(first * k.grad_output / number)


COMMON = (
    Row("output in place of grad_output", lambda k: k.gradient(grad_output=k.output()), ALL_GRADIENTS),
    Row("output in place of the gradient", lambda k: k.output()),
    Row("input in place of the gradient", lambda k: k.input),
    Row("grad_output missing", lambda k: k.gradient(grad_output=np.ones_like(k.grad_output)), ALL_GRADIENTS),
)
ELEMENTWISE = (
    Row("derivative missing", lambda k: k.grad_output),
    Row("output in place of input", lambda k: k.gradient(input=k.output())),
    Row("value in place of the derivative", lambda k: k.grad_output * k.output()),
)
OTHER_AXIS = Row("wrong axis: dim", lambda k: k.gradient(dim=0 if k.dim % k.input.ndim else -1), VALUES)
NO_BIAS = Row("bias missing", _with(bias=None), ("output",))
NORM = (
    Row("weight missing", _with(weight=None), VALUES),
    NO_BIAS,
    Row("statistics constant", lambda k: norm.gradient(k, mean=False, variance=False)),
    Row("variance constant", lambda k: norm.gradient(k, variance=False)),
    Row("mean constant", lambda k: norm.gradient(k, mean=False)),
    Row("unbiased variance", lambda k: norm.gradient(k, correction=1)),
    Row("input not normalized", norm.weight_of_raw_input, ("weight",)),
)
TABLE: dict[str, tuple[Row, ...]] = {
    "relu": (Row("mask missing: relu", lambda k: k.grad_output), *ELEMENTWISE[1:]),
    "leaky_relu": (
        *ELEMENTWISE,
        Row("negative_slope ignored: relu", lambda k: F.relu_backward(k.grad_output, k.input)),
        _default("negative_slope", 0.01),
    ),
    "elu": (
        _of_output(lambda k: np.where(k.input > 0, 1.0, k.input + k.alpha), "y + alpha"),
        *ELEMENTWISE,
        _default("alpha", 1.0),
    ),
    "sigmoid": (_of_output(lambda k: _slope(k.input), "y * (1 - y)"), *ELEMENTWISE),
    "tanh": (_of_output(lambda k: 1 - k.input**2, "1 - y**2"), *ELEMENTWISE),
    "gelu": (
        Row("approximation", _with(approximate="none"), VALUES),
        Row("approximation", _with(approximate="tanh"), VALUES),
        *ELEMENTWISE,
    ),
    "silu": (
        Row("term missing: second", lambda k: k.grad_output * _sigmoid(k)),
        Row("term missing: first", lambda k: k.grad_output * k.input * _slope(_sigmoid(k))),
        *ELEMENTWISE,
    ),
    "softplus": (*ELEMENTWISE, _default("beta", 1.0)),
    "softmax": (
        Row("coupling term missing: s * (1 - s)", lambda k: k.grad_output * _slope(_softmax(k))),
        Row("coupling term missing: s", lambda k: k.grad_output * _softmax(k)),
        OTHER_AXIS,
    ),
    "log_softmax": (
        Row("sum of grad_output missing: g - s", lambda k: k.grad_output - _softmax(k)),
        Row("sum of grad_output missing: g * (1 - s)", lambda k: k.grad_output * (1 - _softmax(k))),
        Row("softmax in place of its logarithm", lambda k: F.softmax_backward(k.grad_output, k.input, k.dim)),
        OTHER_AXIS,
    ),
    "cross_entropy": (
        Row("onehot missing", lambda k: _entropy(k, _softmax(k), hot=False)),
        Row("softmax missing", lambda k: _entropy(k, k.input)),
        Row("wrong axis: batch", lambda k: _entropy(k, F.softmax(k.input, 0))),
        Row("softmax twice", lambda k: k.gradient(input=_softmax(k)), VALUES),
        Row("coupling term missing: p * (1 - p)", lambda k: _entropy(k, _slope(_softmax(k)), hot=False)),
        _default("weight", None),
        _default("label_smoothing", 0.0),
        _default("ignore_index", -100),
    ),
    "mse_loss": (Row("sign of the difference", _sign_of_difference),),
    "linear": (
        Row("weight not transposed: gradient", lambda k: k.grad_output @ k.weight.T),
        Row("weight not transposed: output", lambda k: k.input @ k.weight, ("output",)),
        NO_BIAS,
        Row("= for +=: last sample", lambda k: _sample(k, slice(-1, None)), PARAMETERS),
        Row("first sample only", lambda k: _sample(k, slice(1)), PARAMETERS),
    ),
    "max_pool2d": (
        Row("all ties", lambda k: window_formulas.max_pool(k, "all")),
        Row("last maximum", lambda k: window_formulas.max_pool(k, "last")),
        Row("ties shared", lambda k: window_formulas.max_pool(k, "shared")),
        Row("= for +=: last window", lambda k: window_formulas.max_pool(k, "last written")),
        Row("average in place of the maximum", window_formulas.average_pool),
    ),
    "avg_pool2d": (
        Row("divisor missing", _with(divisor_override=1), VALUES),
        Row("padding counted", lambda k: k.gradient(count_include_pad=not k.count_include_pad), VALUES),
        Row("= for +=: last window", lambda k: window_formulas.average_pool(k, write=True)),
    ),
    "batch_norm": (
        *NORM,
        Row("running statistics", lambda k: k.gradient(training=not k.training), STATISTICS),
        Row("wrong axis: positions", lambda k: norm.gradient(k, axes=(0,))),
        Row("wrong axis: samples", lambda k: norm.gradient(k, axes=tuple(range(2, k.input.ndim)))),
    ),
    "layer_norm": (*NORM, Row("wrong axis: layer_norm", lambda k: norm.gradient(k, axes=(0,)))),
    "group_norm": (
        *NORM,
        Row("groups ignored: one", _with(num_groups=1), STATISTICS),
        Row("groups ignored: all", lambda k: k.gradient(num_groups=k.input.shape[1]), STATISTICS),
    ),
}

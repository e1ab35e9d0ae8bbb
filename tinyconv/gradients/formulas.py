"""What people write in place of an operator's gradient: a table of wrong formulas, operator by operator.

Each entry says what name the mistake has, how it is computed and worded, and what to do about it. A formula
that does not fit the arguments (a kernel of another shape, no running statistics) is passed over. Those of
convolutions are in conv_formulas.py; what pooling and normalization need is in window_formulas.py and
norm_formulas.py.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

import tinyconv.functional as F
from tinyconv.arguments import given, one_of
from tinyconv.arrays import Array
from tinyconv.gradients import conv_formulas, norm_formulas, window_formulas
from tinyconv.gradients.operators import ALL_GRADIENTS, GRADIENTS, Given, results
from tinyconv.gradients.transformations import Mistake


class Case:
    """An operator, its arguments and the gradient that is asked for."""

    def __init__(self, known: Given) -> None:
        self.known = known
        self.want = known.gradient()
        what = "the output" if known.wrt == "output" else "the gradient"
        respect = "" if known.wrt == "output" else f" with respect to `{known.wrt}`"
        self.subject = f"{what} of {known.operator}{respect}"

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers that a factor may be, by name."""
        known, sizes = self.known, {}
        shape, size = known.input.shape, known.grad_output.shape
        if "conv" in known.operator and len(shape) == known.weight.ndim - 1:  # one sample
            shape, size = (1, *shape), (1, *size)
        sizes["the batch size"] = shape[0] if shape else 1
        if len(size) > 2:
            sizes["the number of output positions"] = prod(size[2:])
            sizes["the number of output positions of the whole batch"] = size[0] * prod(size[2:])
        if len(shape) > 1:
            classes = "softmax" in known.operator or "entropy" in known.operator
            name = "classes" if classes else "channels" if len(shape) > 2 else "features"
            sizes[f"the number of {name}"] = shape[1]
        if len(shape) > 2:
            sizes["the number of values in a channel"] = shape[0] * prod(shape[2:])
        weight, kernel = getattr(known, "weight", None), getattr(known, "kernel_size", None)
        if "conv" in known.operator:
            sizes["the area of the kernel"] = prod(weight.shape[2:])  # type: ignore[union-attr]
            sizes["the number of groups"] = known.groups
        if kernel is not None:
            sizes["the area of the window"] = kernel**2 if isinstance(kernel, int) else prod(kernel)
        return sizes

    def wrong(self) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
        """What the wrong formulas give, and what each is."""
        table = [*COMMON, *TABLE.get(self.known.operator, ())]
        for name, formula, says, cure, wrts in table:
            if self.known.wrt in wrts:
                try:
                    array = formula(self.known)
                except (ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError):
                    continue  # it does not fit these arguments
                details, sentence = {"operator": self.known.operator}, says.startswith("`got`")
                yield np.asarray(array), (Mistake(name, details, cure, says, sentence=sentence),)
        if "conv" in self.known.operator:
            yield from conv_formulas.wrong(self.known)

    def wrong_twice(self) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
        """What two wrong formulas give together."""
        if "conv" in self.known.operator:
            yield from conv_formulas.wrong_twice(self.known)


def case(operator: str, wrt: str | None, arguments: dict[str, Any]) -> Case:
    """The operator's `Case`; see `diagnose` for what is raised."""
    one_of("operator", operator, tuple(GRADIENTS))
    if wrt is None:
        raise ValueError(
            f"`wrt` must be given with `operator`: one of {', '.join(map(repr, results(operator)))}"
        )
    wrt = "input" if wrt == "x" else wrt
    one_of("wrt", wrt, results(operator))
    if "x" in arguments:
        if "input" in arguments:
            raise ValueError("`x` and `input` are one argument and must not both be given")
        arguments = {"input" if name == "x" else name: value for name, value in arguments.items()}
    with np.errstate(all="ignore"):
        found = Case(Given(operator, wrt, arguments))
    if found.want is None:
        raise ValueError(f"`wrt` (='{wrt}') must be an argument that is given, and `{wrt}` is None")
    return found


# The table


class Formula(NamedTuple):
    """A wrong formula: how the mistake is called, computed, worded and cured, and for which gradients."""

    name: str
    formula: Callable[[Given], Any]
    says: str
    cure: str
    wrts: tuple[str, ...] = ("input",)


def _ones(known: Given) -> Array:
    return known.gradient(grad_output=np.ones_like(known.grad_output))


COMMON = (
    Formula(
        "output in place of grad_output",
        lambda k: k.gradient(grad_output=k.output()),
        "computed with the output in place of grad_output",
        "Pass what comes back from the next layer, and not what forward returned.",
        ALL_GRADIENTS,
    ),
    Formula(
        "output in place of the gradient",
        lambda k: k.output(),
        "`got` is the output itself",
        "Return the gradient, and not what forward returned.",
    ),
    Formula(
        "input in place of the gradient",
        lambda k: k.input,
        "`got` is the input itself",
        "Return the gradient.",
    ),
    Formula(
        "grad_output missing",
        _ones,
        "computed with ones in place of grad_output",
        "Multiply by grad_output: the chain rule.",
        ALL_GRADIENTS,
    ),
)


def _elementwise(*more: Formula, missing: str = "derivative missing") -> tuple[Formula, ...]:
    """What can be wrong with any elementwise function, and with one of them."""
    cure = "Multiply by the function's derivative at the input."
    if missing == "mask missing":
        cure = "Multiply by the mask input > 0."
    return (
        *more,
        Formula(
            missing, lambda k: k.grad_output, "`got` is grad_output itself, without the derivative", cure
        ),
        Formula(
            "output in place of input",
            lambda k: k.gradient(input=k.output()),
            "computed with the derivative at the output, where that at the input is meant",
            "Keep the input in forward, or write the derivative as a function of the output.",
        ),
        Formula(
            "value in place of the derivative",
            lambda k: k.grad_output * k.output(),
            "computed with the function's value in place of its derivative",
            "Multiply grad_output by the derivative.",
        ),
    )


def _of_output(derivative: Callable[[Array], Array], shown: str) -> Formula:
    return Formula(
        "input in place of output",
        lambda k: k.grad_output * derivative(k.input),
        f"computed with {shown} of the input, where y is the output",
        f"Use y = the output of forward in {shown}.",
    )


def _default(argument: str, value: Any) -> Formula:
    return Formula(
        f"{argument} ignored",
        lambda k: k.gradient(**{argument: value}),
        f"computed with `{argument}` ({given(value)}), its default",
        f"Pass `{argument}` to the gradient as well.",
        (*ALL_GRADIENTS, "output"),
    )


def _other_approximation(k: Given) -> Array:
    return k.gradient(approximate="none" if k.approximate == "tanh" else "tanh")


def _sigmoid(x: Array) -> Array:
    return F.sigmoid(np.asarray(x))


def _softmax(k: Given) -> Array:
    return F.softmax(k.input, k.dim)


def _other_axes(k: Given) -> Array:
    return k.gradient(dim=0 if k.dim % k.input.ndim else -1)


def _onehot(k: Given) -> Array:
    """The targets as ones among zeros, in the shape of the input."""
    if k.input.shape == k.target.shape:
        return np.asarray(k.target)
    classes = np.arange(k.input.shape[1]).reshape(-1, *[1] * (k.input.ndim - 2))
    return np.asarray(np.expand_dims(k.target, 1) == classes, np.float64)


def _entropy_scale(k: Given) -> Array:
    """What stands before p - onehot, without class weights."""
    if k.weight is not None or k.label_smoothing:
        raise ValueError
    if k.reduction == "none":
        return np.expand_dims(k.grad_output, 1)
    return np.asarray(k.grad_output / (k.input.size / k.input.shape[1] if k.reduction == "mean" else 1))


def _last(k: Given) -> Array:
    """The gradient of linear by its parameters, from the last sample alone."""
    return k.gradient(grad_output=k.grad_output[-1:], input=k.input[-1:])


def _first(k: Given) -> Array:
    return k.gradient(grad_output=k.grad_output[:1], input=k.input[:1])


WRONG_AXIS = Formula(
    "wrong axis",
    _other_axes,
    "computed along another axis than `dim`",
    "Sum along `dim`, the axis of the classes, with keepdims=True.",
    ("input", "output"),
)
LAST_SAMPLE = Formula(
    "= for +=",
    _last,
    "computed from the last sample alone",
    "Add (+=) what each sample gives.",
    ("weight", "bias"),
)
FIRST_SAMPLE = Formula(
    "first sample only",
    _first,
    "computed from the first sample alone",
    "Sum over the batch.",
    ("weight", "bias"),
)
NO_WEIGHT = Formula(
    "weight missing",
    lambda k: k.gradient(weight=None),
    "without the weight",
    "Multiply grad_output by the weight first.",
    ("input", "output"),
)
NO_BIAS = Formula(
    "bias missing", lambda k: k.gradient(bias=None), "without the bias", "Add the bias.", ("output",)
)


def _norm(name: str, says: str, cure: str, formula: Callable[..., Array], *wrts: str) -> Formula:
    return Formula(name, formula, says, cure, wrts or ("input",))


NORM = (
    NO_WEIGHT,
    NO_BIAS,
    _norm(
        "statistics constant",
        "computed as if mean and variance were constants",
        "Both depend on the input: subtract mean(g) and x̂ * mean(g * x̂), g being grad_output * weight.",
        lambda k: norm_formulas.gradient(k, mean=False, variance=False),
    ),
    _norm(
        "variance constant",
        "computed as if the variance were a constant",
        "Subtract x̂ * mean(g * x̂) as well, g being grad_output * weight.",
        lambda k: norm_formulas.gradient(k, variance=False),
    ),
    _norm(
        "mean constant",
        "computed as if the mean were a constant",
        "Subtract mean(g) as well, g being grad_output * weight.",
        lambda k: norm_formulas.gradient(k, mean=False),
    ),
    _norm(
        "unbiased variance",
        "computed with the variance that is divided by n - 1",
        "Divide by n: only the running variance is divided by n - 1.",
        lambda k: norm_formulas.gradient(k, correction=1),
    ),
    _norm(
        "eps missing",
        "computed without eps",
        "Add eps to the variance, under the root.",
        lambda k: norm_formulas.gradient(k, without_eps=True),
    ),
    _norm(
        "input not normalized",
        "computed with the input in place of the normalized input",
        "Use x̂ = (x - mean) / sqrt(var + eps).",
        norm_formulas.weight_of_raw_input,
        "weight",
    ),
    _norm(
        "input not centered",
        "computed with the input divided by its deviation, without subtracting the mean",
        "Use x̂ = (x - mean) / sqrt(var + eps).",
        norm_formulas.weight_of_uncentered_input,
        "weight",
    ),
)

TABLE: dict[str, tuple[Formula, ...]] = {
    "relu": _elementwise(missing="mask missing"),
    "leaky_relu": (
        *_elementwise(),
        Formula(
            "negative_slope ignored",
            lambda k: F.relu_backward(k.grad_output, k.input),
            "computed with 0 in place of the negative slope",
            "Multiply by `negative_slope` where the input is negative.",
        ),
        _default("negative_slope", 0.01),
    ),
    "elu": (
        *_elementwise(
            Formula(
                "input in place of output",
                lambda k: k.grad_output * np.where(k.input > 0, 1.0, k.input + k.alpha),
                "computed with y + alpha of the input, where y is the output",
                "Use y = the output of forward in y + alpha.",
            )
        ),
        _default("alpha", 1.0),
    ),
    "sigmoid": _elementwise(_of_output(lambda y: y * (1 - y), "y * (1 - y)")),
    "tanh": _elementwise(_of_output(lambda y: 1 - y * y, "1 - y**2")),
    "gelu": _elementwise(
        Formula(
            "approximation",
            _other_approximation,
            "computed with the other form of gelu (exact or tanh)",
            "Use the form that `approximate` says.",
            ("input", "output"),
        )
    ),
    "silu": _elementwise(
        Formula(
            "term missing",
            lambda k: k.grad_output * _sigmoid(k.input),
            "without the second term of the product rule",
            "Add x * s * (1 - s) to s = sigmoid(x).",
        ),
        Formula(
            "term missing",
            lambda k: k.grad_output * k.input * _sigmoid(k.input) * (1 - _sigmoid(k.input)),
            "without the first term of the product rule",
            "Add s = sigmoid(x) to x * s * (1 - s).",
        ),
    ),
    "softplus": (*_elementwise(), _default("beta", 1.0)),
    "softmax": (
        Formula(
            "coupling term missing",
            lambda k: k.grad_output * _softmax(k) * (1 - _softmax(k)),
            "computed elementwise as s * (1 - s), without the terms that couple the classes",
            "Use s * (g - sum of g * s along `dim`).",
        ),
        Formula(
            "coupling term missing",
            lambda k: k.grad_output * _softmax(k),
            "without the sum of g * s",
            "Use s * (g - sum of g * s along `dim`).",
        ),
        WRONG_AXIS,
    ),
    "log_softmax": (
        Formula(
            "sum of grad_output missing",
            lambda k: k.grad_output - _softmax(k),
            "computed as g - s, where the sum of g belongs before s",
            "Use g - s * sum of g along `dim`.",
        ),
        Formula(
            "sum of grad_output missing",
            lambda k: k.grad_output * (1 - _softmax(k)),
            "computed elementwise as g * (1 - s), without the sum of g",
            "Use g - s * sum of g along `dim`.",
        ),
        Formula(
            "softmax in place of its logarithm",
            lambda k: F.softmax_backward(k.grad_output, k.input, k.dim),
            "computed for softmax without the logarithm",
            "Use g - s * sum of g along `dim`.",
        ),
        WRONG_AXIS,
    ),
    "cross_entropy": (
        Formula(
            "onehot missing",
            lambda k: F.softmax(k.input, 1) * _entropy_scale(k),
            "computed with the probabilities alone, without subtracting 1 at the target",
            "Use p - onehot(target).",
        ),
        Formula(
            "softmax missing",
            lambda k: (k.input - _onehot(k)) * _entropy_scale(k),
            "computed with the logits in place of the probabilities",
            "Use softmax(input) - onehot(target).",
        ),
        Formula(
            "wrong axis",
            lambda k: (F.softmax(k.input, 0) - _onehot(k)) * _entropy_scale(k),
            "computed with a softmax over the batch",
            "Normalize over axis 1, the classes.",
        ),
        Formula(
            "softmax twice",
            lambda k: k.gradient(input=F.softmax(k.input, 1)),
            "computed from probabilities, of which softmax is taken again",
            "Pass logits: cross_entropy applies log_softmax itself.",
            ("input", "output"),
        ),
        Formula(
            "coupling term missing",
            lambda k: F.softmax(k.input, 1) * (1 - F.softmax(k.input, 1)) * _entropy_scale(k),
            "computed with p * (1 - p)",
            "Use p - onehot(target).",
        ),
        _default("weight", None),
        _default("label_smoothing", 0.0),
        _default("ignore_index", -100),
    ),
    "mse_loss": (
        Formula(
            "sign of the difference",
            lambda k: F.l1_loss_backward(k.grad_output, k.input, k.target, k.reduction)[0],
            "computed with the sign of the difference alone, as in l1_loss",
            "Use 2 * (input - target).",
        ),
        Formula(
            "value in place of the derivative",
            lambda k: k.grad_output * (k.input - k.target) ** 2,
            "computed with the square itself",
            "Use 2 * (input - target).",
        ),
    ),
    "linear": (
        Formula(
            "weight not transposed",
            lambda k: k.grad_output @ k.weight.T,
            "computed with the weight transposed",
            "Use grad_output @ weight: forward is input @ weight.T.",
        ),
        Formula(
            "weight not transposed",
            lambda k: k.input @ k.weight,
            "computed with the weight not transposed",
            "Use input @ weight.T + bias.",
            ("output",),
        ),
        NO_BIAS,
        LAST_SAMPLE,
        FIRST_SAMPLE,
    ),
    "max_pool2d": (
        Formula(
            "all ties",
            lambda k: window_formulas.max_pool(k, "all"),
            "with grad_output sent to all maxima of a window where several are equal",
            "Send it to the first maximum alone (argmax).",
        ),
        Formula(
            "last maximum",
            lambda k: window_formulas.max_pool(k, "last"),
            "with grad_output sent to the last of several equal maxima",
            "Send it to the first maximum: compare with > and not with >=.",
        ),
        Formula(
            "ties shared",
            lambda k: window_formulas.max_pool(k, "shared"),
            "with grad_output divided among the equal maxima of a window",
            "Send it to the first maximum alone (argmax).",
        ),
        Formula(
            "= for +=",
            lambda k: window_formulas.max_pool(k, "last written"),
            "computed from the last window alone where windows overlap",
            "Add (+=) what each window gives.",
        ),
        Formula(
            "average in place of the maximum",
            lambda k: window_formulas.average_pool(k, "add"),
            "with grad_output spread over the whole window",
            "Send it to the maximum alone.",
        ),
    ),
    "avg_pool2d": (
        Formula(
            "divisor missing",
            lambda k: k.gradient(divisor_override=1),
            "without the divisor",
            "Divide by the number of values in the window.",
            ("input", "output"),
        ),
        Formula(
            "padding counted",
            lambda k: k.gradient(count_include_pad=not k.count_include_pad),
            "with the other rule for `count_include_pad`",
            "Divide by the number of values that `count_include_pad` says.",
            ("input", "output"),
        ),
        Formula(
            "= for +=",
            lambda k: window_formulas.average_pool(k, "last written"),
            "computed from the last window alone where windows overlap",
            "Add (+=) what each window gives.",
        ),
    ),
    "batch_norm": (
        *NORM,
        Formula(
            "running statistics",
            lambda k: k.gradient(training=not k.training),
            "computed in the other mode, evaluation or training",
            "In training use the batch's statistics, in evaluation the running ones.",
            ("input", "weight", "output"),
        ),
        _norm(
            "wrong axis",
            "computed with statistics over the batch alone, one at each position",
            "Take mean and variance over the batch and all positions.",
            lambda k: norm_formulas.gradient(k, axes=(0,)),
        ),
        _norm(
            "wrong axis",
            "computed with statistics of each sample",
            "Take mean and variance over the batch and all positions.",
            lambda k: norm_formulas.gradient(k, axes=tuple(range(2, k.input.ndim))),
        ),
    ),
    "layer_norm": (
        *NORM,
        _norm(
            "wrong axis",
            "computed with statistics over the batch",
            "Take mean and variance over `normalized_shape`, sample by sample.",
            lambda k: norm_formulas.gradient(k, axes=(0,)),
        ),
    ),
    "group_norm": (
        *NORM,
        Formula(
            "groups ignored",
            lambda k: k.gradient(num_groups=1),
            "computed with all channels in one group",
            "Take mean and variance over each group of channels.",
            ("input", "weight", "output"),
        ),
        Formula(
            "groups ignored",
            lambda k: k.gradient(num_groups=k.input.shape[1]),
            "computed with each channel as a group of its own",
            "Take mean and variance over each group of channels.",
            ("input", "weight", "output"),
        ),
    ),
}

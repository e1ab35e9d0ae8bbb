"""Binary cross-entropy of probabilities and of logits, and the derivatives."""

from typing import Any

import numpy as np

from tinyconv.arrays import Array, array_module, underflow_allowed
from tinyconv.functional.activation import sigmoid, sigmoid_backward, softplus
from tinyconv.functional.losses.elementwise import check_elements
from tinyconv.functional.losses.reduction import reduce, reduce_backward
from tinyconv.functional.product_rule import tangent_of

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "binary_cross_entropy_backward_jvp",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "binary_cross_entropy_with_logits_backward_jvp",
]

LEAST_LOG = -100.0  # binary_cross_entropy clamps logarithms to this
LEAST_VARIANCE = float(np.float32(1e-12))  # its gradient clamps input * (1 - input) to this


@underflow_allowed
def binary_cross_entropy(
    input: Array, target: Array, weight: Array | None = None, reduction: str = "mean"
) -> Array:
    """Compute -weight * (target * log(input) + (1 - target) * log(1 - input)), logarithms clamped to -100.

    Args:
        input: probabilities, 0 to 1, any shape, float32 or float64.
        target: probabilities, 0 to 1, of the shape and dtype of `input`.
        weight: a factor for each element, of a shape that broadcasts to that of `input`.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements.

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that do not fit, values outside 0 to 1, an unknown reduction.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy.html

    >>> import numpy as np
    >>> float(binary_cross_entropy(np.array([0.5]), np.array([1.0])).round(6))
    0.693147
    """
    _check_probabilities(input, target, weight)
    log, log_rest = _clamped_logs(input)
    return reduce(_weighted((target - 1) * log_rest - target * log, weight), reduction)


@underflow_allowed
def binary_cross_entropy_backward(
    grad_output: Array, input: Array, target: Array, weight: Array | None = None, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Compute the gradients of `binary_cross_entropy` with respect to `input` and `target`.

    The first is weight * (input - target) / (input * (1 - input)), with the divisor clamped to 1e-12; the
    second is weight * (log(1 - input) - log(input)), with logarithms clamped to -100.

    >>> x, target = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    >>> binary_cross_entropy_backward(np.array(1.0), x, target, reduction="sum")[0]  # -1 / x, 1 / (1 - x)
    array([-2.,  2.])
    """
    xp = _check_probabilities(input, target, weight)
    grads = _weighted(reduce_backward(grad_output, input, reduction), weight)
    log, log_rest = _clamped_logs(input)
    variance = xp.maximum(input * (1 - input), LEAST_VARIANCE)
    return xp.asarray(grads * (input - target) / variance), xp.asarray(grads * (log_rest - log))


@tangent_of(binary_cross_entropy_backward)
def binary_cross_entropy_backward_jvp(
    input_dot: Array, input: Array, target: Array, weight: Array | None = None, reduction: str = "mean"
) -> Any:
    """Compute the tangent of the gradient of `binary_cross_entropy` with respect to `input`.

    With v = input * (1 - input), the second derivative is weight times
    1 / v - (input - target) * (1 - 2 * input) / v^2.

    >>> x, target = np.array([0.5]), np.array([1.0])  # -log(x), whose second derivative is 1 / x^2
    >>> binary_cross_entropy_backward_jvp(np.array(0.0), np.ones(1), np.array(1.0), x, target)
    array([4.])
    """
    xp, product = array_module(input), input * (1 - input)
    variance = xp.maximum(product, LEAST_VARIANCE)
    widening = xp.where(product < LEAST_VARIANCE, 0, 1 - 2 * input) / variance
    return _weighted(input_dot / variance * (1 - (input - target) * widening), weight)


@underflow_allowed
def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """Return `binary_cross_entropy` of sigmoid(input), without overflow or loss of digits.

    loss = weight * ((1 - target) * input + (1 + (pos_weight - 1) * target) * log(1 + exp(-input)))

    Args:
        input: logits, any shape, float32 or float64.
        target: probabilities, of the shape and dtype of `input`.
        weight: a factor for each element, of a shape that broadcasts to that of `input`.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements.
        pos_weight: a factor for the positive part of the targets, of a shape that broadcasts to that of
            `input`, for example one for each class.

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that do not fit, an unknown reduction.
        TypeError: dtypes that differ or are not floating.

    Source:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy_with_logits.html

    >>> import numpy as np
    >>> float(binary_cross_entropy_with_logits(np.array([-1e4]), np.array([1.0])))
    10000.0
    """
    check_elements(input, target, weight=weight, pos_weight=pos_weight)
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    with np.errstate(invalid="ignore"):  # 0 * inf: NaN, as in PyTorch
        losses = (1 - target) * input + positive * _log_rest(input)
        return reduce(_weighted(losses, weight), reduction)


@underflow_allowed
def binary_cross_entropy_with_logits_backward(
    grad_output: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> tuple[Array, Array]:
    """Compute the gradients of `binary_cross_entropy_with_logits` with respect to `input` and `target`.

    With s = sigmoid(input) they are, times weight, (1 - target) * s - pos_weight * target * (1 - s) and
    pos_weight * log(1 + exp(-input)) - log(1 + exp(input)).

    >>> options = {"reduction": "sum", "pos_weight": np.array([3.0, 3.0])}
    >>> x, target = np.zeros(2), np.array([1.0, 0.0])
    >>> binary_cross_entropy_with_logits_backward(np.array(1.0), x, target, **options)[0]
    array([-1.5,  0.5])
    """
    xp = check_elements(input, target, weight=weight, pos_weight=pos_weight)
    grads = _weighted(reduce_backward(grad_output, input, reduction), weight)
    factor = 1 if pos_weight is None else pos_weight
    share = sigmoid(input)
    with np.errstate(invalid="ignore"):  # 0 * inf: NaN, as in PyTorch
        grad_input = grads * ((1 - target) * share - factor * target * (1 - share))
        grad_target = -input if pos_weight is None else factor * _log_rest(input) - _log_rest(-input)
        return xp.asarray(grad_input), xp.asarray(grads * grad_target)


@tangent_of(binary_cross_entropy_with_logits_backward)
def binary_cross_entropy_with_logits_backward_jvp(
    input_dot: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Any:
    """Compute the tangent of the gradient with respect to `input`.

    The second derivative is weight * s * (1 - s) * (1 - target + pos_weight * target).

    >>> x, target, ones = np.zeros(2), np.array([1.0, 0.0]), np.ones(2)
    >>> options = {"reduction": "none", "pos_weight": np.array([3.0, 3.0])}
    >>> binary_cross_entropy_with_logits_backward_jvp(np.zeros(2), ones, ones, x, target, **options)
    array([0.75, 0.25])
    """
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    return _weighted(positive * sigmoid_backward(input_dot, input), weight)


def _check_probabilities(input: Array, target: Array, weight: Array | None) -> Any:
    xp = check_elements(input, target, weight=weight)
    for name, array in (("input", input), ("target", target)):
        outside = array[~((array >= 0) & (array <= 1))]
        if outside.size:
            raise ValueError(f"`{name}` has the value {outside[0]}, which must be between 0 and 1")
    return xp


def _clamped_logs(input: Array) -> tuple[Array, Array]:
    """log(input) and log(1 - input), clamped to LEAST_LOG."""
    xp = array_module(input)
    with np.errstate(divide="ignore"):  # log(0) is clamped
        return xp.maximum(xp.log(input), LEAST_LOG), xp.maximum(xp.log1p(-input), LEAST_LOG)


def _log_rest(input: Array) -> Array:
    """log(1 + exp(-input)), without overflow."""
    return softplus(-input, threshold=np.inf)


def _weighted(losses: Array, weight: Array | None) -> Array:
    return losses if weight is None else losses * weight

"""Losses of one prediction and one target an element, and PyTorch's reductions.

Every loss is first one number per element (`reduction="none"`); "sum" adds them, "mean" divides the sum
by their number. The backward functions take the gradient of the reduced loss, a scalar, or one number
per element for "none", and return the gradients by `input` and by `target`.
"""

from typing import Any

import numpy as np

from tinyconv.arguments import REDUCTIONS, check_arrays, check_shape, number, one_of
from tinyconv.arrays import Array, array_module
from tinyconv.functional.activation import sigmoid, sigmoid_backward, softplus

LEAST_LOG = -100.0  # binary_cross_entropy takes no logarithm to be less
LEAST_VARIANCE = float(np.float32(1e-12))  # its gradient takes no input * (1 - input) to be less


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """Squared error (input - target)^2.

    Args:
        input, target: arrays of one shape and dtype, float32 or float64.
        reduction: "none", "mean" or "sum".

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mse_loss.html

    >>> import numpy as np
    >>> float(mse_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    2.0
    """
    difference = _difference(input, target)
    return reduce(difference * difference, reduction)


def mse_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Gradients of `mse_loss` by `input`, 2 * (input - target), and by `target`, its negative."""
    difference = _difference(input, target)
    grad = 2 * difference * reduce_backward(grad_output, difference, reduction)
    return grad, -grad


def mse_loss_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
) -> Array:
    """Tangent of the gradient by `input` that `mse_loss_backward` returns: 2 * input_dot more."""
    grad_dot, _ = mse_loss_backward(grad_output_dot, input, target, reduction)
    result: Array = grad_dot + 2 * input_dot * reduce_backward(grad_output, input, reduction)
    return result


def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """Absolute error |input - target|.

    Args:
        input, target: arrays of one shape and dtype, float32 or float64.
        reduction: "none", "mean" or "sum".

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.l1_loss.html

    >>> import numpy as np
    >>> float(l1_loss(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
    1.0
    """
    return reduce(abs(_difference(input, target)), reduction)


def l1_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Gradients of `l1_loss` by `input`, the sign of input - target or 0, and by `target`, its negative."""
    difference = _difference(input, target)
    grad = array_module(input).sign(difference) * reduce_backward(grad_output, difference, reduction)
    return grad, -grad


def l1_loss_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
) -> Array:
    """Tangent of the gradient by `input` that `l1_loss_backward` returns, on which `input` has no effect."""
    return l1_loss_backward(grad_output_dot, input, target, reduction)[0]


def smooth_l1_loss(input: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    """d^2 / (2 * beta) for d = |input - target| < beta, else d - beta / 2.

    Args:
        input, target: arrays of one shape and dtype, float32 or float64.
        reduction: "none", "mean" or "sum".
        beta: where the parabola becomes a straight line; with 0 this is `l1_loss`.

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction, a negative `beta`.
        TypeError: dtypes that differ or are not floating.

    Source: Girshick, https://arxiv.org/abs/1504.08083;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.smooth_l1_loss.html

    >>> import numpy as np
    >>> float(smooth_l1_loss(np.array([0.5, 2.0]), np.zeros(2), reduction="sum"))
    1.625
    """
    distance = abs(_difference(input, target))
    if number("beta", beta, 0.0) == 0:
        return reduce(distance, reduction)
    xp = array_module(input)
    losses = xp.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)
    return reduce(losses, reduction)


def smooth_l1_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean", beta: float = 1.0
) -> tuple[Array, Array]:
    """Gradients of `smooth_l1_loss` by `input`, d / beta within -1 to 1, and by `target`, its negative."""
    if number("beta", beta, 0.0) == 0:
        return l1_loss_backward(grad_output, input, target, reduction)
    difference = _difference(input, target)
    slope = array_module(input).clip(difference / beta, -1, 1)
    grad = slope * reduce_backward(grad_output, difference, reduction)
    return grad, -grad


def smooth_l1_loss_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    target: Array,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Array:
    """Tangent of the gradient by `input` that `smooth_l1_loss_backward` returns; input_dot / beta near 0."""
    xp = array_module(input)
    grad_dot, _ = smooth_l1_loss_backward(grad_output_dot, input, target, reduction, beta)
    if beta == 0:
        return grad_dot
    bent = xp.where(abs(input - target) < beta, input_dot / beta, 0)
    result: Array = grad_dot + bent * reduce_backward(grad_output, input, reduction)
    return result


def binary_cross_entropy(
    input: Array, target: Array, weight: Array | None = None, reduction: str = "mean"
) -> Array:
    """-weight * (target * log(input) + (1 - target) * log(1 - input)), no logarithm below -100.

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


def binary_cross_entropy_backward(
    grad_output: Array, input: Array, target: Array, weight: Array | None = None, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Gradients of `binary_cross_entropy` by `input` and `target`.

    The first is weight * (input - target) / (input * (1 - input)), the divisor at least 1e-12; the second
    weight * (log(1 - input) - log(input)), no logarithm below -100.
    """
    xp = _check_probabilities(input, target, weight)
    grads = _weighted(reduce_backward(grad_output, input, reduction), weight)
    log, log_rest = _clamped_logs(input)
    variance = xp.maximum(input * (1 - input), LEAST_VARIANCE)
    return grads * (input - target) / variance, grads * (log_rest - log)


def binary_cross_entropy_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
) -> Array:
    """Tangent of the gradient by `input` that `binary_cross_entropy_backward` returns.

    With v = input * (1 - input), its derivative by `input` is weight times
    1 / v - (input - target) * (1 - 2 * input) / v^2.
    """
    xp = array_module(input)
    grad_dot, _ = binary_cross_entropy_backward(grad_output_dot, input, target, weight, reduction)
    grads = _weighted(reduce_backward(grad_output, input, reduction), weight)
    product = input * (1 - input)
    variance = xp.maximum(product, LEAST_VARIANCE)
    widening = xp.where(product < LEAST_VARIANCE, 0, 1 - 2 * input) / variance
    result: Array = grad_dot + grads * input_dot / variance * (1 - (input - target) * widening)
    return result


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """`binary_cross_entropy` of sigmoid(input), without overflow and without a lost digit.

    loss = weight * ((1 - target) * input + (1 + (pos_weight - 1) * target) * log(1 + exp(-input)))

    Args:
        input: logits, any shape, float32 or float64.
        target: probabilities, of the shape and dtype of `input`.
        weight: a factor for each element, of a shape that broadcasts to that of `input`.
        reduction: "none", "mean" or "sum"; "mean" divides by the number of elements.
        pos_weight: a factor for the positive part of the targets, of a shape that broadcasts to that of
            `input`: one for each class, say.

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
    _check_elements(input, target, weight=weight, pos_weight=pos_weight)
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    with np.errstate(invalid="ignore"):  # 0 * inf: NaN, as in PyTorch
        losses = (1 - target) * input + positive * _log_rest(input)
        return reduce(_weighted(losses, weight), reduction)


def binary_cross_entropy_with_logits_backward(
    grad_output: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> tuple[Array, Array]:
    """Gradients of `binary_cross_entropy_with_logits` by `input` and `target`.

    With s = sigmoid(input) they are, times weight, (1 - target) * s - pos_weight * target * (1 - s) and
    log(1 + exp(-input)) * (pos_weight - 1) - input.
    """
    _check_elements(input, target, weight=weight, pos_weight=pos_weight)
    grads = _weighted(reduce_backward(grad_output, input, reduction), weight)
    factor = 1 if pos_weight is None else pos_weight
    share = sigmoid(input)
    grad_input = grads * ((1 - target) * share - factor * target * (1 - share))
    if pos_weight is None:
        return grad_input, -grads * input
    return grad_input, grads * ((pos_weight - 1) * _log_rest(input) - input)


def binary_cross_entropy_with_logits_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """Tangent of the gradient by `input` that `binary_cross_entropy_with_logits_backward` returns.

    Its derivative by `input` is weight * s * (1 - s) * (1 - target + pos_weight * target).
    """
    options = (weight, reduction, pos_weight)
    grad_dot, _ = binary_cross_entropy_with_logits_backward(grad_output_dot, input, target, *options)
    grads = _weighted(reduce_backward(grad_output, input, reduction), weight)
    positive = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    result: Array = grad_dot + grads * positive * sigmoid_backward(input_dot, input)
    return result


def reduce(losses: Array, reduction: str, total: Any = None) -> Array:
    """`losses` themselves ("none"), their "sum", or the sum over `total` ("mean"; default their number)."""
    xp = array_module(losses)
    if one_of("reduction", reduction, REDUCTIONS) == "none":
        return xp.asarray(losses)  # type: ignore[no-any-return]
    reduced: Array = xp.asarray(losses.sum())
    if reduction == "mean":
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: NaN, as in PyTorch
            reduced = xp.asarray(reduced / (losses.size if total is None else total))
    return reduced


def reduce_backward(grad_output: Array, losses: Array, reduction: str, total: Any = None) -> Array:
    """Gradient of `reduce` by the losses, with their shape; 0 where `total` is 0."""
    check_arrays(losses=losses, grad_output=grad_output)
    none = one_of("reduction", reduction, REDUCTIONS) == "none"
    shape = losses.shape if none else ()
    check_shape("grad_output", grad_output, shape, f"for `reduction` {reduction!r}")
    if reduction == "mean":
        total = losses.size if total is None else total
        grad_output = grad_output / total if total else grad_output * 0
    grad: Array = array_module(losses).broadcast_to(grad_output, losses.shape)
    return grad


def _difference(input: Array, target: Array) -> Array:
    _check_elements(input, target)
    difference: Array = array_module(input).asarray(input - target)
    return difference


def _check_elements(input: Array, target: Array, **factors: Array | None) -> Any:
    """Check that `target` has the form of `input`, and that the factors broadcast to it."""
    xp = check_arrays(input=input, target=target, **factors)
    check_shape("target", target, input.shape, "of `input`")
    for name, factor in factors.items():
        if factor is None:
            continue
        pairs = zip(factor.shape[::-1], input.shape[::-1], strict=False)
        if factor.ndim > input.ndim or any(f not in (1, length) for f, length in pairs):
            raise ValueError(
                f"`{name}` (of shape {factor.shape}) must broadcast to the shape {input.shape} of `input`"
            )
    return xp


def _check_probabilities(input: Array, target: Array, weight: Array | None) -> Any:
    xp = _check_elements(input, target, weight=weight)
    for name, array in (("input", input), ("target", target)):
        outside = array[~((array >= 0) & (array <= 1))]
        if outside.size:
            raise ValueError(f"`{name}` holds {outside[0]}, which must be between 0 and 1")
    return xp


def _clamped_logs(input: Array) -> tuple[Array, Array]:
    """log(input) and log(1 - input), none below LEAST_LOG."""
    xp = array_module(input)
    with np.errstate(divide="ignore"):  # log(0) is clamped
        return xp.maximum(xp.log(input), LEAST_LOG), xp.maximum(xp.log1p(-input), LEAST_LOG)


def _log_rest(input: Array) -> Array:
    """log(1 + exp(-input)), without overflow."""
    return softplus(-input, threshold=np.inf)


def _weighted(losses: Array, weight: Array | None) -> Array:
    return losses if weight is None else losses * weight

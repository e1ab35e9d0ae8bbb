"""Losses of one prediction and one target per element, and PyTorch's reductions.

Every loss is first one number per element (`reduction="none"`); "sum" adds them up, "mean" divides the sum by
their number. The backward functions take the gradient of the reduced loss, a scalar, or one number per
element for "none", and return the gradients with respect to `input` and `target`.
"""

from typing import Any

import numpy as np

from tinyconv.arguments import above_zero, boolean, check_arrays, check_shape, number
from tinyconv.arrays import Array, array_module, underflow_allowed
from tinyconv.functional.losses.reduction import by_batch, reduce, reduce_backward
from tinyconv.functional.product_rule import tangent_of

__all__ = [
    "huber_loss",
    "huber_loss_backward",
    "huber_loss_backward_jvp",
    "kl_div",
    "kl_div_backward",
    "l1_loss",
    "l1_loss_backward",
    "l1_loss_backward_jvp",
    "mse_loss",
    "mse_loss_backward",
    "mse_loss_backward_jvp",
    "smooth_l1_loss",
    "smooth_l1_loss_backward",
    "smooth_l1_loss_backward_jvp",
]


@underflow_allowed
def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """Compute the squared error (input - target)^2.

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


@underflow_allowed
def mse_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Return the gradients for `input`, 2 * (input - target), and for `target`, its negative.

    >>> x, target = np.array([3.0, 2.0]), np.array([1.0, 5.0])
    >>> mse_loss_backward(np.array(1.0), x, target)  # 2 * (3 - 1) / 2, 2 * (2 - 5) / 2
    (array([ 2., -3.]), array([-2.,  3.]))
    """
    difference = _difference(input, target)
    return _opposite(2 * difference * reduce_backward(grad_output, difference, reduction))


@tangent_of(mse_loss_backward)
def mse_loss_backward_jvp(input_dot: Array, input: Array, target: Array, reduction: str = "mean") -> Any:
    """Compute the tangent of the gradient of `mse_loss` with respect to `input`; f'' is 2.

    >>> x, x_dot = np.array([3.0, 2.0]), np.array([1.0, 10.0])
    >>> mse_loss_backward_jvp(np.array(0.0), x_dot, np.array(1.0), x, np.zeros(2), reduction="sum")
    array([ 2., 20.])
    """
    return 2 * input_dot


@underflow_allowed
def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """Compute the absolute error |input - target|.

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


@underflow_allowed
def l1_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Return the gradients for `input`, the sign of input - target or 0, and for `target`, its negative.

    >>> x, target = np.array([3.0, 2.0]), np.array([1.0, 5.0])
    >>> l1_loss_backward(np.array(1.0), x, target)  # the mean of two
    (array([ 0.5, -0.5]), array([-0.5,  0.5]))
    """
    difference = _difference(input, target)
    signs = array_module(input).sign(difference)
    return _opposite(signs * reduce_backward(grad_output, difference, reduction))


@tangent_of(l1_loss_backward)
def l1_loss_backward_jvp(input_dot: Array, input: Array, target: Array, reduction: str = "mean") -> None:
    """Compute the tangent of the gradient with respect to `input`, which is piecewise constant in it.

    >>> x, target, ones = np.array([3.0, 2.0]), np.array([1.0, 5.0]), np.ones(2)
    >>> l1_loss_backward_jvp(np.array([6.0, 7.0]), ones, ones, x, target, reduction="none")
    array([ 6., -7.])
    """


@underflow_allowed
def smooth_l1_loss(input: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Array:
    """Compute d^2 / (2 * beta) for d = |input - target| < beta, else d - beta / 2.

    Args:
        input, target: arrays of one shape and dtype, float32 or float64.
        reduction: "none", "mean" or "sum".
        beta: the distance at which the parabola becomes a straight line; with 0 this is `l1_loss`.

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
    beta = number("beta", beta, 0.0)
    if beta == 0:
        return reduce(distance, reduction)
    xp = array_module(input)
    near = xp.minimum(distance, beta)
    return reduce(xp.where(distance < beta, 0.5 * near * near / beta, distance - 0.5 * beta), reduction)


@underflow_allowed
def smooth_l1_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean", beta: float = 1.0
) -> tuple[Array, Array]:
    """Return the gradients for `input`, (input - target) / beta clipped to +-1, and for `target`.

    >>> smooth_l1_loss_backward(np.array(1.0), np.array([0.5, 4.0]), np.zeros(2), reduction="sum", beta=2.0)
    (array([0.25, 1.  ]), array([-0.25, -1.  ]))
    """
    beta = number("beta", beta, 0.0)
    if beta == 0:
        return l1_loss_backward(grad_output, input, target, reduction)
    difference = _difference(input, target)
    slope = array_module(input).clip(difference / beta, -1, 1)
    return _opposite(slope * reduce_backward(grad_output, difference, reduction))


@tangent_of(smooth_l1_loss_backward)
def smooth_l1_loss_backward_jvp(
    input_dot: Array, input: Array, target: Array, reduction: str = "mean", beta: float = 1.0
) -> Any:
    """Compute the tangent of the gradient with respect to `input`; f'' is 1 / beta in the parabola.

    >>> x, options = np.array([0.5, 4.0]), {"reduction": "sum", "beta": 2.0}
    >>> smooth_l1_loss_backward_jvp(np.array(0.0), np.ones(2), np.array(1.0), x, np.zeros(2), **options)
    array([0.5, 0. ])
    """
    beta = number("beta", beta, 0.0)
    if beta == 0:
        return None
    return array_module(input).where(abs(input - target) < beta, input_dot / beta, 0)


@underflow_allowed
def huber_loss(input: Array, target: Array, reduction: str = "mean", delta: float = 1.0) -> Array:
    """Compute d^2 / 2 for d = |input - target| < delta, else delta * (d - delta / 2).

    Args:
        input, target: arrays of one shape and dtype, float32 or float64.
        reduction: "none", "mean" or "sum".
        delta: the distance, above 0, at which the parabola becomes a straight line.

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction, a `delta` of 0 or less.
        TypeError: dtypes that differ or are not floating.

    Source: Huber, https://doi.org/10.1214/aoms/1177703732;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.huber_loss.html

    >>> import numpy as np
    >>> float(huber_loss(np.array([0.5, 4.0]), np.zeros(2), reduction="sum", delta=2.0))
    6.125
    """
    distance = abs(_difference(input, target))
    near = array_module(input).minimum(distance, above_zero("delta", delta))
    return reduce(near * (distance - 0.5 * near), reduction)


@underflow_allowed
def huber_loss_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean", delta: float = 1.0
) -> tuple[Array, Array]:
    """Return the gradients for `input`, input - target clipped to +-delta, and for `target`, its negative.

    >>> huber_loss_backward(np.array(1.0), np.array([0.5, 4.0]), np.zeros(2), reduction="sum", delta=2.0)
    (array([0.5, 2. ]), array([-0.5, -2. ]))
    """
    difference, delta = _difference(input, target), above_zero("delta", delta)
    slope = array_module(input).clip(difference, -delta, delta)
    return _opposite(slope * reduce_backward(grad_output, difference, reduction))


@tangent_of(huber_loss_backward)
def huber_loss_backward_jvp(
    input_dot: Array, input: Array, target: Array, reduction: str = "mean", delta: float = 1.0
) -> Any:
    """Compute the tangent of the gradient with respect to `input`; f'' is 1 in the parabola.

    >>> x, options = np.array([0.5, 4.0]), {"reduction": "sum", "delta": 2.0}
    >>> huber_loss_backward_jvp(np.array(0.0), np.ones(2), np.array(1.0), x, np.zeros(2), **options)
    array([1., 0.])
    """
    return array_module(input).where(abs(input - target) < delta, input_dot, 0)


@underflow_allowed
def kl_div(input: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Array:
    """Compute the Kullback-Leibler divergence, entry by entry: target * (log(target) - input).

    With `log_target` it is exp(target) * (target - input). A target of 0 counts as 0, unless the input is
    infinite.

    Args:
        input: log-probabilities, any shape, float32 or float64.
        target: probabilities, or with `log_target` log-probabilities, of the shape and dtype of `input`.
        reduction: "none", "mean", "sum" or "batchmean"; "mean" divides the sum by the number of elements,
            "batchmean" by the length of the first axis, as the divergence is defined.
        log_target: whether `target` has log-probabilities.

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction.
        TypeError: dtypes that differ or are not floating, a `log_target` that is not a bool.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.kl_div.html

    >>> import numpy as np
    >>> target = np.array([[0.5, 0.5, 0.0]])
    >>> float(kl_div(np.log(np.full((1, 3), 1 / 3)), target, "batchmean").round(6))  # log 3/2
    0.405465
    """
    losses, _, _ = _divergences(input, target, log_target)
    return reduce(losses, *by_batch(input, reduction))


@underflow_allowed
def kl_div_backward(
    grad_output: Array, input: Array, target: Array, reduction: str = "mean", log_target: bool = False
) -> tuple[Array, Array]:
    """Return the gradients for `input`, -target, and for `target`, log(target) + 1 - input.

    With `log_target` they are -exp(target) and exp(target) * (target + 1 - input). The second is NaN for
    probabilities of 0, as in PyTorch.

    >>> x, target = np.log([[0.25, 0.75]]), np.array([[0.5, 0.5]])
    >>> kl_div_backward(np.array(1.0), x, target, "batchmean")[0]
    array([[-0.5, -0.5]])
    """
    _, shares, slope = _divergences(input, target, log_target)
    grads, xp = reduce_backward(grad_output, input, *by_batch(input, reduction)), array_module(input)
    with np.errstate(invalid="ignore"):  # 0 * inf: NaN, as in PyTorch
        return xp.asarray(-shares * grads), xp.asarray(slope * grads)


@np.errstate(divide="ignore", invalid="ignore")  # what is not a probability gives NaN, as in PyTorch
def _divergences(input: Array, target: Array, log_target: bool) -> tuple[Array, Array, Array]:
    """The losses of `kl_div`, and their slopes for `input`, with the opposite sign, and for `target`."""
    xp = check_elements(input, target)
    if boolean("log_target", log_target):
        shares = xp.exp(target)
        return shares * (target - input), shares, shares * (target - input) + shares
    logs = xp.log(target)
    losses = xp.where(target == 0, 0, target * logs) - target * input
    return losses, target, logs + target / target - input


def _opposite(grad: Any) -> tuple[Array, Array]:
    """Gradients for `input` and `target` of a function of their difference."""
    xp = array_module(grad)
    return xp.asarray(grad), xp.asarray(-grad)


def _difference(input: Array, target: Array) -> Array:
    check_elements(input, target)
    difference: Array = array_module(input).asarray(input - target)
    return difference


def check_elements(input: Array, target: Array, **factors: Array | None) -> Any:
    """Check that `target` has the shape and dtype of `input`, and that the factors broadcast to it."""
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

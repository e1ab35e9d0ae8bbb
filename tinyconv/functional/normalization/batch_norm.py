"""Batch norm and its derivatives.

In training the statistics are the batch's own, and backward differentiates through them as well; in
evaluation they are the running ones, which are constants. `centre` says how large means are handled.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import check_arrays, check_like, check_per_channel, check_shape, number
from tinyconv.arrays import Array, fused, underflow_allowed
from tinyconv.functional.normalization.centre import centre, is_far, scaled
from tinyconv.functional.normalization.rows import (
    CHANNEL_AXES,
    Parts,
    as_rows,
    by_blocks,
    from_rows,
    pairs,
    sums,
)
from tinyconv.functional.normalization.standardize import Moved, Standardized, norm_backward_jvp, norm_jvp

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_saved",
    "batch_norm_saved_backward",
    "batch_norm_saved_backward_jvp",
    "batch_norm_saved_jvp",
]

# Adds an array up over all the parts of a batch that is divided among workers.
Allreduce: TypeAlias = Callable[[Array], Array]


class BatchNormSaved(NamedTuple):
    """What `batch_norm_saved_backward` needs.

    The values d, in the memory format (the input itself if nothing was subtracted); for each channel, in
    float64, rest and 1 / sqrt(var + eps); the number of values per channel in the whole batch, 0 where the
    statistics were the running ones.
    """

    centred: Array
    rest: Array
    inverse_std: Array
    size: int


def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel over the batch and all positions.

    y = (x - mean) / sqrt(var + eps) * weight + bias

    Args:
        input: (N, C, ...), float32 or float64.
        running_mean, running_var: (C,) or None. In training they are updated in place,
            running = (1 - momentum) * running + momentum * batch, with the unbiased variance.
        weight, bias: (C,) or None for 1 and 0.
        training: normalise with the batch's own mean and biased variance instead of the running ones.
        momentum: weight of the batch in the running statistics.
        eps: added to the variance; above 0 in training.

    Returns:
        An array of the shape of `input`, in the memory format.

    Raises:
        ValueError: shapes that do not fit, training on one value per channel or with an `eps` of 0, no
            running statistics in evaluation, read-only ones in training.
        TypeError: dtypes that differ or are not floating.

    Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html

    >>> import numpy as np
    >>> batch_norm(np.array([[1.0], [3.0]]), None, None, training=True).round(3)
    array([[-1.],
           [ 1.]])
    """
    check_arrays(input=input)
    if input.shape == (0,):  # no channels and no values: accepted, as in PyTorch
        return input.copy()
    return batch_norm_saved(input, running_mean, running_var, weight, bias, training, momentum, eps)[0]


def batch_norm_backward(
    grad_output: Array,
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients with respect to `input`, `weight` and `bias` (None for what is None).

    The running statistics are read in evaluation, and never changed.

    >>> x, grad = np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([[4.0], [0.0], [0.0], [0.0]])
    >>> grad_input, _, _ = batch_norm_backward(grad, x, None, None, training=True)
    >>> grad_input[:, 0].round(3) + 0.0  # grad - mean(grad) - x * mean(grad * x), as x is normalised
    array([ 2., -2.,  0.,  0.])
    """
    running = {"running_mean": running_mean, "running_var": running_var}
    check_arrays(weight=weight, **running, input=input, grad_output=grad_output, bias=bias)
    if input.shape == (0,):
        return grad_output.copy(), None, None
    check_per_channel(input, **running)
    if training:
        running_mean = running_var = None
    _, saved = batch_norm_saved(input, running_mean, running_var, weight, bias, training, 0.0, eps)
    return batch_norm_saved_backward(grad_output, saved, weight, bias)


@underflow_allowed
def batch_norm_saved(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    allreduce: Allreduce | None = None,
) -> tuple[Array, BatchNormSaved]:
    """Return `batch_norm`, and what its backward needs; `allreduce` sums over the parts of a batch.

    >>> x, mean, var = np.array([[1.0], [3.0]]), np.zeros(1), np.ones(1)
    >>> output, saved = batch_norm_saved(x, mean, var, training=True, momentum=0.5)
    >>> output[:, 0].round(3), mean, var  # the batch has the mean 2 and the unbiased variance 2
    (array([-1.,  1.]), array([1.]), array([1.5]))
    >>> batch_norm_saved_backward(np.ones((2, 1)), saved)[0].round(3).tolist()  # the mean is subtracted
    [[0.0], [0.0]]
    """
    momentum, eps = number("momentum", momentum), number("eps", eps)
    xp = check_arrays(
        weight=weight, running_mean=running_mean, running_var=running_var, input=input, bias=bias
    )
    check_per_channel(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if eps <= 0 and training:
        raise ValueError(f"`eps` (={eps}) must be above 0 in training")
    rows, size = as_rows(input), 0
    if training:
        centred, mean, rest, var, size = centre(rows, partial(_moments, rows, allreduce))
        update_running(running_mean, running_var, mean, var, size, momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("`running_mean` and `running_var` must be given when `training` is False")
    else:
        centred, rest, var = rows, running_mean.astype(np.float64), running_var.astype(np.float64)
        if xp is not np or is_far(rest, var):
            centred, rest = by_blocks(np.subtract, (rows,), running_mean), xp.zeros_like(rest)
    with np.errstate(divide="ignore", invalid="ignore"):  # var + eps may be 0 in evaluation
        inverse_std = 1 / xp.sqrt(var + eps)
        factor = _factor(inverse_std, weight)
        shift = -rest * factor if bias is None else bias - rest * factor
    output = by_blocks(scaled, (centred,), factor, shift)
    saved = BatchNormSaved(from_rows(centred, input.shape), rest, inverse_std, size)
    return from_rows(output, input.shape), saved


@underflow_allowed
def batch_norm_saved_backward(
    grad_output: Array,
    saved: BatchNormSaved,
    weight: Array | None = None,
    bias: Array | None = None,
    allreduce: Allreduce | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Return `batch_norm_backward` from what `batch_norm_saved` returned.

    >>> x, weight, bias = np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([10.0]), np.zeros(1)
    >>> _, saved = batch_norm_saved(x, None, None, weight, bias, training=True)
    >>> grads = batch_norm_saved_backward(np.array([[4.0], [0.0], [0.0], [0.0]]), saved, weight, bias)
    >>> [(grad.ravel().round(3) + 0.0).tolist() for grad in grads]
    [[20.0, -20.0, 0.0, 0.0], [-4.0], [4.0]]
    """
    xp = check_arrays(centred=saved.centred, grad_output=grad_output, weight=weight, bias=bias)
    check_shape("grad_output", grad_output, saved.centred.shape, "of the output")
    check_per_channel(saved.centred, weight=weight, bias=bias)
    grads, centred = as_rows(grad_output), as_rows(saved.centred)
    total, products = sums(pairs(grads, centred), grads)
    totals = xp.stack((total, (products - saved.rest * total) * saved.inverse_std))
    factor = _factor(saved.inverse_std, weight)
    if saved.size:
        shift, scale = (allreduce or _whole)(totals) / -saved.size
        slope = scale * saved.inverse_std
        grad_rows = by_blocks(_projected, (centred, grads), slope, shift - slope * saved.rest, factor)
    else:
        grad_rows = by_blocks(np.multiply, (grads,), factor)
    grad_bias, grad_weight = totals.astype(grads.dtype)
    return (
        from_rows(grad_rows, grad_output.shape),
        None if weight is None else grad_weight,
        None if bias is None else grad_bias,
    )


@underflow_allowed
def batch_norm_saved_jvp(
    input_dot: Array,
    weight_dot: Array | None,
    bias_dot: Array | None,
    saved: BatchNormSaved,
    weight: Array | None = None,
) -> tuple[Array, Moved]:
    """Return the tangent for tangents of the arrays, and what the tangent of backward needs.

    >>> x, x_dot = np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([[4.0], [0.0], [0.0], [0.0]])
    >>> _, saved = batch_norm_saved(x, None, None, training=True)
    >>> output_dot, _ = batch_norm_saved_jvp(x_dot, None, None, saved)
    >>> output_dot[:, 0].round(3) + 0.0  # x_dot - mean(x_dot) - x * mean(x_dot * x), as x is normalised
    array([ 2., -2.,  0.,  0.])
    """
    check_arrays(
        centred=saved.centred, input_dot=input_dot, weight_dot=weight_dot, bias_dot=bias_dot, weight=weight
    )
    check_shape("input_dot", input_dot, saved.centred.shape, "of the output")
    check_per_channel(input_dot, weight_dot=weight_dot, bias_dot=bias_dot, weight=weight)
    weight, weight_dot, bias_dot = (_column(a) for a in (weight, weight_dot, bias_dot))
    standardized = _standardized(saved)
    moved = Moved.of(as_rows(input_dot), standardized)
    output_dot = norm_jvp(moved, weight_dot, bias_dot, standardized, weight)
    return from_rows(output_dot, input_dot.shape), moved


@underflow_allowed
def batch_norm_saved_backward_jvp(
    grad_output_dot: Array,
    moved: Moved,
    weight_dot: Array | None,
    grad_output: Array,
    saved: BatchNormSaved,
    weight: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return the tangents of the gradients with respect to input, weight and bias.

    >>> x, column = np.array([[-1.0], [-1.0], [1.0], [1.0]]), np.array([[4.0], [0.0], [0.0], [0.0]])
    >>> _, saved = batch_norm_saved(x, None, None, training=True)
    >>> _, moved = batch_norm_saved_jvp(column, None, None, saved)  # moves the output by [2, -2, 0, 0]
    >>> _, grad_weight_dot, _ = batch_norm_saved_backward_jvp(0 * column, moved, None, column, saved)
    >>> grad_weight_dot.round(3)  # 4 * 2
    array([8.])
    """
    check_like(saved.centred, grad_output_dot=grad_output_dot, grad_output=grad_output)
    check_arrays(centred=saved.centred, weight_dot=weight_dot, weight=weight)
    check_per_channel(saved.centred, weight_dot=weight_dot, weight=weight)
    grads_dot, grads = as_rows(grad_output_dot), as_rows(grad_output)
    grad_dot, product_dot = norm_backward_jvp(
        grads_dot, moved, _column(weight_dot), grads, _standardized(saved), _column(weight)
    )
    return (
        from_rows(grad_dot, grad_output.shape),
        product_dot.sum(axis=CHANNEL_AXES),
        grads_dot.sum(axis=CHANNEL_AXES),
    )


def _standardized(saved: BatchNormSaved) -> Standardized:
    """The rows, standardised; running statistics are constants."""
    rows = as_rows(saved.centred)
    rest, inverse_std = (_column(a.astype(rows.dtype)) for a in (saved.rest, saved.inverse_std))
    return Standardized((rows - rest) * inverse_std, inverse_std, CHANNEL_AXES if saved.size else ())


def _column(array: Array | None) -> Any:
    return None if array is None else array[:, None]


def _factor(inverse_std: Array, weight: Array | None) -> Array:
    """The factor of centred values and of gradients, (C,)."""
    return inverse_std if weight is None else inverse_std * weight


def _whole(array: Array) -> Array:
    """The allreduce of a batch that is not divided."""
    return array


def _moments(rows: Array, allreduce: Allreduce | None, parts: Parts) -> tuple[Array, Array, int]:
    """The mean and the mean square of each channel of the whole batch, and the number of its values."""
    total, size = sums(parts, rows), math.prod(rows.shape[axis] for axis in CHANNEL_AXES)
    if allreduce is not None:
        reduced = allreduce(np.append(total, size))
        total, size = reduced[:-1].reshape(2, -1), int(reduced[-1])
    mean, square = total / max(1, size)
    return mean, square, size


def update_running(
    running_mean: Array | None, running_var: Array | None, mean: Array, var: Array, size: int, momentum: float
) -> None:
    """Blend the mean and the unbiased variance of `size` values per channel into the running ones."""
    if size == 1:
        raise ValueError("`input` must have more than one value per channel in training, got 1")
    if size == 0:
        return
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if isinstance(running, np.ndarray) and not running.flags.writeable:
            raise ValueError(f"`{name}` is read-only, but updated in place in training: use {name}.copy()")
    for running, new in ((running_mean, mean), (running_var, var * (size / (size - 1)))):
        if running is not None:
            _blend(running, new.astype(running.dtype), momentum, 1 - momentum)


@fused
def _projected(
    xp: Any, centred: Array, grads: Array, slope: Array, shift: Array, factor: Array, out: Array | None = None
) -> Array:
    projected = centred * slope if out is None else xp.multiply(centred, slope, out)
    projected += grads
    projected += shift
    projected *= factor
    return projected


@fused
def _blend(xp: Any, running: Array, new: Array, momentum: float, rest: float) -> None:
    running *= rest
    running += momentum * new

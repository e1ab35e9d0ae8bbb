"""Batch norm and its derivatives.

Values are handled as a matrix with a row for each channel, whose values are standardised (see
`standardize`) with the batch's own statistics in training and with running ones in evaluation, then scaled
and shifted. Backward in training differentiates through the statistics as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import check_arrays, check_per_channel, check_shape, number
from tinyconv.arrays import Array, channel_rows, from_channel_rows, fused, row_dots, row_sums
from tinyconv.functional.normalization.standardize import Moved, Standardized, norm_backward_jvp, norm_jvp

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_saved",
    "batch_norm_saved_backward",
    "batch_norm_saved_backward_jvp",
    "batch_norm_saved_jvp",
]

# Adds an array up over all the parts of a batch that is spread over workers.
Allreduce: TypeAlias = Callable[[Array], Array]


class BatchNormSaved(NamedTuple):
    """What `batch_norm_saved_backward` needs; `size` is 0 where the statistics were the running ones."""

    centred: Array
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
            running = (1 - momentum) * running + momentum * batch's, with the unbiased variance.
        weight, bias: (C,) or None for 1 and 0.
        training: normalise with the batch's own mean and biased variance instead of the running ones.
        momentum: weight of the batch in the running statistics.
        eps: added to the variance; in training above 0.

    Returns:
        An array of the shape of `input`, batch last in memory.

    Raises:
        ValueError: shapes that do not fit, training on one value per channel or with an `eps` of 0, no
            running statistics in evaluation.
        TypeError: dtypes that differ or are not floating.

    Source: Ioffe and Szegedy, https://arxiv.org/abs/1502.03167;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html

    >>> import numpy as np
    >>> batch_norm(np.array([[1.0], [3.0]]), None, None, training=True).round(3)
    array([[-1.],
           [ 1.]])
    """
    check_arrays(input=input)
    if input.shape == (0,):  # no channels and no values: PyTorch takes it, and so do we
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
    """Gradients of `batch_norm` by `input`, `weight` and `bias` (None for what is None).

    The running statistics are read in evaluation, and left alone.
    """
    check_arrays(grad_output=grad_output, input=input)
    if input.shape == (0,):
        return grad_output.copy(), None, None
    if training:
        running_mean = running_var = None
    _, saved = batch_norm_saved(input, running_mean, running_var, weight, bias, training, 0.0, eps)
    return batch_norm_saved_backward(grad_output, saved, weight, bias)


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
    """`batch_norm`, and what its backward needs; `allreduce` adds up over the parts of a batch."""
    number("momentum", momentum)
    xp = check_arrays(
        input=input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    check_per_channel(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if number("eps", eps) <= 0 and training:
        raise ValueError(f"`eps` (={eps}) must be above 0 in training")
    rows = channel_rows(input)
    size = 0
    if training:
        centred, mean, var, size = _centre(rows, allreduce)
        _update_running(running_mean, running_var, mean, var, size, momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("`running_mean` and `running_var` must be given when `training` is False")
    else:
        centred, var = rows - running_mean[:, None], running_var
    with np.errstate(divide="ignore", invalid="ignore"):  # var + eps may be 0 in evaluation
        inverse_std = 1 / xp.sqrt(var + eps)
    output = _scaled(centred, _factor(inverse_std, weight), _column(bias))
    return from_channel_rows(output, input.shape), BatchNormSaved(centred, inverse_std, size)


def batch_norm_saved_backward(
    grad_output: Array,
    saved: BatchNormSaved,
    weight: Array | None = None,
    bias: Array | None = None,
    allreduce: Allreduce | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """`batch_norm_backward` from what `batch_norm_saved` returned."""
    xp = check_arrays(grad_output=grad_output, centred=saved.centred)
    grads, factor = channel_rows(grad_output), _factor(saved.inverse_std, weight)
    check_shape("grad_output", grads, saved.centred.shape, "(channels, values) of the output")
    total = row_sums(grads).astype(grads.dtype)
    sums = xp.stack((total, row_dots(grads, saved.centred) * saved.inverse_std))
    if saved.size:
        shift, scale = (allreduce or _whole)(sums) / -saved.size
        grad_rows = _projected(
            saved.centred, grads, (scale * saved.inverse_std)[:, None], shift[:, None], factor
        )
    else:
        grad_rows = grads * factor
    return (
        from_channel_rows(grad_rows, grad_output.shape),
        None if weight is None else sums[1],
        None if bias is None else sums[0],
    )


def batch_norm_saved_jvp(
    input_dot: Array,
    weight_dot: Array | None,
    bias_dot: Array | None,
    saved: BatchNormSaved,
    weight: Array | None = None,
) -> tuple[Array, Moved]:
    """Tangent of `batch_norm` for tangents of its arrays, and what the tangent of its backward needs."""
    check_arrays(input_dot=input_dot, centred=saved.centred)
    rows = channel_rows(input_dot)
    check_shape("input_dot", rows, saved.centred.shape, "(channels, values) of the output")
    weight, weight_dot, bias_dot = (_column(a) for a in (weight, weight_dot, bias_dot))
    standardized = _standardized(saved)
    moved = Moved.of(rows, standardized)
    output_dot = norm_jvp(moved, weight_dot, bias_dot, standardized, weight)
    return from_channel_rows(output_dot, input_dot.shape), moved


def batch_norm_saved_backward_jvp(
    grad_output_dot: Array,
    moved: Moved,
    weight_dot: Array | None,
    grad_output: Array,
    saved: BatchNormSaved,
    weight: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Tangents of the gradients that `batch_norm_saved_backward` returns, by input, weight and bias."""
    grad_rows_dot, grad_rows = channel_rows(grad_output_dot), channel_rows(grad_output)
    grad_dot, product_dot = norm_backward_jvp(
        grad_rows_dot, moved, _column(weight_dot), grad_rows, _standardized(saved), _column(weight)
    )
    return (
        from_channel_rows(grad_dot, grad_output.shape),
        product_dot.sum(axis=1),
        grad_rows_dot.sum(axis=1),
    )


def _standardized(saved: BatchNormSaved) -> Standardized:
    """The rows as standardised ones; running statistics are constants."""
    inverse_std = saved.inverse_std[:, None]
    return Standardized(saved.centred * inverse_std, inverse_std, (1,) if saved.size else ())


def _column(array: Array | None) -> Array | None:
    return None if array is None else array[:, None]


def _factor(inverse_std: Array, weight: Array | None) -> Array:
    """What centred values are multiplied by, and gradients too: (C, 1)."""
    return (inverse_std if weight is None else inverse_std * weight)[:, None]


def _whole(array: Array) -> Array:
    """The allreduce of a batch that is all here."""
    return array


def _centre(rows: Array, allreduce: Allreduce | None) -> tuple[Array, Array, Array, int]:
    """Rows minus their means, the means, the biased variances, and the number of values in a row."""
    sums, size = row_sums(rows), rows.shape[1]
    if allreduce is not None:
        sums = allreduce(np.append(sums, size))
        sums, size = sums[:-1], int(sums[-1])
    mean = (sums / max(1, size)).astype(rows.dtype)
    centred = rows - mean[:, None]
    squares = (allreduce or _whole)(row_dots(centred, centred))
    return centred, mean, squares / max(1, size), size


def _update_running(
    running_mean: Array | None,
    running_var: Array | None,
    mean: Array,
    var: Array,
    size: int,
    momentum: float,
) -> None:
    if size == 1:
        raise ValueError("`input` must have more than one value per channel in training, got 1")
    if size == 0:
        return
    for running, new in ((running_mean, mean), (running_var, var * (size / (size - 1)))):
        if running is not None:
            _blend(running, new, momentum, 1 - momentum)


@fused
def _scaled(xp: Any, centred: Array, factor: Array, bias: Array | None) -> Array:
    output = centred * factor
    if bias is not None:
        output += bias
    return output


@fused
def _projected(xp: Any, centred: Array, grads: Array, slope: Array, shift: Array, factor: Array) -> Array:
    projected = centred * slope
    projected += grads
    projected += shift
    projected *= factor
    return projected


@fused
def _blend(xp: Any, running: Array, new: Array, momentum: float, rest: float) -> None:
    running *= rest
    running += momentum * new

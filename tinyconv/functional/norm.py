"""Normalisation: batch norm, layer norm, group norm and their gradients.

All three standardise sets of values with the set's own mean and biased variance,

    normalized = (x - mean) / sqrt(var + eps)

and then scale by a weight and shift by a bias: batch norm the values of a channel over the batch (in
evaluation with running statistics instead), layer norm the last dimensions of a sample, group norm the
channels of a group in a sample. Backward differentiates through the statistics as well. With g the
gradient of `normalized`, and means taken over the set,

    grad_x = 1 / sqrt(var + eps) * (g - mean(g) - normalized * mean(g * normalized))

Batch norm handles its values as a matrix with a row for each channel.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import check_arrays, check_shape, integer, number
from tinyconv.arrays import Array, array_module, channel_rows, from_channel_rows

# Adds an array up over all the parts of a batch that is spread over workers.
Allreduce: TypeAlias = Callable[[Array], Array]


class BatchNormSaved(NamedTuple):
    """What `batch_norm_saved_backward` needs; `size` is 0 where the statistics were the running ones."""

    normalized: Array
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
    _check_channels(input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if number("eps", eps) <= 0 and training:
        raise ValueError(f"`eps` (={eps}) must be above 0 in training")
    rows = channel_rows(input)
    size = 0
    if training:
        centred, mean, var, size = _centre(rows, allreduce or _whole)
        _update_running(running_mean, running_var, mean, var, size, momentum)
    elif running_mean is None or running_var is None:
        raise ValueError("`running_mean` and `running_var` must be given when `training` is False")
    else:
        centred, var = rows - running_mean[:, None], running_var
    inverse_std = 1 / xp.sqrt(var + eps)
    centred *= inverse_std[:, None]
    output = centred.copy() if weight is None else centred * weight[:, None]
    if bias is not None:
        output += bias[:, None]
    return from_channel_rows(output, input.shape), BatchNormSaved(centred, inverse_std, size)


def batch_norm_saved_backward(
    grad_output: Array,
    saved: BatchNormSaved,
    weight: Array | None = None,
    bias: Array | None = None,
    allreduce: Allreduce | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """`batch_norm_backward` from what `batch_norm_saved` returned."""
    xp = check_arrays(grad_output=grad_output, normalized=saved.normalized)
    grads = channel_rows(grad_output)
    check_shape("grad_output", grads, saved.normalized.shape, "(channels, values) of the output")
    sums = xp.stack((grads.sum(axis=1), _row_dots(xp, grads, saved.normalized)))
    if saved.size:
        shift, scale = (allreduce or _whole)(sums) / -saved.size
        grad_rows = saved.normalized * scale[:, None]
        grad_rows += grads
        grad_rows += shift[:, None]
    else:
        grad_rows = grads.copy()
    factor = saved.inverse_std if weight is None else saved.inverse_std * weight
    grad_rows *= factor[:, None]
    return (
        from_channel_rows(grad_rows, grad_output.shape),
        None if weight is None else sums[1],
        None if bias is None else sums[0],
    )


def _whole(array: Array) -> Array:
    """The allreduce of a batch that is all here."""
    return array


def _centre(rows: Array, allreduce: Allreduce) -> tuple[Array, Array, Array, int]:
    """Rows minus their means, the means, the biased variances, and the number of values in a row."""
    xp = array_module(rows)
    sums = allreduce(xp.append(rows.sum(axis=1).astype(np.float64), rows.shape[1]))
    size = int(sums[-1])
    mean = (sums[:-1] / max(1, size)).astype(rows.dtype)
    centred = rows - mean[:, None]
    return centred, mean, allreduce(_row_dots(xp, centred, centred)) / max(1, size), size


def _row_dots(xp: Any, a: Array, b: Array) -> Array:
    """Row by row, the sum of a * b."""
    dots: Array = xp.matmul(a[:, None, :], b[:, :, None])[:, 0, 0]
    return dots


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
            running *= 1 - momentum
            running += momentum * new


def layer_norm(
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise each sample over its last dimensions.

    y = (x - mean) / sqrt(var + eps) * weight + bias, element by element of `normalized_shape`

    Args:
        input: (..., *normalized_shape), float32 or float64.
        normalized_shape: the last dimensions of `input`, at least one.
        weight, bias: arrays of `normalized_shape`, or None for 1 and 0.
        eps: added to the variance.

    Returns:
        An array of the shape and memory layout of `input`.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes that differ or are not floating; a `normalized_shape` that is no sequence.

    Source: Ba et al., https://arxiv.org/abs/1607.06450;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]]), (2,), eps=0.0)
    array([[-1.,  1.]])
    """
    check_arrays(input=input, weight=weight, bias=bias)
    axes = _last_axes(input, normalized_shape, weight=weight, bias=bias)
    normalized, _ = _standardize(input, axes, number("eps", eps))
    return _scale_and_shift(normalized, weight, bias)


def layer_norm_backward(
    grad_output: Array,
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `layer_norm` by `input`, `weight` and `bias` (None for what is None)."""
    check_arrays(grad_output=grad_output, input=input, weight=weight)
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    axes = _last_axes(input, normalized_shape, weight=weight, bias=bias)
    normalized, inverse_std = _standardize(input, axes, number("eps", eps))
    samples = tuple(range(input.ndim - len(axes)))
    grad = grad_output if weight is None else grad_output * weight
    return (
        _standardize_backward(grad, normalized, inverse_std, axes),
        None if weight is None else (grad_output * normalized).sum(axis=samples),
        None if bias is None else grad_output.sum(axis=samples),
    )


def group_norm(
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise each sample over the channels of a group and all positions.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with a weight and a bias for each channel

    Args:
        input: (N, C, ...), float32 or float64.
        num_groups: number of groups of neighbouring channels; it divides C.
        weight, bias: (C,) or None for 1 and 0.
        eps: added to the variance.

    Returns:
        An array of the shape of `input`.

    Raises:
        ValueError: shapes that do not fit, one value per group in all.
        TypeError: dtypes that differ or are not floating.

    Source: Wu and He, https://arxiv.org/abs/1803.08494;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.group_norm.html

    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 0.0, 4.0]]), num_groups=2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    check_arrays(input=input, weight=weight, bias=bias)
    _check_channels(input, weight=weight, bias=bias)
    grouped, axes = _grouped(input, num_groups)
    if input.size == num_groups:
        raise ValueError(f"`input` (of shape {input.shape}) must have more than one value per group")
    normalized = _standardize(grouped, axes, number("eps", eps))[0].reshape(input.shape)
    return _scale_and_shift(normalized, _by_channel(weight, input), _by_channel(bias, input))


def group_norm_backward(
    grad_output: Array,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Gradients of `group_norm` by `input`, `weight` and `bias` (None for what is None)."""
    check_arrays(grad_output=grad_output, input=input, weight=weight)
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    grouped, axes = _grouped(input, num_groups)
    normalized, inverse_std = _standardize(grouped, axes, number("eps", eps))
    grad = grad_output if weight is None else grad_output * _by_channel(weight, input)
    grad_input = _standardize_backward(grad.reshape(grouped.shape), normalized, inverse_std, axes)
    others = (0, *range(2, input.ndim))
    return (
        grad_input.reshape(input.shape),
        None if weight is None else (grad_output * normalized.reshape(input.shape)).sum(axis=others),
        None if bias is None else grad_output.sum(axis=others),
    )


def _standardize(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    """`x` with mean 0 and variance 1 along `axes`, and 1 / sqrt(var + eps)."""
    xp = array_module(x)
    size = max(1, math.prod(x.shape[axis] for axis in axes))
    centred = x - x.sum(axis=axes, keepdims=True) / size
    var = (centred * centred).sum(axis=axes, keepdims=True) / size
    with np.errstate(invalid="ignore", divide="ignore"):  # var + eps < 0: NaN, as in PyTorch
        inverse_std = 1 / xp.sqrt(var + eps)
        return centred * inverse_std, inverse_std


def _standardize_backward(grad: Array, normalized: Array, inverse_std: Array, axes: tuple[int, ...]) -> Array:
    """Gradient of `_standardize` by its input."""
    size = max(1, math.prod(grad.shape[axis] for axis in axes))
    mean = grad.sum(axis=axes, keepdims=True) / size
    slope = (grad * normalized).sum(axis=axes, keepdims=True) / size
    grad_input: Array = (grad - mean - normalized * slope) * inverse_std
    return grad_input


def _scale_and_shift(normalized: Array, weight: Array | None, bias: Array | None) -> Array:
    output = normalized if weight is None else normalized * weight
    return output if bias is None else output + bias


def _last_axes(input: Array, normalized_shape: Sequence[int], **arrays: Array | None) -> tuple[int, ...]:
    """The axes of `normalized_shape` in `input`, checked."""
    if not isinstance(normalized_shape, Sequence) or isinstance(normalized_shape, str):
        raise TypeError(f"`normalized_shape` (={normalized_shape!r}) must be a sequence of ints")
    shape = tuple(integer("normalized_shape", length, minimum=0) for length in normalized_shape)
    if not shape:
        raise ValueError(f"`normalized_shape` (={normalized_shape!r}) must have at least one dimension")
    if input.shape[-len(shape) :] != shape:
        raise ValueError(f"`input` (of shape {input.shape}) must end in `normalized_shape` (={shape})")
    for name, array in arrays.items():
        if array is not None:
            check_shape(name, array, shape, "of `normalized_shape`")
    return tuple(range(input.ndim - len(shape), input.ndim))


def _grouped(input: Array, num_groups: int) -> tuple[Array, tuple[int, ...]]:
    """`input` as (N, groups, C / groups, ...), and the axes of a group's values."""
    n, channels, *size = input.shape
    if channels % integer("num_groups", num_groups):
        raise ValueError(
            f"`input` (of shape {input.shape}) must have channels divisible by `num_groups` (={num_groups})"
        )
    grouped = input.reshape(n, num_groups, channels // num_groups, *size)
    return grouped, tuple(range(2, grouped.ndim))


def _by_channel(array: Array | None, input: Array) -> Any:
    """`array`, (C,), shaped to multiply (N, C, ...)."""
    return None if array is None else array.reshape(-1, *[1] * (input.ndim - 2))


def _check_channels(input: Array, **arrays: Array | None) -> None:
    if input.ndim < 2:
        raise ValueError(f"`input` (of shape {input.shape}) must have the form (N, C, ...)")
    for name, array in arrays.items():
        if array is not None:
            check_shape(name, array, input.shape[1:2], f"for `input` of shape {input.shape}")

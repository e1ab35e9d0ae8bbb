"""Group norm: a sample's values, standardised over the channels of a group and all positions.

With n = (x - mean) * r, r = 1 / sqrt(var + eps), means over a group, and g the gradient of the output:

    grad_x = r * (weight * g - mean(weight * g) - n * mean(weight * g * n))

All sums are computed from those of the channels of each sample. `centre` says how large means are handled.
"""

from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, check_per_channel, check_shape, integer, number
from tinyconv.arrays import Array, array_module, fused, underflow_allowed
from tinyconv.functional.normalization.centre import centre, scaled
from tinyconv.functional.normalization.rows import Parts, as_rows, by_blocks, from_rows, pairs, sums
from tinyconv.functional.normalization.standardize import Moved, norm_backward_jvp, norm_jvp, standardize

__all__ = ["group_norm", "group_norm_backward", "group_norm_backward_jvp", "group_norm_jvp"]


@underflow_allowed
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
        An array of the shape of `input`, in the memory format.

    Raises:
        ValueError: shapes that do not fit, only one value per group.
        TypeError: dtypes that differ or are not floating.

    Source: Wu and He, https://arxiv.org/abs/1803.08494;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.group_norm.html

    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 0.0, 4.0]]), num_groups=2, eps=0.0)
    array([[-1.,  1., -1.,  1.]])
    """
    check_arrays(weight=weight, input=input, bias=bias)
    check_per_channel(input, weight=weight, bias=bias)
    _check_groups(input, num_groups)
    if input.size == num_groups:
        raise ValueError(f"`input` (of shape {input.shape}) must have more than one value per group")
    centred, rest, inverse_std, _ = _centred(input, num_groups, eps)
    factor = inverse_std * _column(weight)
    return from_rows(by_blocks(scaled, (centred,), factor, _column(bias, 0.0) - rest * factor), input.shape)


@underflow_allowed
def group_norm_backward(
    grad_output: Array,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients with respect to `input`, `weight` and `bias` (None for what is None).

    >>> x = np.array([[-1.0, -1.0, 1.0, 1.0, -2.0, -2.0, 2.0, 2.0]])
    >>> grad = np.array([[4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]])
    >>> group_norm_backward(grad, x, num_groups=2, eps=0.0)[0]
    array([[ 2., -2.,  0.,  0.,  1., -1.,  0.,  0.]])
    """
    check_arrays(weight=weight, input=input, grad_output=grad_output, bias=bias)
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    check_per_channel(input, weight=weight, bias=bias)
    _check_groups(input, num_groups)
    centred, rest, inverse_std, size = _centred(input, num_groups, eps)
    grads, factor = as_rows(grad_output), inverse_std * _column(weight)
    total, products = sums(pairs(grads, centred), grads, by_sample=True)
    products = (products - rest * total) * inverse_std
    shift, scale = (
        _by_group(array_module(grads).stack((total, products)) * _column(weight), num_groups) / -size
    )
    slope = scale * inverse_std**2
    shift = shift * inverse_std - slope * rest
    return (
        from_rows(by_blocks(_combined, (centred, grads), slope, factor, shift), input.shape),
        None if weight is None else products.sum(axis=1).astype(grads.dtype),
        None if bias is None else total.sum(axis=1).astype(grads.dtype),
    )


@underflow_allowed
def group_norm_jvp(
    input_dot: Array,
    weight_dot: Array | None,
    bias_dot: Array | None,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Compute the tangent of `group_norm` for tangents of its arrays; None for a constant one.

    >>> x, weight, bias_dot = np.array([[-1.0, -1.0, 1.0, 1.0]]), np.ones(4), np.full(4, 10.0)
    >>> group_norm_jvp(np.array([[4.0, 0.0, 0.0, 0.0]]), None, bias_dot, x, 1, weight, eps=0.0)
    array([[12.,  8., 10., 10.]])
    """
    check_like(input, input_dot=input_dot)
    check_arrays(input=input, weight=weight, weight_dot=weight_dot, bias_dot=bias_dot)
    check_per_channel(input, weight=weight, weight_dot=weight_dot, bias_dot=bias_dot)
    grouped, axes = _grouped(input, num_groups)
    weight, weight_dot, bias_dot = (_grouped_column(a, grouped) for a in (weight, weight_dot, bias_dot))
    saved = standardize(grouped, axes, eps)
    moved = Moved.of(input_dot.reshape(grouped.shape), saved)
    output_dot = norm_jvp(moved, weight_dot, bias_dot, saved, weight)
    return output_dot.reshape(input.shape)


@underflow_allowed
def group_norm_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    weight_dot: Array | None,
    grad_output: Array,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Return the tangents of the gradients with respect to input, weight and bias.

    >>> x, weight = np.array([[-1.0, -1.0, 1.0, 1.0]]), np.ones(4)
    >>> row = np.array([[4.0, 0.0, 0.0, 0.0]])  # moves the normalised values by [2, -2, 0, 0]
    >>> _, grad_weight_dot, _ = group_norm_backward_jvp(0 * row, row, None, row, x, 1, weight, eps=0.0)
    >>> grad_weight_dot  # 4 * 2
    array([8., 0., 0., 0.])
    """
    check_like(input, grad_output_dot=grad_output_dot, input_dot=input_dot, grad_output=grad_output)
    check_arrays(input=input, weight=weight, weight_dot=weight_dot)
    check_per_channel(input, weight=weight, weight_dot=weight_dot)
    grouped, axes = _grouped(input, num_groups)
    weight, weight_dot = (_grouped_column(a, grouped) for a in (weight, weight_dot))
    grads = (a.reshape(grouped.shape) for a in (grad_output_dot, input_dot, grad_output))
    grad_output_dot, input_dot, grad_output = grads
    saved = standardize(grouped, axes, eps)
    grad_dot, product_dot = norm_backward_jvp(
        grad_output_dot, Moved.of(input_dot, saved), weight_dot, grad_output, saved, weight
    )
    others, channels = (0, *axes[1:]), input.shape[1:2]
    return (
        grad_dot.reshape(input.shape),
        product_dot.sum(axis=others).reshape(channels),
        grad_output_dot.sum(axis=others).reshape(channels),
    )


def _grouped(input: Array, num_groups: int) -> tuple[Array, tuple[int, ...]]:
    """`input` as (N, groups, C / groups, ...), and the axes of a group's values."""
    _check_groups(input, num_groups)
    n, channels, *size = input.shape
    grouped = input.reshape(n, num_groups, channels // num_groups, *size)
    return grouped, tuple(range(2, grouped.ndim))


def _check_groups(input: Array, num_groups: int) -> None:
    if input.shape[1] % integer("num_groups", num_groups):
        raise ValueError(
            f"`input` (of shape {input.shape}) must have channels divisible by `num_groups` (={num_groups})"
        )


def _centred(input: Array, num_groups: int, eps: float) -> tuple[Array, Array, Array, int]:
    """Centred rows; rest and 1 / sqrt(var + eps) of each channel's group, (C, N); its size."""
    rows = as_rows(input)
    size = max(1, input.size // max(1, len(input) * num_groups))

    def moments(parts: Parts) -> tuple[Array, Array, int]:
        mean, square = _by_group(sums(parts, rows, by_sample=True), num_groups) / size
        return mean, square, size

    centred, _, rest, var, _ = centre(rows, moments)
    with np.errstate(invalid="ignore", divide="ignore"):  # var + eps < 0: NaN, as in PyTorch
        return centred, rest, 1 / array_module(rows).sqrt(var + number("eps", eps)), size


def _by_group(sums: Array, num_groups: int) -> Array:
    """The sums of groups from those of channels, (2, C, N), and again for each channel."""
    _, channels, n = sums.shape
    length = channels // num_groups
    total = sums.reshape(2, num_groups, length, n).sum(axis=2)
    repeated: Array = total.repeat(length, axis=1)
    return repeated


def _column(array: Array | None, default: float = 1.0) -> Any:
    return default if array is None else array[:, None]


def _grouped_column(array: Array | None, grouped: Array) -> Array | None:
    """`array`, (C,), shaped to multiply (N, groups, C / groups, ...)."""
    return None if array is None else array.reshape(*grouped.shape[1:3], *[1] * (grouped.ndim - 3))


@fused
def _combined(
    xp: Any, centred: Array, grads: Array, slope: Array, factor: Array, shift: Array, out: Array | None = None
) -> Array:
    output: Array = centred * slope if out is None else xp.multiply(centred, slope, out)
    output += grads * factor
    output += shift
    return output

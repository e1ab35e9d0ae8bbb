"""Layer norm and group norm: a sample's values, standardised over its last dimensions or its groups."""

from collections.abc import Sequence
from typing import Any

from tinyconv.arguments import check_arrays, check_per_channel, check_shape, integer, number
from tinyconv.arrays import Array
from tinyconv.functional.normalization.standardize import (
    Moved,
    norm_backward_jvp,
    norm_jvp,
    standardize,
    standardize_backward,
)

__all__ = [
    "group_norm",
    "group_norm_backward",
    "group_norm_backward_jvp",
    "group_norm_jvp",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_backward_jvp",
    "layer_norm_jvp",
]


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
    normalized = standardize(input, axes, number("eps", eps)).normalized
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
    saved = standardize(input, axes, number("eps", eps))
    samples = tuple(range(input.ndim - len(axes)))
    grad = grad_output if weight is None else grad_output * weight
    return (
        standardize_backward(grad, *saved),
        None if weight is None else (grad_output * saved.normalized).sum(axis=samples),
        None if bias is None else grad_output.sum(axis=samples),
    )


def layer_norm_jvp(
    input_dot: Array,
    weight_dot: Array | None,
    bias_dot: Array | None,
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Tangent of `layer_norm` for tangents of its arrays; None for one that stands still."""
    check_arrays(input_dot=input_dot, input=input)
    check_shape("input_dot", input_dot, input.shape, "of `input`")
    saved = standardize(input, _last_axes(input, normalized_shape), eps)
    return norm_jvp(Moved.of(input_dot, saved), weight_dot, bias_dot, saved, weight)


def layer_norm_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    weight_dot: Array | None,
    grad_output: Array,
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Tangents of the gradients that `layer_norm_backward` returns, by `input`, `weight` and `bias`."""
    axes = _last_axes(input, normalized_shape)
    saved = standardize(input, axes, eps)
    grad_dot, product_dot = norm_backward_jvp(
        grad_output_dot, Moved.of(input_dot, saved), weight_dot, grad_output, saved, weight
    )
    samples = tuple(range(input.ndim - len(axes)))
    return grad_dot, product_dot.sum(axis=samples), grad_output_dot.sum(axis=samples)


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
    check_per_channel(input, weight=weight, bias=bias)
    grouped, axes = _grouped(input, num_groups)
    if input.size == num_groups:
        raise ValueError(f"`input` (of shape {input.shape}) must have more than one value per group")
    normalized = standardize(grouped, axes, number("eps", eps)).normalized.reshape(input.shape)
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
    saved = standardize(grouped, axes, number("eps", eps))
    grad = grad_output if weight is None else grad_output * _by_channel(weight, input)
    grad_input = standardize_backward(grad.reshape(grouped.shape), *saved)
    others = (0, *range(2, input.ndim))
    return (
        grad_input.reshape(input.shape),
        None if weight is None else (grad_output * saved.normalized.reshape(input.shape)).sum(axis=others),
        None if bias is None else grad_output.sum(axis=others),
    )


def group_norm_jvp(
    input_dot: Array,
    weight_dot: Array | None,
    bias_dot: Array | None,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Tangent of `group_norm` for tangents of its arrays; None for one that stands still."""
    check_arrays(input_dot=input_dot, input=input)
    check_shape("input_dot", input_dot, input.shape, "of `input`")
    grouped, axes = _grouped(input, num_groups)
    weight, weight_dot, bias_dot = (_by_group(a, grouped) for a in (weight, weight_dot, bias_dot))
    saved = standardize(grouped, axes, eps)
    moved = Moved.of(input_dot.reshape(grouped.shape), saved)
    output_dot = norm_jvp(moved, weight_dot, bias_dot, saved, weight)
    return output_dot.reshape(input.shape)


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
    """Tangents of the gradients that `group_norm_backward` returns, by `input`, `weight` and `bias`."""
    grouped, axes = _grouped(input, num_groups)
    weight, weight_dot = (_by_group(a, grouped) for a in (weight, weight_dot))
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


def _by_group(array: Array | None, grouped: Array) -> Array | None:
    """`array`, (C,), shaped to multiply (N, groups, C / groups, ...)."""
    return None if array is None else array.reshape(*grouped.shape[1:3], *[1] * (grouped.ndim - 3))

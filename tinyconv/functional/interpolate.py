"""Resizing by nearest neighbours, and its gradient."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_shape, integer, number, one_of
from tinyconv.arrays import Array
from tinyconv.functional.gather import gather, gather_backward

__all__ = ["interpolate", "interpolate_backward"]

MODES = ("nearest", "nearest-exact")
LARGEST_FACTOR = 1e9


def interpolate(
    input: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    recompute_scale_factor: bool | None = None,
) -> Array:
    """Resize to the nearest input position.

    Along a dimension, output position i has the value at floor(i * scale) for "nearest" and
    floor((i + 0.5) * scale) for "nearest-exact", with scale = 1 / scale_factor, or the input's length over
    the output's if `size` is given or `recompute_scale_factor` is set. The product is computed in float32, as
    PyTorch does for float32 and for images; as there, "nearest" uses the lengths, whatever the
    `scale_factor`, for an image that keeps or doubles its length.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W), float32 or float64.
        size: the output's lengths, an int for all spatial dimensions or one for each.
        scale_factor: instead of `size`, factors of the lengths; the results are rounded down.
        mode: "nearest" or "nearest-exact".
        recompute_scale_factor: derive the scale from the rounded lengths.

    Returns:
        (N, C, ...) with the new lengths, in the memory format (see `tinyconv.arrays.layout`).

    Raises:
        ValueError: not exactly one of `size` and `scale_factor`, lengths below 1, a number of lengths other
            than that of the spatial dimensions, an unknown mode, no channels.
        TypeError: `input` is not floating, or lengths and factors are not numbers.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html

    >>> interpolate(np.array([[[1.0, 2.0]]]), scale_factor=2)
    array([[[1., 1., 2., 2.]]])
    """
    check_arrays(input=input)
    options = (size, scale_factor, mode, recompute_scale_factor)
    for axis, indices in enumerate(interpolate_indices(input.shape, *options), start=2):
        input = gather(input, indices, axis)
    return input


def interpolate_backward(
    grad_output: Array,
    input: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    recompute_scale_factor: bool | None = None,
) -> Array:
    """Add up the gradients of the outputs at the positions where their values were read."""
    check_arrays(input=input, grad_output=grad_output)
    indices = interpolate_indices(input.shape, size, scale_factor, mode, recompute_scale_factor)
    shape = (*input.shape[:2], *map(len, indices))
    check_shape("grad_output", grad_output, shape, "of the output")
    for axis in range(input.ndim - 1, 1, -1):
        grad_output = gather_backward(grad_output, indices[axis - 2], axis, input.shape[axis])
    return grad_output


def interpolate_indices(
    shape: tuple[int, ...],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    recompute_scale_factor: bool | None = None,
) -> list[list[int]]:
    """Check the arguments; return the input position of every output position, by dimension."""
    one_of("mode", mode, MODES)
    if len(shape) not in (3, 4, 5) or 0 in shape[1:]:
        raise ValueError(
            f"`input` (of shape {shape}) must have the form (N, C, L), (N, C, H, W) or (N, C, D, H, W), "
            "and have values"
        )
    if (size is None) == (scale_factor is None):
        raise ValueError(f"one of `size` (={size}) and `scale_factor` (={scale_factor}) must be given")
    if size is not None:
        if recompute_scale_factor:
            raise ValueError("`recompute_scale_factor` must not be set together with `size`")
        sizes = [integer("size", length) for length in _for_each("size", size, shape)]
        scales = [0.0] * len(sizes)
    else:
        scales = [
            number("scale_factor", factor, -LARGEST_FACTOR, LARGEST_FACTOR)
            for factor in _for_each("scale_factor", scale_factor, shape)
        ]
        sizes = [math.floor(length * f) for length, f in zip(shape[2:], scales, strict=True)]
        if min(sizes) < 1:
            raise ValueError(
                f"`scale_factor` (={scale_factor}) must leave lengths of at least 1, not {sizes}"
            )
    if recompute_scale_factor:
        scales = [0.0] * len(sizes)
    if mode == "nearest" and len(shape) == 4:  # as PyTorch: equal and double sizes depend on the lengths only
        pairs = list(zip(shape[2:], sizes, scales, strict=True))
        scales = [0.0 if out in (length, 2 * length) else factor for length, out, factor in pairs]
    lengths = zip(shape[2:], sizes, scales, strict=True)
    return [_nearest(length, out, factor, mode) for length, out, factor in lengths]


def _for_each(name: str, value: Any, shape: tuple[int, ...]) -> Sequence[Any]:
    """`value` once for each spatial dimension of `shape`."""
    spatial = len(shape) - 2
    if not isinstance(value, Sequence):
        return [value] * spatial
    if len(value) != spatial:
        raise ValueError(f"`{name}` (={value!r}) must have one entry or {spatial}, for `input` of {shape}")
    return value


def _nearest(length: int, output_length: int, factor: float, mode: str) -> list[int]:
    """The input position of each output position; a `factor` of 0 means the ratio of the lengths."""
    single = np.float32  # the precision decides which of two positions is nearest
    scale = single(1 / factor) if factor else single(length) / single(output_length)
    middle = single(0.5 if mode == "nearest-exact" else 0)
    positions = (np.arange(output_length, dtype=single) + middle) * scale
    nearest = np.minimum(np.floor(positions).astype(int), length - 1)
    return [int(i) for i in nearest]

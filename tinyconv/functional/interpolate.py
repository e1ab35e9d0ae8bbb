"""Resizing by nearest neighbours or linearly, and its gradient.

Along an axis, an output position reads some input positions, each with a weight: one for the nearest, two for
linear modes. Backward adds the gradient to the same positions with the same weights.
"""

import math
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np

from tinyconv.arguments import boolean, check_arrays, check_shape, integer, number, one_of
from tinyconv.arrays import Array, array_module, constant, underflow_allowed
from tinyconv.functional.gather import gather, gather_backward

__all__ = ["interpolate", "interpolate_backward"]

# Input positions of all output positions of an axis, and their weights (None for 1).
Tap: TypeAlias = tuple[list[int], list[float] | None]

LINEAR = {"linear": 3, "bilinear": 4, "trilinear": 5}  # dimensions of the input
MODES = ("nearest", "nearest-exact", *LINEAR)
LARGEST_FACTOR = 1e9


@underflow_allowed
def interpolate(
    input: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Array:
    """Resize to the nearest input position, or linearly between the two nearest.

    Along a dimension, linear modes read at s = (i + 0.5) * scale - 0.5, or with `align_corners` at
    s = i * (length - 1) / (output's length - 1), where the outermost positions fall on each other. The output
    is (1 - t) * input[floor(s)] + t * input[floor(s) + 1], t = s - floor(s), for s within the input, and
    constant beyond its ends.

    For the nearest, output position i has the value at floor(i * scale) for "nearest" and
    floor((i + 0.5) * scale) for "nearest-exact", with scale = 1 / scale_factor, or the input's length over
    the output's if `size` is given or `recompute_scale_factor` is set. The product is computed in float32, as
    PyTorch does for float32 and for images; as there, "nearest" uses the lengths, whatever the
    `scale_factor`, for an image that keeps or doubles its length.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W), float32 or float64.
        size: the output's lengths, an int for all spatial dimensions or one for each.
        scale_factor: instead of `size`, factors of the lengths; the results are rounded down.
        mode: "nearest", "nearest-exact", or by the number of dimensions "linear", "bilinear" or "trilinear".
        align_corners: of linear modes only, whose default is False.
        recompute_scale_factor: derive the scale from the rounded lengths.

    Returns:
        (N, C, ...) with the new lengths, in the memory format (see `tinyconv.arrays.layout`).

    Raises:
        ValueError: not exactly one of `size` and `scale_factor`, lengths below 1, a number of lengths other
            than that of the spatial dimensions, an unknown mode, no channels, a linear mode for another
            number of dimensions, `align_corners` for the nearest.
        TypeError: `input` is not floating, or lengths and factors are not numbers.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html

    >>> interpolate(np.array([[[1.0, 2.0]]]), scale_factor=2)
    array([[[1., 1., 2., 2.]]])
    >>> interpolate(np.array([[[1.0, 2.0]]]), size=3, mode="linear", align_corners=True)
    array([[[1. , 1.5, 2. ]]])
    """
    check_arrays(input=input)
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor)
    for axis, taps in enumerate(interpolate_taps(input.shape, *options), start=2):
        input = reduce(add, (_weighted(gather(input, indices, axis), w, axis) for indices, w in taps))
    return input


@underflow_allowed
def interpolate_backward(
    grad_output: Array,
    input: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Array:
    """Add up the gradients of the outputs at the positions where their values were read.

    >>> interpolate_backward(np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.zeros((1, 1, 2)), scale_factor=2)
    array([[[3., 7.]]])
    >>> options = {"size": 3, "mode": "linear", "align_corners": True}
    >>> interpolate_backward(np.array([[[1.0, 10.0, 100.0]]]), np.zeros((1, 1, 2)), **options)
    array([[[  6., 105.]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    axes = interpolate_taps(input.shape, size, scale_factor, mode, align_corners, recompute_scale_factor)
    shape = (*input.shape[:2], *(len(taps[0][0]) for taps in axes))
    check_shape("grad_output", grad_output, shape, "of the output")
    for axis in range(input.ndim - 1, 1, -1):
        parts = [(indices, _weighted(grad_output, weights, axis)) for indices, weights in axes[axis - 2]]
        grad_output = reduce(add, (gather_backward(g, i, axis, input.shape[axis]) for i, g in parts))
    return grad_output


def _weighted(x: Array, weights: list[float] | None, axis: int) -> Array:
    """`x` times the weight of each position along `axis`."""
    if weights is None:
        return x
    row = constant(tuple(weights), x.dtype.name, array_module(x))
    return x * row.reshape(-1, *[1] * (x.ndim - axis - 1))


def interpolate_taps(
    shape: tuple[int, ...],
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> list[list[Tap]]:
    """Check the arguments; return what the output positions of each dimension read."""
    one_of("mode", mode, MODES)
    if align_corners is not None and mode not in LINEAR:
        raise ValueError(f"`align_corners` (={align_corners}) must be None for `mode` {mode!r}")
    if len(shape) != LINEAR.get(mode, len(shape)):
        raise ValueError(
            f"`input` (of shape {shape}) must have {LINEAR[mode]} dimensions for `mode` {mode!r}"
        )
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
    if mode in LINEAR:
        aligned = align_corners is not None and boolean("align_corners", align_corners)
        return [_linear(length, out, factor, aligned) for length, out, factor in lengths]
    return [[(_nearest(length, out, factor, mode), None)] for length, out, factor in lengths]


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


def _linear(length: int, output_length: int, factor: float, aligned: bool) -> list[Tap]:
    """The two input positions of each output position, and their weights."""
    positions = np.arange(output_length)
    if output_length == length:  # whatever the factor, as PyTorch
        return [(positions.tolist(), None)]
    if aligned:
        reached = positions * ((length - 1) / max(1, output_length - 1))
    else:
        reached = (positions + 0.5) * (1 / factor if factor else length / output_length) - 0.5
    low = np.clip(reached, 0, length - 1).astype(int)
    high, share = np.minimum(low + 1, length - 1), np.clip(reached - low, 0, 1)
    return [(low.tolist(), (1 - share).tolist()), (high.tolist(), share.tolist())]

"""Max-pooling: the maximum of each window, and which tap of the window it came from.

Instead of positions in the image, forward keeps the argmax as the number i * KW + j of the tap, one byte per
output. Backward loops over the same taps and gives each maximum its gradient.
"""

from functools import lru_cache
from typing import Any, Literal, overload

import numpy as np

from tinyconv.arguments import IntOrPair, check_arrays, check_kinds, check_shape
from tinyconv.arrays import Array, array_module, fused, kept_where, maybe
from tinyconv.functional.conv.geometry import CACHED, Geometry
from tinyconv.functional.pooling.geometry import as_image, by_channels, from_image, pool_geometry

__all__ = [
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_saved",
    "max_pool2d_saved_backward",
    "max_pool2d_saved_jvp",
]

MOST_ARGUMENTS = 16  # of a kernel


@overload
def max_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Array: ...


@overload
def max_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Array, Array]: ...


def max_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """Compute the maximum of each window of an image.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        kernel_size: an int, or a pair for height and width.
        stride: default `kernel_size`.
        padding: pixels of -inf around the image, at most half of `kernel_size`.
        dilation: distance between the taps of a window.
        ceil_mode: round the output's size up, so that a window may reach beyond the padded image
            (one that would start there is left out).
        return_indices: also return where each maximum was found.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), in the memory format (see `tinyconv.arrays.layout`); with
        `return_indices` a pair of this and an int64 array of the same shape, positions in the unpadded H x W
        plane. The first of equal maxima in row order is taken; NaN is larger than any number.

    Raises:
        ValueError: wrong number of dimensions, an argument out of range, an output size below 1.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool2d.html

    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 5.,  7.],
            [13., 15.]]])
    """
    check_arrays(input=input)
    geometry = pool_geometry(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        output, winners = pooled(input, geometry)
        return output, pooled_positions(winners, geometry)
    image = as_image(input)
    maxima = array_module(image).empty((*geometry.output_size, *image.shape[2:]), image.dtype)
    by_channels(lambda part: _maxima(image[:, :, part], geometry, maxima[:, :, part]), image)
    return from_image(maxima, input.ndim)


def max_pool2d_backward(
    grad_output: Array,
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array:
    """Add the gradient of each maximum to the position where it was found.

    `return_indices` is accepted, as it is an argument of `max_pool2d`, and ignored.

    >>> x = np.array([[[1.0, 3.0, 0.0, 0.0], [2.0, 0.0, 0.0, 4.0]]])
    >>> max_pool2d_backward(np.array([[[5.0, 7.0]]]), x, 2)
    array([[[0., 5., 0., 0.],
            [0., 0., 0., 7.]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    _, winners = max_pool2d_saved(input, *options)
    return max_pool2d_saved_backward(grad_output, winners, input.shape, *options)


def max_pool2d_saved(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Return `max_pool2d`, and the number i * KW + j of the tap that each maximum came from.

    >>> x = np.array([[[1.0, 3.0, 0.0, 0.0], [2.0, 0.0, 0.0, 4.0]]])
    >>> output, winners = max_pool2d_saved(x, 2)
    >>> output, winners.tolist()
    (array([[[3., 4.]]]), [[[1, 3]]])
    >>> max_pool2d_saved_backward(np.array([[[5.0, 7.0]]]), winners, x.shape, 2)
    array([[[0., 5., 0., 0.],
            [0., 0., 0., 7.]]])
    """
    check_arrays(input=input)
    return pooled(input, pool_geometry(input.shape, kernel_size, stride, padding, dilation, ceil_mode))


def pooled(input: Array, geometry: Geometry) -> tuple[Array, Array]:
    """Return `max_pool2d_saved` of an `input` that fits the geometry."""
    image, xp = as_image(input), array_module(input)
    if xp is not np and is_one_kernel(geometry):
        found = _pooled(*(image[tap.pixels] for tap in geometry.taps))
        return from_image(found[0], input.ndim), from_image(found[1], input.ndim)
    shape = *geometry.output_size, *image.shape[2:]
    maxima = xp.empty(shape, image.dtype)
    winners = xp.empty(shape, xp.min_scalar_type(len(geometry.taps) - 1))

    def run(part: slice) -> None:
        _maxima(image[:, :, part], geometry, maxima[:, :, part])
        _winners(image[:, :, part], geometry, maxima[:, :, part], winners[:, :, part])

    by_channels(run, image)
    return from_image(maxima, input.ndim), from_image(winners, input.ndim)


def max_pool2d_saved_backward(
    grad_output: Array,
    winners: Array,
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return `max_pool2d_backward` from the `winners` that `max_pool2d_saved` returned.

    >>> x = np.array([[[1.0, 9.0, 2.0]]])
    >>> _, winners = max_pool2d_saved(x, (1, 2), stride=1)
    >>> max_pool2d_saved_backward(np.array([[[5.0, 7.0]]]), winners, x.shape, (1, 2), stride=1)
    array([[[ 0., 12.,  0.]]])
    """
    check_arrays(grad_output=grad_output)
    _check_winners(winners)
    check_shape("grad_output", grad_output, winners.shape, "of the output")
    geometry = pool_geometry(input_size, kernel_size, stride, padding, dilation, ceil_mode)
    shape = (*input_size[:-2], *geometry.output_size)
    check_shape("winners", winners, shape, f"for `input_size` (={tuple(input_size)})")
    return pooled_backward(grad_output, winners, geometry)


def pooled_backward(grad_output: Array, winners: Array, geometry: Geometry) -> Array:
    """Return `max_pool2d_saved_backward` of a `grad_output` that fits the geometry."""
    xp, ndim = array_module(grad_output), winners.ndim
    grads, winners = as_image(grad_output), as_image(winners)
    n, c, h, w = geometry.input_shape
    disjoint, every_pixel = _coverage(geometry)
    image = (xp.empty if every_pixel else xp.zeros)((h, w, c, n), grads.dtype)
    if xp is not np and disjoint and is_one_kernel(geometry):
        _scattered(grads, winners, *(image[tap.pixels] for tap in geometry.taps))
        return from_image(image, ndim)

    def run(part: slice) -> None:
        own_winners, own_grads, own_image = (a[:, :, part] for a in (winners, grads, image))
        for number, (_, _, outputs, pixels) in enumerate(geometry.taps):
            won, grad, seen = own_winners[outputs] == number, own_grads[outputs], own_image[pixels]
            if disjoint:
                kept_where(won, grad, out=seen)
            else:
                seen += kept_where(won, grad)

    by_channels(run, image)
    return from_image(image, ndim)


def max_pool2d_saved_jvp(
    input_dot: Array,
    winners: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Return the tangent of the input at the position of each maximum.

    >>> x = np.array([[[1.0, 3.0, 0.0, 0.0], [2.0, 0.0, 0.0, 4.0]]])
    >>> _, winners = max_pool2d_saved(x, 2)
    >>> max_pool2d_saved_jvp(np.arange(8.0).reshape(1, 2, 4), winners, 2)
    array([[[1., 7.]]])
    """
    xp = check_arrays(input_dot=input_dot)
    geometry = pool_geometry(input_dot.shape, kernel_size, stride, padding, dilation, ceil_mode)
    _check_winners(winners)
    check_shape("winners", winners, (*input_dot.shape[:-2], *geometry.output_size), "of the output")
    image, winners = as_image(input_dot), as_image(winners)
    output_dot = xp.zeros(winners.shape, image.dtype)
    for number, (_, _, outputs, pixels) in enumerate(geometry.taps):
        output_dot[outputs] += kept_where(winners[outputs] == number, image[pixels])
    return from_image(output_dot, input_dot.ndim)


def pooled_positions(winners: Array, geometry: Geometry) -> Array:
    """Return the int64 positions, row * W + column in the unpadded plane, of `winners`."""
    xp = array_module(winners)
    (oh, ow), (down, across), ((top, _), (left, _)) = geometry.output_size, geometry.stride, geometry.padding
    i, j = xp.divmod(as_image(winners).astype(xp.int64), geometry.kernel_size[1])
    rows = (xp.arange(oh) * down - top)[:, None, None, None] + i * geometry.dilation[0]
    columns = (xp.arange(ow) * across - left)[:, None, None] + j * geometry.dilation[1]
    return from_image(rows * geometry.input_shape[-1] + columns, winners.ndim)


def _check_winners(winners: Array) -> None:
    check_kinds(winners=winners)
    if winners.dtype.kind not in "iu":
        raise TypeError(f"`winners` must be of an integer dtype, got {winners.dtype}")


def _maxima(image: Array, geometry: Geometry, maxima: Array) -> None:
    """Write the maximum over each window of `image`, (H, W, C, N), to `maxima`, (OH, OW, C, N)."""
    xp = array_module(image)
    taps = geometry.taps
    if is_inside(geometry):
        xp.maximum(image[taps[0].pixels], image[taps[-1].pixels], out=maxima)
        taps = taps[1:-1]
    else:
        maxima[...] = -xp.inf
    for _, _, outputs, pixels in taps:
        largest = maxima[outputs]
        xp.maximum(largest, image[pixels], out=largest)


def _winners(image: Array, geometry: Geometry, maxima: Array, winners: Array) -> None:
    """Write, for each of the `maxima`, the number of the first tap that equals it, or of the last NaN."""
    xp, taps = array_module(image), geometry.taps
    winners[...] = 0
    # From the last tap to the first, the count of taps before restarts where a tap equals the maximum.
    for _, _, outputs, pixels in taps[-2::-1]:
        winners += 1
        winner = winners[outputs]
        winner *= (image[pixels] != maxima[outputs]).view(xp.uint8)
    if maxima.size and maybe(xp.isnan(maxima.max())):
        for number, (_, _, outputs, pixels) in enumerate(taps):
            winner = winners[outputs]
            winner[...] = xp.where(xp.isnan(image[pixels]), winners.dtype.type(number), winner)


@fused
def _pooled(xp: Any, first: Array, *others: Array) -> tuple[Array, Array]:
    """The maximum of what the taps see, and the number of its tap: `_maxima` and `_winners` at once."""
    maxima: Any = first
    winners: Any = 0
    for number, seen in enumerate(others, 1):
        larger = (seen > maxima) | (seen != seen)  # NaN is larger than any number
        winners = xp.where(larger, number, winners)
        maxima = xp.where(larger, seen, maxima)
    return maxima, winners.astype(np.uint8)


@fused
def _scattered(xp: Any, grads: Array, winners: Array, *pixels: Array) -> None:
    """Write to what each tap sees the gradients of the maxima that it has won."""
    for number, seen in enumerate(pixels):
        seen[...] = xp.where(winners == number, grads, 0)


def is_inside(geometry: Geometry) -> bool:
    """Return whether no window leaves the image."""
    oh, ow = geometry.output_size
    return geometry.taps[0].outputs == geometry.taps[-1].outputs == (slice(0, oh), slice(0, ow))


def is_one_kernel(geometry: Geometry) -> bool:
    """Return whether one kernel of a GPU can take what each tap sees as an argument."""
    return is_inside(geometry) and 1 < len(geometry.taps) <= MOST_ARGUMENTS


@lru_cache(CACHED)
def _coverage(geometry: Geometry) -> tuple[bool, bool]:
    """Whether no two windows share a pixel, and whether every pixel is also in a window."""
    (down, across), (sh, sw), (h, w) = geometry.reach, geometry.stride, geometry.input_shape[2:]
    outputs = [tap.outputs for tap in geometry.taps]
    seen = sum((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in outputs)
    disjoint = down < sh and across < sw
    return disjoint, disjoint and seen == h * w

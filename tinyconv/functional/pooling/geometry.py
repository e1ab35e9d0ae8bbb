"""The geometry of a pooling, and images in storage order."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from tinyconv.arguments import IntOrPair, Pair, pair
from tinyconv.arrays import VALUE_WORK, Array, array_module, as_logical, cut, in_threads, stored
from tinyconv.functional.conv.geometry import CACHED, Geometry, Shape, output_size

Options: TypeAlias = tuple[Pair, Pair, Pair, Pair]

BLOCK_BYTES, SHORT_RUN = 1 << 20, 512  # of the image; values of a pixel that are neighbours


def pool_geometry(
    input_shape: Shape,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Geometry:
    """Return the geometry of a pooling of `input_shape`, (N, C, H, W) or (C, H, W), which is a batch of one.

    Raises:
        ValueError: wrong number of dimensions, no channel or pixel, an option out of range, a window larger
            than the padded input.
        TypeError: an option of the wrong type.
    """
    options = pool_options(kernel_size, stride, padding, dilation)
    return checked_geometry(tuple(input_shape), *options, bool(ceil_mode))


def pool_options(
    kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0, dilation: IntOrPair = 1
) -> Options:
    """Return the options of a pooling as checked pairs; its stride is by default its kernel size."""
    if stride is None or (isinstance(stride, Sequence) and not len(stride)):
        stride = kernel_size
    pads, kernel = pair("padding", padding, minimum=0), pair("kernel_size", kernel_size)
    if 2 * pads[0] > kernel[0] or 2 * pads[1] > kernel[1]:
        raise ValueError(f"`padding` (={padding}) must be at most half of `kernel_size` (={kernel_size})")
    return kernel, pair("stride", stride), pads, pair("dilation", dilation)


def check_pooled(input_shape: Shape) -> None:
    """Check that an input of a pooling is an image or a batch of images; only the batch may be empty."""
    if len(input_shape) not in (3, 4) or 0 in input_shape[-3:]:
        raise ValueError(
            f"`input` (of shape {input_shape}) must have the form (N, C, H, W) or (C, H, W), "
            "and have channels and pixels"
        )


def as_image(x: Array) -> Array:
    """Return `x`, (N, C, H, W) or (C, H, W), as a C-contiguous array (H, W, C, N)."""
    return stored(x if x.ndim == 4 else x[None])


def from_image(image: Array, ndim: int) -> Array:
    """Return `image`, (H, W, C, N), as (N, C, H, W), or its one sample, (C, H, W), for an `ndim` of 3."""
    batch = as_logical(image)
    return batch if ndim == 4 else batch[0]


def by_channels(run: Callable[[slice], None], image: Array) -> None:
    """Call `run` with slices of the channels of `image`, (H, W, C, N), that fit in the cache, in threads.

    So the taps of a window, which are read one after another, are read from memory once.
    """
    xp, (_, _, c, n) = array_module(image), image.shape
    count = min(image.nbytes // BLOCK_BYTES, c * n // SHORT_RUN) if xp is np else 1
    if count < 2:
        run(slice(None))
    else:
        in_threads(run, cut(c, count), VALUE_WORK * image.size)


@lru_cache(CACHED)
def checked_geometry(
    input_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Geometry:
    """Return `pool_geometry` for options that `pool_options` has checked."""
    check_pooled(input_shape)
    shape = input_shape if len(input_shape) == 4 else (1, *input_shape)
    pads = (padding[0], padding[0]), (padding[1], padding[1])
    if ceil_mode:
        size = _ceil_size(shape[2:], kernel_size, stride, padding, dilation)
    else:
        size = output_size(shape[2:], kernel_size, stride, pads, dilation)
    return Geometry(shape, shape[1], kernel_size, stride, pads, dilation, shape[1], size)


def _ceil_size(size: Shape, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """(OH, OW) rounded up, without a window that would start beyond the image and the padding before it."""
    longer = tuple((p, p + s - 1) for p, s in zip(padding, stride, strict=True))
    roomy = output_size(size, kernel_size, stride, (longer[0], longer[1]), dilation)
    oh, ow = (
        o - ((o - 1) * s >= length + p) for o, s, length, p in zip(roomy, stride, size, padding, strict=True)
    )
    return oh, ow

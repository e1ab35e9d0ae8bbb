"""Residues: dilated and transposed convolutions as plain ones of every d-th or s-th pixel.

Along an axis, output p sees with tap i the pixel p*s + i*d - P.

- **Dilation.** The pixels that an output sees have the same residue modulo d. The outputs that see one
  residue are every d-th (every d / gcd(s, d)-th with a stride), so these outputs are a convolution of every
  d-th pixel, without a dilation. All three maps are sums or parts of such convolutions.
- **Stride, in the gradient with respect to the image.** Pixel h is seen with the taps i that have the residue
  of h + P modulo s. So the gradients of every s-th pixel are a convolution with every s-th tap, of stride 1.

An image of every d-th pixel, or a kernel of every s-th tap, is a view.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import gcd
from typing import NamedTuple, TypeAlias

from tinyconv.functional.conv.geometry import CACHED, Geometry

Index: TypeAlias = tuple[slice, slice, slice, slice]  # of a whole array's samples, channels, rows, columns


class Part(NamedTuple):
    """A convolution of some outputs, pixels and taps of another; the arrays so indexed have its geometry."""

    geometry: Geometry
    outputs: Index
    pixels: Index
    taps: Index


class Axis(NamedTuple):
    """The same along one axis: slices, numbers of pixels, taps and outputs, stride, and padding before."""

    outputs: slice
    pixels: slice
    taps: slice
    size: int
    kernel: int
    length: int
    stride: int
    before: int


@lru_cache(CACHED)
def undilated(geometry: Geometry) -> list[Part]:
    """Return the convolutions without a dilation that `geometry` consists of."""
    return _parts(geometry, *(list(_undilated(geometry, axis)) for axis in (0, 1)))


@lru_cache(CACHED)
def unstrided(geometry: Geometry) -> list[Part]:
    """Return the convolutions of stride 1 whose images' gradients `geometry`'s consists of.

    Its dilation must be 1. Each has at most as much padding as its kernel's reach. Other pixels are not seen.
    """
    return _parts(geometry, *(list(_unstrided(geometry, axis)) for axis in (0, 1)))


def _undilated(geometry: Geometry, axis: int) -> Iterator[Axis]:
    kernel, size = geometry.kernel_size[axis], geometry.input_shape[2 + axis]
    stride, dilation = geometry.stride[axis], geometry.dilation[axis]
    every = dilation // gcd(stride, dilation)
    for first in range(min(every, geometry.output_size[axis])):
        start, residue = divmod(first * stride - geometry.padding[axis][0], dilation)
        outputs = slice(first, None, every)
        pixels = slice(residue + dilation * max(0, start), None, dilation)
        count, seen = len(range(geometry.output_size[axis])[outputs]), len(range(size)[pixels])
        yield Axis(
            outputs, pixels, slice(None), seen, kernel, count, stride * every // dilation, max(0, -start)
        )


def _unstrided(geometry: Geometry, axis: int) -> Iterator[Axis]:
    size, stride, padding = geometry.input_shape[2 + axis], geometry.stride[axis], geometry.padding[axis][0]
    for first in range(min(stride, geometry.kernel_size[axis])):
        taps, start = slice(first, None, stride), (first - padding) % stride
        pixels = slice(start, None, stride)
        kernel, seen = len(range(geometry.kernel_size[axis])[taps]), len(range(size)[pixels])
        newest = (start + padding - first) // stride  # output, which sees the first pixel with the first tap
        oldest = max(0, newest - kernel + 1)
        count = min(geometry.output_size[axis], newest + seen) - oldest
        if seen and count > 0:
            yield Axis(slice(oldest, oldest + count), pixels, taps, seen, kernel, count, 1, newest - oldest)


def _parts(geometry: Geometry, down: list[Axis], across: list[Axis]) -> list[Part]:
    (n, c, *_), parts = geometry.input_shape, []
    for axes in product(down, across):
        rows, columns = axes
        after = [(a.length - 1) * a.stride + a.kernel - a.before - a.size for a in axes]
        plain = Geometry(
            (n, c, rows.size, columns.size),
            geometry.out_channels,
            (rows.kernel, columns.kernel),
            (rows.stride, columns.stride),
            ((rows.before, max(0, after[0])), (columns.before, max(0, after[1]))),
            (1, 1),
            geometry.groups,
            (rows.length, columns.length),
        )
        by_axis = zip(*((a.outputs, a.pixels, a.taps) for a in axes), strict=True)
        parts.append(Part(plain, *((slice(None), slice(None), *slices) for slices in by_axis)))
    return parts

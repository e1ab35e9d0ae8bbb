"""Sliding windows: their positions, and the pixels they see."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Pair: TypeAlias = tuple[int, int]
Sizes: TypeAlias = Any  # a tuple of ints, one for each direction (mypy cannot index with such tuples)


def positions(
    size: Sizes, kernel: Sizes, output: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes
) -> Iterator[tuple[Sizes, Sizes, Sizes]]:
    """Return all (output position, tap, pixel) where the tap of the window is inside the image."""
    for place in np.ndindex(output):
        for tap in np.ndindex(kernel):
            steps = zip(place, stride, tap, dilation, padding, strict=True)
            pixel = tuple(p * s + i * d - pad for p, s, i, d, pad in steps)
            if all(0 <= at < length for at, length in zip(pixel, size, strict=True)):
                yield place, tap, pixel


def output_size(
    size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool = False
) -> Sizes:
    """Return the number of positions of the window in each direction, counted by moving it.

    With `ceil_mode` one more, if pixels or padding are left over and it starts before the right padding.
    """

    def count(axis: int) -> int:
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        end = size[axis] + padding[axis]
        starts = len(range(-padding[axis], end - extent + 1, stride[axis]))
        next_start = starts * stride[axis] - padding[axis]
        last_covered = next_start - stride[axis] + extent
        return starts + (ceil_mode and last_covered < end and next_start < size[axis])

    return tuple(count(axis) for axis in range(len(size)))

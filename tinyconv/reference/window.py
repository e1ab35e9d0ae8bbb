"""Sliding windows: their positions, and the pixels they see."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

Pair: TypeAlias = tuple[int, int]


def positions(
    size: Pair, kernel: Pair, output: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Iterator[tuple[Pair, Pair, Pair]]:
    """Return all (output position, tap, pixel) where the tap of the window is inside the image."""
    for p, q in np.ndindex(output):
        for i, j in np.ndindex(kernel):
            y = p * stride[0] + i * dilation[0] - padding[0]
            x = q * stride[1] + j * dilation[1] - padding[1]
            if 0 <= y < size[0] and 0 <= x < size[1]:
                yield (p, q), (i, j), (y, x)


def output_size(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False
) -> Pair:
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

    return count(0), count(1)

"""Arrays as rows of memory, and sums over each channel.

An array (N, C, ...) is taken as it is stored, as (rows, positions per row, C, N). A channel's values are
repeated along a row, so that NumPy's inner loops are as long as a row. Computations of several steps run on
one block of rows after another, and a block stays in the cache for all of them. On a GPU all rows are one
block.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinyconv.arrays import VALUE_WORK, Array, array_module, as_logical, fused, in_threads, stored

Parts: TypeAlias = Callable[[slice], tuple[Array, Array]]  # a block of each of two arrays of rows

SHORT_ROW, LONG_ROW = 8192, 1 << 16  # values; NumPy is half as fast for shorter rows
BLOCK_BYTES = 1 << 20
CHANNEL_AXES = (0, 1, 3)  # of rows
MOST_ADDED = 64  # values that are added up in float32


def as_rows(x: Array) -> Array:
    """Return `x`, (N, C, ...), as (rows, positions per row, C, N): a view if possible, else a copy."""
    n, channels, *size = x.shape
    positions = math.prod(size)
    length = _row_length(positions, max(1, channels * n))
    return stored(x).reshape(positions // length, length, channels, n)


def from_rows(rows: Array, shape: tuple[int, ...]) -> Array:
    """Return the result of `as_rows` as an array of `shape` (N, C, ...) again: a view."""
    return as_logical(rows.reshape(*shape[2:], shape[1], shape[0]))


@functools.cache
def _row_length(positions: int, width: int) -> int:
    """How many of `positions`, of `width` values each, form a row."""
    lengths = [k for k in range(1, min(positions, LONG_ROW // width) + 1) if positions % k == 0] or [1]
    return next((k for k in lengths if k * width >= SHORT_ROW), lengths[-1])


def blocks(rows: Array) -> list[slice]:
    """Return slices of neighbouring rows that fit in the cache and can be added up in float32."""
    if array_module(rows) is not np:
        return [slice(None)]
    count = max(1, min(MOST_ADDED, BLOCK_BYTES // max(1, rows[:1].nbytes)))
    return [slice(start, start + count) for start in range(0, max(1, len(rows)), count)]


def pairs(a: Array, b: Array) -> Parts:
    """Return a function that returns a block of rows of each of two arrays."""
    return lambda block: (a[block], b[block])


def by_blocks(function: Callable[..., Array], arrays: Sequence[Array], *channels: Array) -> Array:
    """Return `function(*arrays, *values, out)`, elementwise, for arrays of rows and channels' values."""
    values = [along(a, arrays[0]) for a in channels]
    if array_module(arrays[0]) is not np:
        return function(*arrays, *values)
    output = np.empty_like(arrays[0])

    def run(block: slice) -> None:
        function(*[a[block] for a in arrays], *values, output[block])

    in_threads(run, blocks(output), VALUE_WORK * output.size)
    return output


def along(values: Array, rows: Array) -> Array:
    """Return `values`, (C,) or (C, N), in a form that broadcasts over `rows`, and in their dtype."""
    column = values.astype(rows.dtype).reshape(len(values), -1)
    xp = array_module(rows)
    if xp is np and len(rows) == 1:
        return column
    row: Array = xp.empty(rows.shape[1:] if xp is np else rows.shape[2:], rows.dtype)
    row[...] = column  # so that a GPU's kernel divides an index once, to find its channel and sample
    return row


def sums(parts: Parts, like: Array, by_sample: bool = False) -> Array:
    """Compute the sums of a and of a * b over each channel: (2, C), or of each sample (2, C, N), in float64.

    Args:
        parts: blocks of a and of b, both of the form of `like`.
        like: all rows.
        by_sample: whether to keep the samples separate.

    Only few values are added up in float32, over the rows of a block and over n: by products with ones, which
    is NumPy's fastest sum, and by einsum, which needs no array of products. The rest is added up in float64.
    """
    xp = array_module(like)
    _, length, channels, n = like.shape
    if xp is not np:
        a, b = (rows.reshape(-1, channels * n) for rows in parts(slice(None)))
        by_value = xp.stack([_added(a), _added_products(a, b)]).reshape(2, channels, n)
        by_channel: Array = by_value if by_sample else by_value.sum(axis=2)
        return by_channel
    by_block = _sums_of_blocks(parts, like)
    count = len(by_block)
    stretch = 1 if by_sample else stretch_of(n)
    if stretch > 1:
        by_block = by_block.reshape(-1, stretch) @ np.ones(stretch, like.dtype)
    by_block = by_block.reshape(count, 2, length, channels, n // stretch)
    total: Array = by_block.sum(axis=(0, 2) if by_sample else (0, 2, 4), dtype=np.float64)
    return total


@fused
def _added(xp: Any, a: Array) -> Array:
    added: Array = xp.sum(a.astype(np.float64), axis=0)
    return added


@fused
def _added_products(xp: Any, a: Array, b: Array) -> Array:
    added: Array = xp.sum(a.astype(np.float64) * b, axis=0)
    return added


def _sums_of_blocks(parts: Parts, like: Array) -> Array:
    """Sums of a and of a * b over the rows of each block: (blocks, 2, values of a row)."""
    width, cut = math.prod(like.shape[1:]), blocks(like)
    total = np.empty((len(cut), 2, width), like.dtype)

    def run(number: int) -> None:
        values, products = total[number]
        a, b = (rows.reshape(len(rows), width) for rows in parts(cut[number]))
        np.einsum("ij,ij->j", a, b, out=products)
        if len(a) == 1:
            values[...] = a[0]
        else:
            np.matmul(np.ones(len(a), a.dtype), a, out=values)

    in_threads(run, range(len(cut)), VALUE_WORK * like.size)
    return total


@functools.cache
def stretch_of(size: int) -> int:
    """Return how many neighbours of `size` values to add up in float32: a divisor of `size`."""
    return max(length for length in range(1, MOST_ADDED + 1) if size % length == 0)

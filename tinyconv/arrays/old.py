"""To be gone: the former memory format, batch last."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyconv.arrays.devices import Array, array_module

__all__ = [
    "batch_last",
    "batch_first",
    "contiguous_batch_last",
    "channel_rows",
    "from_channel_rows",
    "empty_batch_last",
]


def batch_last(x: Array) -> Array:
    """View of `x`, (N, ...), with its first axis moved to the end: (..., N)."""
    return x.transpose((*range(1, x.ndim), 0)[: x.ndim])


def batch_first(x: Array) -> Array:
    """View of `x`, (..., N), with its last axis moved to the front: the inverse of `batch_last`."""
    return x.transpose((x.ndim - 1, *range(x.ndim - 1))[: x.ndim])


def contiguous_batch_last(x: Array) -> Array:
    """`x`, (N, ...), as a C-contiguous array (..., N): a view where it lies so already, else a copy."""
    contiguous: Array = array_module(x).ascontiguousarray(batch_last(x))
    return contiguous


def channel_rows(x: Array) -> Array:
    """`x`, (N, C, ...), as a C-contiguous matrix (C, number of values in a channel)."""
    size = math.prod(x.shape[2:]) * x.shape[0]
    return contiguous_batch_last(x).reshape(x.shape[1], size)


def from_channel_rows(rows: Array, shape: tuple[int, ...]) -> Array:
    """The matrix of `channel_rows` as an array of `shape` (N, C, ...) again: a view, batch last."""
    return batch_first(rows.reshape(*shape[1:], shape[0]))


def empty_batch_last(shape: tuple[int, ...], dtype: npt.DTypeLike, xp: Any = np) -> Array:
    """Uninitialised array of `shape` (N, ...) that lies batch last in memory."""
    return batch_first(xp.empty((*shape[1:], *shape[:1]), dtype))

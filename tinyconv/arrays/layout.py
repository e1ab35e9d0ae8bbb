"""The memory format: an image is stored as positions, channels, batch.

An array that is logically (N, C, H, W) is stored as (H, W, C, N). Shapes, indices and results are PyTorch's;
only the strides differ. In units of one value:

                         axis      N          C          H            W
    PyTorch's default   stride     C*H*W      H*W        W            1
    this package        stride     1          N          W*C*N        C*N

    memory:  | pixel (0, 0)                        | pixel (0, 1)                        | ...
             | channel 0 | channel 1 | ... | C - 1 | channel 0 | channel 1 | ... | C - 1 |
             | n = 0..N-1| n = 0..N-1| ...         |

So one pixel is a matrix (C, N), which a layer's weight is multiplied with; neighbouring pixels of a row are
neighbours in memory, and a window of KW of them is a matrix (KW * C, N) as stored, without a copy.
Elementwise loops run over long contiguous blocks, also when they broadcast.

The rules:

- The storage order is a hint for speed and never changes a result: arguments may have any layout, and results
  agree to rounding; equal arrays in equal layouts give equal bits.
- Functions of images produce this format. Elementwise ones keep the layout of their input.
- (N, C, L) is stored as (L, C, N), (N, F) as (F, N). Axes of length 0 or 1 do not matter.
- Parameters and their gradients are C-contiguous in PyTorch's shapes.

>>> import numpy as np
>>> x = empty_stored((8, 3, 5, 6), np.float32)
>>> x.shape, as_stored(x).shape, as_stored(x).flags.c_contiguous
((8, 3, 5, 6), (5, 6, 3, 8), True)
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyconv.arrays.devices import Array, array_module

__all__ = [
    "storage_axes",
    "logical_axes",
    "as_stored",
    "as_logical",
    "stored",
    "formatted",
    "stored_shape",
    "empty_stored",
    "zeros_stored",
    "as_strided",
]


@functools.cache
def storage_axes(ndim: int) -> tuple[int, ...]:
    """Return the axes of an array (N, C, ...) in the order in which they are stored: (..., C, N)."""
    return (*range(2, ndim), *range(min(ndim, 2) - 1, -1, -1))


@functools.cache
def logical_axes(ndim: int) -> tuple[int, ...]:
    """Return the axes of an array in storage order, (..., C, N), in the order (N, C, ...)."""
    return (*range(ndim - 1, max(ndim - 3, -1), -1), *range(ndim - 2))


def stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape`, (N, C, ...), in storage order, (..., C, N)."""
    return tuple(shape[axis] for axis in storage_axes(len(shape)))


def as_stored(x: Array) -> Array:
    """Return a view of `x`, (N, C, H, W), with its axes in storage order, (H, W, C, N)."""
    return x.transpose(storage_axes(x.ndim))


def as_logical(x: Array) -> Array:
    """Return a view of `x`, (H, W, C, N), as (N, C, H, W): the inverse of `as_stored`."""
    return x.transpose(logical_axes(x.ndim))


def stored(x: Array) -> Array:
    """Return `x`, (N, C, H, W), as a C-contiguous array (H, W, C, N): a view if possible, else a copy."""
    contiguous: Array = array_module(x).ascontiguousarray(x.transpose(storage_axes(x.ndim)))
    return contiguous


def formatted(x: Array) -> Array:
    """Return `x` in the memory format: a view if possible, else a copy, made once for several uses."""
    return x if x.transpose(storage_axes(x.ndim)).flags.c_contiguous else as_logical(stored(x))


def empty_stored(shape: tuple[int, ...], dtype: npt.DTypeLike, xp: Any = np) -> Array:
    """Return an uninitialised array of `shape` (N, C, ...) in the memory format."""
    return as_logical(xp.empty(stored_shape(shape), dtype))


def zeros_stored(shape: tuple[int, ...], like: Array) -> Array:
    """Return zeros of `shape` (N, C, ...) in the memory format, with the dtype and device of `like`."""
    return as_logical(array_module(like).zeros(stored_shape(shape), like.dtype))


def as_strided(x: Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """Return a view of the memory of `x` from its first value on; its values may overlap."""
    view: Array = array_module(x).lib.stride_tricks.as_strided(x, shape, strides)
    return view

"""Matrix products and sums of rows."""

import numpy as np

from tinyconv.arrays.devices import Array, array_module
from tinyconv.gpu import cublas

__all__ = ["matmul", "row_sums", "row_dots"]

STRETCH = 512  # values of a row that are added up in float32


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """The matrix product a @ b of matrices or stacks of them; on a GPU by cuBLAS (see `gpu.cublas`)."""
    if type(a) is np.ndarray:
        return np.matmul(a, b, out=out)
    return cublas.matmul(a, b, out)


def row_sums(rows: Array) -> Array:
    """The sum of each row of a matrix, in float64.

    NumPy adds up stretches of a row as products with ones, several times as fast as `sum` does it. They are
    short enough to lose few digits of float32, and their sums few enough for float64.
    """
    xp = array_module(rows)
    if xp is not np:
        total: Array = rows.sum(axis=1, dtype=np.float64)
        return total
    channels, size = rows.shape
    count = size // STRETCH
    stretches = rows[:, : count * STRETCH].reshape(channels, count, STRETCH)
    rest = rows[:, count * STRETCH :].sum(axis=1)
    return (stretches @ np.ones(STRETCH, rows.dtype)).sum(axis=1, dtype=np.float64) + rest  # type: ignore[no-any-return]


def row_dots(a: Array, b: Array) -> Array:
    """Row by row, the sum of a * b of two matrices; in NumPy by products of BLAS, its fastest sums."""
    xp = array_module(a, b)
    dots: Array = np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0] if xp is np else (a * b).sum(axis=1)
    return dots

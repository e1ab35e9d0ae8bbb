"""Matrix products."""

import numpy as np

from tinyconv.arrays.devices import Array, array_module
from tinyconv.arrays.parallel import BLAS_WORK, cut, in_threads
from tinyconv.arrays.threads import one_blas_thread
from tinyconv.gpu import cublas

__all__ = ["matmul"]

# Of a product that is divided: multiply-adds, and rows or columns, of a part at least, and number of parts.
PART_WORK, LEAST_LENGTH, MOST_PARTS = 8_000_000, 64, 16


def matmul(a: Array, b: Array, out: Array | None = None, add: bool = False) -> Array:
    """Multiply matrices or stacks of them, a @ b; on a GPU with cuBLAS (see `gpu.cublas`).

    The product is written to `out`, or with `add` added to it.

    A large product of two matrices is divided among threads of `in_threads`, not among those of BLAS, which
    would spin for a while afterwards, and keep a core from ours.
    """
    if type(a) is not np.ndarray and array_module(a, b) is not np:
        return cublas.matmul(a, b, out, add)
    if out is not None and add:
        out += matmul(a, b)
        return out
    work = a.shape[-2] * a.shape[-1] * b.shape[-1] if min(a.ndim, b.ndim) > 1 else 0
    if work < BLAS_WORK:
        return np.matmul(a, b, out=out)
    if a.ndim == b.ndim == 3 and len(a) == len(b) == 1:
        return matmul(a[0], b[0], None if out is None else out[0])[None]
    if a.ndim > 2 or b.ndim > 2:
        with one_blas_thread():
            return np.matmul(a, b, out=out)
    product = np.empty((len(a), b.shape[1]), np.result_type(a, b)) if out is None else out
    by_rows, count = len(a) >= b.shape[1], max(len(a), b.shape[1])

    def run(part: slice) -> None:
        if by_rows:
            np.matmul(a[part], b, out=product[part])
        else:
            np.matmul(a, b[:, part], out=product[:, part])

    in_threads(run, cut(count, min(work // PART_WORK, count // LEAST_LENGTH, MOST_PARTS)), work)
    return product

"""Matrix products."""

import numpy as np

from tinyconv.arrays.devices import Array
from tinyconv.gpu import cublas

__all__ = ["matmul"]


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """The matrix product a @ b of matrices or stacks of them; on a GPU by cuBLAS (see `gpu.cublas`)."""
    if type(a) is np.ndarray:
        return np.matmul(a, b, out=out)
    return cublas.matmul(a, b, out)

"""Matrix products."""

import numpy as np

from tinyconv.arrays.devices import Array
from tinyconv.gpu import cublas

__all__ = ["matmul"]


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Multiply matrices or stacks of them, a @ b; on a GPU with cuBLAS (see `gpu.cublas`)."""
    if type(a) is np.ndarray:
        return np.matmul(a, b, out=out)
    return cublas.matmul(a, b, out)

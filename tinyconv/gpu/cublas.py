"""Matrix products; CuPy arrays are multiplied by cuBLAS, called directly and not through CuPy.

CuPy does not call cuBLAS while a CUDA graph is captured, though cuBLAS allows it
(https://github.com/cupy/cupy/issues/6290). All products of layers on a GPU are computed here, captured or
not, so that both give the same bits. float32 is multiplied in full float32, unless the environment has CuPy's
CUPY_TF32=1.

Source: https://docs.nvidia.com/cuda/cublas/#cublasgemmstridedbatchedex
"""

import ctypes
import functools
import os
import sys
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays.devices import Array, array_module

# From the enumerations cublasOperation_t, cudaDataType_t, cublasComputeType_t and cublasGemmAlgo_t.
AS_IT_LIES, TRANSPOSED = 0, 1
DATA_TYPES = {"float32": 0, "float64": 1}
COMPUTE_TYPES = {"float32": 68, "float64": 70}
COMPUTE_TF32 = 77
DEFAULT_ALGORITHM = -1


def tf32() -> bool:
    """Return whether float32 is multiplied with 10 bits of mantissa, which only the user can enable."""
    return os.environ.get("CUPY_TF32", "0") not in ("", "0")


@functools.cache
def library(xp: Any) -> Any:
    """Return the library that CuPy, `xp`, has loaded; None if the file is missing."""
    _handle(xp)  # CuPy finds the file, wherever it is; after that its name is enough
    version = xp.cuda.runtime.runtimeGetVersion() // 1000
    name = f"cublas64_{version}.dll" if sys.platform == "win32" else f"libcublas.so.{version}"
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Multiply matrices, a @ b; on the GPU with cuBLAS, if they are (M, K) and (K, N), or stacks of those.

    CuPy multiplies other forms, and all if the library's file is missing.
    """
    xp = array_module(a, b)
    if xp is np:
        return np.matmul(a, b, out=out)
    cublas = library(xp) if a.ndim == b.ndim and a.ndim in (2, 3) else None
    if cublas is None or a.shape[:-2] != b.shape[:-2] or (out is not None and not _rows_lie_well(out)):
        product: Array = xp.matmul(a, b, out=out)
        return product
    shape = (*a.shape[:-1], b.shape[-1])
    if out is None:
        out = xp.empty(shape, a.dtype)
    if 0 in shape or a.shape[-1] == 0:
        out.fill(0)
        return out
    left, right, result = _Operand.of(xp, a), _Operand.of(xp, b), _Operand.of(xp, out)
    handle = _handle(xp)
    _check(cublas.cublasSetStream_v2(handle, ctypes.c_void_p(xp.cuda.get_current_stream().ptr)))
    _check(_gemm(cublas, handle, left, right, result))
    return out


class _Operand(NamedTuple):
    """A matrix, or a stack of them, as cuBLAS sees it."""

    array: Array
    operation: int
    leading: int  # distance of the rows (of the columns if transposed), in elements
    stride: int  # distance of the matrices of a stack

    @classmethod
    def of(cls, xp: Any, array: Array) -> "_Operand":
        for operation in (AS_IT_LIES, TRANSPOSED):
            seen = array if operation == AS_IT_LIES else array.swapaxes(-1, -2)
            if _rows_lie_well(seen):
                break
        else:
            operation, array = AS_IT_LIES, xp.ascontiguousarray(array)
            seen = array
        rows, columns = seen.shape[-2:]
        leading = seen.strides[-2] // seen.itemsize if rows > 1 else columns
        stride = seen.strides[0] // seen.itemsize if seen.ndim == 3 else 0
        return cls(array, operation, leading, stride)


def _rows_lie_well(array: Array) -> bool:
    """Whether the values of a row are contiguous, and the rows follow one another."""
    rows, columns = array.shape[-2:]
    beside = columns == 1 or array.strides[-1] == array.itemsize
    return beside and (rows == 1 or array.strides[-2] >= columns * array.itemsize)


def _gemm(cublas: Any, handle: Any, a: _Operand, b: _Operand, out: _Operand) -> int:
    """out = a @ b. cuBLAS counts by columns, and so sees transposes: out.T = b.T @ a.T."""
    dtype = str(out.array.dtype)
    number = ctypes.c_float if dtype == "float32" else ctypes.c_double
    compute = COMPUTE_TF32 if dtype == "float32" and tf32() else COMPUTE_TYPES[dtype]
    operands = []
    for operand in (b, a, out):
        pointer, stride = ctypes.c_void_p(operand.array.data.ptr), ctypes.c_longlong(operand.stride)  # type: ignore[attr-defined]
        operands.append((pointer, DATA_TYPES[dtype], operand.leading, stride))
    rows, inner = a.array.shape[-2:]
    columns, count = b.array.shape[-1], out.array.shape[0] if out.array.ndim == 3 else 1
    one, zero = ctypes.byref(number(1)), ctypes.byref(number(0))
    status: int = cublas.cublasGemmStridedBatchedEx(
        *(handle, b.operation, a.operation, columns, rows, inner, one, *operands[0], *operands[1]),
        *(zero, *operands[2], count, compute, DEFAULT_ALGORITHM),
    )
    return status


def _handle(xp: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(xp.cuda.Device().cublas_handle)


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")

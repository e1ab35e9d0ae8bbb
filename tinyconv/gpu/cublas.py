"""Matrix products; CuPy arrays are multiplied by cuBLAS, called directly and not through CuPy.

CuPy does not call cuBLAS while a CUDA graph is captured, though cuBLAS allows it
(https://github.com/cupy/cupy/issues/6290). All products of layers on a GPU are computed here, captured or
not, so that both give the same bits. float32 is multiplied in full float32, unless the environment has CuPy's
CUPY_TF32=1.

Source: https://docs.nvidia.com/cuda/cublas/#cublasgemmstridedbatchedex
"""

import ctypes
import functools
import math
import os
import sys
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays.devices import Array, array_module
from tinyconv.arrays.elementwise import fused

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


def matmul(a: Array, b: Array, out: Array | None = None, add: bool = False) -> Array:
    """Multiply matrices, a @ b; on the GPU with cuBLAS: (M, K) and (K, N), or stacks of them that broadcast.

    The product is written to `out`, or with `add` added to it. The matrices of a stack may overlap, as
    windows of an image do: they are read where they are. CuPy multiplies vectors, and everything if the
    library's file is missing.
    """
    xp = array_module(a, b)
    cublas = library(xp) if min(a.ndim, b.ndim) > 1 and a.shape[-1] == b.shape[-2] else None
    if cublas is None or (out is not None and not _rows_lie_well(out)):
        product: Array = xp.matmul(a, b, out=None if add else out)
        if out is not None and add:
            out += product
        return product if out is None else out
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if out is None:
        out = xp.empty((*stack, a.shape[-2], b.shape[-1]), a.dtype)
    if 0 in out.shape or a.shape[-1] == 0:
        if not add:
            out.fill(0)
        return out
    handle = _handle(xp)
    _check(cublas.cublasSetStream_v2(handle, ctypes.c_void_p(xp.cuda.get_current_stream().ptr)))
    # cuBLAS counts by columns, and so sees transposes: out.T = b.T @ a.T.
    operands = (_Operand.of(xp, array, stack) for array in (b, a, out))
    _check(_gemm(xp, cublas, handle, stack, add, *operands))
    return out


class _Operand(NamedTuple):
    """A matrix, or a stack of them, as cuBLAS sees it."""

    array: Array
    operation: int
    leading: int  # distance of the rows (of the columns if transposed), in elements
    strides: tuple[int, ...]  # of the stack, in bytes

    @classmethod
    def of(cls, xp: Any, array: Array, stack: tuple[int, ...]) -> "_Operand":
        for operation in (AS_IT_LIES, TRANSPOSED):
            seen = array if operation == AS_IT_LIES else array.swapaxes(-1, -2)
            if _rows_lie_well(seen):
                break
        else:
            operation, array = AS_IT_LIES, xp.ascontiguousarray(array)
            seen = array
        rows, columns = seen.shape[-2:]
        leading = seen.strides[-2] // seen.itemsize if rows > 1 else columns
        whole = xp.broadcast_to(array, (*stack, *array.shape[-2:]))
        return cls(array, operation, leading, whole.strides[:-2])


def _rows_lie_well(array: Array) -> bool:
    """Whether the values of a row are contiguous, and the rows follow one another."""
    rows, columns = array.shape[-2:]
    beside = columns == 1 or array.strides[-1] == array.itemsize
    return beside and (rows == 1 or array.strides[-2] >= columns * array.itemsize)


def _gemm(
    xp: Any,
    cublas: Any,
    handle: Any,
    stack: tuple[int, ...],
    add: bool,
    a: _Operand,
    b: _Operand,
    out: _Operand,
) -> int:
    """Multiply matrices that are stored by columns."""
    dtype = str(out.array.dtype)
    number = ctypes.c_float if dtype == "float32" else ctypes.c_double
    compute = COMPUTE_TF32 if dtype == "float32" and tf32() else COMPUTE_TYPES[dtype]
    each, kind = (a, b, out), DATA_TYPES[dtype]
    starts = [operand.array.data.ptr for operand in each]  # type: ignore[attr-defined]
    steps = [step for operand in each if (step := _one_step(stack, operand.strides)) is not None]
    operands: list[tuple[Any, ...]]
    if len(steps) < len(each):
        multiply = cublas.cublasGemmBatchedEx
        tables = _addresses(*(_offsets(xp, stack, operand.strides) for operand in each), *starts)
        operands = [
            (ctypes.c_void_p(table.data.ptr), kind, operand.leading)
            for table, operand in zip(tables, each, strict=True)
        ]
    else:
        multiply, size = cublas.cublasGemmStridedBatchedEx, out.array.itemsize
        operands = [
            (ctypes.c_void_p(start), kind, operand.leading, ctypes.c_longlong(step // size))
            for start, operand, step in zip(starts, each, steps, strict=True)
        ]
    (rows, columns), inner = out.array.shape[:-3:-1], b.array.shape[-1]
    one, kept = ctypes.byref(number(1)), ctypes.byref(number(add))
    status: int = multiply(
        *(handle, a.operation, b.operation, rows, columns, inner, one, *operands[0], *operands[1]),
        *(kept, *operands[2], math.prod(stack), compute, DEFAULT_ALGORITHM),
    )
    return status


def _one_step(stack: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The distance from each matrix of a stack to the next; None if it is not always the same."""
    axes = [(count, stride) for count, stride in zip(stack, strides, strict=True) if count > 1]
    if any(outer != count * inner for (_, outer), (count, inner) in pairwise(axes)):
        return None
    return axes[-1][1] if axes else 0


@functools.cache  # nothing can be copied from the host while a graph is captured
def _offsets(xp: Any, stack: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """The distances of the matrices of a stack from the first, in bytes, on the device."""
    places = np.tensordot(strides, np.indices(stack), axes=1)
    table: Array = xp.asarray(places.astype(np.int64).reshape(-1))
    return table


@fused
def _addresses(
    xp: Any, a: Array, b: Array, out: Array, to_a: int, to_b: int, to_out: int
) -> tuple[Array, ...]:
    return a + to_a, b + to_b, out + to_out


def _handle(xp: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(xp.cuda.Device().cublas_handle)


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLAS failed with status {status}")

"""Arrays: which module they belong to, how they lie in memory, scratch buffers.

The memory format of this package is *batch last*. An array that is logically (N, C, H, W)
lies in memory as (C, H, W, N); only the strides tell. Shapes, indices and results are the same
for every layout, but loops over a batch-last array run over long contiguous stretches, and the
matrices of a convolution need no transposition.

>>> import numpy as np
>>> x = empty_batch_last((8, 3, 5, 5), np.float32)
>>> x.shape, batch_last(x).shape, batch_last(x).flags.c_contiguous
((8, 3, 5, 5), (3, 5, 5, 8), True)
"""

import functools
import importlib
import math
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]  # or cupy.ndarray, which has the same interface

_thread = threading.local()
# A NumPy generator's id -> it, held so that no other gets its id, and the one on the GPU that it has seeded.
_seeded: dict[int, tuple[Any, Any]] = {}
MOST_SEEDED = 64
STRETCH = 512  # values of a row that are added up in float32

# Allocated and freed again at once. The C library's malloc takes it as a sign that blocks of up to 32 MiB
# come and go, and keeps freed ones for the next array instead of returning them to the system, which
# would hand them out anew page by page: a third of the time of a training step. (malloc's dynamic
# threshold, see M_MMAP_THRESHOLD in mallopt(3); other C libraries take no notice.)
np.empty((32 << 20) - (1 << 16), np.uint8)


def array_module(*arrays: Any) -> Any:
    """The module, numpy or cupy, that all of `arrays` belong to (None is passed over).

    Raises:
        TypeError: one of them is no array, or they belong to different modules.
    """
    for array in arrays:
        if type(array) is not np.ndarray and array is not None:
            break
    else:
        return np
    names = {_module_name(array) for array in arrays if array is not None}
    if len(names) > 1:
        raise TypeError("arrays must lie on one device, got arrays on the CPU and on the GPU")
    return sys.modules[names.pop()]


def owner(value: Any) -> str:
    """The package that the type of `value` belongs to: "numpy" or "cupy" for an array."""
    return type(value).__module__.partition(".")[0]


def _module_name(array: Any) -> str:
    if isinstance(array, (np.ndarray, np.generic)):
        return "numpy"
    name = owner(array)
    if name != "cupy":
        raise TypeError(f"expected a numpy.ndarray or cupy.ndarray, got {type(array).__name__}")
    return name


def gpu_available() -> bool:
    """Whether CuPy is installed and finds a GPU. Never raises."""
    try:
        device_module("cuda")
    except RuntimeError:
        return False
    return True


def device_module(device: str) -> Any:
    """The array module of a device: numpy of "cpu", cupy of "cuda".

    Raises:
        ValueError: another device.
        RuntimeError: no CuPy, no driver, or no GPU; the message says which.
    """
    if device == "cpu":
        return np
    if device != "cuda":
        raise ValueError(f"`device` (={device!r}) must be 'cpu' or 'cuda'")
    try:
        cupy = importlib.import_module("cupy")
        if not cupy.cuda.runtime.getDeviceCount():
            raise RuntimeError("there is no GPU")
    except Exception as error:  # what CuPy and the libraries under it raise has no common base
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise RuntimeError(f"`device` (='cuda') needs a GPU, its driver and CuPy: {reason}") from None
    return cupy


def moved(array: Array, xp: Any) -> Array:
    """`array` on the device of the module `xp`; itself where it lies there."""
    own = array_module(array)
    if own is xp:
        return array
    there: Array = xp.asarray(array) if own is np else own.asnumpy(array)
    return there


def maybe(condition: Any) -> bool:
    """Whether `condition`, a 0-d array or a bool, holds; on the GPU True without looking, which would wait.

    It is for work that changes nothing where the condition does not hold.
    """
    if isinstance(condition, (bool, np.bool_)):
        return bool(condition)
    return array_module(condition) is not np or bool(condition)


def refused_where(wrong: Any, values: Array, error: Callable[[], Exception]) -> Array:
    """`values`, or the error where `wrong`, a 0-d array, holds; on the GPU, where looking would wait, NaN."""
    if not maybe(wrong):
        return values
    xp = array_module(values)
    if xp is np:
        raise error()
    poisoned: Array = xp.where(wrong, np.nan, values)
    return poisoned


@functools.cache
def constant(values: tuple[Any, ...], dtype: str, xp: Any) -> Array:
    """`values`, tuples nested or not, as an array of the module `xp`, not to be written.

    Copied to a GPU once and kept, as there is no copying while a CUDA graph is captured.
    """
    array: Array = xp.asarray(values, dtype)
    return array


def uniform(generator: "np.random.Generator", shape: tuple[int, ...], xp: Any) -> Array:
    """float32 in [0, 1), drawn on the device of `xp`: from `generator`, or one there that it seeds."""
    if xp is np:
        return generator.random(shape, dtype=np.float32)
    if id(generator) not in _seeded:
        if len(_seeded) >= MOST_SEEDED:
            _seeded.pop(next(iter(_seeded)))
        _seeded[id(generator)] = generator, xp.random.default_rng(int(generator.integers(1 << 63)))
    drawn: Array = _seeded[id(generator)][1].random(shape, dtype=np.float32)
    return drawn


def special(xp: Any) -> Any:
    """The special functions (erf and its kin) for arrays of the module `xp`."""
    return importlib.import_module("scipy.special" if xp is np else "cupyx.scipy.special")


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(xp, *arrays and numbers)`, elementwise, called without `xp`; on the GPU one kernel.

    Numbers that change from call to call in a CUDA graph must be 0-d arrays; what may be missing is None.
    """

    @functools.cache
    def kernel(xp: Any) -> Callable[..., Any]:
        whole = functools.partial(function, xp)
        return whole if xp is np else xp.fuse(kernel_name=function.__name__)(whole)

    @functools.wraps(function)
    def call(first: Array, *rest: Any) -> Any:
        return kernel(array_module(first))(first, *rest)

    return call


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


def scratch(use: str, shape: tuple[int, ...], dtype: npt.DTypeLike, xp: Any = np) -> Array:
    """Uninitialised C-contiguous array over memory that the next call with the same `use` takes again.

    Each thread has memory of its own. The result must never be handed out of the function that
    asked for it. On a GPU it is a new array: there the memory pool knows what is free, CUDA graphs included.
    """
    if xp is not np:
        new: Array = xp.empty(shape, dtype)
        return new
    size = math.prod(shape)
    key = (use, np.dtype(dtype))
    buffers: dict[Any, Array] = _thread.__dict__.setdefault("scratch", {})
    if key not in buffers or buffers[key].size < size:
        buffers[key] = np.empty(size, dtype)
    array: Array = buffers[key][:size].reshape(shape)
    return array


def zero_where(mask: Array, values: Array, out: Array | None = None) -> Array:
    """`values` where `mask` is False and 0 where it is True, both of one shape.

    Multiplies the bits of `values` by 1 or 0: several times as fast as `where`, whose branches no
    processor can predict, and exact where `values` holds inf or NaN, which a floating product is not.
    """
    bits = np.dtype(f"i{values.itemsize}")
    keep: Array = array_module(mask, values).asarray(~mask).astype(bits)
    keep *= values.view(bits)
    if out is None:
        return keep.view(values.dtype)
    out[...] = keep.view(values.dtype)  # out may have gaps, which a copy crosses faster than a product
    return out

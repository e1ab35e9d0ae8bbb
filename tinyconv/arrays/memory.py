"""Memory for intermediate results that are needed for a moment only."""

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyconv.arrays.devices import Array

__all__ = ["scratch"]

_thread = threading.local()

# Allocated and freed again at once. The C library's malloc takes it as a sign that blocks of up to 32 MiB
# come and go, and keeps freed ones for the next array instead of returning them to the system, which
# would hand them out anew page by page: a third of the time of a training step. (malloc's dynamic
# threshold, see M_MMAP_THRESHOLD in mallopt(3); other C libraries take no notice.)
np.empty((32 << 20) - (1 << 16), np.uint8)


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

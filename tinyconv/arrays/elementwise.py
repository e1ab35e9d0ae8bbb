"""Elementwise maths: several steps as one kernel on a GPU, and masking."""

import functools
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import numpy as np

from tinyconv.arrays.devices import Array, array_module
from tinyconv.arrays.layout import as_stored
from tinyconv.arrays.parallel import VALUE_WORK, cut, in_threads

__all__ = ["by_values", "fused", "kept_where", "summed_to", "underflow_allowed"]

PART_VALUES = 1 << 16  # of each array, so that a part of some arrays fits in the cache

# A floating dtype -> the integers of its size.
BITS: dict[Any, np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.int32),
    np.dtype(np.float64): np.dtype(np.int64),
}

_allowed: ContextVar[bool] = ContextVar("underflow allowed", default=False)
Function = TypeVar("Function", bound=Callable[..., Any])


def underflow_allowed(function: Function) -> Function:
    """Decorate a function whose values may be too small for their dtype: they are rounded to 0 or near it.

    That is correct, and not an error even if the user has NumPy raise one (`numpy.seterr`). Functions called
    within do not check again, as a check takes as long as a small product.
    """

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        if _allowed.get():
            return function(*args, **keywords)
        token = _allowed.set(True)
        try:
            if np.geterr()["under"] == "ignore":  # the default; an errstate would make each ufunc slower
                return function(*args, **keywords)
            with np.errstate(under="ignore"):
                return function(*args, **keywords)
        finally:
            _allowed.reset(token)

    return cast("Function", call)


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function(xp, *arrays and numbers)`, elementwise, called without `xp`; on the GPU one kernel.

    Numbers that change from call to call in a CUDA graph must be 0-d arrays; optional arguments may be None.
    """

    @functools.cache
    def kernel(xp: Any) -> Callable[..., Any]:
        fuse: Callable[..., Callable[..., Any]] = xp.fuse(kernel_name=function.__name__)
        return fuse(functools.partial(function, xp))

    @functools.wraps(function)
    def call(first: Array, *rest: Any) -> Any:
        xp = array_module(first)
        return function(np, first, *rest) if xp is np else kernel(xp)(first, *rest)

    return call


def kept_where(mask: Array, values: Array, out: Array | None = None) -> Array:
    """Return `values` where `mask`, of the same shape, is True, else 0; written to `out` if given.

    It multiplies the bits of `values` by 1 or 0: several times as fast as `where`, whose branches cannot be
    predicted, and exact where `values` has inf or NaN, unlike a floating-point product.
    """
    xp, bits = array_module(mask, values), BITS[values.dtype]
    if out is not None:
        xp.multiply(values.view(bits), mask.view(np.int8), out=out.view(bits))
        return out
    kept: Array = xp.asarray(mask).astype(bits)
    kept *= values.view(bits)
    return kept.view(values.dtype)


def summed_to(array: Array, shape: tuple[int, ...]) -> Array:
    """Return `array` summed along the dimensions of length 1 in `shape`: the transpose of broadcasting."""
    lengths = zip(array.shape, shape, strict=True)
    axes = tuple(axis for axis, (own, length) in enumerate(lengths) if length == 1 != own)
    summed: Array = array.sum(axis=axes, keepdims=True) if axes else array
    return summed


def by_values(function: Callable[..., object], *arrays: Array) -> None:
    """Call `function(*arrays)`, which writes to some of them, elementwise: for large arrays in parts.

    So several steps are computed while a part is in the cache, and by several threads. The arrays have one
    shape. Those of different memory layouts are computed at once.
    """
    size = arrays[0].size
    flat = _flat(arrays) if size >= 2 * PART_VALUES and array_module(arrays[0]) is np else None
    if flat is None:
        function(*arrays)
        return
    parts = cut(size, size // PART_VALUES)
    in_threads(lambda part: function(*(values[part] for values in flat)), parts, VALUE_WORK * size)


def _flat(arrays: Sequence[Array]) -> list[Array] | None:
    """Views of `arrays` as they are stored, (values,); None if they are not contiguous in the same order."""
    for views in (arrays, [as_stored(array) for array in arrays]):
        if all(view.flags.c_contiguous for view in views):
            return [view.reshape(-1) for view in views]
    return None

"""Elementwise maths: several steps as one kernel on a GPU, and zeros where a mask says so."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyconv.arrays.devices import Array, array_module

__all__ = ["fused", "zero_where"]


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

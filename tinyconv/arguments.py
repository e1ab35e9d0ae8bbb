"""Normalisers and checks of arguments: one wording for every error.

A message names the argument, its value and the rule that it breaks.

>>> pair("stride", 2)
(2, 2)
>>> pair("stride", (0, 1))
Traceback (most recent call last):
    ...
ValueError: `stride` (=(0, 1)) must be at least 1
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyconv.arrays import Array, array_module, device_module, moved, owner

Pair: TypeAlias = tuple[int, int]
IntOrPair: TypeAlias = int | Sequence[int]
Generator: TypeAlias = "np.random.Generator | int | None"  # a string: numpy.random is slow to import

REDUCTIONS = ("none", "mean", "sum")
_FLOATING = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def integer(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`; bool is no integer here."""
    if type(value) is int and value >= minimum:
        return value
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` (={value!r}) must be an integer") from None
    if number < minimum:
        raise ValueError(f"`{name}` (={value!r}) must be at least {minimum}")
    return number


def pair(name: str, value: IntOrPair, minimum: int = 1) -> Pair:
    """`value`, an int or a sequence of one or two ints, as a pair (height, width)."""
    if type(value) is int and value >= minimum:
        return value, value
    if type(value) is not tuple and (not isinstance(value, Sequence) or isinstance(value, str)):
        value = (integer(name, value, minimum),)
    if len(value) not in (1, 2):
        raise ValueError(f"`{name}` (={value!r}) must be an int or a pair of ints")
    try:
        first, last = integer(name, value[0], minimum), integer(name, value[-1], minimum)
    except TypeError:
        raise TypeError(f"`{name}` (={value!r}) must be an int or a pair of ints") from None
    except ValueError:
        raise ValueError(f"`{name}` (={value!r}) must be at least {minimum}") from None
    return first, last


def single(name: str, value: IntOrPair, minimum: int = 1) -> int:
    """`value`, an int or a sequence of one int, as an int."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 1:
            raise ValueError(f"`{name}` (={value!r}) must be an int or a sequence of one")
        value = value[0]
    return integer(name, value, minimum)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float within [low, high]."""
    if type(value) is float and low <= value <= high:
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` (={value!r}) must be a number")
    try:
        as_float = float(value)
    except OverflowError:
        raise ValueError(f"`{name}` must be a number that a float can hold") from None
    if (low, high) != (-math.inf, math.inf) and not low <= as_float <= high:
        raise ValueError(f"`{name}` (={value!r}) must be between {low:g} and {high:g}")
    return as_float


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value`, which must be one of the strings in `allowed`."""
    if value not in allowed:
        raise ValueError(f"`{name}` (={value!r}) must be one of {', '.join(map(repr, allowed))}")
    return str(value)


def dimension(name: str, value: Any, ndim: int) -> int:
    """`value`, a dimension of an array of `ndim` (a 0-d one has one, as in PyTorch), counted from 0."""
    ndim = max(1, ndim)
    dim = integer(name, value, minimum=-ndim)
    if dim >= ndim:
        raise ValueError(f"`{name}` (={value}) must be less than the {ndim} dimensions of `input`")
    return dim % ndim


def floating_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """`dtype` as a NumPy dtype, which must be float32 or float64."""
    if np.dtype(dtype) not in _FLOATING:
        raise TypeError(f"`dtype` (={np.dtype(dtype)}) must be float32 or float64")
    return np.dtype(dtype)


def conversion(target: npt.DTypeLike) -> Callable[[Array], Array]:
    """What moves an array to `target`, a device ("cpu" or "cuda"), or converts a floating one to that dtype.

    Raises:
        ValueError: a `target` that is neither.
        RuntimeError: "cuda", and there is no GPU, no driver or no CuPy.
    """
    if target in ("cpu", "cuda"):
        xp = device_module(str(target))
        return lambda array: moved(array, xp)
    try:
        dtype = floating_dtype(target)
    except TypeError:
        raise ValueError(f"`target` (={target!r}) must be 'cpu', 'cuda', float32 or float64") from None
    return lambda array: array.astype(dtype) if array.dtype.kind == "f" else array


def check_arrays(**arrays: Array | None) -> Any:
    """Check that the arrays (None is passed over) are on one device and of one floating dtype.

    Returns the array module of them.
    """
    dtype = None
    for array in arrays.values():  # the usual case first, as this is asked at every step
        if array is not None:
            if type(array) is not np.ndarray or array.dtype is not (dtype or array.dtype):
                break
            dtype = array.dtype
    else:
        if dtype in _FLOATING:
            return np
    try:
        xp = array_module(*arrays.values())
    except TypeError as error:
        raise TypeError(f"{_places(arrays) or ', '.join(f'`{name}`' for name in arrays)}: {error}") from None
    dtypes = {array.dtype for array in arrays.values() if array is not None}
    if len(dtypes) == 1 and dtypes <= _FLOATING:
        return xp
    first_name, first = next((name, array) for name, array in arrays.items() if array is not None)
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype not in _FLOATING:
            raise TypeError(f"`{name}` must be of dtype float32 or float64, got {array.dtype}")
        if array.dtype != first.dtype:
            raise TypeError(
                f"`{name}` (of dtype {array.dtype}) must have the dtype of `{first_name}` ({first.dtype})"
            )
    return xp


def check_kinds(**arrays: Any) -> None:
    """Check that the arrays are NumPy's or CuPy's."""
    for name, array in arrays.items():
        if not isinstance(array, (np.ndarray, np.generic)) and owner(array) != "cupy":
            raise TypeError(
                f"`{name}` must be a numpy.ndarray or cupy.ndarray, not {type(array).__name__}: "
                f"use np.asarray({name}, np.float32)"
            )


def _places(arrays: Mapping[str, Any]) -> str:
    """On which device each of the arrays is; "" where one of them is no array."""
    kinds = {"numpy": "CPU", "cupy": "GPU"}
    owners = {name: owner(array) for name, array in arrays.items() if array is not None}
    if not set(owners.values()) <= set(kinds):
        return ""
    return ", ".join(f"`{name}` on the {kinds[module]}" for name, module in owners.items())


def check_shape(name: str, array: Array, shape: Sequence[int], why: str) -> None:
    """Check that `array` has `shape`; `why` says where the shape comes from."""
    if array.shape != tuple(shape):
        raise ValueError(f"`{name}` (of shape {array.shape}) must have the shape {tuple(shape)} {why}")


def check_ndim(name: str, array: Array, allowed: Sequence[int], form: str) -> None:
    """Check that the number of dimensions of `array` is allowed; `form` names the dimensions."""
    if array.ndim not in allowed:
        raise ValueError(f"`{name}` (of shape {array.shape}) must have the form {form}")


def check_per_channel(input: Array, **arrays: Array | None) -> None:
    """Check that `input` is (N, C, ...) and that the arrays (None is passed over) are (C,)."""
    if input.ndim < 2:
        raise ValueError(f"`input` (of shape {input.shape}) must have the form (N, C, ...)")
    for name, array in arrays.items():
        if array is not None:
            check_shape(name, array, input.shape[1:2], f"for `input` of shape {input.shape}")


def generator(value: Generator) -> "np.random.Generator":
    """`value`, a numpy.random.Generator, a seed or None (fresh entropy), as a Generator."""
    if isinstance(value, np.random.Generator):
        return value
    if value is not None:
        value = integer("generator", value, minimum=0)
    return np.random.default_rng(value)

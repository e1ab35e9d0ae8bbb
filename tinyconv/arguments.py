"""Normalisation and checks of arguments, with one wording for every error.

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
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from tinyconv.arrays import Array, array_module, device_module, moved, owner, refusal, underflow_allowed

Pair: TypeAlias = tuple[int, int]
IntOrPair: TypeAlias = int | Sequence[int]
Generator: TypeAlias = "np.random.Generator | int | None"  # a string: numpy.random is slow to import

T = TypeVar("T")

REDUCTIONS = ("none", "mean", "sum")
# Arguments that may be None where they are not given.
OPTIONAL = frozenset(
    ("weight", "bias", "running_mean", "running_var", "pos_weight", "weight_dot", "bias_dot")
)
LONGEST_SHOWN = 80  # characters of a value in a message
_FLOATING = frozenset((np.dtype(np.float32), np.dtype(np.float64)))


def given(value: Any) -> str:
    """Return the words for any `value` in a message: "=0.5" or "of type dict", and never many."""
    text = "" if isinstance(value, Mapping) else repr(value)
    says_little = text.startswith("<") and not isinstance(value, type)  # <generator object at 0x7f...>
    if not text or says_little or "\n" in text or len(text) > LONGEST_SHOWN:
        return f"of type {type(value).__name__}"
    return f"={text}"


def instance(name: str, value: Any, kind: type[T], cure: str = "") -> T:
    """Return `value`, which must be an instance of `kind`; the message ends with the `cure`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        cure = f": {cure}" if cure else ""
        raise TypeError(f"`{name}` ({given(value)}) must be {article} {kind.__name__}{cure}")
    return value


def boolean(name: str, value: Any) -> bool:
    """Return `value`, True or False, as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` ({given(value)}) must be True or False")
    return bool(value)


def integer(name: str, value: Any, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`; bools are refused."""
    if type(value) is int and value >= minimum:
        return value
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` ({given(value)}) must be an integer") from None
    if number < minimum:
        raise ValueError(f"`{name}` (={value!r}) must be at least {minimum}")
    return number


def integers(name: str, value: Any, minimum: int = 1) -> list[int]:
    """Return `value`, a sequence of ints of at least `minimum`, as a list."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"`{name}` ({given(value)}) must be a sequence of ints")
    return [integer(name, item, minimum) for item in value]


def pair(name: str, value: IntOrPair, minimum: int = 1) -> Pair:
    """Return `value`, an int or a sequence of one or two ints, as a pair (height, width)."""
    if type(value) is int and value >= minimum:
        return value, value
    if type(value) is not tuple and (not isinstance(value, Sequence) or isinstance(value, str)):
        value = (integer(name, value, minimum),)
    if len(value) not in (1, 2):
        raise ValueError(f"`{name}` ({given(value)}) must be an int or a pair of ints")
    try:
        first, last = integer(name, value[0], minimum), integer(name, value[-1], minimum)
    except TypeError:
        raise TypeError(f"`{name}` ({given(value)}) must be an int or a pair of ints") from None
    except ValueError:
        raise ValueError(f"`{name}` (={value!r}) must be at least {minimum}") from None
    return first, last


def single(name: str, value: IntOrPair, minimum: int = 1) -> int:
    """Return `value`, an int or a sequence of one int, as an int."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 1:
            raise ValueError(f"`{name}` ({given(value)}) must be an int or a sequence of one")
        value = value[0]
    return integer(name, value, minimum)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float within [low, high]."""
    if type(value) is float and low <= value <= high:
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` ({given(value)}) must be a number")
    try:
        as_float = float(value)
    except OverflowError:
        raise ValueError(f"`{name}` must be a number in the range of a float") from None
    if (low, high) != (-math.inf, math.inf) and not low <= as_float <= high:
        raise ValueError(f"`{name}` (={value!r}) must be between {low:g} and {high:g}")
    return as_float


def above_zero(name: str, value: Any) -> float:
    """Return `value` as a float above 0."""
    if number(name, value, 0.0) == 0:
        raise ValueError(f"`{name}` (=0) must be above 0")
    return float(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return `value`, which must be one of the strings in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` ({given(value)}) must be one of {', '.join(map(repr, allowed))}")
    return str(value)


def dimension(name: str, value: Any, ndim: int) -> int:
    """Return `value`, a dimension of an array of `ndim` (0-d counts as 1-d), counted from 0."""
    ndim = max(1, ndim)
    dim = integer(name, value, minimum=-ndim)
    if dim >= ndim:
        raise ValueError(f"`{name}` (={value}) must be less than the {ndim} dimensions of `input`")
    return dim % ndim


def floating_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return `dtype` as a NumPy dtype, which must be float32 or float64."""
    if dtype is None or np.dtype(dtype) not in _FLOATING:  # None would be float64 to NumPy
        raise TypeError(f"`dtype` (={dtype and np.dtype(dtype)}) must be float32 or float64")
    return np.dtype(dtype)


def conversion(target: npt.DTypeLike) -> Callable[[Array], Array]:
    """Return a function that moves an array to a device, or converts a floating array to a dtype.

    Raises:
        ValueError: a `target` other than "cpu", "cuda", float32 and float64.
        RuntimeError: "cuda" without a GPU, its driver or CuPy.
    """
    if target in ("cpu", "cuda"):
        xp = device_module(str(target))
        return lambda array: moved(array, xp)
    try:
        dtype = floating_dtype(target)
    except TypeError:
        raise ValueError(f"`target` ({given(target)}) must be 'cpu', 'cuda', float32 or float64") from None
    return underflow_allowed(lambda array: array.astype(dtype) if array.dtype.kind == "f" else array)


def check_arrays(**arrays: Array | None) -> Any:
    """Check that the arrays are on one device and of one floating dtype, that of the first array.

    None is skipped for optional arguments (`OPTIONAL`).

    Returns the array module.
    """
    dtype = None
    for name, array in arrays.items():  # the usual case first, as this is checked in every step
        if array is None:
            if name not in OPTIONAL:
                break
        elif type(array) is not np.ndarray or array.dtype is not (dtype or array.dtype):
            break
        else:
            dtype = array.dtype
    else:
        if dtype in _FLOATING:
            return np
    xp = check_kinds(**arrays)
    given = {name: array for name, array in arrays.items() if array is not None}
    first_name, first = next(iter(given.items()))
    for name, array in given.items():
        if array.dtype not in _FLOATING:
            got = "a structured dtype" if array.dtype.names else array.dtype
            cure = _cure(name, array.dtype, first.dtype)
            raise TypeError(f"`{name}` must be of dtype float32 or float64, got {got}{cure}")
        if array.dtype != first.dtype:
            cure = _cure(name, array.dtype, first.dtype)
            if first_name in OPTIONAL:
                cure += f", or model.to(np.{array.dtype}) for a model's {first_name}"
            must = f"must have the dtype of `{first_name}` ({first.dtype})"
            raise TypeError(f"`{name}` (of dtype {array.dtype}) {must}{cure}")
    return xp


def check_kinds(**arrays: Array | None) -> Any:
    """Check that the arrays are arrays, of any dtype, and on one device; None is skipped as above.

    Returns the array module.
    """
    for array in arrays.values():
        if type(array) is not np.ndarray:
            break
    else:
        return np
    for name, array in arrays.items():
        if (array is not None or name not in OPTIONAL) and (wrong := refusal(name, array)):
            raise TypeError(f"`{name}` {wrong}")
    try:
        return array_module(*arrays.values())
    except TypeError as error:
        kinds = {"numpy": "CPU", "cupy": "GPU"}
        given = ((name, array) for name, array in arrays.items() if array is not None)
        places = ", ".join(f"`{name}` on the {kinds[owner(array)]}" for name, array in given)
        raise TypeError(f"{places}: {error}") from None


def _cure(name: str, dtype: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    """How to convert an array of `dtype` to the `wanted` dtype, or to float32 if that is not floating."""
    x = "x" if name == "input" or not name.isidentifier() else name
    if not dtype.isnative and dtype.newbyteorder("=") in _FLOATING:
        return f': use {x}.astype({x}.dtype.newbyteorder("="))'
    if dtype.kind not in "biuf":
        return ""
    target = wanted if wanted in _FLOATING else np.dtype(np.float32)
    scaled = " (and scale it: see data.normalize)" if dtype == np.uint8 else ""
    return f": use {x}.astype(np.{target}){scaled}"


def check_like(input: Array, **arrays: Array) -> Any:
    """Check that the arrays have the shape, dtype and device of `input`; return their array module."""
    xp = check_arrays(input=input, **arrays)
    for name, array in arrays.items():
        check_shape(name, array, input.shape, "of `input`")
    return xp


def check_shape(name: str, array: Array, shape: Sequence[int], why: str) -> None:
    """Check that `array` has `shape`; `why` says where the shape comes from."""
    if getattr(array, "shape", None) != tuple(shape):
        check_kinds(**{name: array})
        raise ValueError(f"`{name}` (of shape {array.shape}) must have the shape {tuple(shape)} {why}")


def check_ndim(name: str, array: Array, allowed: Sequence[int], form: str) -> None:
    """Check that the number of dimensions of `array` is allowed; `form` names the dimensions."""
    check_kinds(**{name: array})
    if array.ndim not in allowed:
        raise ValueError(f"`{name}` (of shape {array.shape}) must have the form {form}")


def check_per_channel(input: Array, **arrays: Array | None) -> None:
    """Check that `input` is (N, C, ...) and that the arrays (except None) are (C,)."""
    if input.ndim < 2:
        raise ValueError(f"`input` (of shape {input.shape}) must have the form (N, C, ...)")
    for name, array in arrays.items():
        if array is not None:
            check_shape(name, array, input.shape[1:2], f"for `input` of shape {input.shape}")


def generator(value: Generator) -> "np.random.Generator":
    """Return `value`, a numpy.random.Generator, a seed or None (fresh entropy), as a Generator."""
    if isinstance(value, np.random.Generator):
        return value
    if value is not None:
        value = integer("generator", value, minimum=0)
    return np.random.default_rng(value)

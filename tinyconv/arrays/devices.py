"""Devices: which array module an array belongs to, and what differs between NumPy and CuPy.

All maths of this package uses the module of its arrays, numpy or cupy. CuPy is imported only if the user asks
for it.
"""

import functools
import importlib
import sys
from abc import ABC
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Array",
    "array_module",
    "is_array",
    "refusal",
    "owner",
    "gpu_available",
    "device_module",
    "moved",
    "maybe",
    "refused_where",
    "constant",
    "uniform",
    "special",
]

if TYPE_CHECKING:
    Array: TypeAlias = npt.NDArray[Any]  # or cupy.ndarray, which has the same interface
else:

    class Array(ABC):  # noqa: B024  # for `isinstance`
        """An array of NumPy or CuPy.

        A type checker sees `numpy.typing.NDArray[Any]`, which would fill the signatures in `help`.
        """

        __module__ = "builtins"  # whose classes a signature shows by their bare names

        @classmethod
        def __subclasshook__(cls, other: type) -> bool:
            return any(
                kind.__name__ == "ndarray" and kind.__module__.partition(".")[0] in ("numpy", "cupy")
                for kind in other.__mro__
            )


# id of a NumPy generator -> the generator, kept so that no other gets its id, and the GPU's that it has
# seeded.
_seeded: dict[int, tuple[Any, Any]] = {}
MOST_SEEDED = 64


def is_array(value: Any) -> TypeGuard[Array]:
    """Return whether `value` is an array of NumPy or CuPy; a NumPy scalar is not."""
    return isinstance(value, Array)  # type: ignore[misc]


def array_module(*arrays: Any) -> Any:
    """Return the module, numpy or cupy, that all of `arrays` belong to (None is skipped).

    Raises:
        TypeError: one of them is not an array, or computes differently (see `refusal`), or they belong to
            different modules.
    """
    for array in arrays:
        if type(array) is not np.ndarray and array is not None:
            break
    else:
        return np
    for array in arrays:
        if array is not None and (wrong := refusal("", array)):
            raise TypeError(f"an array {wrong}")
    names = {_module_name(array) for array in arrays if array is not None}
    if len(names) > 1:
        raise TypeError("arrays must be on one device, got arrays on the CPU and on the GPU")
    return sys.modules[names.pop()]


def owner(value: Any) -> str:
    """Return the package that the type of `value` belongs to: "numpy" or "cupy" for an array."""
    return type(value).__module__.partition(".")[0]


def _module_name(array: Any) -> str:
    return "numpy" if isinstance(array, (np.ndarray, np.generic)) else owner(array)


def refusal(name: str, value: Any) -> str:
    """Return what is wrong with `value`, the argument `name`, as an array, and the cure; "" if nothing is.

    Subclasses of numpy.ndarray are accepted, such as numpy.memmap, but not those that redefine arithmetic:
    the product of two numpy.matrix is not elementwise, and masked arrays leave values out.
    """
    kind: Any = type(value)
    if isinstance(value, np.generic) or owner(value) == "cupy":
        return ""
    if isinstance(value, np.ndarray) and _computes_plainly(kind):
        return ""
    type_name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    got = "None" if value is None else type_name
    return f"must be a numpy.ndarray or cupy.ndarray, got {got}{_cure(name, value)}"


def _cure(name: str, value: Any) -> str:
    if hasattr(value, "filled"):  # a masked array
        return ": fill it first, x.filled(0)"
    if hasattr(value, "to_numpy"):  # of pandas and similar libraries
        return ": use x.to_numpy()"
    if owner(value) == "torch":
        return ": use x.detach().cpu().numpy()"
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        return ": use np.asarray(x)"
    if not isinstance(value, (list, tuple, int, float)):
        return ""
    return ": use np.asarray(x)" if name.startswith("target") else ": use np.asarray(x, np.float32)"


@functools.cache
def _computes_plainly(kind: type) -> bool:
    """Whether a subclass of numpy.ndarray computes as numpy.ndarray does."""
    methods = ("__array_ufunc__", "__array_function__", "__mul__", "__add__")
    return all(getattr(kind, name) is getattr(np.ndarray, name) for name in methods)


def gpu_available() -> bool:
    """Return whether CuPy is installed and finds a GPU. Never raises."""
    try:
        device_module("cuda")
    except RuntimeError:
        return False
    return True


def device_module(device: str) -> Any:
    """Return the array module of a device: numpy for "cpu", cupy for "cuda".

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
            raise RuntimeError("a GPU was not found")
    except Exception as error:  # CuPy and the libraries under it raise errors without a common base
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise RuntimeError(f"`device` (='cuda') needs a GPU, its driver and CuPy: {reason}") from None
    return cupy


def moved(array: Array, xp: Any) -> Array:
    """Return `array` on the device of the module `xp`, without a copy if it is there already."""
    own = array_module(array)
    if own is xp:
        return array
    there: Array = xp.asarray(array) if own is np else own.asnumpy(array)
    return there


def maybe(condition: Any) -> bool:
    """Return whether `condition`, a 0-d array or a bool, is true; on the GPU True, as reading would block.

    It guards work that has no effect where the condition is false.
    """
    if isinstance(condition, (bool, np.bool_)):
        return bool(condition)
    return array_module(condition) is not np or bool(condition)


def refused_where(wrong: Any, values: Array, error: Callable[[], Exception]) -> Array:
    """Return `values`; where `wrong`, a 0-d array, is true raise the error, or on the GPU return NaN."""
    if not maybe(wrong):
        return values
    xp = array_module(values)
    if xp is np:
        raise error()
    poisoned: Array = xp.where(wrong, np.nan, values)
    return poisoned


@functools.cache
def constant(values: tuple[Any, ...], dtype: str, xp: Any) -> Array:
    """Return `values`, tuples nested or not, as a constant array of the module `xp`.

    It is copied to a GPU once and kept, as nothing can be copied while a CUDA graph is captured.
    """
    array: Array = xp.asarray(values, dtype)
    return array


def uniform(generator: "np.random.Generator", shape: tuple[int, ...], xp: Any) -> Array:
    """Draw float32 in [0, 1) on the device of `xp`: from `generator`, or from one there that it seeds."""
    if xp is np:
        return generator.random(shape, dtype=np.float32)
    if id(generator) not in _seeded:
        if len(_seeded) >= MOST_SEEDED:
            _seeded.pop(next(iter(_seeded)))
        _seeded[id(generator)] = generator, xp.random.default_rng(int(generator.integers(1 << 63)))
    drawn: Array = _seeded[id(generator)][1].random(shape, dtype=np.float32)
    return drawn


def special(xp: Any) -> Any:
    """Return the module of special functions (erf and others) for arrays of the module `xp`."""
    return importlib.import_module("scipy.special" if xp is np else "cupyx.scipy.special")

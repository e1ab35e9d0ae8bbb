"""A stand-in for CuPy without a GPU: arrays that wrap NumPy's and refuse at the border what CuPy refuses.

`installed()` puts the modules `cupy` and `cupyx.scipy.special` in place. Their arrays do not turn into
NumPy arrays by themselves, do not mix with them, and their namespace holds what CuPy offers and no more.
Copies to and from the host go through `asarray` and `asnumpy`, and reading a value counts in `reads`: on a
GPU it would wait.
"""

import importlib.util
import operator
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.special

# What tinyconv may use of CuPy's namespace: each name is in CuPy's reference under the same name.
UFUNCS = """
    absolute add bitwise_and cosh divide divmod equal exp expm1 floor floor_divide greater greater_equal
    invert isfinite isinf isnan less less_equal log log1p logaddexp logical_and logical_not logical_or
    maximum minimum multiply negative not_equal power remainder sign sqrt subtract tanh
"""
FUNCTIONS = """
    all any append arange argmax argmin argsort array_split ascontiguousarray broadcast_to clip
    concatenate copyto count_nonzero cumsum einsum empty empty_like expand_dims eye flip full full_like
    linspace matmul mean moveaxis ones ones_like outer pad prod ravel repeat reshape roll sort split
    squeeze stack std sum swapaxes take take_along_axis tensordot tile transpose unique var vstack where
    zeros zeros_like
"""
CONSTANTS = """
    bool_ dtype float32 float64 inf int32 int64 int8 intp min_scalar_type nan newaxis pi promote_types
    result_type uint8
"""
# numpy.ndarray's methods that cupy.ndarray has too, and that give arrays.
METHODS = """
    all any argmax argmin argsort astype clip copy cumsum dot max mean min nonzero prod ravel repeat
    reshape round sort squeeze std sum swapaxes take transpose var view
"""
OPERATORS = """
    add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod
"""

reads = 0


def count_read() -> None:
    global reads
    reads += 1


def to_host(value: Any) -> Any:
    """The NumPy array inside, in lists and tuples as well; NumPy's own arrays are refused."""
    if isinstance(value, ndarray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_host, value))
    return value


def to_device(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    return tuple(map(to_device, value)) if type(value) is tuple else value


def on_hosts(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of NumPy as one of this module."""

    def call(*arguments: Any, **options: Any) -> Any:
        if "where" in options and isinstance(function, np.ufunc):
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument 'where'")
        out = options.get("out")
        hosts = {key: to_host(option) for key, option in options.items()}
        result = function(*map(to_host, arguments), **hosts)
        return to_device(result) if out is None else out

    return call


class ndarray:  # noqa: N801 (CuPy's name)
    """Stands for cupy.ndarray."""

    __module__ = "cupy"

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self.host = host

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in UFUNCS.split():
            return NotImplemented
        options["out"] = options["out"][0] if "out" in options else None
        return on_hosts(ufunc)(*inputs, **{key: value for key, value in options.items() if value is not None})

    def __array_function__(self, function: Any, _: Any, arguments: Any, options: Any) -> Any:
        if function.__name__ not in FUNCTIONS.split():
            return NotImplemented
        return on_hosts(function)(*arguments, **options)

    # Reading a value: the host waits for the device.

    def item(self) -> Any:
        count_read()
        return self.host.item()

    def get(self) -> Any:
        count_read()
        return self.host.copy()

    def tolist(self) -> Any:
        count_read()
        return self.host.tolist()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __repr__(self) -> str:
        count_read()
        return f"on the device: {self.host!r}"

    # What needs no look at the values.

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator["ndarray"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> "ndarray":
        parts = index if isinstance(index, tuple) else (index,)
        if any(getattr(part, "dtype", np.dtype(int)).kind == "b" for part in parts):
            count_read()  # how many there are
        return ndarray(np.asarray(self.host[to_host(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[to_host(index)] = to_host(value)

    def fill(self, value: Any) -> None:
        self.host.fill(value)

    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(lambda self: self.host.flags)
    T = property(lambda self: ndarray(self.host.T))
    device = property(lambda self: "cuda:0")


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **options: on_hosts(getattr(np.ndarray, name))(
        self, *arguments, **options
    )


def _binary(name: str) -> Callable[..., Any]:
    """An operator; with a NumPy array beside it, it raises instead of leaving it to NumPy."""
    return lambda self, other: on_hosts(getattr(np.ndarray, name))(self, other)


def _in_place(name: str) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> ndarray:
        getattr(np.ndarray, name)(self.host, to_host(other))
        return self

    return call


for _name in METHODS.split():
    setattr(ndarray, _name, _method(_name))
for _name in OPERATORS.split():
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _binary(f"__r{_name}__"))
    if _name != "divmod":
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(ndarray, f"__{_name}__", _binary(f"__{_name}__"))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _method(f"__{_name}__"))


def asarray(value: Any, dtype: Any = None, order: Any = None) -> ndarray:
    """From the host too: this copy is meant."""
    host = value.host if isinstance(value, ndarray) else value
    return ndarray(np.asarray(host, dtype, order))


def array(value: Any, dtype: Any = None, copy: bool = True, order: Any = "K") -> ndarray:
    host = value.host if isinstance(value, ndarray) else value
    return ndarray(np.array(host, dtype, copy=copy, order=order))


def asnumpy(value: ndarray) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = value.get()
    return array


class Generator:
    """Stands for cupy.random.Generator."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def random(self, size: Any, dtype: Any = np.float64) -> ndarray:
        return ndarray(self._generator.random(size, dtype))


def _module(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.util.spec_from_loader(name, None)
    vars(module).update(contents)
    return module


def modules() -> dict[str, types.ModuleType]:
    """The modules that stand for CuPy's."""
    tricks = {
        name: on_hosts(getattr(np.lib.stride_tricks, name)) for name in ("as_strided", "sliding_window_view")
    }
    lib = _module("cupy.lib", stride_tricks=_module("cupy.lib.stride_tricks", **tricks))
    runtime = _module("cupy.cuda.runtime", getDeviceCount=lambda: 1)
    contents: dict[str, Any] = {name: on_hosts(getattr(np, name)) for name in (UFUNCS + FUNCTIONS).split()}
    contents |= {name: getattr(np, name) for name in CONSTANTS.split()}
    random = _module("cupy.random", default_rng=Generator)
    contents |= {
        "random": random,
        "ndarray": ndarray,
        "asarray": asarray,
        "array": array,
        "asnumpy": asnumpy,
        "lib": lib,
    }
    cupy = _module("cupy", cuda=_module("cupy.cuda", runtime=runtime), **contents)
    names = ("erf", "expit", "log_ndtr", "ndtr")
    special = _module(
        "cupyx.scipy.special", **{name: on_hosts(getattr(scipy.special, name)) for name in names}
    )
    scipy_module = _module("cupyx.scipy", special=special)
    cupyx = _module("cupyx", scipy=scipy_module)
    return {"cupy": cupy, "cupyx": cupyx, "cupyx.scipy": scipy_module, "cupyx.scipy.special": special}


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """`cupy` is this stand-in meanwhile."""
    before = {name: sys.modules.get(name) for name in modules()}
    sys.modules.update(modules())
    try:
        yield sys.modules["cupy"]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

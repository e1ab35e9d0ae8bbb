"""A stand-in for CuPy without a GPU: arrays that wrap NumPy's and refuse at the border what CuPy refuses.

`installed()` puts the modules `cupy`, `cupyx` and `cupyx.scipy.special` in place, and a library for cuBLAS.
Their arrays do not turn into NumPy arrays by themselves, do not mix with them, and their namespace holds what
CuPy offers and no more. Copies to and from the host go through `asarray` and `asnumpy`, and reading a value
counts in `reads`: on a GPU it would wait.

A stream can be captured. What happens meanwhile is written down and undone at the end, as a GPU only runs it
when the graph is launched; reads, copies from the host, random numbers and CuPy's own products are refused.
"""

import ctypes
import importlib.util
import operator
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.special

from tinyconv.gpu import cublas

library = cublas.library

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
free_memory = 1 << 34
tape: "Graph | None" = None  # what is being captured


def count_read() -> None:
    global reads
    reads += 1
    refuse_in_capture("a read")


def refuse_in_capture(what: str, error: type[Exception] = RuntimeError) -> None:
    if tape is not None:
        raise error(f"{what} is not permitted when a stream is capturing")


class Graph:
    """Stands for cupy.cuda.Graph: calls that write into arrays."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.before: list[tuple[Any, Any]] = []

    def launch(self) -> None:
        for call in self.calls:
            call()

    def undo(self) -> None:
        """Leave the arrays as they were, and new ones without a value."""
        for array, values in reversed(self.before):
            array[...] = values
        self.before.clear()


def made(compute: Callable[[], Any], *sources: Any) -> Any:
    """What `compute` makes on the hosts; a view of `sources` is made once, anything else at each launch."""
    result = compute()
    if tape is not None:
        results, many = (result, True) if type(result) is tuple else ((result,), False)
        if not any(np.may_share_memory(r, s) for r in results for s in sources if isinstance(s, np.ndarray)):
            results = tuple(map(np.asarray, results))

            def again() -> None:
                new = compute()
                for target, value in zip(results, new if many else (new,), strict=True):
                    target[...] = value

            tape.calls.append(again)
            tape.before += [(r, 99 if r.dtype.kind in "iub" else np.nan) for r in results]
            return results if many else results[0]
    return result


def written(write: Callable[[], object], target: Any) -> None:
    """Run `write`, which changes the host array `target`."""
    if tape is not None:
        tape.before.append((target, target.copy()))
        tape.calls.append(write)
    write()


def to_host(value: Any) -> Any:
    """The NumPy array inside, in lists and tuples as well; NumPy's own arrays are refused."""
    if isinstance(value, ndarray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)):
        return type(value)(map(to_host, value))
    return value


def to_place(index: Any) -> Any:
    """An index for the host's array; a list would be copied to the device."""
    if any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,))):
        refuse_in_capture("a copy from the host")
    return to_host(index)


def to_device(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic, int)):  # int: count_nonzero of NumPy 2.0
        return ndarray(np.asarray(value))
    return tuple(map(to_device, value)) if type(value) is tuple else value


def on_hosts(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of NumPy as one of this module."""

    def call(*arguments: Any, **options: Any) -> Any:
        if "where" in options and isinstance(function, np.ufunc):
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument 'where'")
        if not isinstance(function, np.ufunc) and options.keys() & {"where", "initial"}:
            raise TypeError(f"{function.__name__}() got an unexpected keyword argument")
        if function is np.where and not isinstance(arguments[0], ndarray):
            raise AttributeError("the condition has no attribute 'astype'")
        if function.__name__ in ("nonzero", "unique"):
            count_read()  # how many there are
        if function in (np.stack, np.concatenate) and len(arguments[0]) > 8:
            refuse_in_capture("a copy of addresses from the host")
        if function is np.matmul:
            refuse_in_capture("calling cuBLAS API", NotImplementedError)
        out = options.get("out")
        hosts = {key: to_host(option) for key, option in options.items()}
        inputs = tuple(map(to_host, arguments))
        if (
            function is np.matmul
        ):  # CuPy copies what is not contiguous: overlapping windows are an im2col there
            inputs = tuple(map(np.ascontiguousarray, inputs))
        if out is not None:
            written(lambda: function(*inputs, **hosts), out.host)
            return out
        return to_device(made(lambda: function(*inputs, **hosts), *_flat(inputs)))

    return call


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        yield from _flat(value) if isinstance(value, (list, tuple)) else (value,)


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
        place = to_place(index)
        return ndarray(np.asarray(made(lambda: np.asarray(self.host[place]), self.host)))

    def __setitem__(self, index: Any, value: Any) -> None:
        if any(getattr(part, "dtype", None) == np.dtype(bool) for part in _flat([index])):
            count_read()  # how many there are, though only to write to them
        place, values = to_place(index), to_host(value)
        written(lambda: self.host.__setitem__(place, values), self.host)

    def fill(self, value: Any) -> None:
        if getattr(value, "ndim", 0):
            raise ValueError("CuPy fills with scalars and 0-d arrays")
        values = to_host(value)
        written(lambda: self.host.fill(values), self.host)

    def set(self, values: np.ndarray[Any, Any], stream: Any = None) -> None:
        refuse_in_capture("a copy from the host")
        if not isinstance(values, np.ndarray) or not self.host.flags.c_contiguous:
            raise TypeError("CuPy copies NumPy arrays to contiguous ones")
        self.host[...] = values

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
    data = property(lambda self: types.SimpleNamespace(ptr=self.host.ctypes.data, array=self.host))


def _method(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **options: on_hosts(getattr(np.ndarray, name))(
        self, *arguments, **options
    )


def _binary(name: str) -> Callable[..., Any]:
    """An operator; with a NumPy array beside it, it raises instead of leaving it to NumPy."""
    return lambda self, other: on_hosts(getattr(np.ndarray, name))(self, other)


def _in_place(name: str) -> Callable[..., Any]:
    def call(self: ndarray, other: Any) -> ndarray:
        value = to_host(other)
        written(lambda: getattr(np.ndarray, name)(self.host, value), self.host)
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
    return _from(lambda host: np.asarray(host, dtype, order), value)


def array(value: Any, dtype: Any = None, copy: bool = True, order: Any = "K") -> ndarray:
    return _from(lambda host: np.array(host, dtype, copy=copy, order=order), value)


def _from(convert: Callable[[Any], Any], value: Any) -> ndarray:
    if not isinstance(value, ndarray):
        refuse_in_capture("a copy from the host")
        return ndarray(convert(value))
    return ndarray(made(lambda: convert(value.host), value.host))


def asnumpy(value: ndarray) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = value.get()
    return array


class Generator:
    """Stands for cupy.random.Generator."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def random(self, size: Any, dtype: Any = np.float64) -> ndarray:
        refuse_in_capture("calling cuRAND API", NotImplementedError)
        return ndarray(self._generator.random(size, dtype))


class Stream:
    """Stands for cupy.cuda.Stream; everything happens at once."""

    ptr = 1

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.graph: Graph | None = None

    def __enter__(self) -> "Stream":
        streams.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        streams.pop()

    def begin_capture(self) -> None:
        global tape
        if streams[-1] is not self or self is streams[0]:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        tape = self.graph = Graph()

    def end_capture(self) -> Graph:
        global tape
        tape, graph = None, self.graph
        assert graph is not None
        graph.undo()
        return graph

    def wait_event(self, event: "Event") -> None:
        refuse_in_capture("waiting")

    def synchronize(self) -> None:
        refuse_in_capture("waiting")


class Event:
    """Stands for cupy.cuda.Event."""

    def record(self, stream: Stream | None = None) -> None:
        refuse_in_capture("an event")

    def synchronize(self) -> None:
        refuse_in_capture("waiting")


streams = [Stream(null=True)]


class MemoryPool:
    """Stands for cupy.cuda.MemoryPool."""

    def malloc(self, size: int) -> None: ...


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    yield


def fuse(kernel_name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As cupy.fuse: of arrays, numbers and None."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            for argument in arguments:
                if not isinstance(argument, (ndarray, np.generic, int, float, type(None))):
                    raise TypeError(f"Invalid argument type for {kernel_name!r}: {type(argument)}")
            return function(*arguments)

        return call

    return decorate


class CuBLAS:
    """Stands for the library: matrices by columns, in memory of the host."""

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:  # noqa: N802
        return 0 if handle.value and stream.value else 1

    def cublasGemmStridedBatchedEx(self, *arguments: Any) -> int:  # noqa: N802
        """Of stacks whose matrices have one distance."""
        *first, alpha, a, kind, lda, stride_a, b, _, ldb, stride_b, beta, c, _, ldc, stride_c = arguments[:-3]
        count = arguments[-3]
        starts = [
            [pointer.value + number * stride.value * DTYPES[kind].itemsize for number in range(count)]
            for pointer, stride in ((a, stride_a), (b, stride_b), (c, stride_c))
        ]
        return _gemm(first, (alpha, beta), lambda: starts, (lda, ldb, ldc), DTYPES[kind], arguments[-2:])

    def cublasGemmBatchedEx(self, *arguments: Any) -> int:  # noqa: N802
        """Of the matrices whose addresses are in three arrays on the device."""
        *first, alpha, a, kind, lda, b, _, ldb, beta, c, _, ldc = arguments[:-3]
        count = arguments[-3]

        def starts() -> list[list[int]]:
            return [list((ctypes.c_int64 * count).from_address(table.value)) for table in (a, b, c)]

        return _gemm(first, (alpha, beta), starts, (lda, ldb, ldc), DTYPES[kind], arguments[-2:])


DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype(np.float32), 1: np.dtype(np.float64)}


def _gemm(
    first: Any,
    factors: Any,
    starts: Callable[[], list[list[int]]],
    leading: tuple[int, ...],
    dtype: Any,
    options: Any,
) -> int:
    """Multiply matrices by columns, one after another; `starts` has the addresses when it runs."""
    (handle, transa, transb, m, n, k), (compute, algorithm) = first, options
    number = {68: ctypes.c_float, 70: ctypes.c_double}[compute]
    values = [ctypes.cast(p, ctypes.POINTER(number)).contents.value for p in factors]
    if not handle.value or values not in ([1, 0], [1, 1]) or algorithm != -1 or min(m, n, k) < 1:
        return 7
    forms = ((m, k), transa), ((k, n), transb), ((m, n), 0)

    def matrices() -> Iterator[list[Any]]:
        for each in zip(*starts(), strict=True):
            operands = zip(each, leading, forms, strict=True)
            yield [_matrix(start, ld, *form, dtype) for start, ld, form in operands]

    def multiply() -> None:
        for a, b, c in matrices():
            c[...] = a @ b + (c if values[1] else 0)

    if tape is not None:
        tape.before += [(c, c.copy()) for _, _, c in matrices()]
        tape.calls.append(multiply)
    multiply()
    return 0


def _matrix(start: int, leading: int, shape: tuple[int, int], transposed: int, dtype: Any) -> Any:
    """The matrix at an address, stored by columns."""
    rows, columns = shape[::-1] if transposed else shape
    assert leading >= max(1, rows), "the leading dimension is shorter than a column"
    length = (columns - 1) * leading + rows
    memory = np.frombuffer((ctypes.c_char * (length * dtype.itemsize)).from_address(start), dtype)
    strides = (dtype.itemsize, leading * dtype.itemsize)
    matrix = np.lib.stride_tricks.as_strided(memory, (rows, columns), strides)
    return matrix.T if transposed else matrix


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
    runtime = _module(
        "cupy.cuda.runtime",
        getDeviceCount=lambda: 1,
        runtimeGetVersion=lambda: 12090,
        memGetInfo=lambda: (free_memory, 1 << 34),
    )
    cuda = _module(
        "cupy.cuda",
        runtime=runtime,
        Stream=Stream,
        Event=Event,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        get_current_stream=lambda: streams[-1],
        Device=lambda: types.SimpleNamespace(cublas_handle=1),
    )
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
    pool = types.SimpleNamespace(free_all_blocks=lambda: None)
    cupy = _module("cupy", cuda=cuda, fuse=fuse, get_default_memory_pool=lambda: pool, **contents)
    names = ("erf", "expit", "log_ndtr", "ndtr")
    special = _module(
        "cupyx.scipy.special", **{name: on_hosts(getattr(scipy.special, name)) for name in names}
    )
    scipy_module = _module("cupyx.scipy", special=special)
    cupyx = _module("cupyx", scipy=scipy_module, empty_pinned=np.empty)
    return {"cupy": cupy, "cupyx": cupyx, "cupyx.scipy": scipy_module, "cupyx.scipy.special": special}


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """`cupy` is this stand-in meanwhile."""
    before = {name: sys.modules.get(name) for name in modules()}
    sys.modules.update(modules())
    cublas.library = lambda xp: CuBLAS()  # type: ignore[assignment]
    try:
        yield sys.modules["cupy"]
    finally:
        cublas.library = library
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

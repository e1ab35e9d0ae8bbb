"""Sliding windows over drawn geometries: against PyTorch, plain loops and scipy, and what algebra demands."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
import scipy.signal

import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare, layouts
from tests.hypothesis_or_skip import HealthCheck, assume, event, given, settings, st
from tinyconv import reference
from tinyconv.arrays import Array
from tinyconv.functional.conv.algorithms import INPUT, OUTPUT, WEIGHT, Algorithm
from tinyconv.functional.conv.geometry import conv_geometry

Sizes: TypeAlias = tuple[int, ...]

ALGORITHMS = (OUTPUT, INPUT, WEIGHT)

# too_slow would let the load of the machine decide.
few = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
many = settings(few, max_examples=300)

LAYOUTS = (
    "C order",
    "Fortran order",
    "stored",
    "batch last",
    "reversed",
    "every second element",
    "read-only",
    "broadcast batch",
    "broadcast columns",
)
seeds = st.integers(0, 1000)
layout_names = st.sampled_from(LAYOUTS)
batches: st.SearchStrategy[Sizes] = st.sampled_from([(1,), (), (0,), (2,), (3,)])  # () is unbatched


def normal(shape: Sizes, *seed: int, layout: str = "C order", dtype: Any = np.float64) -> Array:
    """Normal values in a memory layout; the broadcast ones repeat their first sample or column."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    if layout == "broadcast batch":
        return np.broadcast_to(x[:1], shape)
    if layout == "broadcast columns":
        return np.broadcast_to(x[..., :1], shape)
    return dict(layouts(x))[layout]


def plain(x: Array) -> Array:
    """A copy in C order."""
    return np.array(x, order="C")


class Sliding(NamedTuple):
    """A drawn window over an image of `size`, in one or two directions, and the values' seed and layouts."""

    batch: Sizes
    channels: int
    size: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    seed: int
    layouts: tuple[str, str, str]

    @property
    def input_size(self) -> Sizes:
        return *self.batch, self.channels, *self.size

    @property
    def extent(self) -> Sizes:
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def spare(self) -> Sizes:
        """How far the window can move."""
        sizes = zip(self.size, self.padding, self.extent, strict=True)
        return tuple(h + 2 * p - extent for h, p, extent in sizes)

    @property
    def positions(self) -> Sizes:
        return tuple(room // s + 1 for room, s in zip(self.spare, self.stride, strict=True))

    @property
    def unread(self) -> Sizes:
        """The rows and columns at the end that no window reaches."""
        return tuple(room % s for room, s in zip(self.spare, self.stride, strict=True))

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def values(self, shape: Sizes, which: int, dtype: Any = np.float64) -> Array:
        return normal(shape, self.seed, which, layout=self.layouts[which], dtype=dtype)

    def batched(self, x: Array) -> Array:
        """A copy of `x` in C order, with a batch of one where there was none: what the loops take."""
        return plain(x) if self.batch else plain(x)[None]

    def input(self, dtype: Any = np.float64) -> Array:
        return self.values(self.input_size, 0, dtype)


class Convolution(NamedTuple):
    """A drawn convolution; `groups` divides `window.channels` and `outputs`."""

    window: Sliding
    outputs: int
    groups: int

    @property
    def weight_size(self) -> Sizes:
        return self.outputs, self.window.channels // self.groups, *self.window.kernel

    @property
    def output_size(self) -> Sizes:
        return *self.window.batch, self.outputs, *self.window.positions

    @property
    def options(self) -> dict[str, Any]:
        return {**self.window.geometry, "groups": self.groups}

    def arrays(self, dtype: Any = np.float64) -> tuple[Array, Array, Array]:
        """Input, weight and cotangent."""
        weight = self.window.values(self.weight_size, 1, dtype)
        return self.window.input(dtype), weight, self.window.values(self.output_size, 2, dtype)

    def bias(self, dtype: Any = np.float64) -> Array:
        return normal((self.outputs,), self.window.seed, 3, dtype=dtype)

    @property
    def corners(self) -> Iterator[str]:
        """The names of the corner cases that this is one of."""
        window, kernel = self.window, self.window.kernel
        square = len(kernel) == 2
        yield f"batch {window.batch}"
        yield from {f"layout {name}" for name in window.layouts}
        if any(window.unread):
            yield "stride does not divide"
        if any(k % 2 == 0 for k in kernel):
            yield "even kernel"
        if square and 1 in kernel and kernel != (1, 1):
            yield "1xN kernel" if kernel[0] == 1 else "Nx1 kernel"
        if self.groups == window.channels > 1:
            yield "depthwise" if self.outputs == self.groups else "depthwise, more outputs"
        if square:
            yield from {f"algorithm {name}" for table in ALGORITHMS for name in self.served(table)}

    def served(self, table: dict[str, Algorithm]) -> list[str]:
        """The algorithms that can compute this convolution."""
        size = *(self.window.batch or (1,)), self.window.channels, *self.window.size
        geometry = conv_geometry(size, self.weight_size, groups=self.groups, **self.window.geometry)
        return [name for name, algorithm in table.items() if algorithm.supports(geometry)]


@st.composite
def directions(draw: st.DrawFn, tiled: bool, kernels: Sizes) -> Sizes:
    """Size, kernel, stride, padding and dilation of one direction; the window fits."""
    kernel = draw(st.sampled_from(kernels))
    padding = draw(st.sampled_from((0, 0, 1, 2)))
    stride = 1 if tiled else draw(st.sampled_from((1, 2, 2, 3)))
    dilation = 1 if tiled else draw(st.sampled_from((1, 1, 2, 3)))
    extent = dilation * (kernel - 1) + 1
    most = max(1, (8 - extent) // stride + 1)
    positions = draw(st.sampled_from((2, 4, 6)) if tiled else st.integers(1, most))
    unread = draw(st.integers(0, stride - 1))
    size = extent + (positions - 1) * stride + unread - 2 * padding
    return max(1, size), kernel, stride, padding, dilation


@st.composite
def slidings(draw: st.DrawFn, dims: int = 2, channels: int = 0, tiled: bool = False) -> Sliding:
    """`channels` 0 draws them."""
    thin = draw(st.sampled_from((None, None, 0, 1)))
    every, wide, one = (1, 3, 2, 4), (3, 2, 4), (1,)
    kernels = [every if thin is None else one if axis == thin else wide for axis in range(dims)]
    drawn = [draw(directions(tiled, k)) for k in kernels]
    size, kernel, stride, padding, dilation = zip(*drawn, strict=True)
    layouts = draw(st.tuples(layout_names, layout_names, layout_names))
    channels = channels or draw(st.integers(1, 3))
    return Sliding(draw(batches), channels, size, kernel, stride, padding, dilation, draw(seeds), layouts)


@st.composite
def convolutions(draw: st.DrawFn, dims: int = 2) -> Convolution:
    kind = draw(st.sampled_from(("plain", "tiled", "tiled", "groups", "depthwise")))
    groups = draw(st.integers(2, 4)) if kind == "depthwise" else 2 if kind == "groups" else 1
    inner = 1 if kind == "depthwise" else draw(st.integers(1, 3))
    outer = draw(st.integers(1, 2) if kind == "depthwise" else st.integers(1, 3))
    window = draw(slidings(dims, inner * groups, tiled=kind == "tiled"))
    return Convolution(window, outer * groups, groups)


def sees_pixels(window: Sliding) -> bool:
    """Whether every window sees a pixel, and so has a maximum."""
    rows = zip(window.size, window.kernel, window.stride, window.padding, window.dilation, strict=True)
    return all(
        any(0 <= start + tap * dilation < size for tap in range(kernel))
        for size, kernel, stride, padding, dilation in rows
        for start in range(-padding, 0, stride)
    )


@st.composite
def poolings(draw: st.DrawFn) -> Sliding:
    """Windows whose padding is at most half of the kernel."""
    window = draw(slidings())
    padding = tuple(min(p, k // 2) for p, k in zip(window.padding, window.kernel, strict=True))
    least = zip(window.size, window.extent, padding, strict=True)
    size = tuple(max(h, extent - 2 * p) for h, extent, p in least)
    return window._replace(padding=padding, size=size)


@st.composite
def oversized(draw: st.DrawFn, of: st.SearchStrategy[Sliding]) -> Sliding:
    """A window that is just too large for its image in one direction."""
    window = draw(of)
    axis = draw(st.integers(0, len(window.size) - 1))
    size, padding, dilation = window.size[axis], window.padding[axis], window.dilation[axis]
    too_large = -(-(size + 2 * padding) // dilation) + 1
    return window._replace(kernel=(*window.kernel[:axis], too_large, *window.kernel[axis + 1 :]))


def assert_adjoint(x: Array, grad: Array, y: Array, cotangent: Array, what: str = "") -> None:
    """<x, grad> == <y, cotangent>, up to rounding of the products."""
    products = y * cotangent
    assert_close(np.sum(x * grad), np.sum(products), what, np.abs(products).sum())


def assert_linear(function: Callable[[Array], Array], x: Array) -> None:
    other = normal(x.shape, 77)
    expected = 2.5 * function(x) - function(other)
    assert_close(function(2.5 * x - other), expected, scale=10.0)


def torch_functional() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is the oracle").nn.functional


# Convolution


def test_corner_cases_are_drawn_often() -> None:
    seen: Counter[str] = Counter()

    @many
    @given(convolutions())
    def draw(case: Convolution) -> None:
        seen.update(case.corners)

    draw()
    wanted = {
        *(f"batch {batch}" for batch in [(), (0,), (1,), (2,)]),
        *(f"layout {name}" for name in LAYOUTS),
        *("stride does not divide", "even kernel", "1xN kernel", "Nx1 kernel"),
        *("depthwise", "depthwise, more outputs"),
        *(f"algorithm {name}" for table in ALGORITHMS for name in table),
    }
    assert {corner for corner in wanted if seen[corner] < 8} == set(), seen


@many
@given(convolutions(), st.booleans())
def test_conv2d_agrees_with_pytorch(case: Convolution, bias: bool) -> None:
    x, w, _ = case.arrays()
    arrays = [x, w, case.bias() if bias else None]
    compare(F.conv2d, F.conv2d_backward, torch_functional().conv2d, arrays, **case.options)


@many
@given(convolutions())
def test_every_algorithm_agrees_with_that_of_columns(case: Convolution) -> None:
    x, w, g = case.arrays()
    b = case.bias()
    for table, function, arguments in (
        (OUTPUT, F.conv2d, (x, w, b)),
        (INPUT, F.conv2d_input, (x.shape, w, g)),
        (WEIGHT, F.conv2d_weight, (x, w.shape, g)),
    ):
        call = partial(function, *arguments, **case.options)
        expected = call(algorithm="columns")
        for name in case.served(table):
            assert_close(call(algorithm=name), expected, name)


@few
@given(convolutions())
def test_conv2d_agrees_with_pytorch_in_float32(case: Convolution) -> None:
    x, w, _ = case.arrays(np.float32)
    arrays = [x, w, case.bias(np.float32)]
    compare(F.conv2d, F.conv2d_backward, torch_functional().conv2d, arrays, **case.options)


@few
@given(convolutions())
def test_same_padding_agrees_with_pytorch_and_with_a_padded_image(case: Convolution) -> None:
    window = case.window._replace(stride=(1, 1))
    x, w, _ = case.arrays()
    options: dict[str, Any] = {"dilation": window.dilation, "groups": case.groups}
    total = [extent - 1 for extent in window.extent]
    around = [(t // 2, t - t // 2) for t in total]
    wide = np.pad(x, [(0, 0)] * (x.ndim - 2) + around)
    assert_close(F.conv2d(x, w, padding="same", **options), F.conv2d(wide, w, **options))
    options["padding"] = "same"
    compare(F.conv2d, F.conv2d_backward, torch_functional().conv2d, [x, w], **options)


def for_loops(geometry: dict[str, Any]) -> dict[str, Any]:
    """The loops take pairs in two directions, and ints in one."""
    return {name: value if len(value) == 2 else value[0] for name, value in geometry.items()}


def loops_agree(case: Convolution, ours: Any, ours_backward: Any, loops: Any, loops_backward: Any) -> None:
    x, w, g = case.arrays()
    b = case.bias()
    y, grads = ours(x, w, b, **case.options), ours_backward(g, x, w, b, **case.options)
    options = {**for_loops(case.window.geometry), "groups": case.groups}
    dx, dw, db = loops_backward(case.window.batched(g), case.window.batched(x), w, **options)
    assert_close(y, loops(case.window.batched(x), w, b, **options).reshape(y.shape), "output")
    for grad, expected in zip(grads, (dx.reshape(x.shape), dw, db), strict=True):
        assert_close(grad, expected, "gradient")


@many
@given(convolutions())
def test_conv2d_agrees_with_plain_loops(case: Convolution) -> None:
    for corner in case.corners:
        event(corner)
    loops_agree(case, F.conv2d, F.conv2d_backward, reference.conv2d, reference.conv2d_backward)


@few
@given(convolutions(dims=1), st.booleans())
def test_conv1d_agrees_with_pytorch(case: Convolution, bias: bool) -> None:
    x, w, _ = case.arrays()
    arrays = [x, w, case.bias() if bias else None]
    compare(F.conv1d, F.conv1d_backward, torch_functional().conv1d, arrays, **case.options)


@few
@given(convolutions(dims=1))
def test_conv1d_agrees_with_plain_loops(case: Convolution) -> None:
    loops_agree(case, F.conv1d, F.conv1d_backward, reference.conv1d, reference.conv1d_backward)


@few
@given(oversized(slidings()), oversized(slidings(dims=1)))
def test_windows_larger_than_the_padded_input_are_refused(window: Sliding, line: Sliding) -> None:
    argument = "`(kernel_size|weight|input)`"
    for each, conv in ((window, F.conv2d), (line, F.conv1d)):
        x, w = each.input(), np.ones((1, each.channels, *each.kernel))
        with pytest.raises(ValueError, match=argument):
            conv(x, w, **each.geometry)
    for conv_map in (
        partial(F.conv2d_input, window.input_size, np.ones((1, window.channels, *window.kernel))),
        partial(F.conv2d_weight, window.input(), (1, window.channels, *window.kernel)),
    ):
        with pytest.raises(ValueError, match=argument):
            conv_map(np.ones((*window.batch, 1, 1, 1)), **window.geometry)
    with pytest.raises(ValueError, match=argument):
        F.unfold(window.input(), window.kernel, **window.geometry)


def torch_refuses_too(name: str, window: Sliding, *arguments: Any, **options: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    arrays = [plain(window.input()), *arguments]
    tensors = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    both_refuse(
        partial(getattr(F, name), *arrays, **options),
        partial(getattr(torch.nn.functional, name), *tensors, **options),
        "`(kernel_size|weight|input)`",
    )


@few
@given(oversized(slidings()), oversized(slidings(dims=1)), oversized(poolings()))
def test_windows_larger_than_the_padded_input_are_refused_by_pytorch_too(
    window: Sliding, line: Sliding, pool: Sliding
) -> None:
    for name, each in (("conv2d", window), ("conv1d", line)):
        torch_refuses_too(name, each, np.ones((1, each.channels, *each.kernel)), **each.geometry)
    torch_refuses_too("unfold", window, window.kernel, **window.geometry)
    torch_refuses_too("max_pool2d", pool, pool.kernel, **pool.geometry)
    torch_refuses_too("avg_pool2d", pool, pool.extent, pool.stride, pool.padding)


@many
@given(convolutions())
def test_the_three_maps_of_convolution_are_adjoint_and_linear(case: Convolution) -> None:
    x, w, g = case.arrays()
    output: Any = partial(F.conv2d, **case.options)
    by_input: Any = partial(F.conv2d_input, x.shape, **case.options)
    by_weight: Any = partial(F.conv2d_weight, weight_size=w.shape, **case.options)
    y = output(x, w)
    assert_adjoint(x, by_input(w, g), y, g, "conv2d_input")
    assert_adjoint(w, by_weight(x, grad_output=g), y, g, "conv2d_weight")
    assert_linear(lambda x: output(x, w), x)
    assert_linear(lambda w: output(x, w), w)
    assert_linear(lambda w: by_input(w, g), w)
    assert_linear(lambda g: by_input(w, g), g)
    assert_linear(lambda x: by_weight(x, grad_output=g), x)
    assert_linear(lambda g: by_weight(x, grad_output=g), g)


@few
@given(convolutions(dims=1))
def test_the_three_maps_of_convolution_in_one_direction_are_adjoint(case: Convolution) -> None:
    x, w, g = case.arrays()
    y = F.conv1d(x, w, **case.options)
    assert_adjoint(x, F.conv1d_input(x.shape, w, g, **case.options), y, g, "conv1d_input")
    assert_adjoint(w, F.conv1d_weight(x, w.shape, g, **case.options), y, g, "conv1d_weight")


@many
@given(convolutions())
def test_every_memory_layout_gives_the_same_convolution(case: Convolution) -> None:
    x, w, g = case.arrays()
    b = case.bias()
    copies = plain(x), plain(w), b
    assert_close(F.conv2d(x, w, b, **case.options), F.conv2d(*copies, **case.options))
    grads = F.conv2d_backward(g, x, w, b, **case.options)
    for grad, expected in zip(grads, F.conv2d_backward(plain(g), *copies, **case.options), strict=True):
        assert_close(grad, expected)


def spread(x: Array, steps: Sizes) -> Array:
    """`x` with steps - 1 zeros between its rows and columns."""
    size = tuple((n - 1) * step + 1 for n, step in zip(x.shape[-2:], steps, strict=True))
    wide = np.zeros((*x.shape[:-2], *size))
    wide[..., :: steps[0], :: steps[1]] = x
    return wide


@many
@given(convolutions())
def test_conv2d_agrees_with_scipy_correlate(case: Convolution) -> None:
    window = case.window
    x, w, _ = case.arrays()
    y = F.conv2d(x, w, **case.options)
    around = [(p, p) for p in window.padding]
    images = np.pad(x.reshape(-1, case.groups, *w.shape[1:2], *window.size), [(0, 0)] * 3 + around)
    kernels = spread(w, window.dilation)
    expected = np.zeros((len(images), *case.output_size[-3:]))
    for n, o in np.ndindex(len(images), case.outputs):
        group = o // (case.outputs // case.groups)
        moved = scipy.signal.correlate(images[n, group], kernels[o], mode="valid", method="direct")[0]
        expected[n, o] = moved[:: window.stride[0], :: window.stride[1]]
    assert_close(y, expected.reshape(y.shape))


@many
@given(convolutions())
def test_conv2d_input_agrees_with_scipy_convolve(case: Convolution) -> None:
    window = case.window
    x, w, g = case.arrays()
    cotangents = spread(g.reshape(-1, *case.output_size[-3:]), window.stride)
    kernels = spread(w, window.dilation)
    expected = np.zeros((len(cotangents), *case.window.input_size[-3:]))
    per_group = case.outputs // case.groups, w.shape[1]
    (top, left), (height, width) = window.padding, window.size
    for n, o, c in np.ndindex(len(cotangents), case.outputs, w.shape[1]):
        full = scipy.signal.convolve(cotangents[n, o], kernels[o, c], mode="full", method="direct")
        reached = np.pad(full, [(0, unread) for unread in window.unread])
        channel = o // per_group[0] * per_group[1] + c
        expected[n, channel] += reached[top : top + height, left : left + width]
    assert_close(F.conv2d_input(x.shape, w, g, **case.options), expected.reshape(x.shape))


# Transposed convolution


class Transposed(NamedTuple):
    """The transpose of a drawn convolution, with more or fewer rows and columns at the end."""

    case: Convolution
    output_padding: Sizes

    @property
    def options(self) -> dict[str, Any]:
        return {**self.case.options, "output_padding": self.output_padding}

    @property
    def output_size(self) -> Sizes:
        """Below 1 where nothing is left of the convolution's image."""
        window = self.case.window
        lengths = zip(window.size, window.unread, self.output_padding, strict=True)
        return tuple(length - unread + more for length, unread, more in lengths)

    @property
    def reaches(self) -> list[Sizes]:
        """The rows, and the columns, of the output that some input reaches."""
        window = self.case.window
        return [
            tuple({a for p in range(positions) for i in range(k) if 0 <= (a := p * s + i * d - pad) < length})
            for positions, k, s, d, pad, length in zip(
                *(window.positions, window.kernel, window.stride, window.dilation, window.padding),
                self.output_size,
                strict=True,
            )
        ]

    @property
    def corners(self) -> Iterator[str]:
        """The names of the corner cases that this is one of."""
        window, lengths = self.case.window, [len(rows) for rows in self.reaches]
        if min(self.output_size) < 1:
            return
        if any(length < h for length, h in zip(lengths, self.output_size, strict=True)):
            yield "rows that no input reaches"
        if 0 in lengths:
            yield "no input reaches the output"
        above = any(s > k for s, k in zip(window.stride, window.kernel, strict=True))
        if above and any(window.padding) and any(self.output_padding):
            yield "stride above the kernel, padding and output_padding"

    def arrays(self) -> tuple[Array, Array, Array]:
        """Input, weight and bias."""
        _, w, g = self.case.arrays()
        return g, w, normal((self.case.window.channels,), self.case.window.seed, 3)


@st.composite
def skipping(draw: st.DrawFn, case: Convolution) -> Convolution:
    """The same convolution with strides above its kernel, so that it reads only some rows and columns."""
    window = case.window
    stride = tuple(k + draw(st.integers(1, 2)) for k in window.kernel)
    padding = tuple(draw(st.integers(0, 2)) for _ in stride)
    sizes = [
        (draw(st.sampled_from((1, 1, 2, 3))) - 1) * s + k + draw(st.integers(0, s - 1)) - 2 * p
        for k, s, p in zip(window.kernel, stride, padding, strict=True)
    ]
    size = tuple(max(1, h) for h in sizes)
    return case._replace(window=window._replace(size=size, stride=stride, padding=padding, dilation=(1, 1)))


@st.composite
def transposed(draw: st.DrawFn) -> Transposed:
    case = draw(convolutions())
    if draw(st.booleans()):
        case = draw(skipping(case))
    window = case.window
    free = [st.integers(0, max(s, d) - 1) for s, d in zip(window.stride, window.dilation, strict=True)]
    padding = draw(st.sampled_from((window.unread, None)))
    return Transposed(case, padding or (draw(free[0]), draw(free[1])))


def test_corner_cases_of_transposed_convolutions_are_drawn_often() -> None:
    seen: Counter[str] = Counter()

    @few
    @given(transposed())
    def draw(drawn: Transposed) -> None:
        seen.update(drawn.corners)

    draw()
    assert len(seen) == 3, seen
    assert min(seen.values()) >= 4, seen


def test_output_that_no_input_reaches_holds_the_bias() -> None:
    x, w, b = np.ones((1, 1, 1, 1)), np.ones((1, 2, 1, 1)), np.array([3.0, 4.0])
    options: dict[str, Any] = {"stride": 3, "padding": 1, "output_padding": 2}
    assert_close(F.conv_transpose2d(x, w, b, **options), b.reshape(1, 2, 1, 1))
    arrays: list[Array | None] = [x, w, b]
    theirs = torch_functional().conv_transpose2d
    compare(F.conv_transpose2d, F.conv_transpose2d_backward, theirs, arrays, **options)


@few
@given(transposed(), st.booleans())
def test_conv_transpose2d_agrees_with_pytorch(drawn: Transposed, bias: bool) -> None:
    assume(min(drawn.output_size) > 0)
    x, w, b = drawn.arrays()
    theirs = torch_functional().conv_transpose2d
    arrays = [x, w, b if bias else None]
    compare(F.conv_transpose2d, F.conv_transpose2d_backward, theirs, arrays, **drawn.options)


def without_output(drawn: Transposed) -> dict[str, Any]:
    """The options with as much padding as leaves no output."""
    lengths = zip(drawn.case.window.padding, drawn.output_size, strict=True)
    return {**drawn.options, "padding": tuple(p + max(0, (length + 1) // 2) for p, length in lengths)}


@few
@given(transposed())
def test_transposed_convolutions_without_output_are_refused(drawn: Transposed) -> None:
    x, w, _ = drawn.arrays()
    with pytest.raises(ValueError, match="`padding`"):
        F.conv_transpose2d(x, w, **without_output(drawn))


@few
@given(transposed().filter(lambda drawn: 0 not in drawn.case.window.batch))  # which PyTorch takes
def test_transposed_convolutions_without_output_are_refused_by_pytorch_too(drawn: Transposed) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, w, _ = (plain(a) for a in drawn.arrays())
    options = without_output(drawn)
    theirs = partial(torch.nn.functional.conv_transpose2d, torch.tensor(x), torch.tensor(w), **options)
    both_refuse(partial(F.conv_transpose2d, x, w, **options), theirs, "`padding`")


@few
@given(transposed())
def test_conv_transpose2d_agrees_with_plain_loops(drawn: Transposed) -> None:
    assume(min(drawn.output_size) > 0)
    x, w, b = drawn.arrays()
    window = drawn.case.window
    y = F.conv_transpose2d(x, w, b, **drawn.options)
    assert_close(y, reference.conv_transpose2d(window.batched(x), w, b, **drawn.options).reshape(y.shape))
    g = normal(y.shape, window.seed, 4, layout=window.layouts[0])
    batched = window.batched(g), window.batched(x), w
    dx, dw, db = reference.conv_transpose2d_backward(*batched, **drawn.options)
    grads = F.conv_transpose2d_backward(g, x, w, b, **drawn.options)
    for grad, expected in zip(grads, (dx.reshape(x.shape), dw, db), strict=True):
        assert_close(grad, expected)


@few
@given(convolutions())
def test_conv_transpose2d_is_conv2d_input(case: Convolution) -> None:
    x, w, g = case.arrays()
    y = F.conv_transpose2d(g, w, **case.options, output_padding=case.window.unread)
    assert_close(y, F.conv2d_input(x.shape, w, g, **case.options))
    dg, dw, db = F.conv_transpose2d_backward(x, g, w, **case.options, output_padding=case.window.unread)
    assert db is None
    assert_adjoint(g, dg, y, x, "by the input")
    assert_adjoint(w, dw, y, x, "by the weight")


# Unfold and fold


def columns_size(window: Sliding) -> Sizes:
    rows = window.channels * window.kernel[0] * window.kernel[1]
    return *window.batch, rows, window.positions[0] * window.positions[1]


@few
@given(slidings().filter(lambda window: 0 not in window.batch))  # which PyTorch refuses
def test_unfold_and_fold_agree_with_pytorch(window: Sliding) -> None:
    functional = torch_functional()
    options = {"kernel_size": window.kernel, **window.geometry}
    compare(F.unfold, F.unfold_backward, functional.unfold, [window.input()], **options)
    columns = window.values(columns_size(window), 1)
    compare(F.fold, F.fold_backward, functional.fold, [columns], output_size=window.size, **options)


@few
@given(slidings())
def test_unfold_and_fold_agree_with_plain_loops_and_are_adjoint(window: Sliding) -> None:
    options = {"kernel_size": window.kernel, **window.geometry}
    loops: dict[str, Any] = {"kernel": window.kernel, **window.geometry}
    x, g = window.input(), window.values(columns_size(window), 1)
    columns = F.unfold(x, **options)
    assert_close(columns, reference.unfold(window.batched(x), **loops).reshape(g.shape))
    folded = F.fold(g, window.size, **options)
    loops["size"] = window.size
    assert_close(folded, reference.fold(window.batched(g), **loops).reshape(x.shape))
    assert_close(F.unfold_backward(g, x, **options), folded)
    assert_close(F.fold_backward(x, g, window.size, **options), columns)
    assert_adjoint(x, folded, columns, g)


# Pooling


@few
@given(poolings().filter(sees_pixels), st.booleans(), st.booleans())
def test_max_pool2d_agrees_with_pytorch(window: Sliding, ceil_mode: bool, ties: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    theirs = torch.nn.functional.max_pool2d
    x = window.input().round() if ties else window.input()
    options = {"kernel_size": window.kernel, **window.geometry, "ceil_mode": ceil_mode}
    compare(F.max_pool2d, F.max_pool2d_backward, theirs, [x], **options)
    _, indices = theirs(torch.tensor(plain(x)), **options, return_indices=True)
    assert_close(F.max_pool2d(x, **options, return_indices=True)[1], indices.numpy(), "indices")


@few
@given(poolings().filter(sees_pixels), st.booleans(), st.booleans())
def test_max_pool2d_agrees_with_plain_loops(window: Sliding, ceil_mode: bool, ties: bool) -> None:
    x = window.input().round() if ties else window.input()
    options: dict[str, Any] = {**window.geometry, "ceil_mode": ceil_mode}
    y, indices = F.max_pool2d(x, window.kernel, **options, return_indices=True)
    expected, where = reference.max_pool2d(window.batched(x), kernel=window.kernel, **options)  # type: ignore[arg-type]
    assert_close(y, expected.reshape(y.shape))
    assert_close(indices, where.reshape(y.shape))
    assert_close(F.max_pool2d(x, window.kernel, **options), y)
    g = window.values(y.shape, 1)
    grad = reference.max_pool2d_backward(window.batched(g), window.batched(x), where)
    assert_close(F.max_pool2d_backward(g, x, window.kernel, **options), grad.reshape(x.shape))


@st.composite
def averages(draw: st.DrawFn) -> tuple[Sliding, dict[str, Any]]:
    """A window without dilation and the further options of avg_pool2d."""
    window = draw(poolings())._replace(dilation=(1, 1))
    return window, {
        "kernel_size": window.kernel,
        "stride": window.stride,
        "padding": window.padding,
        "ceil_mode": draw(st.booleans()),
        "count_include_pad": draw(st.booleans()),
        "divisor_override": draw(st.sampled_from((None, None, 3))),
    }


@few
@given(averages())
def test_avg_pool2d_agrees_with_pytorch(drawn: tuple[Sliding, dict[str, Any]]) -> None:
    window, options = drawn
    theirs = torch_functional().avg_pool2d
    compare(F.avg_pool2d, F.avg_pool2d_backward, theirs, [window.input()], **options)


@few
@given(averages())
def test_avg_pool2d_agrees_with_plain_loops_and_is_adjoint(drawn: tuple[Sliding, dict[str, Any]]) -> None:
    window, options = drawn
    x = window.input()
    y = F.avg_pool2d(x, **options)
    g = window.values(y.shape, 1)
    grad = F.avg_pool2d_backward(g, x, **options)
    loops = {"kernel": window.kernel, **{key: options[key] for key in options if key != "kernel_size"}}
    assert_close(y, reference.avg_pool2d(window.batched(x), **loops).reshape(y.shape))
    loop_grad = reference.avg_pool2d_backward(window.batched(g), window.batched(x), **loops)
    assert_close(grad, loop_grad.reshape(x.shape))
    assert_adjoint(x, grad, y, g)


@few
@given(oversized(poolings()))
def test_pooling_windows_larger_than_the_padded_input_are_refused(window: Sliding) -> None:
    x = window.input()
    with pytest.raises(ValueError, match="`kernel_size`"):
        F.max_pool2d(x, window.kernel, **window.geometry)
    with pytest.raises(ValueError, match="`kernel_size`"):
        F.avg_pool2d(x, window.extent, window.stride, window.padding)


# Padding and resizing


class Padded(NamedTuple):
    """A drawn call of `pad`."""

    shape: Sizes
    pad: Sizes
    mode: str
    layout: str
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        return {"pad": self.pad, "mode": self.mode}

    @property
    def empties(self) -> bool:
        """Whether the pads take away all of some dimension."""
        lengths = reversed(self.shape)
        return not all(map(sum, zip(lengths, self.pad[::2], self.pad[1::2], strict=False)))

    def input(self) -> Array:
        return normal(self.shape, self.seed, layout=self.layout)


@st.composite
def pad_pairs(draw: st.DrawFn, length: int, mode: str, negative: bool) -> tuple[int, int]:
    """The pads before and after one dimension; negative ones may take all of it away, but no more."""
    most = {"constant": 3, "reflect": length - 1, "replicate": 4, "circular": length}[mode]
    first = draw(st.integers(-length if negative else 0, most))
    if mode in ("constant", "circular"):  # which take away before they pad
        least, kept = -length - min(first, 0), length + min(first, 0)
    else:
        least, kept = -length - first, length
    if mode == "circular":
        least, most = max(least, first - length), kept
    second = draw(st.integers(least if negative else 0, most))
    return (first, second) if draw(st.booleans()) else (second, first)


@st.composite
def paddings(draw: st.DrawFn, negative: bool = True) -> Padded:
    mode = draw(st.sampled_from(("constant", "reflect", "replicate", "circular")))
    dims = draw(st.integers(1, 3))
    leading = draw(st.sampled_from([(2,), (1, 2), (2, 1), (0, 2)]))
    size = tuple(draw(st.integers(2, 4)) for _ in range(dims))
    pad = [p for length in reversed(size) for p in draw(pad_pairs(length, mode, negative))]
    return Padded((*leading, *size), tuple(pad), mode, draw(layout_names), draw(seeds))


@few
@given(paddings(), st.sampled_from((None, 0.0, -1.5)))
def test_pad_agrees_with_pytorch(drawn: Padded, value: float | None) -> None:
    assume(drawn.mode in ("constant", "circular") or not drawn.empties)  # which PyTorch refuses
    options = drawn.options if drawn.mode != "constant" else {**drawn.options, "value": value}
    compare(F.pad, F.pad_backward, torch_functional().pad, [drawn.input()], **options)


@few
@given(paddings())
def test_pad_agrees_with_plain_loops_and_is_adjoint(drawn: Padded) -> None:
    x = drawn.input()
    y = F.pad(x, **drawn.options)
    assert_close(y, reference.pad(plain(x), drawn.pad, drawn.mode))
    g = normal(y.shape, drawn.seed, 1, layout=drawn.layout)
    grad = F.pad_backward(g, x, **drawn.options)
    assert_close(grad, reference.pad_backward(plain(g), plain(x), drawn.pad, drawn.mode))
    assert_adjoint(x, grad, y, g)


@few
@given(paddings(negative=False))
def test_pad_agrees_with_numpy(drawn: Padded) -> None:
    x = drawn.input()
    names = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    around = list(zip(drawn.pad[::2], drawn.pad[1::2], strict=True))[::-1]
    widths = [(0, 0)] * (x.ndim - len(around)) + around
    assert_close(F.pad(x, **drawn.options), np.pad(x, widths, names[drawn.mode]))  # type: ignore[call-overload]


@few
@given(st.integers(1, 4), st.data())
def test_circular_pads_of_more_than_is_left_are_refused(length: int, data: st.DataObject) -> None:
    taken = data.draw(st.integers(0, length))
    pair = (-taken, data.draw(st.integers(length - taken + 1, length + 2)))
    for pad in (pair, pair[::-1]):
        with pytest.raises(ValueError, match="`pad`"):
            F.pad(np.ones((2, length)), pad, "circular")


@st.composite
def resizings(draw: st.DrawFn) -> tuple[Array, dict[str, Any]]:
    """The input of interpolate and its options; no output is empty."""
    dims = draw(st.integers(1, 3))
    size = tuple(draw(st.integers(1, 5)) for _ in range(dims))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size)
    linear = ("linear", "bilinear", "trilinear")[dims - 1]
    options: dict[str, Any] = {"mode": draw(st.sampled_from(("nearest", "nearest-exact", linear)))}
    if options["mode"] == linear:
        options["align_corners"] = draw(st.booleans())
    if draw(st.booleans()):
        options["size"] = tuple(draw(st.integers(1, 8)) for _ in range(dims))
    else:
        # None of them rounds to twice the input: there PyTorch's gradient is not that of its output.
        factors = st.sampled_from((1.0, 2.0, 0.5, 1.5, 0.7, 1 / 3, 2.6))
        options["scale_factor"] = tuple(max(draw(factors), 1 / h) for h in size)
        options["recompute_scale_factor"] = draw(st.sampled_from((None, False, True)))
    return normal(shape, draw(seeds), layout=draw(layout_names)), options


@few
@given(resizings())
def test_interpolate_agrees_with_pytorch(drawn: tuple[Array, dict[str, Any]]) -> None:
    x, options = drawn
    compare(F.interpolate, F.interpolate_backward, torch_functional().interpolate, [x], **options)


@few
@given(resizings())
def test_interpolate_agrees_with_plain_loops_and_is_adjoint(drawn: tuple[Array, dict[str, Any]]) -> None:
    x, options = drawn
    y = F.interpolate(x, **options)
    g = normal(y.shape, 1)
    grad = F.interpolate_backward(g, x, **options)
    assert_adjoint(x, grad, y, g)
    if not options.pop("recompute_scale_factor", None):  # which the loops do not do
        assert_close(y, reference.interpolate(plain(x), **options))
        assert_close(grad, reference.interpolate_backward(g, plain(x), **options))


# Softmax


@st.composite
def rows(draw: st.DrawFn) -> tuple[Array, int]:
    """Values of any size, and the dimension of the softmax."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    scale = draw(st.sampled_from((1.0, 30.0, 1000.0)))
    x = normal(shape, draw(seeds), layout=draw(layout_names)) * scale
    return x, draw(st.integers(-len(shape), len(shape) - 1))


@few
@given(rows(), st.sampled_from((1.0, -50.0, 1e4)))
def test_softmax_sums_to_one_and_does_not_see_a_shift(drawn: tuple[Array, int], shift: float) -> None:
    x, dim = drawn
    y = F.softmax(x, dim)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis=dim), 1, rtol=1e-14)
    np.testing.assert_allclose(F.softmax(x + shift, dim), y, rtol=1e-10)
    np.testing.assert_allclose(np.exp(F.log_softmax(x, dim)), y, rtol=1e-10)


@few
@given(rows())
def test_softmax_gradient_sums_to_zero_and_is_symmetric(drawn: tuple[Array, int]) -> None:
    x, dim = drawn
    g, h = normal(x.shape, 1), normal(x.shape, 2)
    dx = F.softmax_backward(g, x, dim)
    np.testing.assert_allclose(dx.sum(axis=dim), 0, atol=1e-14)
    assert_close(np.sum(h * dx), np.sum(g * F.softmax_backward(h, x, dim)), scale=1.0)

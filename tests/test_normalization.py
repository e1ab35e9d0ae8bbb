"""The norms in float32 against float64, over values that are hard on the statistics.

The exact results are those for the inputs as float32 holds them. With n = (x - mean) / sqrt(var + eps), an
error of a few eps of float32 is allowed, relative to 1 + |n| (times the weight, and with the bias beside it):
no multiple of mean / std, which a mean rounded to float32 would bring in.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyconv.functional as F
from tests.compare import assert_close, layouts
from tests.hypothesis_or_skip import assume, given, settings, st
from tinyconv.arrays import Array, as_logical, as_stored

EPS = float(np.finfo(np.float32).eps)
ALLOWED = 4 * EPS
NORM_EPS = 1e-5


class Norm(NamedTuple):
    """A norm and its backward, and over which axes and with which affine shape it works."""

    forward: Callable[..., Array]
    backward: Callable[..., Any]
    view: Callable[[tuple[int, ...]], tuple[int, ...]]  # in which the sets are whole axes
    axes: Callable[[int], tuple[int, ...]]
    affine: Callable[[tuple[int, ...]], tuple[int, ...]]  # broadcasts over the values


NORMS = {
    "batch": Norm(
        lambda x, w, b: F.batch_norm(x, None, None, w.ravel(), b.ravel(), training=True),
        lambda g, x, w, b: F.batch_norm_backward(g, x, None, None, w.ravel(), b.ravel(), training=True),
        lambda shape: shape,
        lambda ndim: (0, *range(2, ndim)),
        lambda shape: (shape[1], *[1] * (len(shape) - 2)),
    ),
    "layer": Norm(
        lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b),
        lambda g, x, w, b: F.layer_norm_backward(g, x, x.shape[1:], w, b),
        lambda shape: shape,
        lambda ndim: tuple(range(1, ndim)),
        lambda shape: shape[1:],
    ),
    "group": Norm(
        lambda x, w, b: F.group_norm(x, 2, w.ravel(), b.ravel()),
        lambda g, x, w, b: F.group_norm_backward(g, x, 2, w.ravel(), b.ravel()),
        lambda shape: (shape[0], 2, shape[1] // 2, *shape[2:]),
        lambda ndim: tuple(range(2, ndim)),
        lambda shape: (shape[1], *[1] * (len(shape) - 2)),
    ),
}


def check(norm: Norm, x: Array, w: Array, b: Array, g: Array) -> None:
    """Demand the exact results of float64, up to `ALLOWED`."""
    y, grads = norm.forward(x, w, b), norm.backward(g, x, w, b)
    assert y.dtype == np.float32
    x, w, b, g = (a.astype(np.float64) for a in (x, w, b, g))
    view = norm.view(x.shape)
    axes = norm.axes(len(view))

    def mean(values: Array) -> Array:
        wide = values.reshape(view)
        return np.broadcast_to(wide.mean(axis=axes, keepdims=True), view).reshape(x.shape)

    centred = x - mean(x)
    centred -= mean(centred)
    r = 1 / np.sqrt(mean(centred**2) + NORM_EPS)
    n, gw = centred * r, g * w
    near(y, n * w + b, (1 + abs(n)) * abs(w) + abs(b), "output")
    scale = abs(gw) + mean(abs(gw)) + (1 + abs(n)) * mean(abs(gw) * (1 + abs(n)))
    near(grads[0], r * (gw - mean(gw) - n * mean(gw * n)), r * scale, "gradient of the input")
    others = tuple(i for i, length in enumerate((1, *w.shape)) if length == 1)
    for grad, terms, size, name in (
        (grads[1], g * n, abs(g) * (1 + abs(n)), "weight"),
        (grads[2], g, abs(g), "bias"),
    ):
        total, bound = (a.sum(axis=others, keepdims=True).reshape(grad.shape) for a in (terms, size))
        near(grad, total, bound, f"gradient of the {name}")


def near(actual: Array, exact: Array, size: Array, what: str) -> None:
    error = abs(actual - exact)
    worst = float((error / np.maximum(size, 1e-30)).max())
    assert worst <= ALLOWED, f"{what}: {worst / EPS:.1f} eps"


def every_layout(x: Array) -> Iterator[tuple[str, Array]]:
    yield from layouts(x)
    yield "memory format", as_logical(as_stored(x).copy(order="C"))


SIZES = [(), (5,), (32,), (4, 3), (7, 7), (1, 1), (28, 28)]


@st.composite
def hard_values(draw: st.DrawFn, shape: tuple[int, ...]) -> Array:
    """Values of `shape`, float32, of another kind in each channel."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    x = np.empty(shape, np.float32)
    for channel in np.moveaxis(x, 1, 0):
        centre = draw(st.sampled_from([-1, 1])) * 10 ** draw(st.floats(-3, 6))
        kind = draw(st.sampled_from(["normal", "constant", "one step", "outlier", "outlier first", "halves"]))
        channel[...] = centre
        if kind == "normal":
            channel += (rng.standard_normal(channel.shape) * 10 ** draw(st.floats(-3, 3))).astype(np.float32)
        elif kind == "one step":  # the least variance that float32 can show
            channel[rng.random(channel.shape) < 0.3] = np.nextafter(np.float32(centre), np.float32(np.inf))
        elif kind == "halves":
            channel[: len(channel) // 2] *= -1
        elif kind != "constant":
            channel[...] = 1
            channel.flat[0 if kind == "outlier first" else rng.integers(channel.size)] = 1e4
    return x


@pytest.mark.parametrize("name", NORMS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_norms_of_float32_are_exact_over_hard_values(name: str, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES))
    shape = (data.draw(st.sampled_from([1, 2, 3, 16, 64])), data.draw(st.sampled_from([2, 4, 6])), *size)
    assume(name == "layer" or np.prod(shape) > max(shape[1], 2 * shape[0]))
    x = data.draw(hard_values(shape))
    rng = np.random.default_rng(len(shape))
    affine = NORMS[name].affine(shape)
    w, b = (rng.standard_normal(affine).astype(np.float32) for _ in range(2))
    g = rng.standard_normal(shape).astype(np.float32)
    chosen = data.draw(st.integers(0, len(list(every_layout(x))) - 1))
    check(NORMS[name], list(every_layout(x))[chosen][1], w, b, g)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("value", [97.3, -97.3, 1e4 + 0.1, 1e6 + 0.3, 0.1, 1e-4, 3.0, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 2, 10, 10), (10, 2, 10), (64, 2, 28, 28), (37, 2), (3, 2, 130, 129)])
def test_equal_values_give_exactly_the_bias(
    name: str, value: float, dtype: Any, shape: tuple[int, ...]
) -> None:
    norm, rng = NORMS[name], np.random.default_rng(0)
    w, b = (rng.standard_normal(norm.affine(shape)).astype(dtype) for _ in range(2))
    if name == "group" and shape == (37, 2):
        pytest.skip("refused: one value per group")
    for layout, x in every_layout(np.full(shape, value, dtype)):
        y = norm.forward(x, w, b)
        np.testing.assert_array_equal(y, np.broadcast_to(b, shape), layout)
        grads = norm.backward(rng.standard_normal(shape).astype(dtype), x, w, b)
        assert not grads[1].any(), layout


def test_a_channel_of_large_values_does_not_spoil_the_others() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3, 28, 28)).astype(np.float32)
    x[:, 1] = 1e4 + 0.1
    x[:, 2] *= 1e4
    w, b = np.ones((3, 1, 1), np.float32), np.zeros((3, 1, 1), np.float32)
    check(NORMS["batch"], x, w, b, rng.standard_normal(x.shape).astype(np.float32))
    assert not F.batch_norm(x, None, None, training=True)[:, 1].any()


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", [(40_000, 2, 2), (4, 2, 20_000), (4, 2, 101, 103), (1, 20_000, 2)], ids=str)
def test_one_large_value_among_many_small_ones_costs_no_digits(name: str, shape: tuple[int, ...]) -> None:
    rng, affine = np.random.default_rng(0), NORMS[name].affine(shape)
    w, b = (rng.standard_normal(affine).astype(np.float32) for _ in range(2))
    x, g = np.ones(shape, np.float32), rng.standard_normal(shape).astype(np.float32)
    x[0, 0, 0] = x[0, -1, -1] = 1e4
    for _, x_ in every_layout(x):
        check(NORMS[name], x_, w, b, g)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 5, 4)], ids=str)
def test_results_of_batch_norm_are_stored_in_the_memory_format(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal(3)
    for training in (True, False):
        for offset in (0, 100):
            for name, x in every_layout(rng.standard_normal(shape) + offset):
                y, saved = F.batch_norm_saved(x, np.zeros(3), np.ones(3), w, w, training)
                grad = F.batch_norm_saved_backward(x, saved, w, w)[0]
                y_dot, moved = F.batch_norm_saved_jvp(x, w, w, saved, w)
                grad_dot = F.batch_norm_saved_backward_jvp(x, moved, w, x, saved, w)[0]
                for array in (y, grad, y_dot, grad_dot):
                    assert as_stored(array).flags.c_contiguous, name


@pytest.mark.parametrize("shape", [(0, 4), (3, 4, 0), (2, 4, 0, 5), (0, 4, 2, 2), (2, 4, 5, 0)], ids=str)
def test_batches_without_values_are_normalised_to_such(shape: tuple[int, ...]) -> None:
    x, w = np.zeros(shape, np.float32), np.ones(4, np.float32)
    for name in ("batch", "group"):
        assert NORMS[name].forward(x, w, w).shape == shape
        grads = NORMS[name].backward(x, x, w, w)
        assert [grad.shape for grad in grads] == [shape, (4,), (4,)]
        assert not any(grad.any() for grad in grads)


def test_layer_norm_and_group_norm_keep_the_memory_format() -> None:
    x = as_logical(np.random.default_rng(0).standard_normal((5, 4, 6, 3)))
    assert as_stored(F.layer_norm(x, x.shape[1:])).flags.c_contiguous
    assert as_stored(F.layer_norm_backward(x, x, x.shape[1:])[0]).flags.c_contiguous
    assert as_stored(F.group_norm(x, 2)).flags.c_contiguous
    assert as_stored(F.group_norm_backward(x, x, 2)[0]).flags.c_contiguous


class Together:
    """The sum over workers that are threads here, each with a part of the batch."""

    def __init__(self, count: int) -> None:
        self.terms: list[Any] = [None] * count
        self.barrier = threading.Barrier(count)
        self.calls = [0] * count

    def allreduce(self, rank: int, array: Array) -> Array:
        self.calls[rank] += 1
        self.terms[rank] = array
        self.barrier.wait(10)
        total = sum(self.terms[1:], self.terms[0])
        self.barrier.wait(10)
        return np.array(total)


def in_workers(
    x: Array, w: Array, b: Array, g: Array, count: int
) -> tuple[Array, tuple[Array, ...], list[Any], list[int]]:
    """Output, gradients, running statistics of each worker and numbers of sums, of a batch in parts."""
    together = Together(count)

    def work(rank: int, x: Array, g: Array) -> tuple[Array, tuple[Any, ...], Any]:
        reduce = partial(together.allreduce, rank)
        running = np.zeros(len(w), w.dtype), np.ones(len(w), w.dtype)
        y, saved = F.batch_norm_saved(x, *running, w, b, True, allreduce=reduce)
        return y, F.batch_norm_saved_backward(g, saved, w, b, reduce), running

    with ThreadPoolExecutor(count) as pool:
        parts = np.array_split(x, count), np.array_split(g, count)
        results = list(pool.map(work, range(count), *parts))
    outputs, grads, running = zip(*results, strict=True)
    grad_input, *others = zip(*grads, strict=True)
    summed = (np.concatenate(grad_input), *(np.sum(part, axis=0) for part in others))
    return np.concatenate(outputs), summed, list(running), together.calls


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_batch_norm_in_workers_is_as_exact_as_in_one_process(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 4))
    shape = (data.draw(st.integers(count, 17)), 3, *data.draw(st.sampled_from(SIZES)))
    x, rng = data.draw(hard_values(shape)), np.random.default_rng(1)
    w, b = (rng.standard_normal((3, *[1] * (len(shape) - 2))).astype(np.float32) for _ in range(2))
    g = rng.standard_normal(shape).astype(np.float32)
    y, grads, running, _ = in_workers(x, w.ravel(), b.ravel(), g, count)
    norm = NORMS["batch"]._replace(forward=lambda *_: y, backward=lambda *_: grads)
    check(norm, x, w, b, g)
    for other in running[1:]:
        np.testing.assert_array_equal(other, running[0])


def test_batch_norm_in_workers_asks_for_few_sums() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((9, 4, 5, 5)).astype(np.float32), np.ones(4, np.float32)
    assert in_workers(x, w, w, x, 3)[3] == [2] * 3  # forward and backward
    assert in_workers(x + 1000, w, w, x, 3)[3] == [3] * 3
    x[:, 2] = 97.3
    y, grads, _, calls = in_workers(x, w, w, x, 3)
    assert (y[:, 2] == 1).all()
    assert grads[1][2] == 0
    assert calls[0] <= 5
    assert calls == [calls[0]] * 3


@pytest.mark.parametrize("worst", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_makes_its_channel_nan_and_no_other(worst: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype(np.float32)
    x[:, 0] += 100
    x[1, 1, 2, 2] = worst
    running = np.zeros(3, np.float32), np.ones(3, np.float32)
    theirs = torch.zeros(3), torch.ones(3)
    y = F.batch_norm(x, *running, training=True)
    expected = torch.nn.functional.batch_norm(torch.tensor(x), *theirs, training=True)
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-5)
    for own, other in zip(running, theirs, strict=True):
        np.testing.assert_allclose(own, other.numpy(), rtol=1e-5)


@pytest.mark.parametrize("p", [2.0, 3.0, 1.5, 1.0, 0.0, -2.0, np.inf, -np.inf])
@pytest.mark.parametrize("dim", [1, -1])
def test_the_second_order_of_normalize_is_pytorchs(p: float, dim: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rng = np.random.default_rng(0)
    x, v, g, g_dot = (rng.standard_normal((3, 4, 5)) for _ in range(4))
    x[0] *= 1e-3  # shorter than eps
    eps = 0.1
    tensor, upstream = torch.tensor(x, requires_grad=True), torch.tensor(g, requires_grad=True)
    output = torch.nn.functional.normalize(tensor, p, dim, eps)
    (grad,) = torch.autograd.grad(output, tensor, upstream, create_graph=True)
    moved = (grad * torch.tensor(v)).sum()
    (y_dot,) = torch.autograd.grad(moved, upstream, retain_graph=True)
    assert_close(F.normalize_jvp(v, x, p, dim, eps), y_dot.numpy())
    total = moved + (torch.tensor(g_dot) * output).sum()
    (expected,) = torch.autograd.grad(total, tensor)
    assert_close(F.normalize_backward_jvp(g_dot, v, g, x, p, dim, eps), expected.numpy())


def test_the_second_order_of_normalize_at_zeros_is_that_of_a_length() -> None:
    x, v, g = np.array([[0.0, 3.0, 4.0]]), np.array([[1.0, 0.0, 0.0]]), np.array([[0.5, 1.0, -2.0]])
    step, zeros = 1e-6, np.zeros((1, 3))
    ahead, behind = (F.normalize_backward(g, x + s * step * v) for s in (1, -1))
    found = F.normalize_backward_jvp(zeros, v, g, x)
    np.testing.assert_allclose(found, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9)

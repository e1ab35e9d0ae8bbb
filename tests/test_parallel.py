"""The pool of threads: what runs where, errors, limits, forks; and the same bits by any number of threads."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import tinyconv as tc
import tinyconv.functional as F
from tests.forking import needs_workers
from tinyconv.arrays import (
    Array,
    blas_threads,
    cut,
    elementwise,
    in_threads,
    matmul,
    one_blas_thread,
    one_thread,
    parallel,
    products,
    thread_count,
)
from tinyconv.functional.activation import bias_relu
from tinyconv.functional.conv import columns, depthwise, windows, winograd

MUCH = 1 << 40  # multiply-adds


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the number of threads; all work is enough for them, as parts are small."""
    monkeypatch.setattr(parallel, "BLAS_WORK", 0)
    monkeypatch.setattr(parallel, "LEAST_WORK", 1)
    return lambda count: monkeypatch.setattr(
        parallel, "thread_count", lambda: 1 if parallel._alone.get() else count
    )


def test_parts_run_at_the_same_time(threads: Callable[[int], None]) -> None:
    threads(3)
    meeting, found = threading.Barrier(3, timeout=60), set()

    def run(part: int) -> None:
        meeting.wait()
        found.add((part, threading.get_ident()))

    in_threads(run, range(3), MUCH)
    assert sorted(part for part, _ in found) == [0, 1, 2]
    assert len({thread for _, thread in found}) == 3
    assert threading.get_ident() in {thread for _, thread in found}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_part_runs_once(count: int, threads: Callable[[int], None]) -> None:
    threads(count)
    found: list[int] = []
    in_threads(found.append, range(100), MUCH)
    assert sorted(found) == list(range(100))
    in_threads(found.append, [], MUCH)
    assert len(found) == 100


def test_little_work_is_done_by_the_caller() -> None:
    found = set()
    in_threads(lambda part: found.add(threading.get_ident()), range(50), parallel.LEAST_WORK - 1)
    assert found == {threading.get_ident()}


@pytest.mark.parametrize("where", ["caller", "other"])
def test_an_error_in_a_part_is_raised_when_all_that_run_have_ended(
    where: str, threads: Callable[[int], None]
) -> None:
    threads(2)
    caller, begun, ended = threading.get_ident(), threading.Barrier(2, timeout=60), []

    def run(part: int) -> None:
        if part > 1:
            ended.append(part)
            return
        begun.wait()
        if (threading.get_ident() == caller) == (where == "caller"):
            raise ValueError("of a part")
        time.sleep(0.1)
        ended.append(-1)

    with pytest.raises(ValueError, match="of a part"):
        in_threads(run, range(2), MUCH)
    assert ended == [-1]
    in_threads(ended.append, [7], MUCH)  # the pool still works
    assert ended == [-1, 7]


def test_parts_that_have_not_begun_when_one_fails_do_not_run(threads: Callable[[int], None]) -> None:
    threads(1)
    found: list[int] = []

    def run(part: int) -> None:
        found.append(part)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_threads(run, range(5), MUCH)
    assert found == [0]


def test_a_part_does_not_wait_for_threads_of_its_own(threads: Callable[[int], None]) -> None:
    threads(2)
    counts: list[int] = []

    def inner(part: int) -> None:
        counts.append(parallel.thread_count())

    in_threads(lambda part: in_threads(inner, range(4), MUCH), range(8), MUCH)
    assert counts == 32 * [1]


def test_parts_have_the_callers_error_state(threads: Callable[[int], None]) -> None:
    threads(2)
    meeting = threading.Barrier(2, timeout=60)

    def run(part: int) -> None:
        meeting.wait()
        np.float32(3e38) * np.ones(2, np.float32) * 2

    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        in_threads(run, range(2), MUCH)
    meeting.reset()
    with np.errstate(over="ignore"):
        in_threads(run, range(2), MUCH)


def test_blas_has_one_thread_meanwhile_and_what_it_had_afterwards(threads: Callable[[int], None]) -> None:
    threads(2)
    before, inside = blas_counts(), []
    in_threads(lambda part: inside.extend(blas_counts()), range(4), MUCH)
    assert set(inside) == {1}
    assert blas_counts() == before


def blas_counts() -> list[int]:
    return [blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas"]


def test_the_number_of_threads_is_that_which_blas_may_use() -> None:
    cpus = parallel._cpus()
    assert thread_count() == max(1, min(cpus, blas_threads()))
    with threadpool_limits(1, "blas"):
        assert thread_count() == 1
    with threadpool_limits(64, "blas"):
        assert thread_count() == cpus
    with one_blas_thread():  # which is about the threads of BLAS
        assert thread_count() == max(1, min(cpus, blas_threads()))
    with one_thread():
        assert thread_count() == 1
        with one_thread():
            assert thread_count() == 1
        assert thread_count() == 1


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_the_environment_limits_the_threads(variable: str) -> None:
    code = "from tinyconv.arrays import thread_count; print(thread_count())"
    cleared = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    found = subprocess.check_output([sys.executable, "-c", code], env={**cleared, variable: "1"}, text=True)
    assert found.strip() == "1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_a_pool_of_its_own(threads: Callable[[int], None]) -> None:
    threads(2)
    in_threads(lambda part: time.sleep(0.01), range(4), MUCH)  # the pool has a thread
    read, write = os.pipe()
    child = os.fork()
    if not child:
        meeting = threading.Barrier(2, timeout=20)
        try:
            in_threads(lambda part: meeting.wait(), range(2), MUCH)
            os.write(write, b"both")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"both"
    os.waitpid(child, 0)


class ThreadCounter(tc.ReLU):
    """A layer that fails where its rank may use other than `expected` threads."""

    expected = 0

    def forward(self, x: Array) -> Array:
        if thread_count() != self.expected:
            raise RuntimeError(f"{thread_count()} threads, not {self.expected}")
        return super().forward(x)


@needs_workers
@pytest.mark.parametrize("workers", [1, 2])
def test_each_of_several_workers_has_one_thread(workers: int) -> None:
    counter = ThreadCounter()
    counter.expected = 1 if workers > 1 else thread_count()
    model = tc.Sequential(tc.Linear(3, 2, generator=0), counter)
    trainer = tc.Trainer(model, tc.MSELoss(), tc.optim.SGD(model, lr=0.1), workers=workers, progress=False)
    trainer.fit([(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))])


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small arrays into parts, too."""
    for module, names in (
        (windows, ("BLOCK_BYTES", "PART_POSITIONS", "PART_WORK")),
        (columns, ("BLOCK_BYTES", "PART_WORK", "LEAST_POSITIONS")),
        (winograd, ("BLOCK_BYTES", "SUM_BYTES", "LEAST_TERMS")),
        (depthwise, ("PART_VALUES",)),
        (products, ("BLAS_WORK", "PART_WORK", "LEAST_LENGTH")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(elementwise, "PART_VALUES", 10_000)


def results(call: Callable[[], Any]) -> list[Array]:
    found = call()
    return [array for array in (found if isinstance(found, tuple) else (found,)) if array is not None]


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "winograd": ((9, 12, 13, 14), (12, 12, 3, 3), {"padding": 1}),
    "winograd, few samples": ((2, 12, 22, 22), (12, 12, 3, 3), {"padding": 1}),
    "winograd, 5x5": ((9, 12, 13, 14), (12, 12, 5, 5), {"padding": 2}),
    "windows": ((16, 3, 13, 14), (8, 3, 3, 2), {"padding": 1, "stride": 2}),
    "windows, groups": ((16, 4, 9, 9), (6, 2, 3, 3), {"groups": 2}),
    "columns": ((1, 3, 33, 14), (8, 3, 5, 5), {"padding": 1}),
    "columns, large weight": ((1, 20, 5, 5), (80, 20, 3, 3), {"padding": 1}),
    "depthwise": ((16, 6, 13, 14), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    "dilated": ((16, 4, 13, 14), (8, 4, 3, 3), {"dilation": 2}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_bits_of_a_convolution_do_not_depend_on_the_number_of_threads(
    case: str, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, weight_shape, options = CONVOLUTIONS[case]
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in (shape, weight_shape, weight_shape[:1]))
    small_parts(monkeypatch)
    g = F.conv2d(x, w, b, **options)
    calls: list[Callable[[], Any]] = [
        partial(F.conv2d, x, w, b, **options),
        partial(F.conv2d_backward, g, x, w, b, **options),
    ]
    same_bits(calls, threads)


def biased(x: Array, bias: Array) -> Array:
    bias_relu(x, bias)
    return x


def stepped(optimizer: Any, weight: Array, grad: Array, **options: Any) -> Array:
    """The weight after three steps."""
    model = tc.Linear(300, 700, generator=0)
    model.weight[...] = weight.reshape(-1)[: 300 * 700].reshape(700, 300)
    model.grads["weight"][...] = grad.reshape(-1)[: 300 * 700].reshape(700, 300)
    own = optimizer(model, lr=0.1, **options)
    for _ in range(3):
        own.step()
    weight_after: Array = model.params["weight"]
    return weight_after


OTHERS: dict[str, Callable[[Array, Array], Any]] = {
    "max_pool2d": lambda x, g: F.max_pool2d_saved(x, 2),
    "max_pool2d backward": lambda x, g: F.max_pool2d_backward(x[:, :, ::2, ::2], x, 2),
    "overlapping max_pool2d backward": lambda x, g: F.max_pool2d_backward(x[:, :, 1:-1, 1:-1], x, 3, 1),
    "avg_pool2d": lambda x, g: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool2d backward": lambda x, g: F.avg_pool2d_backward(x[:, :, ::2, ::2], x, 2),
    "batch_norm": lambda x, g: F.batch_norm(x, None, None, training=True),
    "batch_norm backward": lambda x, g: F.batch_norm_backward(g, x, None, None, training=True),
    "batch_norm of large means": lambda x, g: F.batch_norm(x + 1e4, None, None, training=True),
    "group_norm backward": lambda x, g: F.group_norm_backward(g, x, 2),
    "relu": lambda x, g: F.relu(x),
    "relu backward": lambda x, g: F.relu_backward(g, x),
    "bias and relu": lambda x, g: biased(x.copy(), g[0, :, 0, 0]),
    "SGD": lambda x, g: stepped(tc.optim.SGD, x, g, momentum=0.9, nesterov=True, weight_decay=0.1),
    "SGD without momentum": lambda x, g: stepped(tc.optim.SGD, x, g),
    "AdamW": lambda x, g: stepped(tc.optim.AdamW, x, g, weight_decay=0.1),
    "NAdam": lambda x, g: stepped(tc.optim.NAdam, x, g, weight_decay=0.1),
    "RMSprop": lambda x, g: stepped(tc.optim.RMSprop, x, g, momentum=0.9, centered=True),
    "matmul": lambda x, g: matmul(x[:, 0, 0], g[:, 0, 0].T),
    "matmul, wide": lambda x, g: matmul(x[0, 0, :5], g[:, 0].reshape(-1, 20).T),
}


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_bits_of_other_operations_do_not_depend_on_the_number_of_threads(
    case: str, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    x, g = (rng.standard_normal((256, 64, 20, 20)).astype(np.float32) for _ in range(2))
    small_parts(monkeypatch)
    same_bits([partial(OTHERS[case], x, g)], threads)


def same_bits(calls: list[Callable[[], Any]], threads: Callable[[int], None]) -> None:
    expected: list[Array] = []
    for count in (1, 2, 5):
        threads(count)
        found = [array for call in calls for array in results(call)]
        expected = expected or found
        for array, first in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, first)


@pytest.mark.parametrize(("count", "parts"), [(7, 3), (2, 5), (5, 1), (1, 0), (0, 3), (10, -2)])
def test_cut_covers_a_range_with_slices_of_nearly_the_same_length(count: int, parts: int) -> None:
    slices = cut(count, parts)
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(count))
    assert len(slices) == max(1, min(count, parts))
    lengths = [part.stop - part.start for part in slices]
    assert max(lengths) - min(lengths) <= 1

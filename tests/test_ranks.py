"""Several ranks: the same training as by one process, to rounding, whatever happens on the way."""

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close
from tests.rank_runs import COUNT, RUNS, data, loader, network, result, train
from tinyconv.arrays import Array
from tinyconv.data import DataLoader
from tinyconv.layers.divided import batch_allreduce
from tinyconv.training import Callback, Communicator, Run, Trainer, WorkerError, default_communicator
from tinyconv.training import processes as module
from tinyconv.training.processes import ProcessCommunicator, processes

METHODS = [method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()]


@pytest.fixture(autouse=True)
def enough_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cpus", lambda: 8)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # its import takes long


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Array]]:
    """What one process gets."""
    return {name: result(run()) for name, run in RUNS.items()}


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, name)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_train_as_one_process(name: str, workers: int, alone: dict[str, dict[str, Array]]) -> None:
    assert_same(result(RUNS[name](workers=workers)), alone[name])


@pytest.mark.skipif("spawn" not in METHODS, reason="processes cannot be spawned")
def test_workers_that_are_spawned_train_as_one_process(
    alone: dict[str, dict[str, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_METHOD", "spawn")
    assert_same(result(RUNS["averages"](workers=2)), alone["averages"])


def test_what_cannot_be_pickled_is_refused_where_processes_are_spawned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "START_METHOD", "spawn")
    with pytest.raises(TypeError, match=r"`workers` \(=2\) must be 1, or .* picklable"):
        train(loader(transform=lambda x: x), workers=2)


def test_equal_runs_give_equal_bits() -> None:
    def run() -> dict[str, Array]:
        return result(train(loader(), extra=(tc.Dropout(0.5, generator=3),), workers=2))

    first, second = run(), run()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_the_model_keeps_its_arrays() -> None:
    model = network()
    before = dict(model.params)
    optimizer = tc.optim.SGD(model, lr=0.1)
    Trainer(model, tc.CrossEntropyLoss(), optimizer, workers=2, progress=False).fit(loader())
    assert all(param is before[name] for name, param in model.params.items())
    assert batch_allreduce() is None
    assert model.forward(data()[0]).shape == (COUNT, 3)


class SeesParts(tc.Layer):
    """Writes how long the parts are that it is given, one line for each."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def forward(self, x: Array) -> Array:
        if self.training:
            with (self.folder / str(os.getpid())).open("a") as file:
                file.write(f"{len(x)} ")
        return self.save(x)

    def backward(self, grad_output: Array) -> Array:
        self.saved(grad_output)
        return grad_output

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape


def test_each_rank_computes_its_part_alone(tmp_path: Path) -> None:
    train(DataLoader(data(22), 10), extra=(SeesParts(tmp_path),), workers=3)
    lengths = sorted(path.read_text() for path in tmp_path.iterdir())
    # A batch of two samples is not divided.
    assert lengths == ["3 3 0 3 3 0 ", "3 3 2 3 3 2 ", "4 4 0 4 4 0 "]


class Faulty(tc.Layer):
    """Fails in another process than the one that made it, or ends that, in forward or in backward."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.home = how, os.getpid()

    def fail(self) -> None:
        if os.getpid() == self.home:
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "ended":
            os._exit(3)
        raise ValueError("too hot")

    def forward(self, x: Array) -> Array:
        if self.how != "backward":
            self.fail()
        return self.save(x)

    def backward(self, grad_output: Array) -> Array:
        self.saved(grad_output)
        self.fail()
        return grad_output

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("forward", "Faulty.*too hot"),
        ("backward", "too hot"),
        ("killed", "exit code -9"),
        ("ended", "exit code 3"),
    ],
)
def test_a_failing_worker_ends_the_training_with_its_message(how: str, match: str) -> None:
    with pytest.raises(WorkerError, match=match):
        train(loader(), extra=(Faulty(how),), workers=3)
    assert multiprocessing.active_children() == []


class InterruptedStream:
    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        x, y = data()
        yield x[:10], y[:10]
        raise KeyboardInterrupt


def test_a_failure_in_the_training_process_ends_the_workers() -> None:
    with pytest.raises(KeyboardInterrupt):
        train(InterruptedStream(), workers=2)
    assert multiprocessing.active_children() == []
    x, y = data()
    with pytest.raises(ValueError, match="layer '5'"):
        train((x[:, :, :4], y), workers=2)
    assert multiprocessing.active_children() == []
    assert batch_allreduce() is None


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
def test_ctrl_c_while_workers_are_started_is_not_lost() -> None:
    script = """
import os, signal, sys
from tests.rank_runs import loader, train

# Python prints what a function raises here, and goes on.
os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))
try:
    train(loader(), workers=2)
except KeyboardInterrupt:
    sys.exit(7)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (7, "")


def test_a_transform_that_fails_in_a_worker_ends_the_training_with_its_message() -> None:
    home = os.getpid()

    def fail(inputs: Array) -> Array:
        if os.getpid() != home:
            raise ValueError("too dark")
        return inputs

    with pytest.raises(WorkerError, match="too dark"):
        train(loader(transform=fail), workers=2)


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_at_the_same_step() -> None:
    x, y = data()
    x[27] = np.inf  # in the second half of the third batch
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="nan in epoch 1, step 3"):
        train(DataLoader((x, y), 10), workers=2)
    assert multiprocessing.active_children() == []


class ChangesRankZero(Callback):
    """Changes a parameter in the first process alone, after a batch or an epoch."""

    def __init__(self, when: str) -> None:
        self.when = when

    def on_batch_end(self, run: Run) -> None:
        if self.when == "batch" and run.step == 2:
            run.model.params["0.weight"][...] += 1

    def on_epoch_end(self, run: Run) -> None:
        if self.when == "epoch":
            run.optimizer.lr, run.schedule = 0.001, None
            run.model.params["0.weight"][...] *= 0.5


def changed(when: str, workers: int) -> dict[str, Array]:
    model = network()
    optimizer = tc.optim.SGD(model, lr=0.05)
    trainer = Trainer(
        model,
        tc.CrossEntropyLoss(),
        optimizer,
        callbacks=[ChangesRankZero(when)],
        workers=workers,
        progress=False,
    )
    trainer.fit(loader(), 2)
    return result(trainer)


def test_parameters_that_differ_between_the_ranks_end_the_training() -> None:
    with pytest.raises(
        RuntimeError, match=r"the parameters on the ranks \[1\] are no longer those of rank 0"
    ):
        changed("batch", 2)


def test_what_the_first_rank_changes_between_epochs_reaches_the_others() -> None:
    assert_same(changed("epoch", 2), changed("epoch", 1))


def test_a_prediction_in_a_callback_or_a_thread_does_not_wait_for_other_ranks() -> None:
    class Predicts(Callback):
        def on_batch_end(self, run: Run) -> None:
            run.model.predict(data()[0])
            run.model.forward(data()[0])
            with ThreadPoolExecutor() as pool:
                pool.submit(run.model.predict, data()[0]).result()

    model = network()
    model[1] = tc.BatchNorm2d(4, track_running_stats=False, dtype=np.float64)
    optimizer = tc.optim.SGD(model, lr=0.05)
    Trainer(model, tc.CrossEntropyLoss(), optimizer, callbacks=[Predicts()], workers=2, progress=False).fit(
        loader(), validation=data()
    )


# Where workers cannot be


def test_a_number_of_workers_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="`workers`"):
        train(loader(), workers=0)


def test_workers_and_a_communicator_are_refused_together() -> None:
    with pytest.raises(ValueError, match=r"`workers` \(=2\) must be 1 with a `communicator`"):
        train(loader(), workers=2, communicator=Communicator())


def test_more_workers_than_cpus_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cpus", lambda: 2)
    with pytest.warns(UserWarning, match=r"`workers` \(=3\) is more than the 2 CPUs"):
        train(loader(), workers=3)


def _in_a_daemon(queue: Any) -> None:
    try:
        train(loader(), workers=2)
    except ValueError as error:
        queue.put(str(error))


@pytest.mark.skipif("fork" not in METHODS, reason="needs fork")
def test_workers_are_refused_by_name_in_a_daemonic_process() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_in_a_daemon, args=(queue,), daemon=True)
    process.start()
    assert "`workers` (=2) must be 1 in a daemonic process" in queue.get()
    process.join()


def test_workers_serve_a_trainer_in_a_thread(alone: dict[str, dict[str, Array]]) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(result(RUNS["uneven parts"](workers=2))))
    thread.start()
    thread.join()
    assert_same(found[0], alone["uneven parts"])


def test_a_system_without_semaphores_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def RawArray(self, *_: Any) -> Any:  # noqa: N802
            raise OSError("No space left on device")

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: Without())
    with pytest.raises(OSError, match=r"`workers` \(=2\) needs more shared memory .*No space left"):
        train(loader(), workers=2)


# The communicators


def added_up(sizes: list[int], dtypes: list[Any], communicator: Communicator) -> None:
    """Check sums over the ranks, in their order, of arrays that may not fit into a slot."""
    rank, size = communicator.rank, communicator.size
    for _ in range(3):
        each = [
            [
                (np.random.default_rng((r, n)).standard_normal(n) * 10.0 ** (7 * r)).astype(d)
                for n, d in zip(sizes, dtypes, strict=True)
            ]
            for r in range(size)
        ]
        expected = [sum(arrays[1:], arrays[0]) for arrays in zip(*each, strict=True)]
        communicator.allreduce(*each[rank])
        for found, value in zip(each[rank], expected, strict=True):
            np.testing.assert_array_equal(found, value)
    assert communicator.broadcast({"from": rank, "much": b"x" * 300_000})["from"] == 0
    strided = np.arange(12.0).reshape(3, 4)[:, ::2] + rank
    communicator.allreduce(strided)
    np.testing.assert_array_equal(strided, size * np.arange(12.0).reshape(3, 4)[:, ::2] + sum(range(size)))
    communicator.barrier()


@pytest.mark.parametrize("size", [2, 3])
def test_processes_add_up_in_the_order_of_the_ranks(size: int) -> None:
    sizes, dtypes = [5, 40_000, 0, 1, 3], [np.float32, np.float64, np.float32, np.int64, np.float32]
    work = partial(added_up, sizes, dtypes)
    with processes(size, work, 0) as communicator:
        assert isinstance(communicator, ProcessCommunicator)
        work(communicator)


def test_one_process_alone_is_its_own_communicator() -> None:
    communicator = default_communicator()
    assert (communicator.rank, communicator.size) == (0, 1)
    added_up([3, 4], [np.float32, np.float64], communicator)


def test_a_worker_ends_with_its_training_process(tmp_path: Path) -> None:
    script = f"""
import os, time
from tests.rank_runs import train, loader
from tests.test_ranks import SeesParts
from pathlib import Path
from tinyconv.training import processes
train(loader(), extra=(SeesParts(Path({str(tmp_path)!r})),), workers=2, on_epoch=lambda _: time.sleep(60))
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    (worker,) = {int(path.name) for path in tmp_path.iterdir()} - {process.pid}
    process.kill()
    process.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the worker goes on without its training process")


# Streams that are not cut by index


class Doubled(DataLoader):
    """Batches that are not cut out by index alone."""

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for inputs, targets in super().__iter__():
            yield 2 * inputs, targets


def shifted(inputs: Array) -> Array:
    return inputs + 1.0


@pytest.mark.parametrize("kind", [DataLoader, Doubled])
@pytest.mark.parametrize("transform", [None, shifted])
@pytest.mark.parametrize("batch_size", [1, 10, 50])
def test_shuffled_and_transformed_batches_train_the_same(kind: Any, transform: Any, batch_size: int) -> None:
    histories = []
    for workers in (1, 2):
        batches = kind(data(), batch_size, shuffle=True, generator=5, transform=transform)
        model = tc.Sequential(tc.Flatten(), tc.Linear(64, 3, dtype=np.float64, generator=1))
        optimizer = tc.optim.SGD(model, lr=0.1, momentum=0.9)
        trainer = Trainer(model, tc.CrossEntropyLoss(), optimizer, workers=workers, progress=False)
        histories.append(trainer.fit(batches, 3))
    np.testing.assert_allclose(histories[1].step_losses, histories[0].step_losses, rtol=1e-9)


# After a training


@pytest.mark.parametrize("method", METHODS)
def test_a_trainer_with_workers_fits_again_and_can_be_copied(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_METHOD", method)
    trainers = {workers: train(loader(), workers=workers) for workers in (1, 2)}
    trainers[2] = pickle.loads(pickle.dumps(copy.deepcopy(trainers[2])))
    for trainer in trainers.values():
        trainer.fit(loader(), 1)
    assert_same(result(trainers[2]), result(trainers[1]))

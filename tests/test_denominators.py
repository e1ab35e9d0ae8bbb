"""Batches, windows of batches, workers and evaluations are combined by numerators and denominators."""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests import strict_arrays
from tests.compare import assert_close
from tests.forking import needs_workers
from tests.trainers import average_of, callbacks
from tinyconv.arrays import Array, moved
from tinyconv.data import DataLoader
from tinyconv.gpu.graph import StepGraph

WEIGHT = np.array([0.1, 5.0, 1.0])
IGNORED = 1
CRITERIA: dict[str, Callable[[], tc.Loss]] = {
    "mean": tc.CrossEntropyLoss,
    "weights": lambda: tc.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
    "ignored": lambda: tc.CrossEntropyLoss(ignore_index=IGNORED),
    "weights, ignored": lambda: tc.NLLLoss(WEIGHT, ignore_index=IGNORED),
    "sum": lambda: tc.CrossEntropyLoss(WEIGHT, reduction="sum"),
    "sum, ignored": lambda: tc.CrossEntropyLoss(ignore_index=IGNORED, reduction="sum"),
}
every_criterion = pytest.mark.parametrize("make", CRITERIA.values(), ids=CRITERIA)


def network() -> tc.Sequential:
    return tc.Sequential(tc.Linear(5, 7, dtype=np.float64, generator=0), tc.ReLU(), final())


def final() -> tc.Linear:
    return tc.Linear(7, 3, dtype=np.float64, generator=1)


def data(count: int = 300) -> tuple[Array, Array]:
    """Samples whose targets are sorted, so that batches are as different as can be."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 5)), np.sort(rng.integers(0, 3, count))


def trainer(criterion: tc.Loss, lr: float = 0.05, **options: Any) -> tc.Trainer:
    model = network()
    optimizer = tc.optim.SGD(model, lr=lr, momentum=0.9, weight_decay=0.01)
    others = {name: options.pop(name) for name in ("workers", "accumulate", "device") if name in options}
    kept = callbacks(model, **options)
    return tc.Trainer(model, criterion, optimizer, callbacks=kept, progress=False, **others)


def all_of(run: tc.Trainer) -> dict[str, Any]:
    """What a step moves."""
    remembered = {
        f"{name} {key}": np.asarray(value)
        for name, own in run.optimizer.state.items()
        for key, value in own.items()
    }
    kept = average_of(run)
    average = {} if kept is None else kept.state_dict()
    count = {} if run.schedule is None else {"schedule": np.asarray(run.schedule.count)}
    return {**run.model.state_dict(), **remembered, **average, **count}


def assert_same(run: tc.Trainer, expected: tc.Trainer) -> None:
    found, wanted = all_of(run), all_of(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], value, name)


# Figures


@every_criterion
def test_losses_and_accuracies_are_those_of_all_samples_at_once(make: Callable[[], tc.Loss]) -> None:
    inputs, targets = data()
    prediction = network().predict(inputs)
    loss = float(make()(prediction, targets))
    counted = targets != getattr(make(), "ignore_index", None)
    accuracy = (prediction.argmax(axis=1) == targets)[counted].mean()
    if make().reduction == "sum":
        loss /= len(targets)
    for batch_size in (1, 7, 64, 300):
        run = trainer(make(), lr=0.0)
        evaluation = run.evaluate((inputs, targets), batch_size=batch_size)
        epoch = run.fit(DataLoader((inputs, targets), batch_size)).epochs[0]
        for found in (evaluation, (epoch.train_loss, epoch.train_accuracy)):
            assert found == pytest.approx((loss, accuracy), rel=1e-12)


def test_an_epoch_goes_on_adding_up_where_it_was_interrupted(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # its import takes long
    batches = DataLoader(data(), 64)
    make = CRITERIA["weights, ignored"]
    run = trainer(make(), folder=tmp_path, every=2)
    run.fit(batches)
    resumed = trainer(make())
    resumed.resume(sorted(tmp_path.glob("step-*"))[0])
    resumed.fit(batches)
    assert resumed.history.epochs[0].train_loss == run.history.epochs[0].train_loss
    assert resumed.history.epochs[0].train_accuracy == run.history.epochs[0].train_accuracy


def test_a_loss_of_ones_own_is_averaged_over_its_samples() -> None:
    class Worst(tc.Loss):
        def forward(self, prediction: Array, target: Array) -> Array:
            return self.save(np.asarray(abs(prediction - target).max(axis=1).mean()), prediction, target)

    inputs, targets = data(10)[0], np.ones((10, 3))
    prediction = network().predict(inputs)
    expected = float(Worst()(prediction, targets))
    run = trainer(Worst())
    for batch_size in (3, 10):
        loss, accuracy = run.evaluate((inputs, targets), batch_size=batch_size)
        assert loss == pytest.approx(expected, rel=1e-12)
        assert accuracy is None


def test_a_criterion_that_no_longer_reduces_is_refused() -> None:
    run = trainer(tc.CrossEntropyLoss())
    run.criterion.reduction = "none"
    for call in (run.fit, run.evaluate):
        with pytest.raises(ValueError, match="must have the reduction 'mean' or 'sum'"):
            call(data())


# Targets that do not count


def ignored_batch() -> tuple[Array, Array]:
    return data(16)[0], np.full(16, IGNORED)


def full(criterion: tc.Loss, **options: Any) -> tc.Trainer:
    """With all that a step moves."""
    model = network()
    optimizer = tc.optim.AdamW(model, lr=0.01)
    schedule = tc.optim.OneCycleLR(optimizer, 0.01, total_steps=50)
    kept = callbacks(model, average=0.5)
    return tc.Trainer(model, criterion, optimizer, schedule, callbacks=kept, progress=False, **options)


@pytest.mark.parametrize("make_run", [trainer, full])
@pytest.mark.parametrize("name", ["ignored", "weights, ignored", "sum, ignored"])
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=needs_workers)])
def test_a_batch_of_ignored_targets_makes_no_step(make_run: Any, name: str, workers: int) -> None:
    counted = list(DataLoader(data(100), 32))
    between = [counted[0], ignored_batch(), *counted[1:], ignored_batch()]
    run, expected = make_run(CRITERIA[name](), workers=workers), make_run(CRITERIA[name]())
    run.fit(between)
    expected.fit(counted)
    assert_same(run, expected)
    losses = run.history.step_losses
    of_ignored = [losses.pop(5), losses.pop(1)]
    assert of_ignored == [0.0, 0.0] if "sum" in name else all(map(math.isnan, of_ignored))
    np.testing.assert_allclose(losses, expected.history.step_losses, rtol=1e-12)
    if "sum" not in name:
        assert run.history.epochs[0].train_loss == pytest.approx(expected.history.epochs[0].train_loss)
    assert run.history.epochs[0].train_accuracy == expected.history.epochs[0].train_accuracy


def test_targets_of_weight_0_make_no_step_and_are_in_the_accuracy() -> None:
    run = trainer(tc.CrossEntropyLoss(np.array([1.0, 0.0, 1.0])))
    before = run.model.state_dict()
    epoch = run.fit([ignored_batch()]).epochs[0]
    for name, value in before.items():
        np.testing.assert_array_equal(run.model.state_dict()[name], value)
    assert math.isnan(epoch.train_loss)
    assert epoch.train_accuracy is not None


def test_an_epoch_and_an_evaluation_without_a_target_that_counts_have_no_figures() -> None:
    run = trainer(CRITERIA["ignored"]())
    epoch = run.fit([ignored_batch()], validation=[ignored_batch()]).epochs[0]
    for loss, accuracy in (
        (epoch.train_loss, epoch.train_accuracy),
        (epoch.validation_loss, epoch.validation_accuracy),
        run.evaluate(ignored_batch()),
    ):
        assert loss is not None
        assert math.isnan(loss)
        assert accuracy is None
    assert run.evaluate(ignored_batch())[1] is None


def test_an_infinite_loss_of_no_target_that_counts_is_not_an_error() -> None:
    criterion = tc.CrossEntropyLoss(np.array([1.0, 0.0]), label_smoothing=0.1)
    model = tc.Linear(2, 2, dtype=np.float64, generator=0)
    trainer = tc.Trainer(model, criterion, tc.optim.SGD(model), progress=False)
    x, y = np.ones((3, 2)), np.array([0, 0, 1])
    with np.errstate(all="raise"):
        found = trainer.evaluate((x, y), batch_size=2)  # the second batch is infinite
    assert found == trainer.evaluate((x[:2], y[:2]))._replace(accuracy=found.accuracy)


def test_a_loss_that_is_nan_though_targets_count_ends_the_training() -> None:
    inputs, targets = data(32)
    inputs[20] = np.nan
    batches = [ignored_batch(), (inputs, targets)]
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="nan in epoch 1, step 2"):
        trainer(CRITERIA["ignored"]()).fit(batches)


# Accumulation


@every_criterion
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": 0.05}, pytest.param({"workers": 2}, marks=needs_workers)],
    ids=["plain", "clipped", "two workers"],
)
def test_eight_small_batches_are_one_large_one(make: Callable[[], tc.Loss], options: dict[str, Any]) -> None:
    lr = 0.001 if make().reduction == "sum" else 0.05
    expected = trainer(make(), lr, norm=options.get("norm"))
    expected.fit(DataLoader(data(), 128), 3)  # the last of 300 samples are 44
    run = trainer(make(), lr, accumulate=8, **options)
    run.fit(DataLoader(data(), 16), 3)  # the last window has 3 batches, the last of 12 samples
    assert_same(run, expected)
    assert len(run.history.step_losses) == 3 * 19


def test_accumulation_of_a_loss_of_elements_is_one_large_batch_as_well() -> None:
    inputs, targets = data()[0], np.random.default_rng(1).standard_normal((300, 3))
    expected, run = trainer(tc.SmoothL1Loss(beta=0.5)), trainer(tc.SmoothL1Loss(beta=0.5), accumulate=8)
    expected.fit(DataLoader((inputs, targets), 128), 2)
    run.fit(DataLoader((inputs, targets), 16), 2)
    assert_same(run, expected)


def test_a_window_without_a_target_that_counts_makes_no_step() -> None:
    counted = list(DataLoader(data(64), 16))
    run = full(CRITERIA["ignored"](), accumulate=2)
    expected = full(CRITERIA["ignored"](), accumulate=2)
    run.fit([*counted[:2], ignored_batch(), ignored_batch(), *counted[2:], ignored_batch()])
    expected.fit(counted)
    assert_same(run, expected)


def test_a_batch_of_ignored_targets_within_a_window_leaves_the_others() -> None:
    inputs, targets = data(16)[0], np.zeros(16, int)
    run, expected = (full(CRITERIA["ignored"](), accumulate=2) for _ in range(2))
    run.fit([ignored_batch(), (inputs, targets)])
    expected.fit([(inputs, targets)])
    assert_same(run, expected)


def test_one_batch_an_update_takes_the_criterions_own_gradient() -> None:
    """And passes over the gradients no further time."""
    given = []

    class Watched(tc.CrossEntropyLoss):
        def backward(self, grad_output: Array | None = None) -> Array:
            given.append(grad_output)
            return super().backward(grad_output)

    trainer(Watched()).fit(DataLoader(data(), 100))
    assert given == [None, None, None]


# Workers


class Pieces:
    """Batches of odd sizes, some smaller than the number of workers, one of ignored targets."""

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        inputs, targets = data(60)
        order = np.random.default_rng(3).permutation(60)
        for start, end in ((0, 9), (9, 10), (10, 11), (11, 40), (40, 60)):
            yield inputs[order[start:end]], targets[order[start:end]]
        yield ignored_batch()


@needs_workers
@every_criterion
@pytest.mark.parametrize(
    "batches", [Pieces(), DataLoader(data(31), 6, shuffle=False)], ids=["odd", "last is 1"]
)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_workers_give_the_figures_of_one_process(
    make: Callable[[], tc.Loss], batches: Any, accumulate: int
) -> None:
    lr = 0.001 if make().reduction == "sum" else 0.05
    alone, together = (trainer(make(), lr, accumulate=accumulate, workers=count) for count in (1, 2))
    for run in (alone, together):
        run.fit(batches, 2)
    assert_same(together, alone)
    np.testing.assert_allclose(together.history.step_losses, alone.history.step_losses, rtol=1e-9)
    for own, other in zip(together.history.epochs, alone.history.epochs, strict=True):
        assert own.train_loss == pytest.approx(other.train_loss, rel=1e-10)
        assert own.train_accuracy == other.train_accuracy


# On a GPU


def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each step that runs by way of a graph."""
    found: list[int] = []
    call = StepGraph.__call__

    def counted(self: StepGraph, *batch: Array) -> Array:
        found.append(len(batch[0]))
        return call(self, *batch)

    monkeypatch.setattr(StepGraph, "__call__", counted)
    return found


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["ignored", "weights, ignored"])
def test_ignored_targets_give_the_same_on_a_gpu(
    name: str, accumulate: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inputs, targets = data(96)
    batches = (inputs, np.where(np.arange(96) // 16 % 3 == 1, IGNORED, targets))  # whole batches of them
    expected = full(CRITERIA[name](), accumulate=accumulate)
    expected.fit(DataLoader(batches, 16), 2, validation=batches)
    graphs = launches(monkeypatch)
    with strict_arrays.installed(), caplog.at_level("INFO"):
        run = full(CRITERIA[name](), accumulate=accumulate, device="cuda")
        run.fit(DataLoader(batches, 16), 2, validation=batches)
        run.model.to("cpu"), run.optimizer.to("cpu")
        averaged = average_of(run)
        assert averaged is not None
        averaged.to("cpu")
    assert not graphs
    assert accumulate > 1 or "without a CUDA graph" in caplog.text
    assert_same(run, expected)
    np.testing.assert_allclose(run.history.step_losses, expected.history.step_losses, rtol=1e-9)
    for own, other in zip(run.history.epochs, expected.history.epochs, strict=True):
        assert own.train_loss == pytest.approx(other.train_loss)
        assert own.validation_loss == pytest.approx(other.validation_loss)
        assert own.train_accuracy == other.train_accuracy


def test_figures_from_a_graph_are_those_of_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = data()
    expected = trainer(CRITERIA["weights"]())
    expected.fit(DataLoader((inputs, targets), 32), 2)
    graphs = launches(monkeypatch)
    with strict_arrays.installed():
        run = trainer(CRITERIA["weights"](), device="cuda")
        run.fit(DataLoader((inputs, targets), 32), 2)
    assert len(graphs) == 20
    for own, other in zip(run.history.epochs, expected.history.epochs, strict=True):
        assert own.train_loss == pytest.approx(other.train_loss)
        assert own.train_accuracy == other.train_accuracy


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_ignored_batch_of_an_iterable_neither_ends_nor_spoils_a_training_on_a_gpu(accumulate: int) -> None:
    counted = list(DataLoader(data(64), 16))
    with strict_arrays.installed(), np.errstate(all="ignore"):
        run = trainer(CRITERIA["ignored"](), accumulate=accumulate, device="cuda")
        run.fit([counted[0], ignored_batch(), ignored_batch(), ignored_batch(), *counted[1:]])
        assert all(np.isfinite(moved(param, np)).all() for param in run.model.params.values())
    losses = run.history.step_losses
    assert [at for at, loss in enumerate(losses) if math.isnan(loss)] == [1, 2, 3]
    assert math.isfinite(run.history.epochs[0].train_loss)


# What a trainer and a history say


def test_a_trainer_says_briefly_what_it_is() -> None:
    assert repr(trainer(tc.CrossEntropyLoss())) == "Trainer(Sequential, SGD, CrossEntropyLoss())"
    run = full(tc.CrossEntropyLoss(WEIGHT), accumulate=4)
    assert repr(run) == (
        "Trainer(Sequential, AdamW, OneCycleLR, CrossEntropyLoss(weight=<3 values>), "
        "WeightAverage(decay=0.5), accumulate=4)"
    )


def test_a_history_says_briefly_what_it_holds() -> None:
    def epoch(number: int, loss: float | None, accuracy: float | None) -> tc.training.Epoch:
        return tc.training.Epoch(number, 938, 0.1, 0.5, 0.6, loss, accuracy, 1.0, 1.0)

    history = tc.training.History
    assert repr(history()) == "History(0 epochs, 0 steps)"
    three = history([epoch(1, 0.3, 0.98), epoch(2, 0.2, 0.991), epoch(3, 0.2, 0.99)], [0.0] * 2814)
    assert repr(three) == "History(3 epochs, 2,814 steps, best validation accuracy 99.1 % in epoch 2)"
    assert repr(history([epoch(1, 0.25, None)], [0.5])) == (
        "History(1 epoch, 1 step, best validation loss 0.25 in epoch 1)"
    )
    assert "best training loss 0.5 in epoch 1" in repr(history([epoch(1, None, None)]))

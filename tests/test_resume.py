"""Runs that are interrupted and go on: bit by bit as if they had never stopped."""

import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.trainers import average_of, callbacks
from tinyconv.arrays import Array
from tinyconv.data import DataLoader
from tinyconv.data.augment import random_affine
from tinyconv.training import Callback, Run, loop
from tinyconv.training.checkpoints import Checkpoints, read_checkpoint, write_checkpoint

EPOCHS = 3


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes longer than all of these tests."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)


def small_model(dtype: str = "float32") -> tc.Sequential:
    return tc.Sequential(
        tc.Conv2d(1, 4, 3, dtype=dtype, generator=0),
        tc.BatchNorm2d(4, dtype=dtype),
        tc.ReLU(),
        tc.Flatten(),
        tc.Dropout(0.3, generator=1),
        tc.Linear(144, 3, dtype=dtype, generator=2),
    )


def small_data(augmented: bool = False, count: int = 44) -> DataLoader:
    rng = np.random.default_rng(3)
    images = rng.random((count, 1, 8, 8)).astype(np.float32)
    augment = partial(random_affine, degrees=10, translate=1) if augmented else None
    return DataLoader((images, rng.integers(0, 3, count)), 8, shuffle=True, generator=4, augment=augment)


def sgd(folder: Path | None, **options: Any) -> tc.Trainer:
    model = small_model()
    optimizer = tc.optim.SGD(model, lr=0.05, momentum=0.9)
    return trainer(model, optimizer, tc.optim.StepLR(optimizer, 1, 0.5), folder, **options)


def adamw(folder: Path | None, **options: Any) -> tc.Trainer:
    model = small_model()
    optimizer = tc.optim.AdamW(model, groups=[{"params": ["5"], "lr": 0.01}])
    schedule = tc.optim.OneCycleLR(optimizer, 0.01, total_steps=6 * EPOCHS)
    return trainer(model, optimizer, schedule, folder, **options)


def nadam(folder: Path | None, **options: Any) -> tc.Trainer:
    model = small_model()
    optimizer = tc.optim.NAdam(model, groups=[{"params": ["5"], "lr": 0.01, "weight_decay": 0.1}])
    schedule = tc.optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5)
    return trainer(model, optimizer, schedule, folder, **options)


def rmsprop(folder: Path | None, **options: Any) -> tc.Trainer:
    model = small_model()
    optimizer = tc.optim.RMSprop(model, lr=1e-3, momentum=0.9, centered=True)
    linear, exponential = tc.optim.LinearLR(optimizer), tc.optim.ExponentialLR(optimizer, 0.9)
    linear.interval = exponential.interval = "step"
    schedule = tc.optim.SequentialLR(optimizer, [linear, exponential], [8])
    return trainer(model, optimizer, schedule, folder, **options)


def adagrad(folder: Path | None, **options: Any) -> tc.Trainer:
    model = small_model()
    optimizer = tc.optim.Adagrad(model, lr_decay=0.1, initial_accumulator_value=0.1)
    return trainer(model, optimizer, tc.optim.MultiStepLR(optimizer, [1, 2]), folder, **options)


def trainer(model: Any, optimizer: Any, schedule: Any, folder: Path | None, **options: Any) -> tc.Trainer:
    others = {name: options.pop(name) for name in ("workers", "accumulate") if name in options}
    kept = callbacks(model, folder, **options)
    return tc.Trainer(
        model, tc.CrossEntropyLoss(), optimizer, schedule, callbacks=kept, progress=False, **others
    )


RUNS: dict[str, tuple[Callable[..., tc.Trainer], dict[str, Any]]] = {
    "SGD": (sgd, {}),
    "AdamW": (adamw, {}),
    "NAdam and a plateau": (nadam, {}),
    "RMSprop and a sequence": (rmsprop, {}),
    "Adagrad": (adagrad, {}),
    "average, accumulation and clipping": (
        adamw,
        {"average": 0.9, "accumulate": 2, "norm": 0.5, "value": 0.1},
    ),
    "augmented": (sgd, {"augmented": True}),
    "two workers": (sgd, {"workers": 2}),
    "two workers and a plateau": (nadam, {"workers": 2}),
    "two workers, augmented": (adamw, {"workers": 2, "augmented": True}),
}


def end_of(run: tc.Trainer) -> dict[str, Array]:
    """All that must be equal at the end of two runs."""
    arrays = run.model.state_dict()
    average = average_of(run)
    if average is not None:
        arrays |= average.state_dict()
    for name, own in run.optimizer.state.items():
        arrays |= {f"{name} {key}": np.asarray(value) for key, value in own.items()}
    figures = [(e.train_loss, e.train_accuracy, e.lr) for e in run.history.epochs]
    return {**arrays, "losses": np.array(run.history.step_losses), "epochs": np.array(figures)}


def assert_equal(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_every_checkpoint_to_the_same_end(name: str, tmp_path: Path) -> None:
    make, options = RUNS[name]
    data = partial(small_data, options.get("augmented", False))
    options = {key: value for key, value in options.items() if key != "augmented"}
    plain = make(None, **options)
    plain.fit(data(), EPOCHS)
    saving = make(tmp_path / "run", **options)
    saving.fit(data(), EPOCHS)
    assert_equal(end_of(saving), end_of(plain))
    paths = Checkpoints(tmp_path / "run").paths()
    assert len(paths) == 6 * EPOCHS // options.get("accumulate", 1)
    for path in paths[:: 1 if options.get("workers", 1) == 1 else 4]:
        resumed = make(None, **options)
        resumed.resume(path)
        resumed.fit(data(), EPOCHS - len(resumed.history.epochs))
        assert_equal(end_of(resumed), end_of(plain))


def live(folder: Path) -> None:
    """A life of a run of 12 epochs: it begins or goes on, and writes all the time."""
    run = sgd(folder, keep=2)
    if Checkpoints(folder).paths():
        run.resume()
    run.fit(small_data(), 12 - len(run.history.epochs))


def test_a_run_that_is_killed_at_any_moment_ends_as_one_that_was_not(tmp_path: Path) -> None:
    expected, folder = sgd(None), tmp_path / "run"
    expected.fit(small_data(), 12)
    context, moments = multiprocessing.get_context("fork"), random.Random(0)
    live(tmp_path / "first")  # imports what it needs
    start = time.perf_counter()
    live(tmp_path / "whole")
    whole = time.perf_counter() - start
    codes, unfinished = [], 0
    for _ in range(20):
        process = context.Process(target=live, args=(folder,))
        process.start()
        time.sleep(moments.uniform(0, min(whole / 8, 0.25)))
        process.kill()
        process.join()
        codes.append(process.exitcode)
        unfinished += bool(list(folder.glob(".step-*")))
    print(f"{codes.count(-9)} of 20 were killed, {unfinished} while they wrote a checkpoint")
    assert codes.count(-9) >= 10
    live(folder)
    found = sgd(None)
    found.resume(folder)
    assert_equal(end_of(found), end_of(expected))
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 6 * 12 + 1))
    assert [line["epoch"] for line in lines if "train_loss" in line] == list(range(1, 12 + 1))
    assert [line["loss"] for line in lines if "loss" in line] == expected.history.step_losses
    assert len(Checkpoints(folder).paths()) <= 3
    assert not list(folder.glob(".*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run of one epoch."""
    sgd(tmp_path).fit(small_data())
    return tmp_path


def test_a_new_run_does_not_overwrite_another(folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match="holds the checkpoints of another run: resume it"):
        sgd(folder).fit(small_data())
    assert sorted(folder.iterdir()) == before


def another_model(folder: Path) -> tc.Trainer:
    model = tc.Sequential(tc.Flatten(), tc.Linear(64, 3))
    optimizer = tc.optim.SGD(model)
    return trainer(model, optimizer, tc.optim.StepLR(optimizer, 1), folder)


def another_dtype(folder: Path) -> tc.Trainer:
    optimizer = tc.optim.SGD(small_model("float64"), lr=0.05)
    return trainer(optimizer.model, optimizer, tc.optim.StepLR(optimizer, 1, 0.5), folder)


def another_schedule(folder: Path) -> tc.Trainer:
    optimizer = tc.optim.SGD(small_model())
    return trainer(optimizer.model, optimizer, None, folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_model, "with model Sequential"),
        (another_dtype, "'0.weight' is float32, not float64"),
        (another_schedule, r"with schedule kind \[.StepLR., 0.05\] and not None"),
        (adamw, "with optimizer kind SGD and not AdamW"),
        (partial(sgd, average=0.9), r"with callbacks \[\] and not \['WeightAverage"),
        (partial(sgd, accumulate=2), "with accumulate 1 and not 2"),
    ],
    ids=["model", "dtype", "schedule", "optimizer", "averaging", "accumulation"],
)
def test_a_checkpoint_of_another_run_is_refused_and_changes_nothing(
    make: Callable[[Path], tc.Trainer], message: str, folder: Path
) -> None:
    run = make(folder)
    before = run.model.state_dict()
    with pytest.raises(ValueError, match=rf"does not fit this run: .*{message}"):
        run.resume()
    assert_equal(run.model.state_dict(), before)
    assert run.run.steps == 0


@pytest.mark.parametrize(
    "schedule", [None, {}, {"count": "two", "base_lrs": [0.05]}, {"count": 2, "base_lrs": []}]
)
def test_a_checkpoint_with_a_wrong_schedule_is_refused_and_changes_nothing(
    schedule: Any, folder: Path
) -> None:
    path = Checkpoints(folder).paths()[-1]
    arrays, state = read_checkpoint(path)
    write_checkpoint(path, arrays, {**state, "schedule": schedule})
    run = sgd(folder)
    before, options = run.model.state_dict(), run.optimizer.state_dict()
    with pytest.raises(ValueError, match="does not fit this run"):
        run.resume(path)
    assert_equal(run.model.state_dict(), before)
    assert run.optimizer.state_dict() == options
    assert run.schedule is not None
    assert run.schedule.count == run.run.steps == 0


def test_a_run_goes_on_with_the_rates_and_options_that_were_set_by_hand(tmp_path: Path) -> None:
    def make(folder: Path | None) -> tc.Trainer:
        groups = [{"params": ["5"], "lr": np.float32(0.01)}]
        adam = tc.optim.Adam(small_model(), np.float64(0.02), groups=groups)
        return trainer(adam.model, adam, tc.optim.CosineAnnealingLR(adam, 5, eta_min=0.001), folder)

    def run(folder: Path | None) -> tc.Trainer:
        whole, data = make(folder), small_data()
        whole.fit(data)
        whole.optimizer.lr *= 0.5
        whole.optimizer.groups[1].update(lr=np.float64(0.03), weight_decay=np.float64(0.1))
        whole.fit(data, EPOCHS - 1)
        return whole

    expected = run(None)
    assert_equal(end_of(run(tmp_path)), end_of(expected))
    assert expected.optimizer.groups[1]["lr"] > expected.optimizer.lr
    for path in Checkpoints(tmp_path).paths()[6:]:
        resumed = make(None)
        resumed.resume(path)
        resumed.fit(small_data(), EPOCHS - len(resumed.history.epochs))
        assert_equal(end_of(resumed), end_of(expected))
        assert resumed.optimizer.groups == expected.optimizer.groups


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_plateau_of_the_validation_goes_on_after_every_checkpoint(mode: str, tmp_path: Path) -> None:
    x, y = small_data().dataset

    def run(folder: Path | None, resumed: Path | None = None) -> tc.Trainer:
        adadelta = tc.optim.Adadelta(small_model())
        schedule = tc.optim.ReduceLROnPlateau(adadelta, mode, 0.5, patience=1, threshold=0.3, cooldown=1)
        own = trainer(adadelta.model, adadelta, schedule, folder)
        if resumed is not None:
            own.resume(resumed)
        own.fit(small_data(), 6 - len(own.history.epochs), validation=(x[:20], y[:20]))
        return own

    expected = run(None)
    assert_equal(end_of(run(tmp_path)), end_of(expected))
    assert expected.optimizer.lr < 1
    for path in Checkpoints(tmp_path).paths()[::5]:
        resumed = run(None, path)
        assert_equal(end_of(resumed), end_of(expected))
        assert resumed.schedule is not None
        assert expected.schedule is not None
        assert resumed.schedule.state_dict() == expected.schedule.state_dict()


def test_data_of_another_length_are_refused(folder: Path) -> None:
    run = sgd(folder)
    run.resume()
    with pytest.raises(ValueError, match="`data` has 5 batches, the resumed run's had 6"):
        run.fit(small_data(count=40))
    with pytest.raises(ValueError, match="`data` has 45 samples, the resumed run's had 44"):
        run.fit(small_data(count=45))
    with pytest.raises(ValueError, match=r"`data` has None samples"):
        run.fit(list(small_data()))
    run.fit(small_data(), EPOCHS - 1)
    expected = sgd(None)
    expected.fit(small_data(), EPOCHS)
    assert_equal(end_of(run), end_of(expected))


def test_a_list_of_batches_goes_on_as_well(tmp_path: Path) -> None:
    batches = list(small_data())
    run, expected = sgd(tmp_path), sgd(None)
    run.fit(batches)
    expected.fit(batches)
    resumed = sgd(None)
    resumed.resume(Checkpoints(tmp_path).paths()[2])
    with pytest.raises(ValueError, match="`data` has 44 samples, the resumed run's had None"):
        resumed.fit(small_data())
    resumed.fit(batches)
    assert_equal(end_of(resumed), end_of(expected))


class Lazy:
    """An iterable that draws its order when its first batch is asked for."""

    def __init__(self) -> None:
        self.data, self.generator = small_data(), np.random.default_rng(5)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        images, labels = self.data.dataset
        for place in self.generator.permutation(40):
            yield images[place : place + 4], labels[place : place + 4]


class Doubled(DataLoader):
    """Batches that are more than those of the class."""

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for inputs, targets in super().__iter__():
            yield 2 * inputs, targets


def doubled() -> Doubled:
    return Doubled(small_data().dataset, 8, shuffle=True, generator=4)


@pytest.mark.parametrize("make", [Lazy, doubled])
@pytest.mark.parametrize("workers", [1, 2])
def test_iterables_of_ones_own_go_on_within_an_epoch(
    make: Callable[[], Any], workers: int, tmp_path: Path
) -> None:
    expected = sgd(tmp_path, workers=workers)
    expected.fit(make(), 2)
    for step in (3, 9):
        resumed = sgd(None, workers=workers)
        resumed.resume(Checkpoints(tmp_path).paths()[step])
        resumed.fit(make(), 2 - len(resumed.history.epochs))
        assert_equal(end_of(resumed), end_of(expected))


def test_another_run_in_another_folder_is_left_alone(folder: Path, tmp_path: Path) -> None:
    sgd(tmp_path / "other").fit(small_data(), 2)
    before = sorted((tmp_path / "other").iterdir())
    run = sgd(tmp_path / "other")
    run.resume(folder)
    with pytest.raises(ValueError, match="holds the checkpoints of another run"):
        run.fit(small_data())
    assert sorted((tmp_path / "other").iterdir()) == before


def test_a_run_goes_on_after_a_loss_that_was_not_finite(tmp_path: Path) -> None:
    data = small_data()
    images, labels = data.dataset
    bad = DataLoader((images.copy(), labels), 8)
    bad.dataset[0][20] = np.nan
    run = sgd(tmp_path)
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="in epoch 1, step 3"):
        run.fit(bad)
    for name, value in run.model.buffers.items():
        run.model.buffers[name][...] = np.nan_to_num(value)
    run.fit(data)
    assert len(run.history.epochs) == 1


def test_a_state_without_a_position_is_refused(folder: Path) -> None:
    path = Checkpoints(folder).paths()[-1]
    arrays, state = read_checkpoint(path)
    for name, value in (("position", {}), ("position", None), ("optimizer", {}), ("epochs", 3)):
        write_checkpoint(path, arrays, {**state, name: value})
        run = sgd(folder)
        before = run.model.state_dict()
        with pytest.raises(ValueError, match="does not fit this run"):
            run.resume()
        assert_equal(run.model.state_dict(), before)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_offered(folder: Path) -> None:
    *_, older, newest = Checkpoints(folder).paths()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    run = sgd(folder)
    with pytest.raises(ValueError, match=rf"damaged.*older checkpoint is .*{older.name}"):
        run.resume()
    run.resume(older)
    run.fit(small_data(), 1)
    expected = sgd(None)
    expected.fit(small_data(), 1)
    assert_equal(end_of(run), end_of(expected))
    assert Checkpoints(folder).latest().state["step"] == 6


def test_a_disk_that_is_full_ends_the_run_and_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in Checkpoints(folder).paths()}
    run = sgd(folder)
    run.resume()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.fit(small_data())
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in Checkpoints(folder).paths()} == before
    again = sgd(folder)
    again.resume()
    again.fit(small_data(), EPOCHS - 1)
    expected = sgd(None)
    expected.fit(small_data(), EPOCHS)
    assert_equal(end_of(again), end_of(expected))


def test_without_a_folder_there_is_nothing_to_resume() -> None:
    with pytest.raises(ValueError, match="`path` must be given"):
        sgd(None).resume()


# Early stopping, validation, accumulation


def worsening(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Evaluations give these accuracies, one after the other."""
    values: Iterator[float] = iter(accuracies)
    monkeypatch.setattr(loop, "evaluate", lambda *_: tc.training.Evaluation(1.0, next(values)))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("options", [{}, {"average": 0.5}], ids=str)
def test_training_stops_when_it_gets_no_better_and_restores_the_best(
    saved: bool, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worsening(monkeypatch, [0.5, 0.7, 0.6, 0.7, 0.9])
    states = []

    def on_epoch(_: Any) -> None:
        states.append(run.run.evaluated.state_dict())

    stopping: dict[str, Any] = {"patience": 2, "restore_best": True, "on_epoch": on_epoch}
    run = sgd(tmp_path if saved else None, **options, **stopping)
    run.fit(small_data(), 10, validation=small_data())
    assert [epoch.validation_accuracy for epoch in run.history.epochs] == [0.5, 0.7, 0.6, 0.7]
    assert_equal(run.model.state_dict(), states[1])


def test_a_resumed_run_remembers_its_patience_and_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worsening(monkeypatch, [0.7, 0.6])
    states: list[dict[str, Array]] = []
    run: tc.Trainer = sgd(
        tmp_path, keep=1, every=None, on_epoch=lambda _: states.append(run.model.state_dict())
    )
    run.fit(small_data(), 2, validation=small_data())
    resumed = sgd(tmp_path, keep=1, patience=1, restore_best=True)
    resumed.resume()
    resumed.fit(small_data(), 5, validation=small_data())
    assert len(resumed.history.epochs) == 2
    assert_equal(resumed.model.state_dict(), states[0])


def test_patience_does_not_count_the_epochs_of_an_earlier_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worsening(monkeypatch, [0.9, 0.8, 0.7, 0.3, 0.4, 0.2, 0.1, 0.0])
    run = sgd(tmp_path)
    run.fit(small_data(), 3, validation=small_data())
    run.fit(small_data(), 1, validation=small_data())
    resumed = sgd(tmp_path, patience=2)
    resumed.resume()  # goes on with the second call
    resumed.fit(small_data(), 10, validation=small_data())
    assert [epoch.validation_accuracy for epoch in resumed.history.epochs[3:]] == [0.3, 0.4, 0.2, 0.1]


class StopsAfterOne(Callback):
    def on_epoch_end(self, run: Run) -> None:
        run.stop = run.epoch == 1


def test_a_run_that_was_stopped_can_be_resumed_and_fit_again(tmp_path: Path) -> None:
    trainers = [sgd(tmp_path), sgd(tmp_path)]
    for trainer in trainers:
        trainer.run.callbacks.insert(0, StopsAfterOne())
    trainers[0].fit(small_data(), 3)
    trainers[1].resume()
    assert (
        len(trainers[1].fit(small_data(), 2).epochs) == 1
    )  # it goes on as the first would, which has stopped
    whole, again = small_data(), small_data()
    whole.generator.bit_generator.state = trainers[0].run.batches.generator.bit_generator.state  # type: ignore[attr-defined]
    trainers[0].fit(whole, 2)
    trainers[1].fit(again, 2)
    assert_equal(end_of(trainers[1]), end_of(trainers[0]))


def test_a_share_of_the_data_is_split_off_for_validation() -> None:
    data = small_data()
    run = sgd(None)
    run.fit(data, validation_split=0.25)
    assert run.run.steps == 5  # 33 samples
    images, labels = data.dataset
    last = DataLoader((images[33:], labels[33:]), 8)
    assert run.history.epochs[0].validation_loss == run.evaluate(last).loss
    arrays = sgd(None)
    arrays.fit((images, labels), batch_size=8, validation_split=0.25, generator=4)
    assert arrays.history.epochs[0].validation_loss == pytest.approx(run.history.epochs[0].validation_loss)
    with pytest.raises(ValueError, match="must not both be given"):
        run.fit(data, validation=data, validation_split=0.1)
    for share, error in (
        (1.0, "must leave samples"),
        (0.001, "must leave samples"),
        (-1, "validation_split"),
    ):
        with pytest.raises(ValueError, match=error):
            run.fit(data, validation_split=share)
    with pytest.raises(TypeError, match="DataLoader of one, got a list of length 6"):
        run.fit(list(data), validation_split=0.1)


@pytest.mark.parametrize("workers", [1, 2])
def test_accumulated_batches_are_one_large_batch(workers: int) -> None:
    images, labels = small_data(count=32).dataset
    runs = []
    for batch_size, accumulate in ((16, 1), (4, 4)):
        model = tc.Sequential(tc.Flatten(), tc.Linear(64, 3, dtype="float64", generator=0))
        optimizer = tc.optim.SGD(model, lr=0.1, momentum=0.9)
        run = tc.Trainer(
            model, tc.CrossEntropyLoss(), optimizer, accumulate=accumulate, workers=workers, progress=False
        )
        run.fit(DataLoader((images.astype(np.float64), labels), batch_size), 2)
        runs.append(run)
    for name, value in runs[0].model.state_dict().items():
        np.testing.assert_allclose(runs[1].model.state_dict()[name], value, rtol=1e-12)
    assert [len(run.history.step_losses) for run in runs] == [4, 16]


def test_what_is_left_at_the_end_of_an_epoch_is_an_update_too() -> None:
    run = sgd(None, accumulate=4)
    run.fit(small_data())
    assert run.optimizer.state["0.weight"]["step"] == 2


def test_gradients_are_clipped_before_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    step = tc.optim.SGD.step

    def watched(self: tc.optim.SGD) -> None:
        norms.append(np.sqrt(sum((grad**2).sum() for grad in self.model.grads.values())))
        step(self)

    monkeypatch.setattr(tc.optim.SGD, "step", watched)
    sgd(None, norm=0.01).fit(small_data())
    np.testing.assert_allclose(norms, 0.01, rtol=1e-3)


def test_evaluation_uses_the_averaged_weights_and_leaves_the_models_alone() -> None:
    run = sgd(None, average=0.5)
    run.fit(small_data(), 2)
    average = average_of(run)
    assert average is not None
    own = run.model.state_dict()
    averaged = run.evaluate(small_data())
    assert_equal(run.model.state_dict(), own)
    run.model.load_state_dict(average.module.state_dict())
    run.run.callbacks.clear()
    assert run.evaluate(small_data()).loss == averaged.loss
    run.model.load_state_dict(own)
    assert run.evaluate(small_data()).loss != averaged.loss


def test_pandas_reads_the_history_in_one_line(folder: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas reads the file")
    table = pandas.read_json(folder / "history.jsonl", lines=True)
    assert len(table) == 7
    assert table.loss.count() == 6


def test_a_folder_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        sgd(place).fit(small_data())

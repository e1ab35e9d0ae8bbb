"""Trainer, history, batches, weights in files; training on real MNIST."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.trainers import callbacks
from tinyconv import (
    CrossEntropyLoss,
    Dropout,
    Linear,
    MSELoss,
    Sequential,
    Trainer,
    load_weights,
    models,
    optim,
    save_weights,
)
from tinyconv.arrays import Array
from tinyconv.data import MNIST, DataLoader, load_mnist, normalize
from tinyconv.layers import Layer
from tinyconv.training import Callback, Epoch, History, Run
from tinyconv.training.progress import LOCK, Bar


@pytest.fixture(scope="module")
def mnist() -> MNIST:
    return load_mnist(Path(__file__).parent.parent / "examples" / "data" / "mnist")


def line(count: int = 64) -> tuple[Array, Array]:
    x = np.linspace(-1, 1, count, dtype=np.float32)[:, None]
    return x, 3 * x - 1


def trainer_of(model: Any, lr: float = 0.1, **options: Any) -> Trainer:
    return Trainer(model, MSELoss(), optim.SGD(model, lr=lr), progress=False, **options)


def train_lenet(mnist: MNIST, seed: int, count: int = 4000) -> tuple[Trainer, float]:
    rng = np.random.default_rng(seed)
    model = models.lenet5(generator=rng)
    batches = DataLoader(
        (mnist.train_images[:count], mnist.train_labels[:count]),
        64,
        shuffle=True,
        generator=rng,
        transform=normalize,
    )
    optimizer = optim.AdamW(model)
    schedule = optim.OneCycleLR(optimizer, 0.005, epochs=2, steps_per_epoch=len(batches))
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, schedule, progress=False)
    trainer.fit(batches, 2)
    test = normalize(mnist.test_images[:2000]), mnist.test_labels[:2000]
    accuracy = trainer.evaluate(test).accuracy
    assert accuracy is not None
    return trainer, accuracy


def test_lenet_learns_a_subset_of_mnist_bit_identically_twice(mnist: MNIST) -> None:
    first, accuracy = train_lenet(mnist, seed=0)
    assert accuracy >= 0.93
    second, again = train_lenet(mnist, seed=0)
    assert again == accuracy
    assert second.history.step_losses == first.history.step_losses
    for name, param in first.model.params.items():
        np.testing.assert_array_equal(param, second.model.params[name])
    other, _ = train_lenet(mnist, seed=1, count=128)
    assert other.history.step_losses[0] != first.history.step_losses[0]


def test_ten_steps_of_training_agree_with_pytorch(mnist: MNIST) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model = models.lenet5(dtype=np.float64, generator=0)
    theirs = torch.nn.Sequential(*[eval(f"torch.nn.{layer!r}", {"torch": torch}) for layer in model]).double()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in model.state_dict().items()})
    expected = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    optimizer = optim.SGD(model, lr=0.05, momentum=0.9)
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, progress=False)
    images = normalize(mnist.train_images[:320], dtype=np.float64)
    trainer.fit(DataLoader((images, mnist.train_labels[:320]), 32))
    for start in range(0, 320, 32):
        expected.zero_grad()
        x = torch.tensor(np.ascontiguousarray(images[start : start + 32]))
        y = torch.tensor(mnist.train_labels[start : start + 32].astype(np.int64))
        torch.nn.functional.cross_entropy(theirs(x), y).backward()
        expected.step()
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(model.params[name], value.numpy(), rtol=1e-9, atol=1e-11)


def test_history_holds_an_epoch_a_record_and_a_loss_a_step() -> None:
    model = Linear(1, 1, generator=0)
    seen: list[Epoch] = []
    trainer = trainer_of(model, callbacks=callbacks(model, on_epoch=seen.append))
    history = trainer.fit(line(), 3, batch_size=10, validation=line(20), generator=0)
    assert history is trainer.history
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    assert history.epochs == seen
    assert len(history.step_losses) == 3 * 7 == sum(epoch.steps for epoch in history.epochs)
    last = history.epochs[-1]
    assert last.train_loss < history.epochs[0].train_loss
    assert last.validation_loss is not None
    assert last.train_accuracy is None
    assert last.validation_accuracy is None
    assert last.images_per_second > 0
    assert history.best is min(history.epochs, key=lambda epoch: epoch.validation_loss or 0)
    trainer.fit(line(), 1, generator=0)
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4]


def test_epoch_loss_is_the_mean_over_images_also_with_a_smaller_last_batch() -> None:
    model = Linear(1, 1, generator=0)
    x, y = line(10)
    whole = trainer_of(model).evaluate((x, y), batch_size=10)
    parts = trainer_of(model).evaluate((x, y), batch_size=4)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    epoch = trainer_of(model, lr=0.0).fit((x, y), batch_size=4).epochs[0]
    assert epoch.train_loss == pytest.approx(whole.loss, rel=1e-6)
    summed = Trainer(model, MSELoss(reduction="sum"), optim.SGD(model), progress=False)
    assert summed.evaluate((x, y), batch_size=4).loss == pytest.approx(whole.loss, rel=1e-6)


def test_best_epoch_is_the_one_with_the_highest_validation_accuracy() -> None:
    def epoch(number: int, accuracy: float | None, loss: float) -> Epoch:
        return Epoch(number, 1, 0.1, loss, None, None, accuracy, 1.0, 1.0)

    assert History([epoch(1, 0.5, 1), epoch(2, 0.9, 2), epoch(3, 0.7, 0)]).best.epoch == 2
    assert History([epoch(1, None, 1), epoch(2, None, 2)]).best.epoch == 1
    with pytest.raises(ValueError, match="no epoch"):
        _ = History().best


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(bad: float) -> None:
    x, y = line(40)
    y = y.copy()
    y[25] = bad
    model = Linear(1, 1, generator=0)
    trainer = trainer_of(model, lr=0.125)
    with pytest.raises(
        FloatingPointError, match=r"loss is (nan|inf) in epoch 1, step 3, at a learning rate of 0.125"
    ):
        trainer.fit(DataLoader((x, y), 10))
    assert np.isfinite(model.params["weight"]).all()


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    model = Sequential(Dropout(0.5, generator=0), Linear(1, 1, generator=0))
    trainer = trainer_of(model)
    first = trainer.evaluate(line())
    assert trainer.evaluate(line()) == first
    model.eval()
    trainer.fit(line(), generator=0)
    assert model.training


def test_schedules_step_by_epoch_or_by_step() -> None:
    model = Linear(1, 1, generator=0)
    optimizer = optim.SGD(model, lr=0.1, momentum=0.9)
    schedule = optim.StepLR(optimizer, 1, 0.5)
    history = Trainer(model, MSELoss(), optimizer, schedule, progress=False).fit(line(), 3)
    assert [epoch.lr for epoch in history.epochs] == [0.1, 0.05, 0.025]
    one_cycle = optim.OneCycleLR(optimizer, 0.1, total_steps=14)
    Trainer(model, MSELoss(), optimizer, one_cycle, progress=False).fit(line(), 2, batch_size=10)
    assert one_cycle.count == 14


def test_a_warm_up_may_count_steps() -> None:
    model = Linear(1, 1, generator=0)
    optimizer = optim.SGD(model, lr=0.1)
    warmup = optim.LinearLR(optimizer, 0.5, total_iters=2)
    cosine = optim.CosineAnnealingLR(optimizer, 12)
    warmup.interval = cosine.interval = "step"
    schedule = optim.SequentialLR(optimizer, [warmup, cosine], [2])
    history = Trainer(model, MSELoss(), optimizer, schedule, progress=False).fit(line(), 2, batch_size=10)
    expected = [0.05, 0.075, *(0.05 * (1 + np.cos(np.pi * step / 12)) for step in range(12))]
    np.testing.assert_allclose(history.step_lrs, expected)
    schedule.interval = "steps"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"`schedule.interval` \(='steps'\) must be one of 'epoch', 'step'"):
        Trainer(model, MSELoss(), optimizer, schedule)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("validates", [True, False])
def test_a_plateau_is_that_of_the_validation_or_else_of_the_training(mode: str, validates: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 3)), rng.integers(0, 3, 40)
    model = Linear(3, 3, dtype=np.float64, generator=0)
    options: dict[str, Any] = {"mode": mode, "patience": 1, "factor": 0.5, "threshold": 0.02, "cooldown": 1}
    optimizer = optim.SGD(model, lr=2.0)
    schedule = optim.ReduceLROnPlateau(optimizer, **options)
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, schedule, progress=False)
    validation = (x[:15], y[::-1][:15]) if validates else None
    epochs = trainer.fit((x, y), 20, batch_size=10, validation=validation, generator=0).epochs
    theirs = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    figure = f"{'validation' if validates else 'train'}_{'loss' if mode == 'min' else 'accuracy'}"
    for epoch in epochs:
        assert epoch.lr == theirs.param_groups[0]["lr"]
        expected.step(getattr(epoch, figure))
    assert optimizer.lr == theirs.param_groups[0]["lr"] < 1
    assert (schedule.count, schedule.best) == (20, expected.best)


def test_a_plateau_of_accuracies_needs_classes() -> None:
    model = Linear(1, 1, generator=0)
    optimizer = optim.SGD(model)
    trainer = Trainer(model, MSELoss(), optimizer, optim.ReduceLROnPlateau(optimizer, "max"), progress=False)
    with pytest.raises(ValueError, match=r"`mode` \(='max'\) needs an accuracy"):
        trainer.fit(line())


def test_data_may_be_any_iterable_that_can_be_iterated_again() -> None:
    class Stream:
        def __iter__(self) -> Iterator[tuple[Array, Array]]:
            yield line(8)
            yield line(4)

    model = Linear(1, 1, generator=0)
    history = trainer_of(model).fit(Stream(), 2, validation=Stream())
    assert len(history.step_losses) == 4
    with pytest.raises(ValueError, match="no batch in epoch 2"):
        trainer_of(model).fit((batch for batch in [line(8)]), 2)
    with pytest.raises(ValueError, match="no batch in the evaluation"):
        trainer_of(model).evaluate([])


def test_the_trainer_refuses_parts_that_do_not_belong_together() -> None:
    model, other = Linear(1, 1), Linear(1, 1)
    with pytest.raises(ValueError, match="`optimizer` must have been created for `model`"):
        Trainer(model, MSELoss(), optim.SGD(other))
    with pytest.raises(ValueError, match="`schedule` must have been created for `optimizer`"):
        Trainer(model, MSELoss(), optim.SGD(model), optim.StepLR(optim.SGD(model), 1))
    with pytest.raises(ValueError, match="reduction"):
        Trainer(model, MSELoss(reduction="none"), optim.SGD(model))


def test_progress_bar_shows_loss_accuracy_and_rate(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    model = Linear(2, 2, generator=0)
    trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model))
    trainer.fit((np.ones((8, 2), np.float32), np.zeros(8, int)), batch_size=4)
    shown = capsys.readouterr().err
    for part in ("epoch 1/1", "loss=", "acc=", "/s"):
        assert part in shown


# Weights in files


def test_weights_round_trip_and_are_pytorchs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch reads the file")
    model = models.mnist_cnn(generator=0)
    save_weights(model, tmp_path / "cnn.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["cnn.safetensors"]
    other = models.mnist_cnn(generator=1)
    load_weights(other, tmp_path / "cnn.safetensors")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name])
    theirs = torch.nn.Sequential(*[eval(f"torch.nn.{layer!r}", {"torch": torch}) for layer in model])
    theirs.load_state_dict({n: torch.tensor(v) for n, v in load_file(tmp_path / "cnn.safetensors").items()})


def test_wrong_weight_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model = Linear(2, 3, generator=0)
    before = model.state_dict()
    (tmp_path / "text").write_text("no weights")
    save_file({"weight": np.zeros((3, 2), np.float32)}, tmp_path / "part")
    save_file({"weight": np.zeros((2, 2)), "bias": np.zeros(2)}, tmp_path / "shape")
    whole = tmp_path / "whole"
    save_weights(model, whole)
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-5])
    for name in ("text", "part", "shape", "cut"):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            load_weights(model, tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_weights(model, tmp_path / "none")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Linear(2, 3, generator=0)
    path = tmp_path / "weights"
    save_weights(model, path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    model.params["weight"][...] = 0
    with pytest.raises(OSError, match="no space"):
        save_weights(model, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


def test_weights_load_into_another_dtype(tmp_path: Path) -> None:
    single, double = Linear(2, 3, generator=0), Linear(2, 3, dtype=np.float64)
    save_weights(single, tmp_path / "weights")
    load_weights(double, tmp_path / "weights")
    assert double.params["weight"].dtype == np.float64
    np.testing.assert_array_equal(double.params["weight"], single.params["weight"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_that_is_killed_holding_the_bars_lock_holds_nobody_up() -> None:
    child = os.fork()
    if child == 0:
        LOCK.acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert LOCK.acquire(timeout=5)
    LOCK.release()
    with Bar(total=1, disable=True) as bar:
        bar.update(1)


def test_what_is_no_model_loss_optimizer_or_schedule_is_refused_by_name() -> None:
    model = Linear(2, 1)
    right: dict[str, Any] = {"model": model, "criterion": MSELoss(), "optimizer": optim.SGD(model)}
    wrong: dict[str, Any] = {
        "model": lambda x: x,
        "criterion": MSELoss,
        "optimizer": optim.SGD,
        "schedule": optim.StepLR,
    }
    for name, value in wrong.items():
        with pytest.raises(TypeError, match=rf"`{name}` \(.*\) must be an? (Layer|Loss|Optimizer|Schedule)"):
            Trainer(**{**right, name: value})


class Fits(Callback):
    """Calls `fit` from a hook."""

    def on_batch_end(self, run: Run) -> None:
        self.trainer.fit(line())

    trainer: Trainer


def test_fit_within_fit_is_refused() -> None:
    fits = Fits()
    fits.trainer = trainer_of(Linear(1, 1, generator=0), callbacks=[fits])
    with pytest.raises(RuntimeError, match="`fit` is running"):
        fits.trainer.fit(line())
    del Fits.on_batch_end
    assert len(fits.trainer.fit(line()).epochs) == 1


def test_a_callback_with_a_model_to_evaluate_must_run_on_every_rank() -> None:
    class Evaluates(Callback):
        def evaluated(self) -> Layer:
            return Linear(1, 1)

    with pytest.raises(ValueError, match=r"Evaluates.* `every_rank` must be True"):
        trainer_of(Linear(1, 1), callbacks=[Evaluates()])

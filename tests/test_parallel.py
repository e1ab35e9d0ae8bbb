"""Parallel workers: the same training as with one, to rounding, whatever happens on the way."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tinyconv import (
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Trainer,
    optim,
)
from tinyconv.arrays import Array
from tinyconv.data import DataLoader
from tinyconv.training.parallel import WorkerError, Workers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers need fork")


def network(*extra: Layer, dtype: Any = np.float64) -> Sequential:
    return Sequential(
        Conv2d(1, 4, 3, padding=1, dtype=dtype, generator=0),
        BatchNorm2d(4, dtype=dtype),
        ReLU(),
        MaxPool2d(2),
        Sequential(Flatten(), *extra),
        Linear(4 * 16, 3, dtype=dtype, generator=1),
    )


def data(count: int = 46, dtype: Any = np.float64) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 1, 8, 8)).astype(dtype), rng.integers(0, 3, count)


def train(model: Layer, workers: int, batches: Any = None, epochs: int = 2) -> Trainer:
    optimizer = optim.SGD(model, lr=0.1, momentum=0.9)
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, workers=workers, progress=False)
    trainer.fit(DataLoader(data(), 10) if batches is None else batches, epochs, validation=data(20))
    return trainer


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_trains_the_same(workers: int) -> None:
    alone, together = train(network(), 1), train(network(), workers)
    for (name, value), other in zip(
        alone.model.state_dict().items(), together.model.state_dict().values(), strict=True
    ):
        assert_close(other, value, name)
    np.testing.assert_allclose(together.history.step_losses, alone.history.step_losses, rtol=1e-10)
    assert together.history.epochs[-1].validation_loss == pytest.approx(
        alone.history.epochs[-1].validation_loss
    )


def test_equal_runs_give_equal_bits() -> None:
    first, second = (train(network(Dropout(0.5, generator=3), dtype=np.float64), 2) for _ in range(2))
    assert first.history.step_losses == second.history.step_losses
    for name, value in first.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], value)


def test_workers_draw_masks_of_their_own() -> None:
    dropout = Dropout(0.5, generator=0)
    x = np.ones((8, 1000))
    outputs = []
    for epoch in (1, 2):
        with Workers(dropout, 2, epoch) as workers:
            for part, _ in workers.divide([(x, x)]):
                outputs.append(workers.forward(part))
    for y in outputs:
        assert abs((y == 0).mean() - 0.5) < 0.05
        assert (y[:4] != y[4:]).any()
    assert (outputs[0][4:] != outputs[1][4:]).any()


def test_the_model_gets_its_own_arrays_back() -> None:
    model = network()
    before = dict(model.params)
    old = {name: param.copy() for name, param in before.items()}
    train(model, 2)
    for name, param in model.params.items():
        assert param is before[name]
        assert (param != old[name]).any()
    assert all(layer.communicator is None for layer in model.modules())
    assert model.forward(data()[0]).shape == (46, 3)


def test_batches_of_another_form_are_not_divided_and_count_all_the_same() -> None:
    class Stream:
        def __iter__(self) -> Iterator[tuple[Array, Array]]:
            x, y = data()
            for start, end in ((0, 8), (8, 9), (9, 20), (20, 46)):  # smaller than the workers, and larger
                yield x[start:end], y[start:end]

    alone, together = train(network(), 1, Stream()), train(network(), 2, Stream())
    for name, value in alone.model.state_dict().items():
        assert_close(together.model.state_dict()[name], value, name)


class Faulty(Layer):
    """Fails in a worker process, in forward or in backward, or ends it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.home = os.getpid()

    def fail(self) -> None:
        if os.getpid() == self.home:
            return
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
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
    ("how", "match"), [("forward", "Faulty.*too hot"), ("backward", "too hot"), ("killed", "exit code -9")]
)
def test_a_failing_worker_ends_the_training_with_its_message(how: str, match: str) -> None:
    model = network(Faulty(how))
    before = dict(model.params)
    with pytest.raises(WorkerError, match=match):
        train(model, 2)
    assert all(param is before[name] for name, param in model.params.items())
    assert all(layer.communicator is None for layer in model.modules())


def test_a_failure_in_the_training_process_ends_the_workers() -> None:
    model = network()
    x, y = data()

    class Stream:
        def __iter__(self) -> Iterator[tuple[Array, Array]]:
            yield x[:10], y[:10]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, 2, Stream())
    assert all(layer.communicator is None for layer in model.modules())
    before = dict(model.params)
    for wrong in (x[:, :, :0], x[:, :, :4]):  # refused before, and in, the first layers
        with pytest.raises(ValueError, match=r"layer '[05]'"):
            train(model, 2, (wrong, y))
        assert all(param is before[name] for name, param in model.params.items())


def test_a_number_of_workers_below_one_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="`workers`"):
        Trainer(model, CrossEntropyLoss(), optim.SGD(model), workers=0)


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
        model = Sequential(Flatten(), Linear(64, 3, dtype=np.float64, generator=1))
        histories.append(train(model, workers, batches, epochs=3).history)
    np.testing.assert_allclose(histories[1].step_losses, histories[0].step_losses, rtol=1e-9)


def test_a_transform_that_fails_in_a_worker_ends_the_training_with_its_message() -> None:
    home = os.getpid()

    def fail(inputs: Array) -> Array:
        if os.getpid() != home:
            raise ValueError("too dark")
        return inputs

    with pytest.raises(WorkerError, match="too dark"):
        train(network(), 2, DataLoader(data(), 10, transform=fail))

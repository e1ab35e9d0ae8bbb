"""Prediction from many threads, while the model trains: nothing is written into it."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tinyconv.arrays import Array

THREADS, ROUNDS = 8, 25


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network() -> tc.Sequential:
    return tc.Sequential(
        tc.Conv2d(1, 4, 3, generator=0),
        tc.BatchNorm2d(4),
        tc.ReLU(),
        tc.MaxPool2d(2),
        tc.Residual(tc.Conv2d(4, 4, 3, padding=1, generator=1)),
        tc.Dropout(0.5, generator=2),
        tc.Flatten(),
        tc.Linear(36, 3, generator=3),
    )


def unrolled() -> tc.Sequential:
    """Gradient steps, of which each forward is a forward and a backward of its energy."""
    rng = np.random.default_rng(0)

    def step() -> tc.GradientStep:
        energy = tc.Sequential(tc.Conv2d(1, 2, 3, padding=1, generator=rng), tc.Softplus())
        return tc.GradientStep(energy, 0.1)

    return tc.Sequential(step(), step(), tc.Flatten(), tc.Linear(64, 3, generator=rng))


def in_threads(work: Callable[[int], int]) -> int:
    """The sum of what `work` returns for each thread's number."""
    found = [0] * THREADS

    def run(number: int) -> None:
        found[number] = work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


@pytest.mark.parametrize("make", [network, unrolled])
def test_predictions_from_many_threads_are_those_of_one(make: Callable[[], tc.Sequential]) -> None:
    model = make().train()
    images = [normal(5, 1, 8, 8, seed=number) for number in range(THREADS)]
    want = [model.predict(x) for x in images]

    def wrong(number: int) -> int:
        return sum(not np.array_equal(model.predict(images[number]), want[number]) for _ in range(ROUNDS))

    assert in_threads(wrong) == 0


@pytest.mark.parametrize("make", [network, unrolled])
def test_training_and_predictions_at_once_do_not_disturb_each_other(
    make: Callable[[], tc.Sequential],
) -> None:
    x, labels = normal(8, 1, 8, 8), np.arange(8) % 3

    def trained(steps: int, model: tc.Sequential) -> list[float]:
        """Losses of steps that move statistics and random numbers, and not the weights."""
        criterion, optimizer = tc.CrossEntropyLoss(), tc.optim.SGD(model, lr=0.0)
        losses = []
        for _ in range(steps):
            losses.append(float(criterion(model(x), labels)))
            optimizer.zero_grad()
            model.backward(criterion.backward())
            optimizer.step()
            assert model.training
        return losses

    alone = make().train()
    expected = trained(60, alone)
    model = make().train()
    for layer in model:
        if isinstance(layer, tc.BatchNorm2d):
            layer.momentum = 0.0  # so that there is one right prediction
    images = [normal(5, 1, 8, 8, seed=number) for number in range(THREADS)]
    want = [model.predict(image) for image in images]
    done = threading.Event()
    losses: list[float] = []

    def train() -> None:
        losses.extend(trained(60, model))
        done.set()

    trainer = threading.Thread(target=train)
    trainer.start()

    def wrong(number: int) -> int:
        count = 0
        while not done.is_set():
            count += not np.array_equal(model.predict(images[number]), want[number])
        return count

    try:
        assert in_threads(wrong) == 0
    finally:
        trainer.join()
    assert losses == expected
    assert all(layer.training for layer in model.modules())
    for name, grad in alone.grads.items():
        np.testing.assert_array_equal(model.grads[name], grad)


def test_a_prediction_inside_a_users_forward_evaluates_and_leaves_the_pass_as_it_is() -> None:
    class Both(tc.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.body = tc.Dropout(0.5, generator=0), tc.Dropout(0.5, generator=0)

        def forward(self, x: Array) -> Array:
            self.seen = self.teacher.predict(x), self.training, self.teacher.training
            output: Array = self.body(x)
            return output

        def backward(self, grad_output: Array) -> Array:
            return self.body.backward(grad_output)

    layer, x = Both(), normal(50, 4)
    y = layer(x)
    assert layer.seen[1:] == (True, True)
    np.testing.assert_array_equal(layer.seen[0], x)
    assert not np.array_equal(y, x)
    np.testing.assert_array_equal(layer.backward(x), y)
    layer.predict(x)
    assert layer.seen[1:] == (False, False)


def test_predict_gives_back_the_mode_after_an_error() -> None:
    model = network().train()
    with pytest.raises(ValueError, match="layer '0'"):
        model.predict(normal(2, 3, 8, 8))
    assert model.training
    assert model[1].training


def test_averaged_weights_predict_while_the_model_trains() -> None:
    model = network()
    average: Any = tc.training.WeightAverage(model, 0.5)
    average.update()
    x = normal(4, 1, 8, 8)
    want = average.module.predict(x)
    model.params.update({name: np.zeros_like(p) for name, p in model.params.items()})
    np.testing.assert_array_equal(average.module.predict(x), want)

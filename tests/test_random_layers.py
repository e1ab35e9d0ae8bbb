"""Random numbers of a user's layers: streams of their own in workers, and resumed to the bit."""
# ruff: noqa: NPY002 (a user's layer may draw from the global generator)

import json
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.trainers import callbacks
from tinyconv.arrays import Array
from tinyconv.data import DataLoader
from tinyconv.training.checkpoints import Checkpoints
from tinyconv.training.generators import OwnStreams, digest, generators, reseed, set_state, state_of


class Noise(tc.Layer):
    """Adds in training what `draw` gives, from what it holds."""

    def __init__(self, held: Any, draw: Callable[[Any, int], Any], sign: int = 1) -> None:
        super().__init__()
        self.held, self.draw, self.sign = held, draw, sign

    def forward(self, x: Array) -> Array:
        if not self.training:
            return self.save(x)
        drawn = np.asarray(self.draw(self.held, x.size), x.dtype)
        return self.save(x + self.sign * drawn.reshape(x.shape))

    def backward(self, grad_output: Array) -> Array:
        self.saved(grad_output)
        return grad_output

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape


def pythons(source: Any, count: int) -> list[float]:
    return [source.gauss(0, 1) for _ in range(count)]


NOISES: dict[str, Callable[[], Noise]] = {
    "attribute": lambda: Noise(np.random.default_rng(0), lambda held, n: held.random(n)),
    "list": lambda: Noise([np.random.default_rng(0)], lambda held, n: held[0].random(n)),
    "nested": lambda: Noise(
        {"of": (3, [np.random.Generator(np.random.MT19937(0))])},
        lambda held, n: held["of"][1][0].standard_normal(n),
    ),
    "RandomState": lambda: Noise(np.random.RandomState(0), lambda held, n: held.randn(n)),
    "random.Random": lambda: Noise({0: random.Random(0)}, lambda held, n: pythons(held[0], n)),
    "np.random": lambda: Noise(None, lambda _, n: np.random.randn(n)),
    "random": lambda: Noise(None, lambda _, n: pythons(random, n)),
}
every_noise = pytest.mark.parametrize("make", NOISES.values(), ids=NOISES)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # its import takes long
    seed()


def seed() -> None:
    np.random.seed(0)
    random.seed(0)


def drawn(model: tc.Layer, epoch: int) -> Array:
    """The noise of three batches of eight samples on two ranks."""
    x, streams = np.zeros((4, 50)), OwnStreams(model, 1)
    first = [model.forward(x) for _ in range(3)]
    sources = [source for source, _ in streams._streams]
    states = [state_of(source) for source in sources]
    second = []
    for batch in (1, 2, 3):
        streams.begin(epoch, batch)
        second.append(model.forward(x))
    for source, state in zip(sources, states, strict=True):
        set_state(source, state)
    return np.stack([np.concatenate(parts) for parts in zip(first, second, strict=True)])


@every_noise
def test_workers_draw_numbers_of_their_own_for_each_epoch_batch_and_worker(make: Callable[[], Noise]) -> None:
    model = make()
    first, second = drawn(model, 1), drawn(model, 2)
    rows = np.concatenate([first, second]).reshape(-1, 50)
    assert len(np.unique(rows, axis=0)) == len(rows) == 48
    seed()
    again = make()
    np.testing.assert_array_equal(drawn(again, 1), first)
    np.testing.assert_array_equal(drawn(again, 2), second)


def training(make: Callable[[], Noise], folder: Path | None, workers: int) -> tc.Trainer:
    model = tc.Sequential(make(), tc.Linear(4, 3, generator=0), make())
    optimizer = tc.optim.SGD(model, lr=0.1)
    return tc.Trainer(
        model,
        tc.CrossEntropyLoss(),
        optimizer,
        workers=workers,
        callbacks=callbacks(model, folder),
        progress=False,
    )


def small_data() -> DataLoader:
    rng = np.random.default_rng(5)
    return DataLoader((rng.random((20, 4), np.float32), rng.integers(0, 3, 20)), 6, shuffle=True, generator=1)


@every_noise
@pytest.mark.parametrize("workers", [1, 2])
def test_a_resumed_run_draws_on_as_one_that_was_not_interrupted(
    make: Callable[[], Noise], workers: int, tmp_path: Path
) -> None:
    whole = training(make, tmp_path, workers)
    whole.fit(small_data(), 2)
    after = np.random.random(), random.random()
    for step in (2, 4, 5):
        np.random.seed(step)
        random.seed(step)
        run = training(make, None, workers)
        run.resume(Checkpoints(tmp_path).paths()[step - 1])
        run.fit(small_data(), 2 - len(run.history.epochs))
        assert run.history.step_losses == whole.history.step_losses
        for name, value in whole.model.state_dict().items():
            np.testing.assert_array_equal(run.model.state_dict()[name], value)
        assert (np.random.random(), random.random()) == after


def test_the_training_process_draws_as_it_would_alone() -> None:
    before = digest(np.random.mtrand._rand), random.getstate()
    training(NOISES["list"], None, 2).fit(small_data(), 2)
    assert (digest(np.random.mtrand._rand), random.getstate()) == before
    own = drawn(NOISES["list"](), 1)[:, :4]
    np.testing.assert_array_equal(own.ravel(), np.random.default_rng(0).random(own.size))


def test_layers_that_share_a_generator_share_it_in_workers_too() -> None:
    shared = np.random.default_rng(0)
    plus, minus = (Noise([shared], lambda held, n: held[0].random(n), sign) for sign in (1, -1))
    assert (drawn(tc.Sequential(plus, minus), 1) != 0).all()


def test_generators_are_found_by_stable_names() -> None:
    layer = tc.Dropout(generator=0)
    assert list(generators(layer)) == ["generator"]
    around: list[Any] = [np.random.default_rng(0)]
    around.append(around)
    layer.noise = {"a": (1, random.Random(0)), 2: np.random.RandomState(0)}
    layer.around = around
    layer.system = random.SystemRandom()
    assert list(generators(layer)) == ["generator", "noise['a'][1]", "noise[2]", "around[0]"]


def made(source: Any, kind: Any) -> Any:
    return source(kind(0))


KINDS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]
SOURCES: dict[str, Callable[[], Any]] = {
    **{kind.__name__: partial(made, np.random.Generator, kind) for kind in KINDS},
    **{f"RandomState of {kind.__name__}": partial(made, np.random.RandomState, kind) for kind in KINDS},
    "random.Random": lambda: random.Random(0),
}


def numbers(source: Any) -> list[float]:
    normal = source.normalvariate if isinstance(source, random.Random) else source.normal
    return [normal(0, 1) for _ in range(3)]


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_generator_is_reseeded_in_place_and_its_state_goes_through_json(
    make: Callable[[], Any],
) -> None:
    source = make()
    number = digest(source)
    assert digest(source) == number == digest(make())
    streams = []
    for entropy in ((number, 1, 1, 1), (number, 1, 1, 2), (number, 1, 2, 1), (number, 1, 1, 1)):
        numbers(source)  # of which the legacy generators keep one half of a pair
        reseed(source, *entropy)
        streams.append(numbers(source))
    assert streams[0] == streams[3]
    assert len({*map(tuple, streams)}) == 3
    state = json.loads(json.dumps(state_of(source), default=lambda array: array.tolist()))
    assert digest(source) != number
    expected = numbers(source)
    set_state(source, state)
    assert numbers(source) == expected

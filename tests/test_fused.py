"""Fused layers: bias, ReLU and max-pooling in a faster order, with the plain layers' values and gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinyconv import (
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from tinyconv.arrays import Array
from tinyconv.layers.fused import Fused

MODELS: dict[str, tuple[Callable[[], Sequential], tuple[int, ...], list[type]]] = {
    "convolution, ReLU, pooling": (
        lambda: Sequential(Conv2d(3, 4, 3, padding=1, generator=0), ReLU(), MaxPool2d(2)),
        (5, 3, 8, 6),
        [Fused],
    ),
    "one sample, unbatched": (
        lambda: Sequential(Conv2d(3, 4, 3, generator=0), ReLU(), MaxPool2d(3, 2, 1)),
        (3, 9, 9),
        [Fused],
    ),
    "reflected padding, no bias": (
        lambda: Sequential(
            Conv2d(2, 4, 3, padding=1, padding_mode="reflect", bias=False, generator=0), ReLU(), MaxPool2d(2)
        ),
        (4, 2, 6, 6),
        [Fused],
    ),
    "convolution, ReLU": (
        lambda: Sequential(Conv2d(2, 3, 3, generator=0), ReLU(), Conv2d(3, 2, 3, generator=1)),
        (2, 2, 7, 7),
        [Fused, Conv2d],
    ),
    "sequences": (
        lambda: Sequential(Conv1d(2, 3, 3, generator=0), ReLU(), Tanh()),
        (4, 2, 9),
        [Fused, Tanh],
    ),
    "linear, ReLU": (
        lambda: Sequential(Linear(6, 5, generator=0), ReLU(), Linear(5, 4, generator=1), ReLU()),
        (3, 6),
        [Fused, Fused],
    ),
    "linear of sequences": (lambda: Sequential(Linear(6, 5, generator=0), ReLU()), (3, 4, 6), [Fused]),
    "batch norm, ReLU, pooling": (
        lambda: Sequential(Conv2d(2, 3, 3, generator=0), BatchNorm2d(3), ReLU(), MaxPool2d(2), Flatten()),
        (6, 2, 8, 8),
        [Conv2d, Fused, Flatten],
    ),
    "within a Sequential": (
        lambda: Sequential(
            Sequential(Conv2d(2, 3, 3, generator=0), ReLU()), ReLU(), MaxPool2d(2), Flatten(), Linear(27, 2)
        ),
        (2, 2, 8, 8),
        [Fused, Flatten, Linear],
    ),
    "dropout, ReLU: nothing to fuse": (
        lambda: Sequential(Dropout(0.5, generator=0), ReLU(), Tanh(), ReLU(), MaxPool2d(2)),
        (2, 2, 4, 4),
        [Dropout, ReLU, Fused],
    ),
}
models = pytest.mark.parametrize("name", MODELS, ids=str)


def data(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def step(run: Any, model: Sequential, x: Array) -> list[Array]:
    """Output, gradient with respect to the input, and the gradients of the parameters."""
    model.zero_grad()
    y = run.forward(x)
    grad = run.backward(data(y.shape, 1))
    return [y, grad, *(array.copy() for array in model.grads.values())]


@models
def test_values_and_gradients_are_those_of_the_plain_layers(name: str) -> None:
    make, shape, kinds = MODELS[name]
    plain, model = make(), make()
    model.load_state_dict(plain.state_dict())
    fused = model.fused()
    assert [type(layer) for layer in fused] == kinds
    x = data(shape)
    kept = x.copy()
    expected, actual = step(plain, plain, x), step(fused, model, x)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(x, kept)
    for grad, expected_grad in zip(actual[1:], expected[1:], strict=True):
        np.testing.assert_allclose(grad, expected_grad, rtol=2e-6, atol=2e-6)
    for key, buffer in model.buffers.items():
        np.testing.assert_array_equal(buffer, plain.buffers[key])


@models
def test_gradients_of_the_parameters_alone(name: str) -> None:
    make, shape, _ = MODELS[name]
    model, other = make(), make()
    other.load_state_dict(model.state_dict())
    expected = step(model.fused(), model, data(shape))[2:]
    run = other.fused()
    run.backward_params(data(run.forward(data(shape)).shape, 1))
    for grad, expected_grad in zip(other.grads.values(), expected, strict=True):
        np.testing.assert_array_equal(grad, expected_grad)
    with pytest.raises(RuntimeError, match="needs a forward"):
        run.backward_params(data(shape))  # all that forward kept is released


@models
def test_an_empty_batch_passes(name: str) -> None:
    make, shape, _ = MODELS[name]
    if name == "one sample, unbatched":
        pytest.skip("it is no batch")
    model, plain = make(), make()
    x = data((0, *shape[1:]))
    for found, expected in zip(step(model.fused(), model, x), step(plain, plain, x), strict=True):
        assert found.shape == expected.shape
        assert not found.any()


@models
def test_predictions_are_those_of_the_plain_layers(name: str) -> None:
    make, shape, _ = MODELS[name]
    model = make().eval()
    np.testing.assert_array_equal(model.predict(data(shape)), model.forward(data(shape)))


def test_ties_within_windows_get_their_gradients_in_the_same_places() -> None:
    x = np.random.default_rng(0).integers(-2, 3, (3, 2, 6, 7)).astype(np.float32)  # many ties, many zeros
    first = Conv2d(2, 2, 1, bias=False)
    first.params["weight"][...] = np.eye(2, dtype=np.float32)[:, :, None, None]
    model = Sequential(first, ReLU(), MaxPool2d(3, 2, 1))
    for actual, expected in zip(step(model.fused(), model, x), step(model, model, x), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_values_are_equal_where_rounding_makes_them_so() -> None:
    conv = Conv2d(1, 1, 1)
    conv.params["weight"][...] = 1
    conv.params["bias"][...] = 1e8
    model = Sequential(conv, ReLU(), MaxPool2d(2))
    x = data((4, 1, 8, 8))
    np.testing.assert_array_equal(model.fused().forward(x), model.forward(x))


def test_nan_and_infinities_come_through() -> None:
    model = Sequential(Conv2d(1, 1, 1, generator=0), ReLU(), MaxPool2d(2))
    x = data((1, 1, 4, 4))
    x[0, 0, 0, 0], x[0, 0, 3, 3], x[0, 0, 0, 3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(model.fused().forward(x), model.forward(x))


def test_frozen_layers_stay_frozen() -> None:
    model = Sequential(Conv2d(2, 3, 3, generator=0), ReLU(), MaxPool2d(2), Flatten(), Linear(27, 2))
    model[0].requires_grad_(False)
    fused = model.fused()
    fused.backward_params(data(fused.forward(data((2, 2, 8, 8))).shape))
    assert list(model.grads) == ["4.weight", "4.bias"]
    assert model.grads["4.weight"].any()


def test_what_may_do_something_else_is_not_fused() -> None:
    class Own(Sequential):
        def forward(self, x: Array) -> Array:
            return super().forward(x) + 1

    class OwnConv(Conv2d):
        def forward(self, x: Array) -> Array:
            return super().forward(x) + 1

    class OwnReLU(ReLU):
        pass

    own = Own(Conv2d(1, 1, 1), ReLU())
    assert own.fused() is own
    relus = Sequential(Conv2d(1, 1, 1), OwnReLU(), Conv2d(1, 1, 1), ReLU(), MaxPool2d(2, return_indices=True))
    assert [type(layer) for layer in relus.fused()] == [Conv2d, OwnReLU, Fused, MaxPool2d]
    model = Sequential(OwnConv(1, 2, 3, generator=0), ReLU(), MaxPool2d(2))
    x = data((2, 1, 6, 6))
    for actual, expected in zip(step(model.fused(), model, x), step(model, model, x), strict=True):
        np.testing.assert_array_equal(actual, expected)
    block = Sequential(Residual(Sequential(Conv2d(1, 1, 1), ReLU())))
    assert [type(layer) for layer in block.fused()] == [Residual]


def test_errors_name_the_layer_that_they_arise_in() -> None:
    model = Sequential(Conv2d(1, 2, 3), ReLU(), MaxPool2d(5)).fused()
    with pytest.raises(ValueError, match=r"layer '0' \(Conv2d\): `input` \(of shape \(2, 3, 9, 9\)\)"):
        model.forward(data((2, 3, 9, 9)))
    with pytest.raises(ValueError, match=r"layer '2' \(MaxPool2d\): `kernel_size`"):
        model.forward(data((2, 1, 5, 5)))

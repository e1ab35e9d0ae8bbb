"""A Sequential is a list of layers, and all that it does uses those that it has now."""

from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close
from tinyconv.arrays import Array


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def linear(rows: int, columns: int, seed: int = 0) -> tc.Linear:
    return tc.Linear(rows, columns, dtype=np.float64, generator=seed)


def model() -> tc.Sequential:
    return tc.Sequential(linear(4, 5), tc.Tanh(), linear(5, 3, 1))


def kinds(layers: tc.Sequential) -> list[str]:
    return [f"{name}: {type(layer).__name__}" for name, layer in layers.children.items()]


def test_it_grows_shrinks_and_counts_anew() -> None:
    layers = model()
    assert layers.append(tc.ReLU()) is layers
    layers.insert(1, tc.Dropout()).insert(-1, tc.SiLU())
    layers.extend([tc.GELU()])
    assert kinds(layers) == [
        "0: Linear",
        "1: Dropout",
        "2: Tanh",
        "3: Linear",
        "4: SiLU",
        "5: ReLU",
        "6: GELU",
    ]
    del layers[-2:]
    del layers[1]
    del layers["1"]
    assert kinds(layers) == ["0: Linear", "1: Linear", "2: SiLU"]
    assert list(layers.params) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert layers[1] in layers
    assert tc.ReLU() not in layers
    assert list(layers) == [layers[0], layers["1"], layers[-1]]
    assert len(layers) == 3
    assert tc.Sequential()


def test_names_that_are_no_numbers_stay() -> None:
    layers = tc.Sequential({"body": linear(4, 5), "head": linear(5, 3)})
    layers.insert(1, tc.ReLU())
    assert kinds(layers) == ["body: Linear", "1: ReLU", "head: Linear"]
    del layers["body"]
    assert kinds(layers) == ["0: ReLU", "head: Linear"]
    layers["head"] = linear(4, 2)
    assert kinds(layers) == ["0: ReLU", "head: Linear"]
    assert layers.head is layers["head"]


def test_a_replaced_layer_is_used_by_everything() -> None:
    layers, x = model(), normal(6, 4)
    layers(x)
    layers[2] = linear(5, 2, seed=7)
    want = tc.Sequential(linear(4, 5), tc.Tanh(), linear(5, 2, seed=7))
    y, expected = layers(x), want(x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(layers.predict(x), want.predict(x))
    np.testing.assert_array_equal(layers.jvp(x), want.jvp(x))
    np.testing.assert_array_equal(layers.backward(y), want.backward(y))
    np.testing.assert_array_equal(layers.backward_jvp(y), want.backward_jvp(y))
    for name, grad in want.grads.items():
        np.testing.assert_array_equal(layers.grads[name], grad)
    assert layers.output_shape((6, 4)) == (6, 2)
    assert layers.params["2.weight"] is layers[2].weight
    assert not layers.eval()[2].training


def test_a_backward_after_a_swap_needs_a_forward() -> None:
    layers, x = model(), normal(6, 4)
    y = layers(x)
    layers[1] = tc.ReLU()
    with pytest.raises(RuntimeError, match=r"layer '1' \(ReLU\): backward needs a forward"):
        layers.backward(y)


@pytest.mark.parametrize("wrong", [None, 3, tc.ReLU, "ReLU", np.ones(3), [tc.ReLU()]])
def test_what_is_not_a_layer_is_refused_and_changes_nothing(wrong: Any) -> None:
    layers = model()
    before = list(layers)
    for change in (
        lambda: layers.append(wrong),
        lambda: layers.insert(0, wrong),
        lambda: layers.extend([tc.ReLU(), wrong]),
        lambda: layers.__setitem__(0, wrong),
    ):
        with pytest.raises(TypeError, match=r"^layer .* must be a Layer"):
            change()
        assert list(layers) == before


def test_one_layer_twice_and_itself_are_refused() -> None:
    layers = model()
    for change in (
        lambda: layers.append(layers[0]),
        lambda: layers.__setitem__(1, layers[0]),
        lambda: layers.append(tc.Sequential(tc.ReLU(), layers[1])),
        lambda: layers.append(layers),
    ):
        with pytest.raises(ValueError, match="same layer object twice"):
            change()
    layers[0] = layers[0]  # in its own place


def test_indices_and_names_that_are_not_there() -> None:
    layers = model()
    with pytest.raises(IndexError, match="layer 3 is out of range for 3 layers"):
        layers[3]
    with pytest.raises(IndexError, match="layer -4 is out of range for 3 layers"):
        layers[-4] = tc.ReLU()
    with pytest.raises(KeyError, match="layer 'head' is not among"):
        layers["head"] = tc.ReLU()


# What was made before


@pytest.mark.parametrize("make", [tc.optim.SGD, tc.optim.Adam])
@pytest.mark.parametrize("change", ["swap", "append", "parameter", "delete", "inner"])
def test_an_optimiser_of_layers_that_have_changed_is_refused(make: Any, change: str) -> None:
    layers, x = tc.Sequential(linear(4, 5), tc.Sequential(tc.Tanh(), linear(5, 3))), normal(6, 4)
    optimizer = make(layers, lr=0.1)
    layers.backward(layers(x))
    optimizer.step()
    if change == "swap":
        layers[0] = linear(4, 5, seed=3)
    elif change == "append":
        layers.append(linear(3, 3))
    elif change == "delete":
        del layers[1]
    elif change == "parameter":
        layers[0].weight = tc.Parameter(normal(5, 4, seed=8))
    else:
        layers["1"].append(linear(3, 2))
    layers.backward(layers(x))
    before = layers.state_dict()
    with pytest.raises(RuntimeError, match="has changed since the optimiser was created"):
        optimizer.step()
    for name, value in layers.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    fresh = make(layers, lr=0.1)
    fresh.step()
    assert any(not np.array_equal(value, before[name]) for name, value in layers.state_dict().items())


def test_an_optimiser_follows_what_keeps_its_layers() -> None:
    layers, x = model(), normal(6, 4)
    optimizer = tc.optim.SGD(layers, lr=0.1, momentum=0.9)
    layers.requires_grad_(False)
    layers[2].requires_grad_()
    layers.backward(layers(x))
    first = layers.state_dict()
    optimizer.step()
    assert np.array_equal(layers[0].weight, first["0.weight"])
    assert not np.array_equal(layers[2].weight, first["2.weight"])
    layers.params["0.weight"] = np.zeros((5, 4))
    layers.to(np.float32)
    optimizer.to(np.float32)
    layers.requires_grad_()
    layers.backward(layers(x.astype(np.float32)))
    optimizer.step()
    assert layers[0].weight.dtype == np.float32


@pytest.mark.parametrize("layer", [tc.ReLU(), tc.Sequential(), tc.Sequential(tc.ReLU(), tc.MaxPool2d(2))])
def test_an_optimiser_of_a_model_without_parameters_is_refused(layer: tc.Layer) -> None:
    with pytest.raises(ValueError, match="does not have parameters"):
        tc.optim.SGD(layer, lr=0.1)


def test_slices_share_their_layers() -> None:
    layers, x = model(), normal(6, 4)
    np.testing.assert_array_equal(layers[2:](layers[:2](x)), layers(x))
    assert layers[1:][0] is layers[1]
    assert_close(layers[:2].predict(x), np.tanh(layers[0].predict(x)))

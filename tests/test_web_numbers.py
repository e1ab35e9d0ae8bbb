"""The numbers behind the page of `tinyconv draw`: passes, terms, tabs and a training that is watched."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tinyconv as tc
from tinyconv.arrays import Array
from tinyconv.data import MNIST, load_mnist
from tinyconv.models import lenet5
from tinyconv.web.live import LiveTraining
from tinyconv.web.passes import network_pass
from tinyconv.web.tabs import MOST_TABS, Tab, Tabs
from tinyconv.web.terms import edges_of

DATA = Path(__file__).parent.parent / "examples" / "data" / "mnist"
KINDS = ("output", "input", "weight", "input_dot", "weight_dot")


@pytest.fixture(scope="module")
def mnist() -> MNIST:
    return load_mnist(DATA)


def small_data() -> MNIST:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, 300).astype(np.uint8)
    return MNIST(images, labels, images[:50], labels[:50])


def drawn(seed: int = 0) -> tuple[Array, Array]:
    """Pixels, and a stroke among them."""
    rng = np.random.default_rng(seed)
    pixels = rng.random((28, 28)).astype(np.float32)
    return pixels, np.where(rng.random((28, 28)) < 0.1, pixels, 0).astype(np.float32)


def opened() -> Tab:
    return Tab(lenet5(pretrained=True).state_dict())


@pytest.mark.parametrize("objective", ["loss", "score"])
def test_a_pass_is_what_the_network_computes(objective: str) -> None:
    model, rng = lenet5(dtype=np.float64, generator=0).eval(), np.random.default_rng(1)
    x, v, target = rng.normal(size=(1, 1, 28, 28)), rng.normal(size=(1, 1, 28, 28)), 3

    def value(x: Array) -> float:
        if objective == "score":
            return float(model.predict(x)[0, target])
        return float(tc.CrossEntropyLoss()(model.predict(x), np.array([target])))

    found = network_pass(model, x, target, objective, v)
    np.testing.assert_allclose(found.values[-1], model.predict(x))
    assert found.loss == pytest.approx(float(tc.CrossEntropyLoss()(model.predict(x), np.array([target]))))
    assert found.probabilities.sum() == pytest.approx(1)
    step = 1e-6
    slope = (value(x + step * v) - value(x - step * v)) / (2 * step)
    assert float((found.gradients[0] * v).sum()) == pytest.approx(slope, rel=1e-6)
    ends = [network_pass(model, x + sign * step * v, target, objective) for sign in (1, -1)]
    difference = (ends[0].gradients[0] - ends[1].gradients[0]) / (2 * step)
    np.testing.assert_allclose(found.gradients_dot[0], difference, atol=1e-7)
    for name, grad_dot in found.grads_dot.items():
        difference = (ends[0].grads[name] - ends[1].grads[name]) / (2 * step)
        np.testing.assert_allclose(grad_dot, difference, atol=1e-7, err_msg=name)
    moved = (ends[0].values[-1] - ends[1].values[-1]) / (2 * step)
    np.testing.assert_allclose(found.tangents[-1], moved, atol=1e-7)


@pytest.mark.parametrize(
    "layer",
    [
        tc.Conv2d(2, 3, 3, dtype=np.float64, generator=0),
        tc.Conv2d(
            2, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), dtype=np.float64, generator=0
        ),
        tc.Conv2d(2, 1, 1, stride=3, bias=False, dtype=np.float64, generator=0),
        tc.MaxPool2d(2),
        tc.MaxPool2d(3, stride=2, padding=1),
        tc.ReLU(),
        tc.Flatten(),
        tc.Sequential(tc.Flatten(), tc.Linear(2 * 7 * 8, 5, dtype=np.float64, generator=0)),
    ],
    ids=repr,
)
def test_all_edges_of_a_layer_add_up_to_its_output_and_its_gradients(layer: tc.Layer) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 2, 7, 8))
    if isinstance(layer, tc.Sequential):
        x, layer = x.reshape(1, -1), layer[1]
    y = layer.forward(x)
    grad_y = rng.normal(size=y.shape)
    layer.zero_grad()
    grad_x = layer.backward(grad_y)
    edges, weight, bias = edges_of(layer, x), layer.params.get("weight"), layer.params.get("bias")
    factor = 1.0 if edges.weight is None or weight is None else weight.reshape(-1)[edges.weight]
    output, grad_input = np.zeros(y.size), np.zeros(x.size)
    np.add.at(output, edges.output, factor * x.reshape(-1)[edges.input])
    if bias is not None:
        output += np.repeat(bias, y.size // len(bias))
    np.testing.assert_allclose(output, y.reshape(-1), atol=1e-12)
    np.add.at(grad_input, edges.input, factor * grad_y.reshape(-1)[edges.output])
    np.testing.assert_allclose(grad_input, grad_x.reshape(-1), atol=1e-12)
    if weight is not None and edges.weight is not None:
        grad_weight = np.zeros(weight.size)
        products = x.reshape(-1)[edges.input] * grad_y.reshape(-1)[edges.output]
        np.add.at(grad_weight, edges.weight, products)
        np.testing.assert_allclose(grad_weight, layer.grads["weight"].reshape(-1), atol=1e-12)


def test_a_layer_without_known_terms_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the terms of Tanh\(\) are not known"):
        edges_of(tc.Tanh(), np.zeros((1, 3)))


@pytest.mark.parametrize("layer", range(12))
def test_the_terms_of_an_element_add_up_to_what_the_layer_computes(layer: int) -> None:
    tab, rng = opened(), np.random.default_rng(layer)
    pixels, stroke = drawn()
    numbers, _ = tab.run(pixels, 4, "loss", stroke)
    kept = {
        "output": numbers.values[layer + 1],
        "input": numbers.gradients[layer],
        "weight": numbers.grads.get(f"{layer}.weight"),
        "input_dot": numbers.gradients_dot[layer],
        "weight_dot": numbers.grads_dot.get(f"{layer}.weight"),
    }
    for kind in KINDS:
        expected = kept[kind]
        if expected is None:
            with pytest.raises(
                ValueError, match=r"`kind` .='weight.*'. must be one of output, input, input_dot"
            ):
                tab.terms(layer, kind, 0)
            continue
        scale = float(np.abs(expected).max())
        for index in rng.integers(0, expected.size, 8):
            terms = tab.terms(layer, kind, int(index))
            assert terms["total"] == expected.reshape(-1)[index]
            assert len(terms["left"]) == len(terms["right"]) == len(terms["input"]) == len(terms["output"])
            total = float(np.dot(terms["left"], terms["right"])) + (terms["bias"] or 0)
            assert total == pytest.approx(terms["total"], rel=1e-4, abs=1e-5 * scale + 1e-12)
            products = np.abs(np.multiply(terms["left"], terms["right"]))
            assert (np.diff(products) <= 0).all()


@pytest.mark.parametrize(
    ("layer", "kind", "index", "message"),
    [
        (12, "output", 0, r"`layer` .=12. must be between 0 and 11"),
        (-1, "output", 0, r"`layer` .=-1. must be between 0 and 11"),
        (0, "bias", 0, r"`kind` .='bias'. must be one of output, input, weight"),
        (0, "output", 4704, r"`index` .=4704. must be between 0 and 4703"),
        (0, "weight", -1, r"`index` .=-1. must be between 0 and 149"),
    ],
)
def test_what_does_not_exist_has_no_terms(layer: int, kind: str, index: int, message: str) -> None:
    tab = opened()
    tab.run(drawn()[0], 0, "loss", drawn()[1])
    with pytest.raises(ValueError, match=message):
        tab.terms(layer, kind, index)


def test_terms_of_weights_that_have_changed_are_refused() -> None:
    tab = opened()
    tab.run(drawn()[0], 0, "loss", drawn()[1])
    tab.step(0, 0.1)
    with pytest.raises(ValueError, match="the weights have changed"):
        tab.terms(0, "output", 0)


def test_a_step_lowers_the_loss_of_its_class_and_load_takes_it_back() -> None:
    tab, (pixels, stroke) = opened(), drawn()
    before, version = tab.run(pixels, 4, "score", stroke)
    tab.step(4, 0.001)
    after, newer = tab.run(pixels, 4, "score", stroke)
    assert after.loss < before.loss
    assert newer > version
    tab.load()
    again, _ = tab.run(pixels, 4, "score", stroke)
    assert again.loss == before.loss


def test_tabs_have_weights_of_their_own_and_the_unused_one_makes_room() -> None:
    tabs = Tabs(lenet5(pretrained=True).state_dict(), small_data)
    keys = [tabs.open() for _ in range(MOST_TABS)]
    tabs[keys[0]].run(drawn()[0], 1, "loss", drawn()[1])
    tabs[keys[0]].step(1, 0.1)
    changed = [
        not np.array_equal(tabs[key].weights()["0.weight"], tabs[keys[1]].weights()["0.weight"])
        for key in keys
    ]
    assert changed == [True] + [False] * (MOST_TABS - 1)
    _ = tabs[keys[0]]  # used last
    assert tabs.open() not in keys
    assert tabs[keys[0]] is not None
    with pytest.raises(KeyError):
        tabs[keys[2]]


@pytest.fixture
def training() -> Iterator[LiveTraining]:
    live = LiveTraining(small_data(), 0.01, 0)
    yield live
    live.stop()


def waited(live: LiveTraining, steps: int, phase: str) -> None:
    """Wait until so many steps have been made, and the training is in that phase."""
    deadline = time.monotonic() + 60
    while len(live.state.losses) < steps or live.state.phase != phase:
        assert time.monotonic() < deadline, live.state
        time.sleep(0.005)


def test_a_training_makes_single_steps_and_ends_after_its_epochs(training: LiveTraining) -> None:
    waited(training, 0, "paused")
    first = training.state.weights
    training.go(1)
    waited(training, 1, "paused")
    assert len(training.state.losses) == 1
    assert [step for step, _ in training.state.accuracies] == [1]
    assert not np.array_equal(training.state.weights["0.weight"], first["0.weight"])
    training.lr = 0.0  # from the next step on
    kept = training.state.weights
    training.go(1)
    waited(training, 2, "paused")
    moved = training.state.weights["0.weight"] - kept["0.weight"]
    assert np.abs(moved).max() == 0
    training.lr = 0.01
    training.go()
    waited(training, training.steps, "finished")
    assert len(training.state.losses) == training.steps == 9
    assert training.state.accuracies[-1][0] == 9


@pytest.mark.filterwarnings("ignore:.*encountered")
def test_a_training_whose_loss_is_not_finite_says_so() -> None:
    live = LiveTraining(small_data(), 1e30, 0)
    live.go()
    waited(live, 0, "failed")
    assert "loss" in live.state.message
    live.stop()


def test_a_training_of_some_seconds_reads_digits(mnist: MNIST) -> None:
    live = LiveTraining(mnist, 0.05, 0)
    live.go(250)
    waited(live, 250, "paused")
    live.stop()
    assert live.state.accuracies[-1][1] > 0.9
    model = lenet5()
    model.load_state_dict(live.state.weights)
    assert (
        model.predict(tc.data.normalize(mnist.test_images[:500])).argmax(1) == mnist.test_labels[:500]
    ).mean() > 0.9

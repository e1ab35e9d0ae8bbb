"""The tabs of a browser: each has its own weights, the numbers of its last drawing, and its training."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.data import MNIST
from tinyconv.data.digits import SIDE
from tinyconv.data.mnist import MEAN, STD
from tinyconv.layers import Layer, Sequential
from tinyconv.models import lenet5
from tinyconv.optim import SGD
from tinyconv.web.live import LiveTraining
from tinyconv.web.passes import Pass, forward_values, network_pass
from tinyconv.web.terms import Edges, edges_of

__all__ = ["IMAGE_SHAPE", "Tab", "Tabs"]

MOST_TABS = 16  # the one that was not used for longest makes room
IMAGE_SHAPE = (1, 1, SIDE, SIDE)


class Tab:
    """What the server keeps for one tab of a browser. All methods may be called by several threads.

    Args:
        weights: those that the tab begins with.

    Attributes:
        version: counts the changes of the weights.
        training: the training that this tab watches, if any.
    """

    def __init__(self, weights: dict[str, Array]) -> None:
        self.model: Sequential = lenet5()
        self.training: LiveTraining | None = None
        self.version = 0
        self._first, self._x = weights, np.zeros(IMAGE_SHAPE, np.float32)
        self._pass: Pass | None = None
        self._lock = threading.RLock()
        self.load(weights)

    def load(self, weights: dict[str, Array] | None = None) -> None:
        """Load weights; without an argument those of the beginning.

        Raises:
            ValueError, TypeError: they are not those of LeNet-5.
        """
        with self._lock:
            self.model.load_state_dict(self._first if weights is None else weights)
            self._changed()

    def weights(self) -> dict[str, Array]:
        """Return copies of the weights."""
        with self._lock:
            return self.model.state_dict()

    def run(self, pixels: Array, target: int, objective: str, stroke: Array) -> tuple[Pass, int]:
        """Compute all numbers for a drawing, and keep them for `terms`; return them and the weights' version.

        Args:
            pixels: (28, 28), 0 to 1.
            target: the class that the objective is of.
            objective: see `network_pass`.
            stroke: direction of the pixels for the tangents, (28, 28).
        """
        x = ((pixels - MEAN) / STD).astype(np.float32).reshape(IMAGE_SHAPE)
        direction = (stroke / STD).astype(np.float32).reshape(IMAGE_SHAPE)
        with self._lock:
            self._x, self._pass = x, network_pass(self.model, x, target, objective, direction)
            return self._pass, self.version

    def step(self, target: int, lr: float) -> None:
        """Make one step of gradient descent on the loss of `target` for the last drawing."""
        with self._lock:
            network_pass(self.model, self._x, target)
            SGD(self.model, lr=lr).step()
            self._changed()

    def terms(self, layer: int, kind: str, index: int) -> dict[str, Any]:
        """Return the terms of an element's value, or of its gradient, in the numbers of the last `run`.

        Args:
            layer: number of the layer.
            kind: "output" (its value), "input" or "weight" (the gradients with respect to these), "input_dot"
                or "weight_dot" (the tangents of these).
            index: flat index of the element.

        Returns:
            "total", the value that the layer computes; "bias"; and lists of the same length, the largest
            terms first: "output", "input" and "weight", flat indices, "left" and "right", the factors.
            ("weight" is empty for a layer without one.)

        Raises:
            ValueError: the weights have changed since the last `run`; a layer, a kind or an element that
                does not exist.
        """
        with self._lock:
            numbers, modules = self._pass, list(self.model)
            if numbers is None:
                raise ValueError("the weights have changed: compute the numbers again")
            if not 0 <= layer < len(modules):
                raise ValueError(f"`layer` (={layer}) must be between 0 and {len(modules) - 1}")
            return _terms(modules[layer], layer, numbers, kind, index)

    def _changed(self) -> None:
        self.version, self._pass = self.version + 1, None

    def start(self, data: MNIST, lr: float) -> None:
        """Begin a training from random weights; one that is running ends."""
        with self._lock:
            self.close()
            self.training = LiveTraining(data, lr, secrets.randbelow(1 << 32))

    def watched(self) -> list[Array]:
        """Return the values of the layers of the network in training, for the last drawing."""
        if self.training is None:
            return []
        model = lenet5().eval()
        model.load_state_dict(self.training.state.weights)
        return forward_values(model, self._x)

    def close(self) -> None:
        """End the training."""
        if self.training is not None:
            self.training.stop()


def _terms(layer: Layer, number: int, numbers: Pass, kind: str, index: int) -> dict[str, Any]:
    name, bias = f"{number}.weight", layer.params.get("bias")
    totals: dict[str, Array | None] = {
        "output": numbers.values[number + 1],
        "input": numbers.gradients[number],
        "weight": numbers.grads.get(name),
        "input_dot": numbers.gradients_dot[number],
        "weight_dot": numbers.grads_dot.get(name),
    }
    total = totals.get(kind)
    if total is None:
        known = ", ".join(name for name, array in totals.items() if array is not None)
        raise ValueError(f"`kind` (={kind!r}) must be one of {known}")
    if not 0 <= index < total.size:
        raise ValueError(f"`index` (={index}) must be between 0 and {total.size - 1}")
    at = edges_of(layer, numbers.values[number]).only(kind.removesuffix("_dot"), index)
    factors = _factors(layer, number, numbers, at, kind)
    left, right = (np.concatenate(sides) for sides in zip(*factors, strict=True))
    own_bias = None
    if kind == "output" and bias is not None:
        own_bias = float(bias[index // (total.size // len(bias))])
    return {
        "total": float(total.reshape(-1)[index]),
        "bias": own_bias,
        **_sorted(left, right, at, len(factors)),
    }


def _factors(layer: Layer, number: int, numbers: Pass, at: Edges, kind: str) -> list[tuple[Array, Array]]:
    """The factors of the terms at the edges `at`: one list of pairs, or of a weight's tangent two."""
    weight = layer.params.get("weight")
    w = np.ones(len(at.input)) if weight is None or at.weight is None else _at(weight, at.weight)
    x, x_dot = (_at(arrays[number], at.input) for arrays in (numbers.values, numbers.tangents))
    gradients = numbers.gradients, numbers.gradients_dot
    grad, grad_dot = (_at(arrays[number + 1], at.output) for arrays in gradients)
    return {
        "output": [(w, x)],
        "input": [(w, grad)],
        "weight": [(x, grad)],
        "input_dot": [(w, grad_dot)],
        "weight_dot": [(x_dot, grad), (x, grad_dot)],  # the product rule
    }[kind]


def _sorted(left: Array, right: Array, at: Edges, times: int) -> dict[str, list[Any]]:
    """The lists of the terms, the largest first; the edges belong to `times` lists of terms."""
    chosen = np.argsort(-np.abs(left * right), kind="stable")
    indices = {"output": at.output, "input": at.input, "weight": at.weight}
    lists: dict[str, list[Any]] = {"left": left[chosen].tolist(), "right": right[chosen].tolist()}
    for name, own in indices.items():
        lists[name] = [] if own is None else np.tile(own, times)[chosen].tolist()
    return lists


def _at(array: Array, indices: Array) -> Array:
    values: Array = array.reshape(-1)[indices].astype(np.float64)
    return values


class Tabs:
    """The open tabs by their keys, at most MOST_TABS.

    Args:
        weights: those that each tab begins with.
        load: returns MNIST; it is called when a tab first needs it.
    """

    def __init__(self, weights: dict[str, Array], load: Callable[[], MNIST]) -> None:
        self._weights, self._load = weights, load
        self._tabs: OrderedDict[str, Tab] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def data(self) -> MNIST:
        """Return MNIST."""
        return self._load()

    def open(self) -> str:
        """Open a tab, and return its key."""
        key, closed = secrets.token_urlsafe(16), None
        with self._lock:
            self._tabs[key] = Tab(self._weights)
            if len(self._tabs) > MOST_TABS:
                closed = self._tabs.popitem(last=False)[1]
        if closed is not None:
            closed.close()
        return key

    def __getitem__(self, key: str) -> Tab:
        with self._lock:
            self._tabs.move_to_end(key)  # KeyError if it is not open
            return self._tabs[key]

    def close(self) -> None:
        """End all trainings."""
        for tab in self._tabs.values():
            tab.close()

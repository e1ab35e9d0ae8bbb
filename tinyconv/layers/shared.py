"""Shared: a layer that is used once more, with the same parameters."""

import copy
from collections.abc import Mapping
from typing import Any

from tinyconv.arguments import instance
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer

__all__ = ["Shared"]


class Shared(Layer):
    """Apply a layer that is elsewhere in the model once more, as in a Siamese network.

    Args:
        layer: any layer. It must be in the model, too, where it is trained and saved; forward and jvp must
            reach it there first.

    A layer keeps what backward needs for one place. So each forward here runs a copy of `layer` with the same
    arrays, whose gradients are added to those of `layer`. A Shared does not have parameters of its own.

    Raises:
        TypeError: `layer` is not a Layer.
        ValueError: in `check_whole`, which a Trainer calls, a `layer` that is not in the model.

    Source: Bromley et al., "Signature verification using a 'Siamese' time delay neural network", NIPS 1993

    >>> import numpy as np
    >>> from tinyconv import Concat, Linear
    >>> tower = Linear(4, 3)
    >>> both = Concat(tower, Shared(tower))
    >>> x = np.ones((2, 4), np.float32)
    >>> both((x, x)).shape, list(both.params)
    ((2, 6), ['0.weight', '0.bias'])
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        vars(self)["_shared"] = instance("layer", layer, Layer)  # not registered: it is a child elsewhere

    @property
    def layer(self) -> Layer:
        """Return the layer whose parameters are used."""
        shared: Layer = vars(self)["_shared"]
        return shared

    def forward(self, x: Array) -> Array:
        twin = _twin(self.layer)
        return self.save(twin.forward(x), twin)

    def backward(self, grad_output: Array) -> Array:
        twin: Layer
        (twin,) = self.saved(grad_output)
        return twin.backward(grad_output)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (twin,) = self.kept()
        self.tangents_of(params_dot)
        return self.save_tangents(twin.jvp(x_dot))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        twin: Layer
        (twin,), _, _ = self.saved_tangents(grad_output_dot)
        return twin.backward_jvp(grad_output_dot)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.layer.output_shape(input_shape)

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return self.layer.multiply_adds(input_shape)

    def extra_repr(self) -> str:
        return type(self.layer).__name__


def _twin(layer: Layer) -> Any:
    """A copy of `layer` that keeps its own caches, and has the same dicts of parameters and gradients."""
    twin = copy.copy(layer)
    children = {name: _twin(child) for name, child in layer.children.items()}
    vars(twin).update(_children=children, _origin=layer)
    return twin

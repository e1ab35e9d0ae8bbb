"""Residual: a body of layers with a skip connection."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tinyconv.arguments import instance
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer, named_in_errors

__all__ = ["Residual"]

T = TypeVar("T")


class Residual(Layer):
    """Compute body(x) + shortcut(x), the building block of a ResNet.

    Args:
        body: a layer, usually a Sequential.
        shortcut: a layer that maps x to the shape of the body's output, such as a 1x1 convolution; None for x
            itself. The two shapes must be equal: they are not broadcast.

    The children are named "body" and "shortcut", so a parameter is "body.0.weight" in the state.

    Raises:
        TypeError: a `body` or `shortcut` that is not a Layer.
        ValueError: one layer object in both; in forward, shapes that differ.

    Source: He et al., https://arxiv.org/abs/1512.03385

    >>> import numpy as np
    >>> from tinyconv import Conv2d, ReLU, Sequential
    >>> block = Residual(Sequential(Conv2d(8, 8, 3, padding=1), ReLU(), Conv2d(8, 8, 3, padding=1)))
    >>> block(np.zeros((2, 8, 5, 5), np.float32)).shape
    (2, 8, 5, 5)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        self.body = instance("body", body, Layer)
        self.shortcut = shortcut if shortcut is None else instance("shortcut", shortcut, Layer)

    def forward(self, x: Array) -> Array:
        if "body" not in self._children:
            raise ValueError("a Residual must have a `body`, which has been removed")
        body, shortcut = self._both(lambda _, layer: layer.forward(x), x)
        self._checked(x.shape, (body.shape, shortcut.shape))
        return self.save(body + shortcut)

    def backward(self, grad_output: Array) -> Array:
        self.saved(grad_output)
        body, shortcut = self._both(lambda _, layer: layer.backward(grad_output), grad_output)
        return body + shortcut

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        self.kept()
        tangents = self.tangents_by_child(params_dot)
        body, shortcut = self._both(lambda name, layer: layer.jvp(x_dot, tangents[name]), x_dot)
        return self.save_tangents(body + shortcut)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        self.saved_tangents(grad_output_dot)
        body, shortcut = self._both(lambda _, layer: layer.backward_jvp(grad_output_dot), grad_output_dot)
        return body + shortcut

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shape = tuple(input_shape)
        return self._checked(shape, self._both(lambda _, layer: layer.output_shape(shape), shape))

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return sum(layer.multiply_adds(input_shape) for layer in self._children.values())

    def _both(self, call: Callable[[str, Layer], T], unchanged: T) -> list[T]:
        """What `call` returns for the body and the shortcut; `unchanged` for a shortcut that is None."""
        found = []
        for name, layer in self._children.items():
            with named_in_errors(name, layer):
                found.append(call(name, layer))
        return found if len(found) == 2 else [*found, unchanged]

    def _checked(self, input_shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The one shape that both summands must have."""
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"`body` and `shortcut` must give equal shapes, not {shapes[0]} and {shapes[1]} "
                f"for an input of shape {input_shape}"
            )
        return shapes[0]

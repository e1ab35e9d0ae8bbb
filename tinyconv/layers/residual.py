"""Residual: a body of layers with a skip connection."""

from collections.abc import Mapping, Sequence

from tinyconv.arguments import instance
from tinyconv.arrays import Array
from tinyconv.layers.layer import ERRORS, Layer, located

__all__ = ["Residual"]


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
        for name, layer in (("body", body), ("shortcut", shortcut)):
            if name == "body" or layer is not None:
                instance(name, layer, Layer)
            setattr(self, name, layer)

    def forward(self, x: Array) -> Array:
        outputs = []
        for name, layer in self._children.items():
            try:
                outputs.append(layer.forward(x))
            except ERRORS as error:
                raise located(name, layer, error) from error
        body, shortcut = outputs if len(outputs) == 2 else (outputs[0], x)
        self._checked(x.shape, (body.shape, shortcut.shape))
        return self.save(body + shortcut)

    def backward(self, grad_output: Array) -> Array:
        self.saved(grad_output)
        grads = [grad_output] if "shortcut" not in self._children else []
        for name, layer in self._children.items():
            try:
                grads.append(layer.backward(grad_output))
            except ERRORS as error:
                raise located(name, layer, error) from error
        return grads[0] + grads[1]

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        self.kept()
        tangents = self.tangents_by_child(params_dot)
        outputs = [x_dot] if "shortcut" not in self._children else []
        for name, layer in self._children.items():
            try:
                outputs.append(layer.jvp(x_dot, tangents[name]))
            except ERRORS as error:
                raise located(name, layer, error) from error
        return self.save_tangents(outputs[0] + outputs[1])

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        self.saved_tangents(grad_output_dot)
        grads_dot = [grad_output_dot] if "shortcut" not in self._children else []
        for name, layer in self._children.items():
            try:
                grads_dot.append(layer.backward_jvp(grad_output_dot))
            except ERRORS as error:
                raise located(name, layer, error) from error
        return grads_dot[0] + grads_dot[1]

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._checked(tuple(input_shape), self._shapes(tuple(input_shape)))

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return sum(layer.multiply_adds(input_shape) for layer in self._children.values())

    def _shapes(self, input_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of the two summands, the body's first."""
        shapes = []
        for name, layer in self._children.items():
            try:
                shapes.append(layer.output_shape(input_shape))
            except ERRORS as error:
                raise located(name, layer, error) from error
        return shapes if len(shapes) == 2 else [*shapes, input_shape]

    def _checked(self, input_shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The one shape that both summands must have."""
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"`body` and `shortcut` must give equal shapes, not {shapes[0]} and {shapes[1]} "
                f"for an input of shape {input_shape}"
            )
        return shapes[0]

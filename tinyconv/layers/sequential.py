"""Sequential: layers one after another."""

from collections.abc import Iterator, Mapping
from typing import overload

import numpy as np

from tinyconv.arguments import given
from tinyconv.arrays import Array
from tinyconv.layers.activation import ReLU
from tinyconv.layers.fused import FUSIBLE, Fused
from tinyconv.layers.layer import ERRORS, Layer, located
from tinyconv.layers.pool import MaxPool2d


class Sequential(Layer):
    """Layers one after another; backward runs through them in reverse.

    Args:
        layers: layers, named "0", "1", ...; or one mapping of names to layers.

    Children are had by index, name or slice; a slice is a Sequential of the same layer objects. An
    error in a child says which one.

    Raises:
        TypeError: a child that is no Layer.
        ValueError: one layer object in two places (it can keep what backward needs for one only),
            or a name that is empty or holds a dot.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sequential.html

    >>> import numpy as np
    >>> from tinyconv import Linear, ReLU
    >>> model = Sequential(Linear(4, 8), ReLU(), Linear(8, 2))
    >>> model(np.zeros((3, 4), np.float32)).shape
    (3, 2)
    >>> model[:2].output_shape((3, 4)), list(model[2].params), list(model.params)[0]
    ((3, 8), ['weight', 'bias'], '0.weight')
    >>> model.output_shape((3, 5))
    Traceback (most recent call last):
        ...
    ValueError: layer '0' (Linear): `input` (of shape (3, 5)) must have 4 features in its last dimension
    """

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        super().__init__()
        named: Mapping[str, object] = {str(i): layer for i, layer in enumerate(layers)}
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = layers[0]
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {name!r} ({given(layer)}) must be a Layer")
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"layer name {name!r} must be a string that is not empty and holds no dot")
            self.children[name] = layer
        self.check_distinct("`layers`")

    def forward(self, x: Array) -> Array:
        for name, layer in self.children.items():
            try:
                x = layer.forward(x)
            except ERRORS as error:
                raise self._located(name, error) from error
        return x

    def backward(self, grad_output: Array) -> Array:
        for name, layer in reversed(self.children.items()):
            try:
                grad_output = layer.backward(grad_output)
            except ERRORS as error:
                raise self._located(name, error) from error
        return grad_output

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        tangents = self.tangents_by_child(params_dot)
        for name, layer in self.children.items():
            try:
                x_dot = layer.jvp(x_dot, tangents[name])
            except ERRORS as error:
                raise self._located(name, error) from error
        return x_dot

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        for name, layer in reversed(self.children.items()):
            try:
                grad_output_dot = layer.backward_jvp(grad_output_dot)
            except ERRORS as error:
                raise self._located(name, error) from error
        return grad_output_dot

    def backward_params(self, grad_output: Array) -> None:
        """`backward` down to the first layer that wants gradients, and no further."""
        first = next((name for name, child in self.children.items() if child.has_grads()), None)
        for name, layer in reversed(self.children.items()):
            try:
                if name == first:
                    layer.backward_params(grad_output)
                    break
                grad_output = layer.backward(grad_output)
            except ERRORS as error:
                raise self._located(name, error) from error
        self.release()

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [after for _, _, after in self._shapes(tuple(input_shape))]
        return shapes[-1] if shapes else tuple(input_shape)

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        shapes = self._shapes(input_shape)
        return sum(layer.multiply_adds(before) for layer, before, _ in shapes)

    def fused(self) -> "Sequential":
        """The same layers in a Sequential that computes the same faster; Trainer and `predict` use it.

        A convolution or Linear and the ReLU after it, and any layer with a ReLU and a MaxPool2d after it,
        become one (see `layers.fused.Fused`): the values are the same, and the gradients but for ties. The
        layers are this one's own, so that gradients add up in `grads` as always. It has no second order.
        """
        if type(self).forward is not Sequential.forward or type(self).backward is not Sequential.backward:
            return self
        waiting, layers = list(self.children.items()), {}
        while waiting:
            name, layer = waiting.pop(0)
            pools = dict(waiting[1:2])
            pool = next(iter(pools.values()), None)
            if not waiting or type(waiting[0][1]) is not ReLU:
                layers[name] = layer.fused()
            elif type(pool) is MaxPool2d and not pool.return_indices:
                layers[name] = Fused(layer.fused(), dict.fromkeys(pools, pool))
                del waiting[:2]
            elif type(layer) in FUSIBLE:
                layers[name] = Fused(layer, {})
                del waiting[:1]
            else:
                layers[name] = layer.fused()
        fused = Sequential()
        fused.children.update(layers)
        return fused

    def summary(self, input_shape: tuple[int, ...]) -> str:
        """A table of the layers: output shapes, numbers of parameters, multiply-adds.

        Args:
            input_shape: shape of the input, with the batch: (1, 1, 28, 28).

        Raises:
            ValueError: the shapes do not fit; the message names the layer.
        """
        rows: list[tuple[str, ...]] = [("", "layer", "output shape", "parameters", "multiply-adds")]
        totals = np.zeros(2, int)
        for name, (layer, before, after) in zip(self.children, self._shapes(input_shape), strict=True):
            sizes = sum(array.size for array in layer.params.values()), layer.multiply_adds(before)
            totals += sizes
            rows.append((name, type(layer).__name__, str(after), *(f"{n:,}" for n in sizes)))
        rows.append(("", "total", "", *(f"{n:,}" for n in totals)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                f"{cell:{'<' if i < 3 else '>'}{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def _shapes(self, shape: tuple[int, ...]) -> Iterator[tuple[Layer, tuple[int, ...], tuple[int, ...]]]:
        for name, layer in self.children.items():
            before = shape
            try:
                shape = layer.output_shape(before)
            except ERRORS as error:
                raise self._located(name, error) from error
            yield layer, before, shape

    def _located(self, name: str, error: Exception) -> Exception:
        layer = self.children[name]
        return located(name, layer.layer if isinstance(layer, Fused) else layer, error)

    @overload
    def __getitem__(self, key: int | str) -> Layer: ...

    @overload
    def __getitem__(self, key: slice) -> "Sequential": ...

    def __getitem__(self, key: int | str | slice) -> "Layer | Sequential":
        if isinstance(key, str):
            return self.children[key]
        if isinstance(key, slice):
            return Sequential(dict(list(self.children.items())[key]))
        return list(self.children.values())[key]

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.children.values())

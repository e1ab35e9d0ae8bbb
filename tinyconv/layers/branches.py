"""Branches: several layers whose outputs are joined, by a sum, a product, or one beside the other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from tinyconv.arguments import instance, integer
from tinyconv.arrays import (
    Array,
    array_module,
    as_logical,
    as_stored,
    storage_axes,
    summed_to,
    underflow_allowed,
)
from tinyconv.layers.layer import Layer, named_in_errors

__all__ = ["Concat", "Gate", "Residual"]

T = TypeVar("T")
Shape = tuple[int, ...]


class Branches(Layer):
    """Base class of layers that join the outputs of their children.

    All children get the one input, and the gradient is the sum of theirs. If the input is a tuple of as many
    arrays as there are children, each child gets its own; backward then returns a tuple of gradients, and jvp
    takes a tuple of tangents.

    A subclass joins outputs, splits a gradient among them, and does the same with tangents. What `join`
    returns beside the output is handed to the others. Unless it is linear, it implements all four. Its
    `joint` says in a word how it joins.
    """

    joint: ClassVar[str]

    @underflow_allowed
    def forward(self, x: Any) -> Array:
        inputs = x if isinstance(x, tuple) else (x,)
        output, *kept = self.join(self._each(lambda layer, own: layer.forward(own), inputs))
        return self.save(output, isinstance(x, tuple), *kept)

    @underflow_allowed
    def backward(self, grad_output: Array) -> Any:
        several, *kept = self.saved(grad_output)
        return self._to_inputs(lambda layer, g: layer.backward(g), self._split(grad_output, *kept), several)

    @underflow_allowed
    def jvp(self, x_dot: Any, params_dot: Mapping[str, Array] | None = None) -> Array:
        several, *kept = self.kept()
        tangents = iter(self.tangents_by_child(params_dot).values())
        inputs_dot = x_dot if several else (x_dot,)
        outputs_dot = self._each(lambda layer, own: layer.jvp(own, next(tangents)), inputs_dot)
        return self.save_tangents(self._join_jvp(outputs_dot, *kept), outputs_dot)

    @underflow_allowed
    def backward_jvp(self, grad_output_dot: Array) -> Any:
        (several, *kept), (outputs_dot,), grad_output = self.saved_tangents(grad_output_dot)
        parts_dot = self._split_jvp(grad_output_dot, outputs_dot, grad_output, *kept)
        return self._to_inputs(lambda layer, g: layer.backward_jvp(g), parts_dot, several)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        return self._joined_shape(self._each(lambda layer, own: layer.output_shape(own), (shape,)))

    def multiply_adds(self, input_shape: Shape) -> int:
        return sum(layer.multiply_adds(input_shape) for layer in self._children.values())

    def branches(self) -> list[tuple[str, Layer | None]]:
        """Return the branches by name; None passes its input on."""
        return list(self._children.items())

    def join(self, outputs: list[Array]) -> tuple[Any, ...]:
        """Return the output, and what its derivatives need."""
        raise NotImplementedError

    def _split(self, grad_output: Array, *kept: Any) -> list[Array]:
        raise NotImplementedError

    def _join_jvp(self, outputs_dot: list[Array], *kept: Any) -> Array:
        joined: Array = self.join(outputs_dot)[0]
        return joined

    def _split_jvp(
        self, grad_output_dot: Array, outputs_dot: list[Array], grad_output: Array, *kept: Any
    ) -> list[Array]:
        return self._split(grad_output_dot, *kept)

    def _joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """The output's shape; raises ValueError for shapes that do not fit."""
        raise NotImplementedError

    def _each(self, call: Callable[[Layer, T], T], inputs: Sequence[T]) -> list[T]:
        """What `call` returns for each branch and its input."""
        branches = self.branches()
        if len(inputs) not in (1, len(branches)):
            raise ValueError(f"there must be one input or one for each of {len(branches)}, got {len(inputs)}")
        given = inputs if len(inputs) == len(branches) else list(inputs) * len(branches)
        found = []
        for (name, layer), x in zip(branches, given, strict=True):
            with named_in_errors(name, self if layer is None else layer):
                found.append(x if layer is None else call(layer, x))
        return found

    def _to_inputs(self, call: Callable[[Layer, Array], Array], parts: list[Array], several: bool) -> Any:
        """What `call` returns for each branch's part of a gradient: the sum, or each for its own input."""
        grads = self._each(call, parts)
        if several:
            return tuple(grads)
        total = grads[0]
        for grad in grads[1:]:
            total = total + grad
        return total


class Residual(Branches):
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

    joint = "add"

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        self.body = instance("body", body, Layer)
        self.shortcut = shortcut if shortcut is None else instance("shortcut", shortcut, Layer)

    def branches(self) -> list[tuple[str, Layer | None]]:
        if "body" not in self._children:
            raise ValueError("a Residual must have a `body`, which has been removed")
        return [("body", self._children["body"]), ("shortcut", self._children.get("shortcut"))]

    def join(self, outputs: list[Array]) -> tuple[Any, ...]:
        body, shortcut = outputs
        self._joined_shape((body.shape, shortcut.shape))
        return (body + shortcut,)

    def _split(self, grad_output: Array, *kept: Any) -> list[Array]:
        return [grad_output, grad_output]

    def _joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        if shapes[0] != shapes[1]:
            raise ValueError(f"`body` and `shortcut` must give equal shapes, not {shapes[0]} and {shapes[1]}")
        return tuple(shapes[0])


class Concat(Branches):
    """Concatenate the outputs of several layers along one dimension, as DenseNet, GoogLeNet and U-Net do.

    Args:
        layers: the branches, named "0", "1", ... (`Identity()` for the input itself).
        dim: the dimension, 1 for channels; the others of the outputs must be equal.

    Raises:
        TypeError: a branch that is not a Layer; `dim` is not an integer.
        ValueError: no branch, one layer object in two; in forward, shapes that do not fit.

    Source: Huang et al., https://arxiv.org/abs/1608.06993

    >>> import numpy as np
    >>> from tinyconv import Conv2d, Identity
    >>> dense = Concat(Identity(), Conv2d(8, 4, 3, padding=1))
    >>> dense(np.zeros((2, 8, 5, 5), np.float32)).shape
    (2, 12, 5, 5)
    """

    joint = "concatenate"

    def __init__(self, *layers: Layer, dim: int = 1) -> None:
        super().__init__()
        if not layers:
            raise ValueError("`layers` must have at least one branch")
        for name, layer in enumerate(layers):
            setattr(self, str(name), instance(f"layers[{name}]", layer, Layer))
        self.dim = integer("dim", dim, minimum=-(1 << 31))

    def extra_repr(self) -> str:
        return "" if self.dim == 1 else f"dim={self.dim}"

    def join(self, outputs: list[Array]) -> tuple[Any, ...]:
        self._joined_shape([output.shape for output in outputs])
        axis = storage_axes(outputs[0].ndim).index(self.dim % outputs[0].ndim)
        joined = array_module(*outputs).concatenate([as_stored(output) for output in outputs], axis)
        return as_logical(joined), [output.shape[self.dim] for output in outputs]

    def _split(self, grad_output: Array, *kept: Any) -> list[Array]:
        (lengths,), parts, start = kept, [], 0
        ahead = (slice(None),) * (self.dim % grad_output.ndim)
        for length in lengths:
            parts.append(grad_output[*ahead, start : start + length])
            start += length
        return parts

    def _joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        ndim = len(shapes[0])
        if not -ndim <= self.dim < ndim:
            raise ValueError(f"`dim` (={self.dim}) must be a dimension of the outputs, of shape {shapes[0]}")
        dim = self.dim % ndim
        if len({(*shape[:dim], -1, *shape[dim + 1 :]) for shape in shapes}) > 1:
            raise ValueError(
                f"the branches' outputs must have equal shapes but for dimension {dim}, got "
                f"{', '.join(map(str, shapes))}"
            )
        return (*shapes[0][:dim], sum(shape[dim] for shape in shapes), *shapes[0][dim + 1 :])


class Gate(Branches):
    """Compute body(x) * gate(x): the gate weights the body's output, as in a squeeze-and-excitation block.

    Args:
        gate: a layer whose output has the shape of the body's, or can be broadcast to it, such as
            (N, C, 1, 1).
        body: a layer; None for x itself.

    The children are named "gate" and "body".

    Raises:
        TypeError: a `gate` or `body` that is not a Layer.
        ValueError: one layer object in both; in forward, an output of the gate that cannot be broadcast.

    Source: Hu et al., https://arxiv.org/abs/1709.01507

    >>> import numpy as np
    >>> from tinyconv import AdaptiveAvgPool2d, Conv2d, ReLU, Sequential, Sigmoid
    >>> squeeze = Sequential(AdaptiveAvgPool2d(1), Conv2d(8, 2, 1), ReLU(), Conv2d(2, 8, 1), Sigmoid())
    >>> Gate(squeeze)(np.zeros((2, 8, 5, 5), np.float32)).shape
    (2, 8, 5, 5)
    """

    joint = "multiply"

    def __init__(self, gate: Layer, body: Layer | None = None) -> None:
        super().__init__()
        self.gate = instance("gate", gate, Layer)
        self.body = body if body is None else instance("body", body, Layer)

    def branches(self) -> list[tuple[str, Layer | None]]:
        if "gate" not in self._children:
            raise ValueError("a Gate must have a `gate`, which has been removed")
        return [("gate", self._children["gate"]), ("body", self._children.get("body"))]

    def join(self, outputs: list[Array]) -> tuple[Any, ...]:
        gate, body = outputs
        self._joined_shape((gate.shape, body.shape))
        return body * gate, gate, body

    def _split(self, grad_output: Array, *kept: Any) -> list[Array]:
        gate, body = kept
        return [summed_to(grad_output * body, gate.shape), grad_output * gate]

    def _join_jvp(self, outputs_dot: list[Array], *kept: Any) -> Array:
        (gate, body), (gate_dot, body_dot) = kept, outputs_dot
        output_dot: Array = body_dot * gate + body * gate_dot
        return output_dot

    def _split_jvp(
        self, grad_output_dot: Array, outputs_dot: list[Array], grad_output: Array, *kept: Any
    ) -> list[Array]:
        (gate, body), (gate_dot, body_dot) = kept, outputs_dot
        return [
            summed_to(grad_output_dot * body + grad_output * body_dot, gate.shape),
            grad_output_dot * gate + grad_output * gate_dot,
        ]

    def _joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        gate, body = shapes
        fits = len(gate) == len(body) and all(g in (1, b) for g, b in zip(gate, body, strict=True))
        if not fits:
            raise ValueError(
                f"the output of `gate` (of shape {gate}) must have that of `body`, {body}, or 1 in its place"
            )
        return tuple(body)

"""Sequential: layers applied one after another."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from tinyconv.arguments import given, integer
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.layers.activation import ReLU
from tinyconv.layers.fused import FUSIBLE, Fused
from tinyconv.layers.layer import ERRORS, Layer, located
from tinyconv.layers.pool import MaxPool2d
from tinyconv.layers.summary import Step

__all__ = ["Sequential"]


class Sequential(Layer):
    """Apply layers one after another; backward runs through them in reverse.

    Args:
        layers: layers, named "0", "1", ...; or one mapping of names to layers.

    It can be used as a list: layers are found by index, name or slice (a slice is a Sequential of the same
    layers), and `append`, `extend`, `insert`, assignment and `del` change it. After a change, layers that are
    named by numbers are numbered again; other names do not change. All methods use the present layers. An
    error in a child says which one.

    Raises:
        TypeError: a child that is not a Layer.
        ValueError: one layer object in two places (it can keep what backward needs for one only),
            or a name that is empty or contains a dot.

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
    >>> model[2] = Linear(8, 3)
    >>> model.append(ReLU())
    Sequential(
      (0): Linear(4, 8)
      (1): ReLU()
      (2): Linear(8, 3)
      (3): ReLU()
    )
    """

    def __init__(self, *layers: Layer | Mapping[str, Layer]) -> None:
        super().__init__()
        named: Iterable[tuple[str, Layer]] = ((str(i), layer) for i, layer in enumerate(layers))  # type: ignore[misc]
        if len(layers) == 1 and isinstance(layers[0], Mapping):
            named = layers[0].items()
        self._set(named)

    def append(self, layer: Layer) -> Self:
        """Add a layer at the end; return the Sequential."""
        return self.extend([layer])

    def extend(self, layers: Iterable[Layer]) -> Self:
        """Add layers at the end; return the Sequential."""
        return self._set([*self._children.items(), *(("0", layer) for layer in layers)])

    def insert(self, index: int, layer: Layer) -> Self:
        """Add a layer before the one at `index`, from the end if negative; return the Sequential."""
        pairs = list(self._children.items())
        pairs.insert(integer("index", index, minimum=-(1 << 62)), ("0", layer))
        return self._set(pairs)

    def _set(self, pairs: Iterable[tuple[Any, Any]]) -> Self:
        """Replace the present layers by these, if all of them are valid."""
        children: dict[str, Layer] = {}
        for i, (name, layer) in enumerate(pairs):
            if not isinstance(layer, Layer):
                cure = ": use Sequential(*layers)" if isinstance(layer, (list, tuple)) else ""
                raise TypeError(f"layer {name!r} ({given(layer)}) must be a Layer{cure}")
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(
                    f"layer name {name!r} must be a string that is not empty and contains no dot"
                )
            children[str(i) if name.isdecimal() else name] = layer
        every = [id(one) for layer in children.values() for one in layer.modules()]
        if len({*every, id(self)}) != len(every) + 1:
            raise ValueError("`layers` must not hold the same layer object twice")
        self._children.clear()
        self._children.update(children)
        self._changes += 1
        return self

    @underflow_allowed
    def forward(self, x: Array) -> Array:
        for name, layer in self._children.items():
            try:
                x = layer.forward(x)
            except ERRORS as error:
                raise self._located(name, error) from error
        return x

    @underflow_allowed
    def backward(self, grad_output: Array) -> Array:
        for name, layer in reversed(self._children.items()):
            try:
                grad_output = layer.backward(grad_output)
            except ERRORS as error:
                raise self._located(name, error) from error
        return grad_output

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        tangents = self.tangents_by_child(params_dot)
        for name, layer in self._children.items():
            try:
                x_dot = layer.jvp(x_dot, tangents[name])
            except ERRORS as error:
                raise self._located(name, error) from error
        return x_dot

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        for name, layer in reversed(self._children.items()):
            try:
                grad_output_dot = layer.backward_jvp(grad_output_dot)
            except ERRORS as error:
                raise self._located(name, error) from error
        return grad_output_dot

    @underflow_allowed
    def backward_params(self, grad_output: Array) -> None:
        """Run `backward` down to the first layer that needs gradients, and no further."""
        first = next((name for name, child in self._children.items() if child.has_grads()), None)
        for name, layer in reversed(self._children.items()):
            try:
                if name == first:
                    layer.backward_params(grad_output)
                    break
                grad_output = layer.backward(grad_output)
            except ERRORS as error:
                raise self._located(name, error) from error
        self.release()

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        steps = self.steps(input_shape)
        return steps[-1].output_shape if steps else tuple(input_shape)

    def steps(self, input_shape: tuple[int, ...]) -> list[Step]:
        steps, shape = [], tuple(input_shape)
        for name, layer in self._children.items():
            before = shape
            try:
                shape = layer.output_shape(before)
            except ERRORS as error:
                raise self._located(name, error) from error
            steps.append(Step(name, layer, before, shape))
        return steps

    def fused(self) -> "Sequential":
        """Return the same layers in a faster Sequential, which Trainer and `predict` use.

        A convolution or Linear and the ReLU after it, and any layer with a ReLU and a MaxPool2d after it,
        become one (see `layers.fused.Fused`): the values are the same, and so are the gradients except for
        ties. The layers are this one's own, so gradients add up in `grads` as always. It does not support the
        second order.
        """
        if type(self).forward is not Sequential.forward or type(self).backward is not Sequential.backward:
            return self
        waiting, layers = list(self._children.items()), {}
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
        fused._children.update(layers)
        return fused

    def _located(self, name: str, error: Exception) -> Exception:
        layer = self._children[name]
        return located(name, layer.layer if isinstance(layer, Fused) else layer, error)

    @overload
    def __getitem__(self, key: int | str) -> Layer: ...

    @overload
    def __getitem__(self, key: slice) -> "Sequential": ...

    def __getitem__(self, key: int | str | slice) -> "Layer | Sequential":
        if isinstance(key, slice):
            return Sequential(dict(list(self._children.items())[key]))
        return self._children[self._name(key)]

    def __setitem__(self, key: int | str, layer: Layer) -> None:
        name = self._name(key)
        self._set({**self._children, name: layer}.items())

    def __delitem__(self, key: int | str | slice) -> None:
        names = list(self._children)
        gone = names[key] if isinstance(key, slice) else [self._name(key)]
        self._set([(name, layer) for name, layer in self._children.items() if name not in gone])

    def _name(self, key: int | str) -> str:
        """The name of the layer at an index, or of that name."""
        if isinstance(key, str):
            if key not in self._children:
                raise KeyError(f"layer {key!r} is not among {list(self._children)}")
            return key
        index = integer("index", key, minimum=-(1 << 62))
        if not -len(self) <= index < len(self):
            raise IndexError(f"layer {index} is out of range for {len(self)} layers")
        return list(self._children)[index]

    def __contains__(self, layer: object) -> bool:
        return any(layer is child for child in self)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(list(self._children.values()))

    def __bool__(self) -> bool:
        return True  # an empty one is a layer, too

"""The contract of a layer, stated once.

A layer keeps parameters, and between forward and backward what backward needs:

    y = layer.forward(x)
    dx = layer.backward(grad_output)   # gradient by x; adds the parameters' gradients into layer.grads

One forward serves one backward, in training and in evaluation mode. A subclass writes the two side
by side; `save` and `saved` carry values from one to the other and check the gradient that comes in:

>>> import numpy as np
>>> class Scale(Layer):
...     def __init__(self):
...         super().__init__()
...         self.add_parameter("factor", np.ones((), np.float32))
...
...     def forward(self, x):
...         return self.save(x * self.params["factor"], x)
...
...     def backward(self, grad_output):
...         (x,) = self.saved(grad_output)
...         self.grads["factor"] += (grad_output * x).sum()
...         return grad_output * self.params["factor"]
>>> layer = Scale()
>>> y = layer(np.array([1.0, 2.0], np.float32))
>>> layer.backward(np.array([1.0, 10.0], np.float32)), float(layer.grads["factor"])
(array([ 1., 10.], dtype=float32), 21.0)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import floating_dtype, integer
from tinyconv.arrays import Array, array_module


class ForwardCache:
    """Carries values from a forward to its one backward."""

    def __init__(self) -> None:
        self._keeps_caches = True
        self._cache: _Cache | None = None

    def save(self, output: Array, *values: Any) -> Array:
        """Keep `values` for `saved`, and return `output`; `predict` keeps nothing."""
        if self._keeps_caches:
            self._cache = _Cache(array_module(output), output.shape, output.dtype, values)
        return output

    def saved(self, grad_output: Array) -> tuple[Any, ...]:
        """The values that `save` kept, once, after checking that `grad_output` fits the output.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `grad_output` has not the shape, dtype or device of the output.
        """
        cache = self._kept()
        if array_module(grad_output) is not cache.xp:
            raise TypeError(f"`grad_output` must be a {cache.xp.__name__} array, as the output is")
        if grad_output.shape != cache.shape:
            raise ValueError(
                f"`grad_output` (of shape {grad_output.shape}) must have the output's shape {cache.shape}"
            )
        if grad_output.dtype != cache.dtype:
            raise TypeError(
                f"`grad_output` (of dtype {grad_output.dtype}) must have the output's dtype {cache.dtype}"
            )
        self._cache = None
        return cache.values

    def ones(self) -> Array:
        """Ones of the form of the last forward's output."""
        cache = self._kept()
        ones: Array = cache.xp.ones(cache.shape, cache.dtype)
        return ones

    def _kept(self) -> "_Cache":
        if self._cache is None:
            raise RuntimeError("backward needs a forward before it, and one forward serves one backward only")
        return self._cache


class _Cache(NamedTuple):
    xp: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: tuple[Any, ...]


class Communicator(Protocol):
    """What a layer needs where several workers each have a part of the batch."""

    def allreduce(self, array: Array) -> Array:
        """The sum of the arrays that all workers give."""


class Layer(ForwardCache):
    """Base class of all layers.

    Attributes:
        params: name -> parameter, in order. A layer with children shows theirs as "child.name".
        grads: name -> gradient, same keys; backward adds to them, `zero_grad` clears them.
        buffers: name -> array that is no parameter but belongs to the state (running statistics).
        children: name -> layer, for layers that are made of layers.
        training: whether dropout drops and batch norm uses the batch's statistics.
        communicator: set in the workers of a parallel training, else None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.children: dict[str, Layer] = {}
        self.training = True
        self.communicator: Communicator | None = None
        self._params: dict[str, Array] = {}
        self._grads: dict[str, Array] = {}
        self._buffers: dict[str, Array] = {}

    # What a subclass writes

    def forward(self, x: Array) -> Array:
        """Output for the input `x`; keeps what `backward` needs.

        Raises:
            ValueError: `x` has a shape that the layer cannot take.
            TypeError: `x` has another dtype than the layer, or is no floating array.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: Array) -> Array:
        """Gradient by the input of the last forward; adds the parameters' gradients to `grads`.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `grad_output` has not the shape or dtype of the output.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def backward_params(self, grad_output: Array) -> None:
        """`backward` without the gradient by the input, for the first layer of a network."""
        self.backward(grad_output)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of `input_shape`; raises ValueError where it does not fit."""
        raise NotImplementedError(f"{type(self).__name__} has no output_shape")

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        """Number of multiplications that forward adds up, for an input of `input_shape`."""
        return 0

    def extra_repr(self) -> str:
        """The arguments to show in the layer's repr."""
        return ""

    # What a subclass calls

    def add_parameter(self, name: str, value: Array) -> None:
        """Register `value` as the parameter `name`, with a gradient of zeros."""
        self._params[name] = value
        self._grads[name] = array_module(value).zeros_like(value)

    def add_buffer(self, name: str, value: Array) -> None:
        """Register `value` as the buffer `name`."""
        self._buffers[name] = value

    def check_distinct(self, what: str) -> None:
        """Refuse one layer object in two places, as it can keep what backward needs for one only."""
        every = list(self.layers())
        if len({id(layer) for layer in every}) != len(every):
            raise ValueError(f"{what} must not hold the same layer object twice")

    # What every layer has

    def __call__(self, x: Array) -> Array:
        return self.forward(x)

    def __repr__(self) -> str:
        if not self.children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = (f"({name}): {child!r}" for name, child in self.children.items())
        inner = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"

    @property
    def params(self) -> dict[str, Array]:
        """Name -> parameter."""
        return self._with_children("_params")

    @property
    def grads(self) -> dict[str, Array]:
        """Name -> gradient of the parameter of that name."""
        return self._with_children("_grads")

    @property
    def buffers(self) -> dict[str, Array]:
        """Name -> array of the state that is no parameter."""
        return self._with_children("_buffers")

    def _with_children(self, kind: str) -> dict[str, Array]:
        own: dict[str, Array] = getattr(self, kind)
        if not self.children:
            return own
        merged = dict(own)
        for name, child in self.children.items():
            for key, array in child._with_children(kind).items():
                merged[f"{name}.{key}"] = array
        return merged

    def layers(self) -> Iterator["Layer"]:
        """This layer, its children, their children and so on."""
        yield self
        for child in self.children.values():
            yield from child.layers()

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (or, with False, to evaluation mode); returns the layer."""
        for layer in self.layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode; returns the layer."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        for grad in self.grads.values():
            grad[...] = 0

    def release(self) -> None:
        """Forget what forward kept for backward."""
        for layer in self.layers():
            layer._cache = None

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """Output in evaluation mode, computed `batch_size` samples at a time, keeping nothing for backward.

        The mode, and what an earlier forward kept, stay as they are.
        """
        integer("batch_size", batch_size)
        with self._predicting():
            if x.ndim == 0 or len(x) <= batch_size:
                return self.forward(x)
            parts = [self.forward(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
        joined: Array = array_module(x).concatenate(parts)
        return joined

    @contextmanager
    def _predicting(self) -> Iterator[None]:
        modes = [(layer, layer.training, layer._keeps_caches) for layer in self.layers()]
        try:
            for layer, _, _ in modes:
                layer.training = layer._keeps_caches = False
            yield
        finally:
            for layer, training, keeps_caches in modes:
                layer.training, layer._keeps_caches = training, keeps_caches

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers, under the names that PyTorch gives them."""
        state = {name: array.copy() for name, array in {**self._params, **self._buffers}.items()}
        for name, child in self.children.items():
            state.update({f"{name}.{key}": array for key, array in child.state_dict().items()})
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy the values of `state_dict` into the parameters and buffers, keeping their dtype.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs. Nothing is changed then.
            TypeError: a value that cannot be cast to the dtype of its parameter or buffer.
        """
        own = {**self.params, **self.buffers}
        missing = [name for name in own if name not in state_dict]
        unknown = [name for name in state_dict if name not in own]
        if missing or unknown:
            raise ValueError(f"`state_dict` lacks {missing} and holds unknown {unknown}")
        values = {name: np.asarray(state_dict[name]) for name in own}
        for name, value in values.items():
            if value.shape != own[name].shape:
                raise ValueError(
                    f"`state_dict[{name!r}]` (of shape {value.shape}) must have the shape {own[name].shape}"
                )
            if not np.can_cast(value.dtype, own[name].dtype, "same_kind"):
                raise TypeError(
                    f"`state_dict[{name!r}]` (of dtype {value.dtype}) cannot be cast to {own[name].dtype}"
                )
        for name, value in values.items():
            own[name][...] = array_module(own[name]).asarray(value)

    def to(self, dtype: npt.DTypeLike) -> Self:
        """Convert parameters, gradients and floating buffers to `dtype`; returns the layer.

        The arrays are new ones: make the optimiser afterwards.
        """
        dtype = floating_dtype(dtype)
        for layer in self.layers():
            layer._cache = None
            for arrays in (layer._params, layer._grads, layer._buffers):
                for name, array in arrays.items():
                    if array.dtype.kind == "f":
                        arrays[name] = array.astype(dtype)
        return self


def fan_in_uniform(
    shape: tuple[int, ...], fan_in: int, dtype: npt.DTypeLike, generator: np.random.Generator
) -> Array:
    """Uniform in +-1 / sqrt(fan_in): what PyTorch draws weights (Kaiming, a = sqrt 5) and biases from.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """
    bound = fan_in**-0.5
    return generator.uniform(-bound, bound, shape).astype(floating_dtype(dtype))

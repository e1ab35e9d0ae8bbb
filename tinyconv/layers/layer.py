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
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import check_arrays, check_shape, floating_dtype, integer
from tinyconv.arrays import Array, array_module


class ForwardCache:
    """Carries values from a forward to its one backward, and tangents from a jvp to its backward_jvp.

    A backward releases what forward kept, unless a jvp came between them: then backward_jvp does.
    """

    def __init__(self) -> None:
        self._keeps_caches = True
        self._retains_cache = False
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
        cache = self._kept("backward")
        cache.check("grad_output", grad_output)
        if cache.tangents is not None:
            cache.grad_output = grad_output
        elif not self._retains_cache:
            self._cache = None
        return cache.values

    def kept(self) -> tuple[Any, ...]:
        """The values that `save` kept, for a jvp, which leaves them there.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
        """
        return self._kept("jvp").values

    def save_tangents(self, output_dot: Array, *tangents: Any) -> Array:
        """Keep `tangents` for `saved_tangents`, and return `output_dot`.

        Raises:
            ValueError, TypeError: `output_dot` has not the shape or dtype of the output, as what was
                given to jvp does not fit the input.
        """
        cache = self._kept("jvp")
        cache.check("the tangent of the output", output_dot)
        cache.tangents, cache.grad_output = tangents, None
        return output_dot

    def saved_tangents(self, grad_output_dot: Array) -> tuple[tuple[Any, ...], tuple[Any, ...], Array]:
        """What `save` and `save_tangents` kept, and the gradient that backward was given; once.

        Raises:
            RuntimeError: not a forward, a jvp and a backward before it.
            ValueError, TypeError: `grad_output_dot` has not the shape, dtype or device of the output.
        """
        cache = self._cache
        if cache is None or cache.tangents is None or cache.grad_output is None:
            raise RuntimeError("backward_jvp needs a forward, a jvp and a backward before it, in this order")
        cache.check("grad_output_dot", grad_output_dot)
        self._cache = None
        return cache.values, cache.tangents, cache.grad_output

    def full(self, value: float) -> Array:
        """An array of the form of the last forward's output, with `value` in all places."""
        cache = self._kept("backward")
        array: Array = cache.xp.full(cache.shape, value, cache.dtype)
        return array

    def _kept(self, caller: str) -> "_Cache":
        if self._cache is None:
            raise RuntimeError(
                f"{caller} needs a forward before it, and one forward serves one backward only"
            )
        return self._cache


@dataclass
class _Cache:
    xp: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    values: tuple[Any, ...]
    tangents: tuple[Any, ...] | None = None
    grad_output: Array | None = None

    def check(self, name: str, array: Array) -> None:
        """Check that `array` has the form of the output."""
        name = name if " " in name else f"`{name}`"
        if array_module(array) is not self.xp:
            raise TypeError(f"{name} must be a {self.xp.__name__} array, as the output is")
        if array.shape != self.shape:
            raise ValueError(f"{name} (of shape {array.shape}) must have the output's shape {self.shape}")
        if array.dtype != self.dtype:
            raise TypeError(f"{name} (of dtype {array.dtype}) must have the output's dtype {self.dtype}")


class Communicator(Protocol):
    """What a layer needs where several workers each have a part of the batch."""

    def allreduce(self, array: Array) -> Array:
        """The sum of the arrays that all workers give."""


class Layer(ForwardCache):
    """Base class of all layers.

    Attributes:
        params: name -> parameter, in order. A layer with children shows theirs as "child.name".
        grads: name -> gradient, same keys; backward adds to them, `zero_grad` clears them.
        grads_dot: name -> tangent of the gradient; backward_jvp adds to them, `zero_grad` empties it.
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
        self._grads_dot: dict[str, Array] = {}
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

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        """Tangent of the last forward's output when the input and the parameters move.

        Args:
            x_dot: tangent of the input, of its shape and dtype.
            params_dot: name -> tangent of a parameter; the others stand still.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: a tangent that has not the form of what it is the tangent of, or an
                unknown name.
        """
        raise NotImplementedError(f"{type(self).__name__} has no jvp")

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        """Tangent of the last backward when its input, the parameters and `grad_output` move.

        Comes after forward, jvp (which says how input and parameters move) and backward. Returns the
        tangent of the gradient by the input; adds the tangents of the parameters' gradients to
        `grads_dot`.

        Args:
            grad_output_dot: tangent of the gradient that backward was given.

        Raises:
            RuntimeError: not a forward, a jvp and a backward before it.
            ValueError, TypeError: `grad_output_dot` has not the shape or dtype of the output.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward_jvp")

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

    def tangents_of(self, params_dot: Mapping[str, Array] | None, *names: str) -> list[Array | None]:
        """The tangents in `params_dot` of this layer's parameters `names`, checked; None for none."""
        params_dot = params_dot or {}
        unknown = [name for name in params_dot if name not in self._params]
        if unknown:
            raise ValueError(f"`params_dot` holds unknown {unknown}")
        for name, tangent in params_dot.items():
            check_arrays(**{name: self._params[name], f"params_dot[{name!r}]": tangent})
            check_shape(f"params_dot[{name!r}]", tangent, self._params[name].shape, "of the parameter")
        return [params_dot.get(name) for name in names]

    def tangents_by_child(self, params_dot: Mapping[str, Array] | None) -> dict[str, dict[str, Array]]:
        """`params_dot`, whose names begin with a child's, as one mapping a child."""
        split: dict[str, dict[str, Array]] = {name: {} for name in self.children}
        for name, tangent in (params_dot or {}).items():
            child, _, rest = name.partition(".")
            if child not in split or not rest:
                raise ValueError(f"`params_dot` holds unknown {[name]}")
            split[child][rest] = tangent
        return split

    def add_grad_dot(self, name: str, value: Array) -> None:
        """Add to the tangent of a parameter's gradient."""
        if name in self._grads_dot:
            self._grads_dot[name] += value
        else:
            self._grads_dot[name] = value.copy()

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
    def grads_dot(self) -> dict[str, Array]:
        """Name -> tangent of the gradient of the parameter of that name, where backward_jvp has added one."""
        return self._with_children("_grads_dot")

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
        """Set all gradients to zero, and forget their tangents."""
        for grad in self.grads.values():
            grad[...] = 0
        for layer in self.layers():
            layer._grads_dot.clear()

    def caches(self) -> Iterator[ForwardCache]:
        """All that keeps something from forward to backward: this layer and those in it."""
        yield self
        for child in self.children.values():
            yield from child.caches()

    def release(self) -> None:
        """Forget what forward kept for backward."""
        for cache in self.caches():
            cache._cache = None

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
        keeping = [(cache, cache._keeps_caches) for cache in self.caches()]
        modes = [(layer, layer.training) for layer, _ in keeping if isinstance(layer, Layer)]
        try:
            for cache, _ in keeping:
                cache._keeps_caches = False
            for layer, _ in modes:
                layer.training = False
            yield
        finally:
            for cache, keeps_caches in keeping:
                cache._keeps_caches = keeps_caches
            for layer, training in modes:
                layer.training = training

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
        self.release()
        for layer in self.layers():
            layer._grads_dot.clear()
            for arrays in (layer._params, layer._grads, layer._buffers):
                for name, array in arrays.items():
                    if array.dtype.kind == "f":
                        arrays[name] = array.astype(dtype)
        return self


class LinearMap(Layer):
    """Base class of the layers without parameters that are linear in their input.

    Such a map is its own tangent, and its backward, which does not depend on the input's values, that of
    its backward. A subclass writes the two.
    """

    def map(self, x: Array) -> Array:
        """The map."""
        raise NotImplementedError(f"{type(self).__name__} has no map")

    def map_backward(self, grad_output: Array, x: Array) -> Array:
        """Its transpose; `x` gives the input's form."""
        raise NotImplementedError(f"{type(self).__name__} has no map_backward")

    def forward(self, x: Array) -> Array:
        return self.save(self.map(x), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        return self.map_backward(grad_output, x)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        self.tangents_of(params_dot)
        check_shape("x_dot", x_dot, x.shape, "of the input")
        return self.save_tangents(self.map(x_dot))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), _, _ = self.saved_tangents(grad_output_dot)
        return self.map_backward(grad_output_dot, x)


def fan_in_uniform(
    shape: tuple[int, ...], fan_in: int, dtype: npt.DTypeLike, generator: "np.random.Generator"
) -> Array:
    """Uniform in +-1 / sqrt(fan_in): what PyTorch draws weights (Kaiming, a = sqrt 5) and biases from.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """
    bound = fan_in**-0.5
    return generator.uniform(-bound, bound, shape).astype(floating_dtype(dtype))

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
...
...     def jvp(self, x_dot, params_dot=None):  # the tangent of forward
...         (x,) = self.kept()
...         (factor_dot,) = self.tangents_of(params_dot, "factor")  # None where it stands still
...         factor_dot = 0.0 if factor_dot is None else factor_dot
...         output_dot = x_dot * self.params["factor"] + x * factor_dot
...         return self.save_tangents(output_dot, x_dot, factor_dot)
...
...     def backward_jvp(self, grad_output_dot):  # the tangent of backward
...         (x,), (x_dot, factor_dot), grad_output = self.saved_tangents(grad_output_dot)
...         self.add_grad_dot("factor", (grad_output_dot * x + grad_output * x_dot).sum())
...         return grad_output_dot * self.params["factor"] + grad_output * factor_dot
>>> layer = Scale()
>>> y = layer(np.array([1.0, 2.0], np.float32))
>>> layer.backward(np.array([1.0, 10.0], np.float32)), float(layer.grads["factor"])
(array([ 1., 10.], dtype=float32), 21.0)

The last two methods are the second order (see `tinyconv.second_order`), and may be left out.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import check_arrays, check_kinds, check_shape, conversion, floating_dtype, integer
from tinyconv.arrays import Array, array_module, moved, owner
from tinyconv.layers.cache import ForwardCache


class Communicator(Protocol):
    """What a layer needs where several workers each have a part of the batch."""

    def allreduce(self, array: Array) -> Array:
        """The sum of the arrays that all workers give."""


ERRORS = (ValueError, TypeError, RuntimeError)  # that get the name of the layer they arise in


class Layer(ForwardCache):
    """Base class of all layers.

    Attributes:
        params: name -> parameter, in order. A layer with children shows theirs as "child.name".
        grads: name -> gradient, same keys but those of frozen layers; backward adds to them, `zero_grad`
            clears them.
        grads_dot: name -> tangent of the gradient; backward_jvp adds to them, `zero_grad` empties it.
        buffers: name -> array that is no parameter but belongs to the state (running statistics).
        children: name -> layer, for layers that are made of layers.
        training: whether dropout drops and batch norm uses the batch's statistics.
        communicator: set in the workers of a parallel training, else None.
        capturable: whether a training step with this layer can be one CUDA graph: whether it runs the same
            kernels on the same arrays each time, and neither draws random numbers nor reads any on the host.
    """

    capturable = True

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
            self._grads_dot[name] = array_module(value).array(value)

    def check_distinct(self, what: str) -> None:
        """Refuse one layer object in two places, as it can keep what backward needs for one only."""
        every = self.layers()
        if len({id(layer) for layer in every}) != len(every):
            raise ValueError(f"{what} must not hold the same layer object twice")

    # What every layer has

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

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
        merged = own.copy()  # a dict, or what stands for one in a pass that wants no gradients
        for name, child in self.children.items():
            for key, array in child._with_children(kind).items():
                merged[f"{name}.{key}"] = array
        return merged

    def has_grads(self) -> bool:
        """Whether there is any gradient to compute: whether a parameter is not frozen."""
        return bool(self._grads) or any(child.has_grads() for child in self.children.values())

    def layers(self) -> list["Layer"]:
        """This layer, its children, their children and so on."""
        found = [self]
        for child in self.children.values():
            found += child.layers()
        return found

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (or, with False, to evaluation mode); returns the layer."""
        for layer in self.layers():
            layer.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode; returns the layer."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """With False, freeze the parameters: backward computes no gradients for them, optimisers skip them.

        The layer's `grads` are then without their names. Their tangents (`grads_dot`) are still computed. A
        frozen batch norm in training still updates its running statistics. Returns the layer.
        """
        for layer in self.layers():
            if requires_grad:
                zeros = {name: array_module(p).zeros_like(p) for name, p in layer._params.items()}
                layer._grads = {name: layer._grads.get(name, zero) for name, zero in zeros.items()}
            else:
                layer._grads = {}
        return self

    def zero_grad(self) -> None:
        """Set all gradients to zero, and forget their tangents."""
        for layer in self.layers():
            for grad in layer._grads.values():
                grad.fill(0)
            layer._grads_dot.clear()

    def caches(self) -> list[ForwardCache]:
        """All that keeps something from forward to backward: this layer and those in it."""
        found: list[ForwardCache] = [self]
        for child in self.children.values():
            found += child.caches()
        return found

    def release(self) -> None:
        """Forget what forward kept for backward."""
        for cache in self.caches():
            cache._cache = None

    def fused(self) -> "Layer":
        """A layer that computes the same with the same layers, faster if it can (see `Sequential.fused`)."""
        return self

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """Output in evaluation mode, computed `batch_size` samples at a time, keeping nothing for backward.

        The mode, and what an earlier forward kept, stay as they are.
        """
        check_kinds(x=x)
        integer("batch_size", batch_size)
        network = self.fused()
        with self._predicting():
            if x.ndim == 0 or len(x) <= batch_size:
                output: Array = network.forward(x)
                return output
            parts = [network.forward(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
        if isinstance(parts[0], tuple):
            raise ValueError(f"predict needs one output array, and {type(self).__name__} returns several")
        joined: Array = array_module(x).concatenate(parts)
        return joined

    @contextmanager
    def _predicting(self) -> Iterator[None]:
        caches, layers = self.caches(), self.layers()
        keeping, modes = [cache._keeps_caches for cache in caches], [layer.training for layer in layers]
        try:
            for cache in caches:
                cache._keeps_caches = False
            for layer in layers:
                layer.training = False
            yield
        finally:
            for cache, keeps_caches in zip(caches, keeping, strict=True):
                cache._keeps_caches = keeps_caches
            for layer, training in zip(layers, modes, strict=True):
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
        values = {name: _host(state_dict[name]) for name in own}
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
            own[name][...] = moved(value, array_module(own[name]))

    def to(self, target: npt.DTypeLike) -> Self:
        """Move all arrays to a device, or convert floating ones to a dtype; returns the layer.

        An optimiser that has taken steps follows by its own `to`.

        Args:
            target: "cpu", "cuda", float32 or float64.

        Raises:
            ValueError: another device or dtype.
            RuntimeError: "cuda", and there is no GPU, no driver or no CuPy.
        """
        convert = conversion(target)
        self.release()
        for layer in self.layers():
            layer._convert(convert)
        return self

    def _convert(self, convert: Callable[[Array], Array]) -> None:
        """Convert what this layer itself holds."""
        self._grads_dot.clear()
        for arrays in (self._params, self._grads, self._buffers):
            arrays.update({name: convert(array) for name, array in arrays.items()})


def _host(value: Any) -> Array:
    """`value`, an array of any kind, on the CPU."""
    return moved(value, np) if owner(value) == "cupy" else np.asarray(value)


def located(name: str, layer: Layer, error: Exception) -> Exception:
    """The error with the layer's name before its message."""
    kind = next(k for k in ERRORS if isinstance(error, k))
    return kind(f"layer {name!r} ({type(layer).__name__}): {error}")


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

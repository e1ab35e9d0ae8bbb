"""The contract of a layer.

A layer has parameters, and keeps between forward and backward what backward needs:

    y = layer.forward(x)
    dx = layer.backward(grad_output)   # gradient with respect to x; adds the parameters' to layer.grads

One forward serves one backward, in training and in evaluation mode. A subclass implements both; `save` and
`saved` carry values from one to the other and check the gradient that comes in:

>>> import numpy as np
>>> from tinyconv import Parameter
>>> class Scale(Layer):
...     def __init__(self):
...         super().__init__()
...         self.factor = Parameter(np.ones((), np.float32))
...
...     def forward(self, x):
...         return self.save(x * self.factor, x)
...
...     def backward(self, grad_output):
...         (x,) = self.saved(grad_output)
...         self.grads["factor"] += (grad_output * x).sum()
...         return grad_output * self.factor
...
...     def jvp(self, x_dot, params_dot=None):  # the tangent of forward
...         (x,) = self.kept()
...         (factor_dot,) = self.tangents_of(params_dot, "factor")  # None where it is constant
...         factor_dot = 0.0 if factor_dot is None else factor_dot
...         output_dot = x_dot * self.factor + x * factor_dot
...         return self.save_tangents(output_dot, x_dot, factor_dot)
...
...     def backward_jvp(self, grad_output_dot):  # the tangent of backward
...         (x,), (x_dot, factor_dot), grad_output = self.saved_tangents(grad_output_dot)
...         self.add_grad_dot("factor", (grad_output_dot * x + grad_output * x_dot).sum())
...         return grad_output_dot * self.factor + grad_output * factor_dot
>>> layer = Scale()
>>> y = layer(np.array([1.0, 2.0], np.float32))
>>> layer.backward(np.array([1.0, 10.0], np.float32)), float(layer.grads["factor"])
(array([ 1., 10.], dtype=float32), 21.0)

The last two methods are for the second order (see `tinyconv.gradients.second_order`), and optional.

A layer that is assigned to an attribute becomes a child, whose parameters belong to the layer:

>>> class Net(Layer):
...     def __init__(self):
...         super().__init__()
...         self.inner, self.outer = Scale(), Scale()
...
...     def forward(self, x):
...         return self.outer(self.inner(x))
...
...     def backward(self, grad_output):
...         return self.inner.backward(self.outer.backward(grad_output))
>>> list(Net().params), Net().output_shape((4, 2))
(['inner.factor', 'outer.factor'], (4, 2))
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self

import numpy.typing as npt

from tinyconv.arguments import check_arrays, check_kinds, check_shape, conversion, integer
from tinyconv.arrays import Array, array_module
from tinyconv.layers import attributes
from tinyconv.layers.attributes import Arrays, Unwanted, load
from tinyconv.layers.cache import ForwardCache, Pass, current_pass, keeping_pass
from tinyconv.layers.summary import Step, dry_run, summary_table
from tinyconv.signature import shown_arguments

__all__ = ["Layer"]


ERRORS = (ValueError, TypeError, RuntimeError)  # to which the name of the layer that raised them is added


class Layer(ForwardCache):
    """Base class of all layers.

    Assigning a Layer, a `Parameter` or a `Buffer` to an attribute registers it; assigning None, and `del`,
    remove it. Assigning an array to a parameter or a buffer copies the values. `predict` does not modify a
    layer, so any number of threads can call it, provided that your own forward writes to `self` only by
    `save`, and that threads which it starts run in a copy of its context (`contextvars.copy_context().run`).

    Attributes:
        params: name -> parameter, in order. Those of children are named "child.name".
        grads: name -> gradient, with the same names except those of frozen layers; backward adds to them,
            `zero_grad` clears them.
        grads_dot: name -> tangent of the gradient; backward_jvp adds to them, `zero_grad` removes them.
        buffers: name -> array of the state that is not trained (running statistics).
        children: name -> layer, for layers that contain layers; read-only.
        training: whether dropout drops and batch norm uses the batch's statistics.

    Raises:
        RuntimeError: a layer or parameter is assigned before `super().__init__()` is called.
        TypeError: a list, tuple or dict of layers is assigned, whose layers would not be trained or saved.
        ValueError: a layer that is part of this one already, as a layer keeps what backward needs for one
            place only; a name that the class uses.

    >>> import numpy as np
    >>> class Double(Layer):
    ...     def forward(self, x):
    ...         return self.save(2 * x)
    ...     def backward(self, grad_output):
    ...         self.saved(grad_output)
    ...         return 2 * grad_output
    >>> layer = Double()
    >>> layer(np.array([1.0, 3.0])), layer.backward(np.array([5.0, 7.0]))
    (array([2., 6.]), array([10., 14.]))
    """

    _training: bool
    _params: dict[str, Array]
    _own_grads: dict[str, Array]
    _own_grads_dot: dict[str, Array]
    _buffers: dict[str, Array]
    _children: dict[str, "Layer"]
    _changes: int  # number of changes of what is registered

    def __init__(self) -> None:
        super().__init__()
        # Bypasses __setattr__, which is slow: fused layers are created for each prediction.
        vars(self).update(_training=True, _params={}, _own_grads={}, _own_grads_dot={})
        vars(self).update(_buffers={}, _children={}, _changes=0)

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, value in vars(cls).items():
            if isinstance(value, (Layer, attributes.Marked)):
                raise TypeError(
                    f"`{name}` of the class {cls.__name__} would be shared by its layers, and not trained: "
                    f"assign self.{name} in __init__"
                )

    def __setattr__(self, name: str, value: Any) -> None:
        if not attributes.assign(self, name, value, is_layer=isinstance(value, Layer)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:  # if there is not an ordinary attribute
        return attributes.found(self, name)

    def __delattr__(self, name: str) -> None:
        if not attributes.remove(self, name):
            super().__delattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._params, *self._buffers, *self._children})

    # What a subclass implements

    def forward(self, x: Array) -> Array:
        """Compute the output for the input `x`; keep what `backward` needs.

        Raises:
            ValueError: `x` has a shape that the layer cannot take.
            TypeError: `x` has another dtype than the layer, or is not a floating array.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def backward(self, grad_output: Array) -> Array:
        """Compute the gradient with respect to the input; add the parameters' gradients to `grads`.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: `grad_output` does not have the shape or dtype of the output.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement backward")

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        """Compute the tangent of the last forward's output for tangents of input and parameters.

        Args:
            x_dot: tangent of the input, of its shape and dtype.
            params_dot: name -> tangent of a parameter; the others are constant.

        Raises:
            RuntimeError: no forward before it, or one that a backward has used already.
            ValueError, TypeError: a tangent whose shape or dtype is not that of its array, or an unknown
                name.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement jvp")

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        """Compute the tangent of the last backward for tangents of input, parameters and `grad_output`.

        Call it after forward, jvp (which takes the tangents of input and parameters) and backward. It returns
        the tangent of the gradient with respect to the input, and adds the tangents of the parameters'
        gradients to `grads_dot`.

        Args:
            grad_output_dot: tangent of the `grad_output` that was passed to backward.

        Raises:
            RuntimeError: not a forward, a jvp and a backward before it.
            ValueError, TypeError: `grad_output_dot` does not have the shape or dtype of the output.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement backward_jvp")

    def backward_params(self, grad_output: Array) -> None:
        """Run `backward` without the gradient with respect to the input, for a network's first layer."""
        self.backward(grad_output)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output's shape for an input of `input_shape`; raise ValueError if it does not fit.

        Unless a subclass implements it, a copy of the layer computes the output of zeros.
        """
        return dry_run(self, input_shape)[0]

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        """Return the number of multiply-adds in forward, for an input of `input_shape`.

        Unless a subclass implements it, it is that of its children.
        """
        if not self._children:
            return 0
        return sum(step.layer.multiply_adds(step.input_shape) for step in self.steps(input_shape))

    def extra_repr(self) -> str:
        """Return the arguments in the layer's repr: the constructor's that are attributes."""
        return shown_arguments(self)

    # What a subclass calls

    def tangents_of(self, params_dot: Mapping[str, Array] | None, *names: str) -> list[Array | None]:
        """Return the tangents in `params_dot` of this layer's parameters `names`, checked; None for none."""
        params_dot = self._shared_tangents(params_dot or {}) if self._params else params_dot or {}
        unknown = [name for name in params_dot if name not in self._params]
        if unknown:
            raise ValueError(f"`params_dot` has unknown {unknown}")
        for name, tangent in params_dot.items():
            check_arrays(**{name: self._params[name], f"params_dot[{name!r}]": tangent})
            check_shape(f"params_dot[{name!r}]", tangent, self._params[name].shape, "of the parameter")
        return [params_dot.get(name) for name in names]

    def tangents_by_child(self, params_dot: Mapping[str, Array] | None) -> dict[str, dict[str, Array]]:
        """Return `params_dot`, whose names begin with a child's, as one mapping per child."""
        split: dict[str, dict[str, Array]] = {name: {} for name in self._children}
        for name, tangent in (params_dot or {}).items():
            child, _, rest = name.partition(".")
            if child not in split or not rest:
                raise ValueError(f"`params_dot` has unknown {[name]}")
            split[child][rest] = tangent
        return split

    def add_grad_dot(self, name: str, value: Array) -> None:
        """Add to the tangent of a parameter's gradient."""
        grads_dot = self._grads_dot
        if name in grads_dot:
            grads_dot[name] += value
        else:
            grads_dot[name] = array_module(value).array(value)

    # What every layer has

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def __repr__(self) -> str:
        own = self.extra_repr()
        if not self._children:
            return f"{type(self).__name__}({own})"
        lines = [own] if own else []
        lines += [f"({name}): {child!r}" for name, child in self._children.items()]
        inner = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {inner}\n)"

    @property
    def training(self) -> bool:
        """Return whether the layer is in training mode; never within `predict`."""
        current = current_pass()
        return self._training and not (current is not None and current.evaluates)

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = bool(mode)

    @property
    def params(self) -> Arrays:
        """Return a mapping of name -> parameter."""
        return Arrays(self._with_children("_params"))

    @property
    def grads(self) -> dict[str, Array]:
        """Return a mapping of name -> gradient of the parameter of that name."""
        if keeping_pass() is not None:
            return Unwanted(self._with_children("_params"))
        return Arrays(self._with_children("_own_grads"))

    @property
    def grads_dot(self) -> dict[str, Array]:
        """Return a dict of name -> tangent of the parameter's gradient, where backward_jvp has added one."""
        return self._with_children("_grads_dot")

    @property
    def buffers(self) -> Arrays:
        """Return a mapping of name -> array of the state that is not trained."""
        return Arrays(self._with_children("_buffers"))

    def arrays(self) -> list[Array]:
        """Return all parameters, gradients and buffers, of this layer and of those in it."""
        kinds = [kind for own in self.modules() for kind in (own._params, own._own_grads, own._buffers)]
        return [array for arrays in kinds for array in arrays.values()]

    def _with_children(self, kind: str) -> dict[str, Array]:
        own: dict[str, Array] = getattr(self, kind)
        if not self._children:
            return own
        merged = dict(own)
        for name, child in self._children.items():
            for key, array in child._with_children(kind).items():
                merged[f"{name}.{key}"] = array
        return merged

    @property
    def _grads(self) -> dict[str, Array]:
        """The layer's own gradients, to add to; in a Pass, ones that are dropped."""
        return self._own_grads if keeping_pass() is None else Unwanted(self._params)

    @property
    def _grads_dot(self) -> dict[str, Array]:
        current = keeping_pass()
        own = vars(self).get("_origin", self)  # of a layer that shares the parameters of another
        return self._own_grads_dot if current is None else current.grads_dot.setdefault(id(own), {})

    @property
    def children(self) -> MappingProxyType[str, "Layer"]:
        """Return a mapping of name -> layer, for layers that contain layers."""
        return MappingProxyType(self._children)

    def parameters(self) -> Iterator[Array]:
        """Iterate over the parameters of this layer and of those in it."""
        return iter(self.params.values())

    def named_parameters(self) -> Iterator[tuple[str, Array]]:
        """Iterate over the names and the parameters of this layer and of those in it."""
        return iter(self.params.items())

    def modules(self) -> Iterator["Layer"]:
        """Iterate over this layer, its children, their children and so on."""
        found = [self]
        for child in self._children.values():
            found += child.modules() if child._children else (child,)
        return iter(found)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """Iterate over the same layers with the prefixes of their parameters' names; this layer's is ""."""
        yield prefix, self
        for name, child in self._children.items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def changes(self) -> tuple[int, ...]:
        """Return how often layers and arrays were registered or removed, here and in the layers within.

        Equal values mean that names and parameters are the same, wherever these are stored now.
        """
        return tuple([layer._changes for layer in self.modules()])

    def check_whole(self) -> None:
        """Refuse a network with layers or arrays in two places, or in a container and nowhere else.

        Raises:
            ValueError: one layer object is in two places, but can keep what backward needs for one only; one
                array has two names, or is an ordinary attribute, too; a Shared whose layer is not here.
            TypeError: a container among the attributes has layers or parameters that are not registered.
        """
        attributes.check_shared(self)
        attributes.check_whole(self)

    def has_grads(self) -> bool:
        """Return whether there is a gradient to compute, that is, a parameter that is not frozen."""
        return bool(self._grads) or any(child.has_grads() for child in self._children.values())

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (or, with False, to evaluation mode); return the layer."""
        self.training = mode
        for child in self._children.values():
            child.train(mode)  # which a subclass may override, to stay in evaluation mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode; return the layer."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze the parameters with False: backward computes no gradients for them, optimisers skip them.

        The layer's `grads` then do not have their names. Their tangents (`grads_dot`) are still computed. A
        frozen batch norm in training still updates its running statistics. Returns the layer.
        """
        for layer in self.modules():
            zeros = {name: array_module(p).zeros_like(p) for name, p in layer._params.items()}
            layer._own_grads = {n: layer._own_grads.get(n, z) for n, z in zeros.items() if requires_grad}
        return self

    def zero_grad(self) -> None:
        """Set all gradients to zero, and remove their tangents."""
        for layer in self.modules():
            for grad in layer._own_grads.values():
                grad.fill(0)
            layer._own_grads_dot.clear()

    def release(self) -> None:
        """Forget what forward kept for backward, in this layer and in those in it."""
        for layer in self.modules():
            layer._own_caches.clear()

    def fused(self) -> "Layer":
        """Return a faster layer that computes the same with the same layers (see `Sequential.fused`)."""
        return self

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """Compute the output in evaluation mode, `batch_size` samples at a time, for no backward.

        Nothing is written into the layer, so any number of threads may call it. (With OpenBLAS, NumPy before
        2.5 may compute wrong products where several threads start products that are large enough for BLAS's
        own threads, numpy issue 31618: hold BLAS to one thread by `threadpoolctl.threadpool_limits(1)`.)
        """
        check_kinds(x=x)
        batch_size = integer("batch_size", batch_size)
        network = self.fused()
        with Pass(keeps=False, evaluates=True):
            if x.ndim == 0 or len(x) <= batch_size:
                return network.forward(x)
            parts = [network.forward(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
        if isinstance(parts[0], tuple):
            raise ValueError(f"predict needs one output array, and {type(self).__name__} returns several")
        joined: Array = array_module(x).concatenate(parts)
        return joined

    def steps(self, input_shape: tuple[int, ...]) -> list[Step]:
        """Return the children in the order in which forward calls them, with input and output shapes.

        Args:
            input_shape: shape of the input of this layer, with the batch.

        Raises:
            ValueError: the shapes do not fit.
        """
        return dry_run(self, input_shape)[1]

    def summary(self, input_shape: tuple[int, ...]) -> str:
        """Return a table of the layers in this one: output shapes, numbers of parameters, multiply-adds.

        Args:
            input_shape: shape of the input, with the batch: (1, 1, 28, 28).

        Raises:
            ValueError: the shapes do not fit; the message names the layer.
        """
        return summary_table(self, tuple(input_shape))

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers, under the names that PyTorch gives them."""
        attributes.check_whole(self)
        state = {name: array.copy() for name, array in {**self._params, **self._buffers}.items()}
        for name, child in self._children.items():
            state.update({f"{name}.{key}": array for key, array in child.state_dict().items()})
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy the values of `state_dict` into the parameters and buffers, keeping their dtype.

        Raises:
            ValueError: a name is missing or unknown, or a shape differs. Nothing is changed then.
            TypeError: a value that cannot be cast to the dtype of its parameter or buffer.
        """
        load({**self.params, **self.buffers}, state_dict)

    def to(self, target: npt.DTypeLike) -> Self:
        """Move all arrays to a device, or convert floating ones to a dtype; return the layer.

        An optimiser that has taken steps is moved by its own `to`.

        Args:
            target: "cpu", "cuda", float32 or float64.

        Raises:
            ValueError: another device or dtype.
            RuntimeError: "cuda" without a GPU, its driver or CuPy.
        """
        convert = conversion(target)
        self.release()
        for layer in self.modules():
            layer._convert(convert)
        return self

    def _convert(self, convert: Callable[[Array], Array]) -> None:
        """Convert the arrays of this layer itself, and of the losses among its attributes."""
        self._own_grads_dot.clear()
        for arrays in (self._params, self._own_grads, self._buffers):
            arrays.update({name: convert(array) for name, array in arrays.items()})
        for value in vars(self).values():
            if isinstance(value, ForwardCache):
                value._convert(convert)


@contextmanager
def named_in_errors(place: str, layer: object) -> Iterator[None]:
    """Put the layer's place in the model ("3.1", "" for the model itself) and its type before an error."""
    try:
        yield
    except ERRORS as error:
        raise located(place, layer, error) from error


def located(place: str, layer: object, error: Exception) -> Exception:
    """Return the error with the layer's place and type before its message."""
    where = f"layer {place!r} ({type(layer).__name__})" if place else type(layer).__name__
    return reworded(error, f"{where}: {error}")


def reworded(error: Exception, message: str) -> Exception:
    """Return an error with the class and the attributes of `error`, one of `ERRORS`, and another message."""
    try:
        new = type(error)(message)
    except TypeError:  # its constructor takes something else
        return next(kind for kind in ERRORS if isinstance(error, kind))(message)
    vars(new).update(vars(error))
    return new

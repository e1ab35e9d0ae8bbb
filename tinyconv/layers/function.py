"""Layers and losses that are one function of `tinyconv.functional`, named once with its options."""

from collections.abc import Callable, Mapping
from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import check_shape
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer

PARTS = ("", "_backward", "_jvp", "_backward_jvp", "_input", "_weight", "_bias")


class OfFunction:
    """A part of the base classes of layers and losses that compute function(x, ..., *options).

    A subclass names the function and, in their order, its options, which are attributes:

        class ELU(Activation, function=F.elu, options=("alpha",)):

    The function's derivatives, which are called function_backward and so on, are found by their names.
    """

    _function: Callable[..., Array]
    _function_backward: Callable[..., Any]
    _function_jvp: Callable[..., Array]
    _function_backward_jvp: Callable[..., Array]
    _names: tuple[str, ...] = ()

    def __init_subclass__(
        cls,
        function: Callable[..., Array] | None = None,
        options: tuple[str, ...] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        if function is not None:
            for part in PARTS:
                found = getattr(F, f"{function.__name__}{part}", None)
                setattr(cls, f"_function{part}", staticmethod(found) if found else None)
        if options is not None:
            cls._names = options

    @property
    def _options(self) -> dict[str, Any]:
        """The function's options, from the present attributes."""
        return {name: getattr(self, name) for name in self._names}


class FunctionLayer(OfFunction, Layer):
    """Base class of the layers y = function(x, *options) without parameters."""

    def forward(self, x: Array) -> Array:
        return self.save(self._function(x, *self._options.values()), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        return self._gradient(grad_output, x)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        self.tangents_of(params_dot)
        check_shape("x_dot", x_dot, x.shape, "of the input")
        return self.save_tangents(self._tangent(x_dot, x), x_dot)

    def _gradient(self, grad_output: Array, x: Array) -> Array:
        grad: Array = self._function_backward(grad_output, x, *self._options.values())
        return grad

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        """The tangent of the output."""
        raise NotImplementedError


class Activation(FunctionLayer):
    """Base class of the elementwise functions, and of others whose Jacobian is symmetric.

    Such a function has its backward as its tangent.
    """

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot,), grad_output = self.saved_tangents(grad_output_dot)
        return self._function_backward_jvp(grad_output_dot, x_dot, grad_output, x, *self._options.values())

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        return self._gradient(x_dot, x)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


class LinearMap(FunctionLayer):
    """Base class of the functions that are linear in their input.

    Such a map is its own tangent, and so is its backward, which does not depend on the input's values.
    """

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), _, _ = self.saved_tangents(grad_output_dot)
        return self._gradient(grad_output_dot, x)

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        return self._function(x_dot, *self._options.values())

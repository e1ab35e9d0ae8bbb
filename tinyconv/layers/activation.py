"""Activations as layers: functions of one element, and softmax along a dimension."""

from collections.abc import Callable, Mapping
from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import check_shape, integer, number, one_of
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class Activation(Layer):
    """Base class of the layers y = function(x, **options) with the shape of x and no parameters."""

    _function: Callable[..., Array]
    _function_backward: Callable[..., Array]
    _function_backward_jvp: Callable[..., Array]

    _names: tuple[str, ...] = ()  # names of the function's options, which are attributes

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def forward(self, x: Array) -> Array:
        return self.save(self._function(x, **self._options), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        return self._function_backward(grad_output, x, **self._options)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        self.tangents_of(params_dot)
        check_shape("x_dot", x_dot, x.shape, "of the input")
        return self.save_tangents(self._tangent(x_dot, x), x_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot,), grad_output = self.saved_tangents(grad_output_dot)
        return self._function_backward_jvp(grad_output_dot, x_dot, grad_output, x, **self._options)

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        """The tangent of the output, by backward, as the Jacobian is symmetric in elementwise functions."""
        return self._function_backward(x_dot, x, **self._options)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


class ReLU(Activation):
    """Compute max(x, 0), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    _function = staticmethod(F.relu)
    _function_backward = staticmethod(F.relu_backward)
    _function_backward_jvp = staticmethod(F.relu_backward_jvp)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)

    def forward(self, x: Array) -> Array:
        # Only ReLU keeps its output in place of x, which saves memory as the next layer keeps it anyway:
        # `relu_backward` only needs to know where x is above 0, and the output is so in the same places. The
        # backward of another function reads x itself, and would be silently wrong.
        output = F.relu(x)
        return self.save(output, output)


class LeakyReLU(Activation):
    """Return x where it is positive, else negative_slope * x, elementwise.

    Args:
        negative_slope: the slope to the left of 0.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `negative_slope` is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html
    """

    _function = staticmethod(F.leaky_relu)
    _function_backward = staticmethod(F.leaky_relu_backward)
    _function_backward_jvp = staticmethod(F.leaky_relu_backward_jvp)

    _names = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = number("negative_slope", negative_slope), bool(inplace)


class ELU(Activation):
    """Return x where it is positive, else alpha * (exp(x) - 1), elementwise.

    Args:
        alpha: minus the limit for x -> -infinity.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `alpha` is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ELU.html
    """

    _function = staticmethod(F.elu)
    _function_backward = staticmethod(F.elu_backward)
    _function_backward_jvp = staticmethod(F.elu_backward_jvp)

    _names = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = number("alpha", alpha), bool(inplace)


class GELU(Activation):
    """Multiply x by the distribution function of the standard normal at x; see `functional.gelu`.

    Args:
        approximate: "none" or "tanh".

    Raises:
        ValueError: another `approximate`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html
    """

    _function = staticmethod(F.gelu)
    _function_backward = staticmethod(F.gelu_backward)
    _function_backward_jvp = staticmethod(F.gelu_backward_jvp)

    _names = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = one_of("approximate", approximate, ("none", "tanh"))


class Sigmoid(Activation):
    """Compute 1 / (1 + exp(-x)), elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    _function = staticmethod(F.sigmoid)
    _function_backward = staticmethod(F.sigmoid_backward)
    _function_backward_jvp = staticmethod(F.sigmoid_backward_jvp)


class Tanh(Activation):
    """Compute the hyperbolic tangent, elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    _function = staticmethod(F.tanh)
    _function_backward = staticmethod(F.tanh_backward)
    _function_backward_jvp = staticmethod(F.tanh_backward_jvp)


class SiLU(Activation):
    """Compute x * sigmoid(x), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html
    """

    _function = staticmethod(F.silu)
    _function_backward = staticmethod(F.silu_backward)
    _function_backward_jvp = staticmethod(F.silu_backward_jvp)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)


class Softplus(Activation):
    """Compute log(1 + exp(beta * x)) / beta, elementwise, or x itself where beta * x > threshold.

    Args:
        beta: the larger, the closer to ReLU.
        threshold: where the function is replaced by its asymptote.

    Raises:
        TypeError: an argument that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html
    """

    _function = staticmethod(F.softplus)
    _function_backward = staticmethod(F.softplus_backward)
    _function_backward_jvp = staticmethod(F.softplus_backward_jvp)

    _names = ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = number("beta", beta), number("threshold", threshold)


class Softmax(Activation):
    """Compute exp(x) over its sum along `dim`; see `functional.softmax`.

    Args:
        dim: the dimension along which the outputs sum to one.

    Raises:
        TypeError: `dim` is not an integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    _function = staticmethod(F.softmax)
    _function_backward = staticmethod(F.softmax_backward)
    _function_backward_jvp = staticmethod(F.softmax_backward_jvp)

    _names = ("dim",)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = integer("dim", dim, minimum=-64)


class LogSoftmax(Activation):
    """Compute the logarithm of the softmax along `dim`; see `functional.log_softmax`.

    Args:
        dim: the dimension along which the exponentials of the outputs sum to one.

    Raises:
        TypeError: `dim` is not an integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    _function = staticmethod(F.log_softmax)
    _function_backward = staticmethod(F.log_softmax_backward)
    _function_backward_jvp = staticmethod(F.log_softmax_backward_jvp)

    _names = ("dim",)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = integer("dim", dim, minimum=-64)

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        return F.log_softmax_jvp(x_dot, x, **self._options)

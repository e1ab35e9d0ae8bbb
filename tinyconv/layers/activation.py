"""Activations as layers: functions of one element, and softmax along a dimension."""

from collections.abc import Callable
from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import integer, number, one_of
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer


class Activation(Layer):
    """Base class of the layers y = function(x, **options) with the shape of x and no parameters."""

    def __init__(
        self, function: Callable[..., Array], function_backward: Callable[..., Array], **options: Any
    ) -> None:
        super().__init__()
        self._function, self._function_backward = function, function_backward
        self._options = options

    def forward(self, x: Array) -> Array:
        return self.save(self._function(x, **self._options), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        return self._function_backward(grad_output, x, **self._options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._options.items())

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


class ReLU(Activation):
    """max(x, 0), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(F.relu, F.relu_backward)

    def forward(self, x: Array) -> Array:
        output = F.relu(x)
        return self.save(output, output)  # has the signs of x, and the next layer keeps it anyway


class LeakyReLU(Activation):
    """x where it is positive, else negative_slope * x, elementwise.

    Args:
        negative_slope: the slope to the left of 0.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `negative_slope` is no number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(
            F.leaky_relu, F.leaky_relu_backward, negative_slope=number("negative_slope", negative_slope)
        )


class ELU(Activation):
    """x where it is positive, else alpha * (exp(x) - 1), elementwise.

    Args:
        alpha: the negative of the limit on the left.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `alpha` is no number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ELU.html
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(F.elu, F.elu_backward, alpha=number("alpha", alpha))


class GELU(Activation):
    """x times the distribution function of the standard normal at x; see `functional.gelu`.

    Args:
        approximate: "none" or "tanh".

    Raises:
        ValueError: another `approximate`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html
    """

    def __init__(self, approximate: str = "none") -> None:
        one_of("approximate", approximate, ("none", "tanh"))
        super().__init__(F.gelu, F.gelu_backward, approximate=approximate)


class Sigmoid(Activation):
    """1 / (1 + exp(-x)), elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    def __init__(self) -> None:
        super().__init__(F.sigmoid, F.sigmoid_backward)


class Tanh(Activation):
    """Hyperbolic tangent, elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    def __init__(self) -> None:
        super().__init__(F.tanh, F.tanh_backward)


class SiLU(Activation):
    """x * sigmoid(x), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(F.silu, F.silu_backward)


class Softplus(Activation):
    """log(1 + exp(beta * x)) / beta, elementwise; x itself where beta * x > threshold.

    Args:
        beta: how sharp the bend is.
        threshold: where the function becomes the straight line that it tends to.

    Raises:
        TypeError: an argument that is no number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        options = {"beta": number("beta", beta), "threshold": number("threshold", threshold)}
        super().__init__(F.softplus, F.softplus_backward, **options)


class Softmax(Activation):
    """exp(x) over its sum along `dim`; see `functional.softmax`.

    Args:
        dim: the dimension along which the outputs sum to one.

    Raises:
        TypeError: `dim` is no integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    def __init__(self, dim: int) -> None:
        super().__init__(F.softmax, F.softmax_backward, dim=integer("dim", dim, minimum=-64))


class LogSoftmax(Activation):
    """Logarithm of the softmax along `dim`; see `functional.log_softmax`.

    Args:
        dim: the dimension along which the exponentials of the outputs sum to one.

    Raises:
        TypeError: `dim` is no integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    def __init__(self, dim: int) -> None:
        super().__init__(F.log_softmax, F.log_softmax_backward, dim=integer("dim", dim, minimum=-64))

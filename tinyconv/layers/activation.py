"""Activations as layers: functions of one element, and softmax along a dimension."""

import tinyconv.functional as F
from tinyconv.arguments import integer, number, one_of
from tinyconv.arrays import Array
from tinyconv.layers.function import Activation

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]


class ReLU(Activation, function=F.relu):
    """Compute max(x, 0), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)

    def forward(self, x: Array) -> Array:
        # Only ReLU keeps its output in place of x, which saves memory as the next layer keeps it anyway:
        # `relu_backward` only needs to know where x is above 0, and the output is so in the same places. The
        # backward of another function reads x itself, and would be silently wrong.
        output = F.relu(x)
        return self.save(output, output)


class LeakyReLU(Activation, function=F.leaky_relu, options=("negative_slope",)):
    """Return x where it is positive, else negative_slope * x, elementwise.

    Args:
        negative_slope: the slope to the left of 0.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `negative_slope` is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope, self.inplace = number("negative_slope", negative_slope), bool(inplace)


class ELU(Activation, function=F.elu, options=("alpha",)):
    """Return x where it is positive, else alpha * (exp(x) - 1), elementwise.

    Args:
        alpha: minus the limit for x -> -infinity.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `alpha` is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ELU.html
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha, self.inplace = number("alpha", alpha), bool(inplace)


class GELU(Activation, function=F.gelu, options=("approximate",)):
    """Multiply x by the distribution function of the standard normal at x; see `functional.gelu`.

    Args:
        approximate: "none" or "tanh".

    Raises:
        ValueError: another `approximate`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = one_of("approximate", approximate, ("none", "tanh"))


class Sigmoid(Activation, function=F.sigmoid):
    """Compute 1 / (1 + exp(-x)), elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """


class Tanh(Activation, function=F.tanh):
    """Compute the hyperbolic tangent, elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """


class SiLU(Activation, function=F.silu):
    """Compute x * sigmoid(x), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)


class Softplus(Activation, function=F.softplus, options=("beta", "threshold")):
    """Compute log(1 + exp(beta * x)) / beta, elementwise, or x itself where beta * x > threshold.

    Args:
        beta: the larger, the closer to ReLU.
        threshold: where the function is replaced by its asymptote.

    Raises:
        TypeError: an argument that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = number("beta", beta), number("threshold", threshold)


class Softmax(Activation, function=F.softmax, options=("dim",)):
    """Compute exp(x) over its sum along `dim`; see `functional.softmax`.

    Args:
        dim: the dimension along which the outputs sum to one.

    Raises:
        TypeError: `dim` is not an integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = integer("dim", dim, minimum=-64)


class LogSoftmax(Activation, function=F.log_softmax, options=("dim",)):
    """Compute the logarithm of the softmax along `dim`; see `functional.log_softmax`.

    Args:
        dim: the dimension along which the exponentials of the outputs sum to one.

    Raises:
        TypeError: `dim` is not an integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = integer("dim", dim, minimum=-64)

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        return F.log_softmax_jvp(x_dot, x, self.dim)

"""Activations as layers: functions of one element, and softmax along a dimension."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import floating_dtype, integer, number, one_of
from tinyconv.arrays import Array
from tinyconv.functional.hard import hardtanh_range
from tinyconv.layers.attributes import Parameter
from tinyconv.layers.function import Activation
from tinyconv.layers.layer import Layer

__all__ = ["ELU", "GELU", "LeakyReLU", "LogSoftmax", "ReLU", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh"]
__all__ += ["Hardsigmoid", "Hardswish", "Hardtanh", "Mish", "PReLU", "ReLU6", "SELU"]


class WithoutOptions(Activation):
    """Base class of the activations whose only argument is `inplace`, which is ignored."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = bool(inplace)


class ReLU(WithoutOptions, function=F.relu):
    """Compute max(x, 0), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html

    >>> layer = ReLU()
    >>> layer(np.array([-1.0, 0.0, 2.0])), layer.backward(np.array([5.0, 5.0, 5.0]))
    (array([0., 0., 2.]), array([0., 0., 5.]))
    """

    def forward(self, x: Array) -> Array:
        # Only ReLU keeps its output in place of x, which saves memory as the next layer keeps it anyway:
        # `relu_backward` only needs to know where x is above 0, and the output is so in the same places. The
        # backward of another function reads x itself, and would be silently wrong.
        output = F.relu(x)
        return self.save(output, output)


class ReLU6(WithoutOptions, function=F.relu6):
    """Compute min(max(x, 0), 6), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU6.html

    >>> ReLU6()(np.array([-1.0, 3.0, 9.0]))
    array([0., 3., 6.])
    """


class Hardtanh(Activation, function=F.hardtanh, options=("min_val", "max_val")):
    """Return x within [min_val, max_val], else the nearer of both, elementwise.

    Args:
        min_val, max_val: the smallest and the largest output.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        ValueError: `max_val` is not above `min_val`.
        TypeError: one of both is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardtanh.html

    >>> Hardtanh(-2.0, 0.5)(np.array([-3.0, 0.25, 3.0]))
    array([-2.  ,  0.25,  0.5 ])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        (self.min_val, self.max_val), self.inplace = hardtanh_range(min_val, max_val), bool(inplace)
        if self.min_val == self.max_val:
            raise ValueError(f"`max_val` (={max_val}) must be above `min_val` (={min_val})")


class Hardsigmoid(WithoutOptions, function=F.hardsigmoid):
    """Compute min(max(x + 3, 0), 6) / 6, elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardsigmoid.html

    >>> Hardsigmoid()(np.array([-4.0, 1.5, 4.0]))
    array([0.  , 0.75, 1.  ])
    """


class Hardswish(WithoutOptions, function=F.hardswish):
    """Compute x * min(max(x + 3, 0), 6) / 6, elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardswish.html

    >>> Hardswish()(np.array([-1.5, 1.5, 4.0]))  # -1.5 * 1.5 / 6, 1.5 * 4.5 / 6
    array([-0.375,  1.125,  4.   ])
    """


class SELU(WithoutOptions, function=F.selu):
    """Compute an ELU that keeps means at 0 and variances at 1; see `functional.selu`.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SELU.html

    >>> SELU()(np.array([-1e4, 0.0, 1.0])).round(4)
    array([-1.7581,  0.    ,  1.0507])
    """


class Mish(WithoutOptions, function=F.mish):
    """Compute x * tanh(softplus(x)), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Mish.html

    >>> layer = Mish()
    >>> layer(np.array([0.0, 100.0])), layer.backward(np.ones(2)).round(6)
    (array([  0., 100.]), array([0.6, 1. ]))
    """


class PReLU(Layer):
    """Return x where it is positive, else weight * x, elementwise; the weight is trained.

    Args:
        num_parameters: 1, or the number of channels, each of which then has a weight of its own.
        init: the initial weight.
        dtype: float32 (default) or float64.

    Parameters: weight (num_parameters,), `init`.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PReLU.html

    >>> layer = PReLU(2, init=0.5, dtype=np.float64)
    >>> layer(np.array([[-4.0, -6.0], [2.0, -8.0]]))
    array([[-2., -3.],
           [ 2., -4.]])
    >>> layer.backward(np.ones((2, 2))), layer.grads["weight"]
    (array([[0.5, 0.5],
           [1. , 0.5]]), array([ -4., -14.]))
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, *, dtype: npt.DTypeLike = np.float32
    ) -> None:
        super().__init__()
        self.num_parameters, self.init = integer("num_parameters", num_parameters), number("init", init)
        self.weight = Parameter(np.full(self.num_parameters, self.init, floating_dtype(dtype)))

    def forward(self, x: Array) -> Array:
        return self.save(F.prelu(x, self._params["weight"]), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        grad, weight_grad = F.prelu_backward(grad_output, x, self._params["weight"])
        if "weight" in self._grads:
            self._grads["weight"] += weight_grad
        return grad

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,), (weight_dot,) = self.kept(), self.tangents_of(params_dot, "weight")
        return self.save_tangents(
            F.prelu_jvp(x_dot, weight_dot, x, self._params["weight"]), x_dot, weight_dot
        )

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        grad_dot, weight_grad_dot = F.prelu_backward_jvp(
            grad_output_dot, x_dot, weight_dot, grad_output, x, self._params["weight"]
        )
        self.add_grad_dot("weight", weight_grad_dot)
        return grad_dot


class LeakyReLU(Activation, function=F.leaky_relu, options=("negative_slope",)):
    """Return x where it is positive, else negative_slope * x, elementwise.

    Args:
        negative_slope: the slope to the left of 0.
        inplace: accepted for PyTorch's signature and ignored.

    Raises:
        TypeError: `negative_slope` is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html

    >>> LeakyReLU(0.25)(np.array([-4.0, 2.0]))
    array([-1.,  2.])
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

    >>> ELU(alpha=2.0)(np.array([-1e4, 0.0, 3.0]))
    array([-2.,  0.,  3.])
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

    >>> [float(GELU(how)(np.array([1.0]))[0].round(4)) for how in ("none", "tanh")]
    [0.8413, 0.8412]
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = one_of("approximate", approximate, ("none", "tanh"))


class Sigmoid(Activation, function=F.sigmoid):
    """Compute 1 / (1 + exp(-x)), elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html

    >>> Sigmoid()(np.log([1.0, 3.0])).round(6)
    array([0.5 , 0.75])
    """


class Tanh(Activation, function=F.tanh):
    """Compute the hyperbolic tangent, elementwise.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html

    >>> Tanh()(np.array([0.0, np.log(3) / 2, 1e4])).round(6)
    array([0. , 0.5, 1. ])
    """


class SiLU(WithoutOptions, function=F.silu):
    """Compute x * sigmoid(x), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html

    >>> layer = SiLU()
    >>> layer(np.array([0.0, 1000.0])), layer.backward(np.array([6.0, 6.0]))
    (array([   0., 1000.]), array([3., 6.]))
    """


class Softplus(Activation, function=F.softplus, options=("beta", "threshold")):
    """Compute log(1 + exp(beta * x)) / beta, elementwise, or x itself where beta * x > threshold.

    Args:
        beta: the larger, the closer to ReLU.
        threshold: where the function is replaced by its asymptote.

    Raises:
        TypeError: an argument that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html

    >>> Softplus(beta=2.0)(np.array([0.0, 15.0])).round(6)  # log(2) / 2; beyond the threshold
    array([ 0.346574, 15.      ])
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

    >>> Softmax(dim=1)(np.log([[1.0, 3.0], [2.0, 2.0]])).round(6)
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
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

    >>> x = np.log([[1.0, 3.0]])
    >>> np.exp(LogSoftmax(dim=1)(x)).round(6)
    array([[0.25, 0.75]])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = integer("dim", dim, minimum=-64)

    def _tangent(self, x_dot: Array, x: Array) -> Array:
        return F.log_softmax_jvp(x_dot, x, self.dim)

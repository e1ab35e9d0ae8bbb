"""Activations of straight pieces, and Mish and SELU: each function, its gradient and its tangents.

Everything that the first lines of `activation` say holds here as well. At a kink the slope is PyTorch's.
"""

from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, number
from tinyconv.arrays import Array, array_module, underflow_allowed
from tinyconv.functional.activation import elu, elu_backward, sigmoid
from tinyconv.functional.product_rule import tangent_of

__all__ = ["relu6", "relu6_backward", "relu6_backward_jvp"]
__all__ += ["hardtanh", "hardtanh_backward", "hardtanh_backward_jvp"]
__all__ += ["hardsigmoid", "hardsigmoid_backward", "hardsigmoid_backward_jvp"]
__all__ += ["hardswish", "hardswish_backward", "hardswish_backward_jvp"]
__all__ += ["selu", "selu_backward", "selu_backward_jvp"]
__all__ += ["mish", "mish_backward", "mish_backward_jvp"]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def hardtanh(input: Array, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Array:
    """Return `input` within [min_val, max_val], else the nearer of both; NaN stays NaN.

    Args:
        input: any shape, float32 or float64.
        min_val, max_val: the smallest and the largest output.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        ValueError: `min_val` above `max_val`.
        TypeError: `input` is not floating, or an option is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardtanh.html

    >>> hardtanh(np.array([-3.0, 0.5, 3.0]), -2)
    array([-2. ,  0.5,  1. ])
    """
    xp = check_arrays(input=input)
    low, high = hardtanh_range(min_val, max_val)
    output: Array = xp.asarray(xp.minimum(xp.maximum(input, low), high))
    return output


def hardtanh_backward(
    grad_output: Array, input: Array, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Array:
    """Return grad_output where min_val < input < max_val, else 0, at both ends and for NaN as well.

    >>> hardtanh_backward(np.array([5.0, 6.0, 7.0]), np.array([-1.0, 0.5, 1.5]), max_val=2.0)
    array([0., 6., 7.])
    """
    xp = check_like(input, grad_output=grad_output)
    low, high = hardtanh_range(min_val, max_val)
    grad: Array = xp.where((input > low) & (input < high), grad_output, 0)
    return grad


@tangent_of(hardtanh_backward)
def hardtanh_backward_jvp(
    input_dot: Array, input: Array, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> None:
    """Compute the tangent of `hardtanh_backward`, which is piecewise constant in `input`.

    >>> ones = np.ones(2)
    >>> hardtanh_backward_jvp(np.array([5.0, 6.0]), ones, ones, np.array([0.5, 4.0]))
    array([5., 0.])
    """


def hardtanh_range(min_val: float, max_val: float) -> tuple[float, float]:
    """Return both as floats, checked to be in order."""
    low, high = number("min_val", min_val), number("max_val", max_val)
    if not low <= high:
        raise ValueError(f"`min_val` (={min_val}) must not be above `max_val` (={max_val})")
    return low, high


def relu6(input: Array, inplace: bool = False) -> Array:
    """Compute min(max(input, 0), 6), elementwise; NaN stays NaN.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu6.html

    >>> relu6(np.array([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """
    return hardtanh(input, 0.0, 6.0)


def relu6_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Return grad_output where 0 < input < 6, else 0, at both ends and for NaN as well.

    >>> relu6_backward(np.array([5.0, 6.0, 7.0]), np.array([-1.0, 2.0, 6.0]))
    array([0., 6., 0.])
    """
    return hardtanh_backward(grad_output, input, 0.0, 6.0)


@tangent_of(relu6_backward)
def relu6_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> None:
    """Compute the tangent of `relu6_backward`, which is piecewise constant in `input`.

    >>> ones = np.ones(2)
    >>> relu6_backward_jvp(np.array([5.0, 6.0]), ones, ones, np.array([2.0, 9.0]))
    array([5., 0.])
    """


@underflow_allowed
def hardsigmoid(input: Array, inplace: bool = False) -> Array:
    """Compute min(max(input + 3, 0), 6) / 6, elementwise; NaN stays NaN.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardsigmoid.html

    >>> hardsigmoid(np.array([-4.0, 0.0, 1.5]))
    array([0.  , 0.5 , 0.75])
    """
    xp = check_arrays(input=input)
    output: Array = xp.asarray(relu6(input + 3) / 6)
    return output


@underflow_allowed
def hardsigmoid_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Return grad_output / 6 where -3 < input < 3, else 0, at both ends and for NaN as well.

    PyTorch multiplies by 1 / 6 of float32 in float64, too, which is off by 3e-8.

    >>> hardsigmoid_backward(np.full(3, 12.0), np.array([-3.0, 0.0, 4.0]))
    array([0., 2., 0.])
    """
    grad = hardtanh_backward(grad_output, input, -3.0, 3.0)
    grad /= 6
    return grad


@tangent_of(hardsigmoid_backward)
def hardsigmoid_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> None:
    """Compute the tangent of `hardsigmoid_backward`, which is piecewise constant in `input`.

    >>> ones = np.ones(2)
    >>> hardsigmoid_backward_jvp(np.array([12.0, 18.0]), ones, ones, np.array([0.0, 4.0]))
    array([2., 0.])
    """


@underflow_allowed
def hardswish(input: Array, inplace: bool = False) -> Array:
    """Compute input * hardsigmoid(input), elementwise.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: Howard et al., https://arxiv.org/abs/1905.02244;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hardswish.html

    >>> hardswish(np.array([-3.0, 1.5, 4.0]))
    array([-0.   ,  1.125,  4.   ])
    """
    xp = check_arrays(input=input)
    with np.errstate(invalid="ignore"):  # -inf * 0: NaN, as in PyTorch
        output: Array = xp.asarray(input * hardsigmoid(input))
    return output


@underflow_allowed
def hardswish_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Return grad_output where input >= 3, 0 where input <= -3, else grad_output * (input / 3 + 1 / 2).

    >>> hardswish_backward(np.full(4, 2.0), np.array([-4.0, 0.0, 1.5, 4.0]))
    array([0., 1., 2., 2.])
    """
    xp = check_like(input, grad_output=grad_output)
    between = grad_output * (xp.minimum(xp.maximum(input, -3), 3) / 3 + 0.5)
    grad: Array = xp.where(input >= 3, grad_output, xp.where(input <= -3, 0, between))
    return grad


@tangent_of(hardswish_backward)
def hardswish_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> Any:
    """Compute the tangent of `hardswish_backward`; f'' is 1 / 3 where -3 < input < 3.

    >>> x = np.array([-4.0, 0.0, 4.0])  # a parabola is between the two straight lines
    >>> hardswish_backward_jvp(np.zeros(3), np.full(3, 6.0), np.ones(3), x)
    array([0., 2., 0.])
    """
    return hardtanh_backward(input_dot, input, -3.0, 3.0) / 3


@underflow_allowed
def selu(input: Array, inplace: bool = False) -> Array:
    """Compute scale * elu(input, alpha), with the constants that keep means at 0 and variances at 1.

    The scale is 1.0507009873554805, alpha 1.6732632423543772.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: Klambauer et al., https://arxiv.org/abs/1706.02515;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.selu.html

    >>> selu(np.array([-1.0, 0.0, 2.0])).round(6)
    array([-1.111331,  0.      ,  2.101402])
    """
    output = elu(input, SELU_ALPHA)
    output *= SELU_SCALE
    return output


@underflow_allowed
def selu_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Compute grad_output * scale where input > 0, else grad_output * scale * alpha * exp(input).

    >>> x = np.array([-1e4, 2.0])
    >>> selu_backward(np.ones(2), x).round(6)  # the slope to the right is the scale
    array([0.      , 1.050701])
    """
    grad = elu_backward(grad_output, input, SELU_ALPHA)
    grad *= SELU_SCALE
    return grad


@tangent_of(selu_backward)
def selu_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> Any:
    """Compute the tangent of `selu_backward`; f'' is scale * alpha * exp(input) where input < 0.

    >>> x, ones = np.array([-np.log(2), 2.0]), np.ones(2)
    >>> selu_backward_jvp(np.zeros(2), ones, ones, x).round(6)  # 1.050701 * 1.673263 / 2
    array([0.87905, 0.     ])
    """
    return array_module(input).where(input >= 0, 0, selu_backward(input_dot, input))


def mish(input: Array, inplace: bool = False) -> Array:
    """Compute input * tanh(softplus(input)), elementwise.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: Misra, https://arxiv.org/abs/1908.08681;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mish.html

    >>> mish(np.array([-1.0, 0.0, 1.0])).round(6)
    array([-0.303401,  0.      ,  0.865098])
    """
    xp = check_arrays(input=input)
    with np.errstate(invalid="ignore", under="ignore"):  # -inf * 0: NaN, as in PyTorch
        output: Array = xp.asarray(input * _gate(xp, input))
    return output


def mish_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Compute grad_output * (t + input * s * (1 - t^2)), t = tanh(softplus(input)), s = sigmoid(input).

    >>> mish_backward(np.ones(2), np.array([0.0, 50.0])).round(6)  # tanh(log 2) = 3/5
    array([0.6, 1. ])
    """
    xp = check_like(input, grad_output=grad_output)
    with np.errstate(invalid="ignore", under="ignore"):  # inf * 0: NaN, as in PyTorch
        gate = _gate(xp, input)
        grad: Array = xp.asarray(grad_output * (gate + input * sigmoid(input) * (1 - gate * gate)))
    return grad


@tangent_of(mish_backward)
def mish_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> Any:
    """Compute the tangent of `mish_backward`; f'' is s * (1 - t^2) * (2 + input * (1 - s - 2 * s * t)).

    >>> x = np.zeros(1)  # s = 1/2 and t = 3/5, so f'' = 1/2 * (1 - 9/25) * 2
    >>> mish_backward_jvp(x, np.ones(1), np.ones(1), x).round(6)
    array([0.64])
    """
    gate, share = _gate(array_module(input), input), sigmoid(input)
    bend = 2 + input * (sigmoid(-input) - 2 * share * gate)
    return share * (1 - gate * gate) * bend * input_dot


def _gate(xp: Any, input: Array) -> Any:
    """tanh(softplus(input)), without an exponential that overflows."""
    return xp.tanh(xp.logaddexp(input, 0))

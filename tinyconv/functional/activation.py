"""Activations: functions of one element, each followed by its derivatives.

All of them take an array of any shape, float32 or float64, and return a new one of its shape and memory
layout. For y = f(x), element by element,

    backward:      f'(x) * grad_output, which is also the tangent of y for a tangent of x (jvp)
    backward_jvp:  f'(x) * grad_output_dot + f''(x) * input_dot * grad_output, the tangent of backward
"""

from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, number
from tinyconv.arrays import (
    VALUE_WORK,
    Array,
    array_module,
    as_stored,
    by_values,
    cut,
    fused,
    in_threads,
    kept_where,
    special,
    underflow_allowed,
)
from tinyconv.functional.product_rule import tangent_of

__all__ = [
    "elu",
    "elu_backward",
    "elu_backward_jvp",
    "leaky_relu",
    "leaky_relu_backward",
    "leaky_relu_backward_jvp",
    "relu",
    "relu_backward",
    "relu_backward_jvp",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_backward_jvp",
    "silu",
    "silu_backward",
    "silu_backward_jvp",
    "softplus",
    "softplus_backward",
    "softplus_backward_jvp",
    "tanh",
    "tanh_backward",
    "tanh_backward_jvp",
]

BLOCK_BYTES = 1 << 20


def relu(input: Array, inplace: bool = False) -> Array:
    """Compute max(input, 0), elementwise; NaN stays NaN.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html

    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    xp = check_arrays(input=input)
    output: Array = xp.empty_like(input)
    by_values(_relu, input, output)
    return output


def _relu(input: Array, output: Array) -> None:
    output[...] = 0  # an array, as NumPy takes three times as long with the number 0
    array_module(input).maximum(input, output, out=output)


def relu_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Compute the gradient of `relu`: grad_output where input > 0 (or NaN), else 0.

    The output of `relu` may be passed as `input`: both have the same sign.

    >>> relu_backward(np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.0, 5.0]))
    array([0., 0., 3.])
    """
    check_like(input, grad_output=grad_output)
    grad: Array = array_module(input).empty_like(grad_output)
    # CuPy walks arrays in the order of their axes.
    by_values(_relu_backward, *(as_stored(array) for array in (input, grad_output, grad)))
    return grad


@fused
def _relu_backward(xp: Any, input: Array, grad_output: Array, grad: Array) -> None:
    if xp is np:
        kept_where(~(input <= 0), grad_output, out=grad)
    else:
        grad[...] = xp.where(input <= 0, 0, grad_output)


def bias_relu(output: Array, bias: Array | None) -> None:
    """Add `bias`, (C,) or None, to `output`, (N, C, ...), and apply ReLU to the sum, in place."""
    stored, addend = as_stored(output), bias
    if bias is not None:
        addend = bias.reshape(-1, 1)
    if array_module(output) is np and stored.ndim > 2 and stored.flags.c_contiguous and output.size:
        # The bias as the (C, N) values of one pixel: NumPy's loops are long, and slow only for scalars.
        stored = stored.reshape(-1, output.shape[1] * output.shape[0])
        if bias is not None:
            addend = np.repeat(bias, len(output))
        parts = cut(len(stored), stored.nbytes // BLOCK_BYTES)
        in_threads(lambda part: _bias_relu(stored[part], addend), parts, VALUE_WORK * stored.size)
    else:
        _bias_relu(stored, addend)


@fused
def _bias_relu(xp: Any, output: Array, bias: Array | None) -> None:
    if bias is not None:
        output += bias
    xp.maximum(output, xp.zeros_like(output[:1]) if xp is np else 0, out=output)


@tangent_of(relu_backward)
def relu_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> None:
    """Compute the tangent of `relu_backward`, which is piecewise constant in `input`.

    >>> grad_output_dot, ones = np.array([5.0, 7.0]), np.ones(2)
    >>> relu_backward_jvp(grad_output_dot, ones, ones, np.array([-1.0, 2.0]))
    array([0., 7.])
    """


@underflow_allowed
def leaky_relu(input: Array, negative_slope: float = 0.01, inplace: bool = False) -> Array:
    """Return `input` where it is positive, else negative_slope * input.

    Args:
        input: any shape, float32 or float64.
        negative_slope: the slope to the left of 0.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating, or `negative_slope` is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.leaky_relu.html

    >>> leaky_relu(np.array([-1.0, 2.0]))
    array([-0.01,  2.  ])
    """
    xp = check_arrays(input=input)
    slope = number("negative_slope", negative_slope)
    if 0 < slope <= 1:  # the larger of the two; `where` takes several times as long
        larger: Array = xp.maximum(input, input * slope)
        return larger
    with np.errstate(invalid="ignore"):  # -inf * 0: NaN, as in PyTorch
        output: Array = xp.where(input > 0, input, xp.minimum(input, 0) * slope)
    return output


@underflow_allowed
def leaky_relu_backward(
    grad_output: Array, input: Array, negative_slope: float = 0.01, inplace: bool = False
) -> Array:
    """Return grad_output where input > 0, else negative_slope * grad_output.

    >>> leaky_relu_backward(np.array([8.0, 8.0]), np.array([-3.0, 2.0]), negative_slope=0.25)
    array([2., 8.])
    """
    xp = check_like(input, grad_output=grad_output)
    grad: Array = xp.where(input > 0, grad_output, grad_output * number("negative_slope", negative_slope))
    return grad


@tangent_of(leaky_relu_backward)
def leaky_relu_backward_jvp(
    input_dot: Array, input: Array, negative_slope: float = 0.01, inplace: bool = False
) -> None:
    """Compute the tangent of `leaky_relu_backward`, which is piecewise constant in `input`.

    >>> grad_output_dot, ones = np.array([4.0, 6.0]), np.ones(2)
    >>> leaky_relu_backward_jvp(grad_output_dot, ones, ones, np.array([-3.0, 2.0]), negative_slope=0.25)
    array([1., 6.])
    """


@underflow_allowed
def elu(input: Array, alpha: float = 1.0, inplace: bool = False) -> Array:
    """Return `input` where it is positive, else alpha * (exp(input) - 1).

    Args:
        input: any shape, float32 or float64.
        alpha: minus the limit for input -> -infinity.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating, or `alpha` is not a number.

    Source: Clevert et al., https://arxiv.org/abs/1511.07289;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.elu.html

    >>> elu(np.array([-1.0, 2.0])).round(6)
    array([-0.632121,  2.      ])
    """
    xp = check_arrays(input=input)
    negative = number("alpha", alpha) * xp.expm1(xp.minimum(input, 0))
    output: Array = xp.where(input > 0, input, negative)
    return output


@underflow_allowed
def elu_backward(grad_output: Array, input: Array, alpha: float = 1.0, inplace: bool = False) -> Array:
    """Compute the gradient of `elu`: grad_output where input > 0, else grad_output * alpha * exp(input).

    >>> elu_backward(np.ones(3), np.array([-1e4, 0.0, 2.0]), alpha=2.0)
    array([0., 2., 1.])
    """
    xp = check_like(input, grad_output=grad_output)
    slope = number("alpha", alpha) * xp.exp(xp.minimum(input, 0))
    grad: Array = xp.where(input > 0, grad_output, grad_output * slope)
    return grad


@tangent_of(elu_backward)
def elu_backward_jvp(input_dot: Array, input: Array, alpha: float = 1.0, inplace: bool = False) -> Any:
    """Compute the tangent of `elu_backward`; f'' is alpha * exp(input) where input < 0.

    >>> x, ones = np.array([-np.log(2), 3.0]), np.ones(2)
    >>> elu_backward_jvp(np.zeros(2), ones, ones, x, alpha=4.0).round(6)  # 4 * exp(-log 2)
    array([2., 0.])
    """
    xp = array_module(input)
    curvature = number("alpha", alpha) * xp.exp(xp.minimum(input, 0))
    return xp.where(input >= 0, 0, curvature) * input_dot


def sigmoid(input: Array) -> Array:
    """Compute 1 / (1 + exp(-input)), without overflow.

    Args:
        input: any shape, float32 or float64.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.sigmoid.html

    >>> sigmoid(np.array([-1e4, 0.0, 1e4]))
    array([0. , 0.5, 1. ])
    """
    xp = check_arrays(input=input)
    output: Array = xp.asarray(special(xp).expit(input))
    return output


@underflow_allowed
def sigmoid_backward(grad_output: Array, input: Array) -> Array:
    """Compute grad_output * s * (1 - s), where s = sigmoid(input) and 1 - s = sigmoid(-input).

    >>> sigmoid_backward(np.array([8.0, 8.0]), np.array([0.0, 1e4]))  # 8 * 1/2 * 1/2
    array([2., 0.])
    """
    xp = check_like(input, grad_output=grad_output)
    grad: Array = xp.asarray(grad_output * sigmoid(input) * sigmoid(-input))
    return grad


@tangent_of(sigmoid_backward)
def sigmoid_backward_jvp(input_dot: Array, input: Array) -> Any:
    """Compute the tangent of `sigmoid_backward`; f'' is s * (1 - s) * (1 - 2 * s).

    >>> x = np.log([3.0])  # sigmoid(x) = 3/4, so f'' = 3/4 * 1/4 * -1/2
    >>> sigmoid_backward_jvp(np.zeros(1), np.ones(1), np.array([32.0]), x).round(6)
    array([-3.])
    """
    return sigmoid_backward(input_dot, input) * (sigmoid(-input) - sigmoid(input))


@underflow_allowed
def tanh(input: Array) -> Array:
    """Compute the hyperbolic tangent, (exp(x) - exp(-x)) / (exp(x) + exp(-x)).

    Args:
        input: any shape, float32 or float64.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.tanh.html

    >>> tanh(np.array([0.0, 1.0])).round(6)
    array([0.      , 0.761594])
    """
    xp = check_arrays(input=input)
    output: Array = xp.asarray(xp.tanh(input))
    return output


def tanh_backward(grad_output: Array, input: Array) -> Array:
    """Compute grad_output * (1 - tanh(input)^2), which is grad_output / cosh(input)^2.

    >>> tanh_backward(np.array([2.0, 2.0]), np.array([0.0, 1e4]))
    array([2., 0.])
    """
    xp = check_like(input, grad_output=grad_output)
    with np.errstate(over="ignore", under="ignore"):  # cosh may be infinite, and the slope 0
        cosh = xp.cosh(input)
        grad: Array = xp.asarray(grad_output / (cosh * cosh))
    return grad


@tangent_of(tanh_backward)
def tanh_backward_jvp(input_dot: Array, input: Array) -> Any:
    """Compute the tangent of `tanh_backward`; f'' is -2 * tanh(input) / cosh(input)^2.

    >>> x = np.log([3.0]) / 2  # tanh(x) = 1/2, so f'' = -2 * 1/2 * (1 - 1/4)
    >>> tanh_backward_jvp(np.zeros(1), np.array([4.0]), np.ones(1), x).round(6)
    array([-3.])
    """
    return -2 * tanh(input) * tanh_backward(input_dot, input)


def silu(input: Array, inplace: bool = False) -> Array:
    """Compute input * sigmoid(input), also known as swish.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: Elfwing et al., https://arxiv.org/abs/1702.03118;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.silu.html

    >>> silu(np.array([-1.0, 0.0, 1.0])).round(6)
    array([-0.268941,  0.      ,  0.731059])
    """
    xp = check_arrays(input=input)
    with np.errstate(invalid="ignore", under="ignore"):  # -inf * 0: NaN, as in PyTorch
        output: Array = xp.asarray(input * sigmoid(input))
    return output


def silu_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Compute the gradient of `silu`: grad_output * s * (1 + input * (1 - s)), s = sigmoid(input).

    >>> silu_backward(np.array([4.0, 4.0]), np.array([0.0, 1000.0]))
    array([2., 4.])
    """
    xp = check_like(input, grad_output=grad_output)
    share = sigmoid(input)
    with np.errstate(invalid="ignore", under="ignore"):  # inf * 0: NaN, as in PyTorch
        grad: Array = xp.asarray(grad_output * share * (1 + input * sigmoid(-input)))
    return grad


@tangent_of(silu_backward)
def silu_backward_jvp(input_dot: Array, input: Array, inplace: bool = False) -> Any:
    """Compute the tangent of `silu_backward`; f'' is s * (1 - s) * (2 + input * (1 - 2 * s)).

    >>> x = np.zeros(1)  # f' = 1/2 and f'' = 1/2
    >>> silu_backward_jvp(np.array([6.0]), np.array([1.0]), np.array([2.0]), x)  # 1/2 * 6 + 1/2 * 1 * 2
    array([4.])
    """
    bend = 2 + input * (sigmoid(-input) - sigmoid(input))
    return sigmoid_backward(input_dot, input) * bend


def softplus(input: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Compute log(1 + exp(beta * input)) / beta, or `input` itself where beta * input > threshold.

    Args:
        input: any shape, float32 or float64.
        beta: the larger, the closer to ReLU.
        threshold: where the function is replaced by its asymptote.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating, or an option is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softplus.html

    >>> softplus(np.array([-1e4, 0.0, 30.0])).round(6)
    array([ 0.      ,  0.693147, 30.      ])
    """
    xp = check_arrays(input=input)
    scaled, beta = _scaled(input, beta)
    with np.errstate(under="ignore", invalid="ignore"):  # NaN stays NaN
        bent = xp.logaddexp(scaled, 0) / beta
    output: Array = xp.where(scaled > number("threshold", threshold), input, bent)
    return output


@underflow_allowed
def softplus_backward(grad_output: Array, input: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Compute grad_output * sigmoid(beta * input), or grad_output where beta * input > threshold.

    >>> softplus_backward(np.ones(3), np.array([-1e4, 0.0, 30.0]), beta=2.0)
    array([0. , 0.5, 1. ])
    """
    xp = check_like(input, grad_output=grad_output)
    scaled, _ = _scaled(input, beta)
    straight = scaled > number("threshold", threshold)
    grad: Array = xp.where(straight, grad_output, grad_output * sigmoid(scaled))
    return grad


@tangent_of(softplus_backward)
def softplus_backward_jvp(input_dot: Array, input: Array, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Compute the tangent of `softplus_backward`; f'' is beta * s * (1 - s), s = sigmoid(beta * input).

    >>> x, ones = np.array([0.0, 30.0]), np.ones(2)  # the second is above the threshold
    >>> softplus_backward_jvp(np.zeros(2), ones, ones, x, beta=2.0)  # 2 * 1/2 * 1/2
    array([0.5, 0. ])
    """
    scaled, beta = _scaled(input, beta)
    return array_module(input).where(scaled > threshold, 0, sigmoid_backward(input_dot * beta, scaled))


def _scaled(input: Array, beta: float) -> tuple[Any, float]:
    """beta * input, and beta as a float."""
    beta = number("beta", beta)
    with np.errstate(over="ignore"):  # infinity is above every threshold
        return input * beta, beta

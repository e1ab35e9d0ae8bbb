"""PReLU, a leaky ReLU whose slope is a parameter, and its derivatives."""

from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, check_shape
from tinyconv.arrays import Array, array_module, underflow_allowed

__all__ = ["prelu", "prelu_backward", "prelu_backward_jvp", "prelu_jvp"]


@underflow_allowed
def prelu(input: Array, weight: Array) -> Array:
    """Return `input` where it is positive, else weight * input.

    Args:
        input: any shape, float32 or float64; with several weights (N, C, ...).
        weight: the slope to the left of 0, (1,) or (), or one for each channel, (C,).

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        ValueError: a `weight` of another shape.
        TypeError: dtypes that differ or are not floating.

    Source: He et al., https://arxiv.org/abs/1502.01852;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.prelu.html

    >>> prelu(np.array([[-4.0, 2.0], [-4.0, -4.0]]), np.array([0.25, 0.5]))
    array([[-1.,  2.],
           [-1., -2.]])
    """
    xp = check_arrays(weight=weight, input=input)
    slope = _slopes(input, weight)
    with np.errstate(invalid="ignore"):  # -inf * 0: NaN, as in PyTorch
        output: Array = xp.where(input > 0, input, slope * xp.minimum(input, 0))
    return output


@underflow_allowed
def prelu_backward(grad_output: Array, input: Array, weight: Array) -> tuple[Array, Array]:
    """Return the gradients with respect to `input` and `weight`.

    They are grad_output where input > 0, else weight * grad_output; and the sum of grad_output * input where
    input <= 0, over all that has the same weight.

    >>> x, weight = np.array([[-4.0, 2.0], [-4.0, -4.0]]), np.array([0.25, 0.5])
    >>> prelu_backward(np.ones((2, 2)), x, weight)
    (array([[0.25, 1.  ],
           [0.25, 0.5 ]]), array([-8., -4.]))
    """
    check_arrays(weight=weight, input=input)
    xp, positive = check_like(input, grad_output=grad_output), input > 0
    grad_input: Array = xp.where(positive, grad_output, _slopes(input, weight) * grad_output)
    with np.errstate(invalid="ignore"):  # inf * 0: NaN, as in PyTorch
        products = grad_output * xp.minimum(input, 0)
    return grad_input, _summed(xp.where(positive, 0, products), weight)


@underflow_allowed
def prelu_jvp(input_dot: Array, weight_dot: Array | None, input: Array, weight: Array) -> Array:
    """Compute the tangent of `prelu` for tangents of its arrays; None for a constant weight.

    >>> x, weight = np.array([[-4.0, 2.0]]), np.array([0.25])
    >>> prelu_jvp(np.ones((1, 2)), np.array([3.0]), x, weight)  # 0.25 * 1 + 3 * -4
    array([[-11.75,   1.  ]])
    """
    check_like(input, input_dot=input_dot)
    output_dot: Array = prelu_backward(input_dot, input, weight)[0] + _left(input, input, weight_dot, weight)
    return output_dot


@underflow_allowed
def prelu_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    weight_dot: Array | None,
    grad_output: Array,
    input: Array,
    weight: Array,
) -> tuple[Array, Array]:
    """Return the tangents of the gradients with respect to `input` and `weight`.

    >>> x, weight, ones = np.array([[-4.0, 2.0]]), np.array([0.25]), np.ones((1, 2))
    >>> prelu_backward_jvp(np.zeros((1, 2)), 5 * ones, np.array([3.0]), ones, x, weight)
    (array([[3., 0.]]), array([5.]))
    """
    check_like(input, grad_output_dot=grad_output_dot, input_dot=input_dot, grad_output=grad_output)
    grad_dot, weight_grad_dot = prelu_backward(grad_output_dot, input, weight)
    products = array_module(input).where(input > 0, 0, grad_output * input_dot)
    grad_dot = grad_dot + _left(grad_output, input, weight_dot, weight)
    return grad_dot, weight_grad_dot + _summed(products, weight)


def _left(factor: Array, input: Array, weight_dot: Array | None, weight: Array) -> Any:
    """weight_dot * factor where input <= 0, else 0."""
    check_arrays(weight=weight, weight_dot=weight_dot, input=input)
    if weight_dot is None:
        return 0
    check_shape("weight_dot", weight_dot, weight.shape, "of `weight`")
    return array_module(input).where(input > 0, 0, _slopes(input, weight_dot) * factor)


def _slopes(input: Array, weight: Array) -> Array:
    """`weight`, checked, in a form that broadcasts over `input`."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        raise ValueError(
            f"`weight` (of shape {weight.shape}) must have the shape (1,) or ({channels},), the channels of "
            f"`input` (of shape {input.shape})"
        )
    return weight.reshape(()) if weight.size == 1 else weight.reshape(-1, *[1] * (input.ndim - 2))


def _summed(products: Array, weight: Array) -> Array:
    """The sums over all that has the same weight, in float64, as long float32 sums lose digits."""
    axes = None if weight.size == 1 else (0, *range(2, products.ndim))
    total: Array = products.sum(axis=axes, dtype=np.float64).astype(weight.dtype).reshape(weight.shape)
    return total

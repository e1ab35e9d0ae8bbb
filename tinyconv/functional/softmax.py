"""Softmax and its logarithm along one dimension, with their gradients.

With p = softmax(x), dp_i/dx_j = p_i * ((i == j) - p_j), so a cotangent g is pulled back to

    softmax:      p * (g - sum(g * p))        log_softmax:  g - p * sum(g)

The Jacobian of softmax is symmetric, so this is its tangent as well; that of log_softmax for a tangent v of
x is v - sum(p * v). The tangents of both gradients follow from the product rule.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import check_arrays, check_kinds, check_like, check_shape, dimension, floating_dtype
from tinyconv.arrays import Array, array_module, fused, underflow_allowed

__all__ = [
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_backward_jvp",
    "log_softmax_jvp",
    "softmax",
    "softmax_backward",
    "softmax_backward_jvp",
]


@underflow_allowed
def softmax(input: Array, dim: int, dtype: npt.DTypeLike | None = None) -> Array:
    """Compute exp(input) / sum of exp(input) along `dim`, without overflow.

    Args:
        input: any shape, float32 or float64.
        dim: the dimension along which the results sum to one.
        dtype: a NumPy dtype to convert `input` to first.

    Returns:
        An array of the shape of `input`.

    Raises:
        ValueError: `dim` out of range.
        TypeError: `input` is not floating, or `dtype` is not.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html

    >>> import numpy as np
    >>> softmax(np.array([1000.0, 1000.0]), dim=0)
    array([0.5, 0.5])
    """
    xp, input, dim = _checked(input, dim, dtype)
    powers = xp.exp(_shifted(input, dim))
    output: Array = xp.asarray(powers / powers.sum(axis=dim, keepdims=True))
    return output


@underflow_allowed
def softmax_backward(grad_output: Array, input: Array, dim: int, dtype: npt.DTypeLike | None = None) -> Array:
    """Compute p * (grad_output - sum of grad_output * p along `dim`), where p = softmax(input).

    >>> softmax_backward(np.array([4.0, 0.0]), np.zeros(2), dim=0)  # 1/2 * (4 - 2), 1/2 * (0 - 2)
    array([ 1., -1.])
    """
    output = softmax(input, dim, dtype)
    xp = check_arrays(output=output, grad_output=grad_output)
    check_shape("grad_output", grad_output, output.shape, "of the output")
    centred = grad_output - (grad_output * output).sum(axis=dim, keepdims=True)
    grad: Array = xp.asarray(output * centred, input.dtype)
    return grad


@underflow_allowed
def softmax_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    dim: int,
    dtype: npt.DTypeLike | None = None,
) -> Array:
    """Compute the tangent of `softmax_backward`, by the product rule for p * (g - sum(g * p)).

    >>> x, x_dot = np.log([1.0, 3.0]), np.array([16.0, 0.0])  # p = [1/4, 3/4], which moves by [3, -3]
    >>> softmax_backward_jvp(np.zeros(2), x_dot, np.array([1.0, 0.0]), x, dim=0).round(6)
    array([ 1.5, -1.5])
    """
    output = softmax(input, dim, dtype)
    check_like(output, grad_output_dot=grad_output_dot, input_dot=input_dot, grad_output=grad_output)
    output_dot = softmax_backward(input_dot, input, dim, dtype)
    centred = grad_output - (grad_output * output).sum(axis=dim, keepdims=True)
    moved = (grad_output * output_dot).sum(axis=dim, keepdims=True)
    grad_dot = softmax_backward(grad_output_dot, input, dim, dtype)
    result: Array = grad_dot + output_dot * centred - output * moved
    return result


def log_softmax(input: Array, dim: int, dtype: npt.DTypeLike | None = None) -> Array:
    """Compute log(exp(input) / sum of exp(input) along `dim`), without overflow.

    Args:
        input: any shape, float32 or float64.
        dim: the dimension along which the exponentials of the results sum to one.
        dtype: a NumPy dtype to convert `input` to first.

    Returns:
        An array of the shape of `input`.

    Raises:
        ValueError: `dim` out of range.
        TypeError: `input` is not floating, or `dtype` is not.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html

    >>> import numpy as np
    >>> np.exp(log_softmax(np.array([1000.0, 1000.0]), dim=0)).round(6)
    array([0.5, 0.5])
    """
    _, input, dim = _checked(input, dim, dtype)
    return log_probabilities(input, dim)


@underflow_allowed
def log_probabilities(input: Array, dim: int) -> Array:
    """Return `log_softmax` of arguments that are already checked."""
    xp, shifted = array_module(input), _shifted(input, dim)
    total = xp.exp(shifted).sum(axis=dim, keepdims=True)
    return xp.asarray(_less_log(shifted, total)) if shifted.size else shifted.copy()


@fused
def _less_log(xp: Any, shifted: Array, total: Array) -> Any:
    return shifted - xp.log(total)


@underflow_allowed
def log_softmax_backward(
    grad_output: Array, input: Array, dim: int, dtype: npt.DTypeLike | None = None
) -> Array:
    """Compute grad_output - softmax(input) * sum of grad_output along `dim`.

    >>> log_softmax_backward(np.array([4.0, 0.0]), np.zeros(2), dim=0)  # 4 - 1/2 * 4, 0 - 1/2 * 4
    array([ 2., -2.])
    """
    output = log_softmax(input, dim, dtype)
    xp = check_arrays(output=output, grad_output=grad_output)
    check_shape("grad_output", grad_output, output.shape, "of the output")
    grad: Array = xp.asarray(
        grad_output - xp.exp(output) * grad_output.sum(axis=dim, keepdims=True), input.dtype
    )
    return grad


@underflow_allowed
def log_softmax_jvp(input_dot: Array, input: Array, dim: int, dtype: npt.DTypeLike | None = None) -> Array:
    """Compute the tangent of `log_softmax`: input_dot - sum of softmax(input) * input_dot along `dim`.

    >>> log_softmax_jvp(np.array([3.0, 0.0, 0.0]), np.zeros(3), dim=0).round(6)  # their mean is subtracted
    array([ 2., -1., -1.])
    """
    output = softmax(input, dim, dtype)
    check_arrays(output=output, input_dot=input_dot)
    check_shape("input_dot", input_dot, output.shape, "of `input`")
    moved: Array = input_dot - (output * input_dot).sum(axis=dim, keepdims=True)
    return moved


@underflow_allowed
def log_softmax_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    dim: int,
    dtype: npt.DTypeLike | None = None,
) -> Array:
    """Compute the tangent of `log_softmax_backward`, by the product rule for p * sum(grad_output).

    >>> x, x_dot = np.log([1.0, 3.0]), np.array([16.0, 0.0])  # p = [1/4, 3/4], which moves by [3, -3]
    >>> log_softmax_backward_jvp(np.zeros(2), x_dot, np.array([1.0, 0.0]), x, dim=0).round(6)
    array([-3.,  3.])
    """
    output = softmax(input, dim, dtype)
    check_like(output, grad_output_dot=grad_output_dot, input_dot=input_dot, grad_output=grad_output)
    output_dot = softmax_backward(input_dot, input, dim, dtype)
    grad_dot = log_softmax_backward(grad_output_dot, input, dim, dtype)
    result: Array = grad_dot - output_dot * grad_output.sum(axis=dim, keepdims=True)
    return result


def _checked(input: Array, dim: int, dtype: npt.DTypeLike | None) -> tuple[Any, Array, int]:
    """The array module, `input` in `dtype`, and `dim` counted from 0."""
    if dtype is not None:
        check_kinds(input=input)
        if input.dtype.kind not in "biuf":
            raise TypeError(f"`input` (of dtype {input.dtype}) must have a dtype of real numbers")
        input = input.astype(floating_dtype(dtype))
    return check_arrays(input=input), input, dimension("dim", dim, input.ndim)


def _shifted(input: Array, dim: int) -> Array:
    """`input` minus its maximum along `dim`."""
    if 0 in input.shape:
        return input
    with np.errstate(invalid="ignore"):  # inf - inf: NaN, as in PyTorch
        shifted: Array = input - input.max(axis=dim, keepdims=True)
    return shifted

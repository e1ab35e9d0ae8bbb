"""Activations: elementwise functions, and softmax along one dimension, with their gradients."""

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import check_arrays, check_shape, floating_dtype, integer
from tinyconv.arrays import Array, array_module, zero_where


def relu(input: Array, inplace: bool = False) -> Array:
    """max(input, 0), elementwise; NaN stays NaN.

    Args:
        input: any shape, float32 or float64.
        inplace: accepted for PyTorch's signature and ignored.

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html

    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    xp = check_arrays(input=input)
    output: Array = xp.asarray(xp.maximum(input, 0))
    return output


def relu_backward(grad_output: Array, input: Array, inplace: bool = False) -> Array:
    """Gradient of `relu`: grad_output where input > 0 (or NaN), else 0.

    The output of `relu` may be given for its input: both have the same sign.
    """
    check_arrays(grad_output=grad_output, input=input)
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    return zero_where(input <= 0, grad_output)


def log_softmax(input: Array, dim: int, dtype: npt.DTypeLike | None = None) -> Array:
    """log(exp(input) / sum of exp(input) along `dim`), without overflow.

    Args:
        input: any shape with at least one dimension, float32 or float64.
        dim: the dimension along which the exponentials sum to one.
        dtype: a NumPy dtype to convert `input` to before.

    Returns:
        An array of the shape of `input`.

    Raises:
        ValueError: `dim` out of range.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html

    >>> import numpy as np
    >>> np.exp(log_softmax(np.array([1000.0, 1000.0]), dim=0)).round(6)
    array([0.5, 0.5])
    """
    xp = array_module(input)
    if dtype is not None:
        input = input.astype(floating_dtype(dtype))
    check_arrays(input=input)
    dim = _dimension(dim, input.ndim)
    with np.errstate(invalid="ignore"):  # inf - inf: NaN, as in PyTorch
        shifted = input - input.max(axis=dim, keepdims=True, initial=-xp.inf)
        output: Array = shifted - xp.log(xp.exp(shifted).sum(axis=dim, keepdims=True))
    return output


def log_softmax_backward(
    grad_output: Array, input: Array, dim: int, dtype: npt.DTypeLike | None = None
) -> Array:
    """Gradient of `log_softmax`: grad_output - softmax(input) * sum of grad_output along `dim`."""
    probabilities = array_module(input).exp(log_softmax(input, dim, dtype))
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    total = grad_output.sum(axis=dim, keepdims=True)
    grad: Array = (grad_output - probabilities * total).astype(input.dtype, copy=False)
    return grad


def _dimension(dim: int, ndim: int) -> int:
    dim = integer("dim", dim, minimum=-ndim)
    if dim >= ndim:
        raise ValueError(f"`dim` (={dim}) must be less than the {ndim} dimensions of `input`")
    return dim

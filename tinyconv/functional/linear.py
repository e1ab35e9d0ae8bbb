"""The linear map of a fully connected layer and its gradients."""

import math

from tinyconv.arguments import check_arrays, check_shape
from tinyconv.arrays import Array, matmul, underflow_allowed

__all__ = ["linear", "linear_backward", "linear_bias", "linear_input", "linear_weight"]


@underflow_allowed
def linear(input: Array, weight: Array, bias: Array | None = None) -> Array:
    """Compute input @ weight.T + bias.

    Args:
        input: (..., in_features), features in the last axis, float32 or float64.
        weight: (out_features, in_features) or (in_features,).
        bias: (out_features,) or None; None for a 1-D weight.

    Returns:
        (..., out_features), or (...) for a 1-D weight; (N, out_features) is stored as (out_features, N).

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([0.0, 0.5]))
    array([[11. , 17.5]])
    """
    check_arrays(weight=weight, input=input, bias=bias)
    _check(input.shape, weight.shape)
    output = matmul(_rows(weight), _rows(input).T)
    if bias is not None:
        if weight.ndim == 1:
            raise ValueError(f"`bias` must be None for a 1-D `weight` (of shape {weight.shape})")
        if bias.shape != weight.shape[:1]:
            check_shape("bias", bias, weight.shape[:1], f"for `weight` of shape {weight.shape}")
        output += bias.reshape(-1, 1)
    return output.T.reshape(input.shape[:-1] + weight.shape[:-1])


def linear_backward(
    grad_output: Array, input: Array, weight: Array, bias: Array | None = None
) -> tuple[Array, Array, Array | None]:
    """Compute the gradients of `linear` with respect to `input`, `weight` and `bias` (None without a bias).

    grad_input = grad_output @ weight, grad_weight = grad_output.T @ input, and grad_bias is grad_output
    summed over all but the features.

    >>> import numpy as np
    >>> x, weight, bias = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]]), np.zeros(2)
    >>> grad_input, grad_weight, grad_bias = linear_backward(np.array([[1.0, 10.0]]), x, weight, bias)
    >>> grad_input.tolist(), grad_weight.tolist(), grad_bias.tolist()
    ([[53.0, 64.0]], [[1.0, 2.0], [10.0, 20.0]], [1.0, 10.0])
    """
    check_arrays(weight=weight, input=input, grad_output=grad_output, bias=bias)
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], f"for `weight` of shape {weight.shape}")
    return (
        linear_input(input.shape, weight, grad_output),
        linear_weight(input, weight.shape, grad_output),
        None if bias is None else linear_bias(grad_output),
    )


@underflow_allowed
def linear_input(input_size: tuple[int, ...], weight: Array, grad_output: Array) -> Array:
    """Compute the gradient of `linear` with respect to its input: grad_output @ weight.

    Args:
        input_size: the shape of the input, (..., in_features).
        weight: (out_features, in_features) or (in_features,).
        grad_output: (..., out_features), or (...) for a 1-D weight.

    Returns:
        An array of the shape `input_size`.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes that differ or are not floating.

    >>> import numpy as np
    >>> linear_input((1, 2), np.array([[3.0, 4.0], [5.0, 6.0]]), np.array([[1.0, 10.0]]))
    array([[53., 64.]])
    """
    check_arrays(weight=weight, grad_output=grad_output)
    grads = _grad_rows(input_size, weight.shape, grad_output)
    grad = matmul(_rows(weight).T, grads.T).T
    return grad.reshape(input_size)


@underflow_allowed
def linear_weight(input: Array, weight_size: tuple[int, ...], grad_output: Array) -> Array:
    """Compute the gradient of `linear` with respect to its weight: grad_output.T @ input.

    Args:
        input: (..., in_features).
        weight_size: the shape of the weight, (out_features, in_features) or (in_features,).
        grad_output: (..., out_features), or (...) for a 1-D weight.

    Returns:
        An array of the shape `weight_size`.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes that differ or are not floating.

    >>> import numpy as np
    >>> linear_weight(np.array([[1.0, 2.0]]), (2, 2), np.array([[1.0, 10.0]]))
    array([[ 1.,  2.],
           [10., 20.]])
    """
    check_arrays(input=input, grad_output=grad_output)
    grads, rows = _grad_rows(input.shape, weight_size, grad_output), _rows(input)
    # For one sample this is an outer product, which takes BLAS four times as long.
    grad: Array = grads.T * rows if len(rows) == 1 else matmul(grads.T, rows)
    return grad.reshape(weight_size)


def linear_bias(grad_output: Array) -> Array:
    """Compute the gradient of `linear` with respect to its bias: `grad_output` summed to (out_features,).

    >>> import numpy as np
    >>> linear_bias(np.array([[1.0, 10.0], [2.0, 20.0]]))
    array([ 3., 30.])
    """
    check_arrays(grad_output=grad_output)
    if grad_output.ndim == 0:
        raise ValueError("`grad_output` (of shape ()) must have the form (..., out_features)")
    grad: Array = grad_output.sum(axis=tuple(range(grad_output.ndim - 1)))
    return grad


def _check(input_size: tuple[int, ...], weight_size: tuple[int, ...]) -> None:
    if len(weight_size) not in (1, 2):
        raise ValueError(
            f"`weight` (of shape {weight_size}) must have the form (out_features, in_features) "
            "or (in_features,)"
        )
    if len(input_size) == 0 or input_size[-1] != weight_size[-1]:
        raise ValueError(
            f"`input` (of shape {input_size}) must have {weight_size[-1]} features in its last "
            f"dimension for `weight` of shape {weight_size}"
        )


def _rows(array: Array) -> Array:
    """All leading dimensions as one: (M, features)."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _grad_rows(input_size: tuple[int, ...], weight_size: tuple[int, ...], grad_output: Array) -> Array:
    _check(input_size, weight_size)
    check_shape("grad_output", grad_output, (*input_size[:-1], *weight_size[:-1]), "of the output")
    return _rows(grad_output if len(weight_size) == 2 else grad_output[..., None])

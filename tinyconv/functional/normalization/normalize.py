"""Division of vectors by their length."""

import math
from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, dimension, number
from tinyconv.arrays import Array, array_module, underflow_allowed

__all__ = ["normalize", "normalize_backward"]


@underflow_allowed
def normalize(input: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    """Divide by the p-norm along a dimension, or by `eps` where the norm is less.

    y = x / max(norm, eps), norm = (sum of |x|^p)^(1 / p); the largest |x| for p = inf, the smallest for
    p = -inf, and the number of values other than 0 for p = 0.

    Args:
        input: any shape, float32 or float64.
        p: the exponent of the norm.
        dim: the dimension of the vectors, counted from the end if negative.
        eps: the smallest divisor.

    Returns:
        A new array of the shape of `input`.

    Raises:
        ValueError: `dim` out of range, the largest or smallest value of an empty vector.
        TypeError: `input` is not floating, or an option is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html

    >>> normalize(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    check_arrays(input=input)
    # Of infinities and zeros, as in PyTorch.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        output: Array = array_module(input).asarray(input / _norm(input, p, dim, eps)[1])
    return output


@underflow_allowed
def normalize_backward(
    grad_output: Array, input: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12
) -> Array:
    """Compute g / d - n' * sum(g * x) / d^2, d the divisor; n' is the slope of the norm, 0 where d is eps.

    n' = sign(x) * (|x| / norm)^(p - 1). The largest of several equal values, for p = inf, have equal shares.
    """
    xp, p = check_like(input, grad_output=grad_output), number("p", p)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        norm, divisor = _norm(input, p, dim, eps)
        slope = xp.where(input == 0, 0, xp.sign(input) * (abs(input) / norm) ** (p - 1))
        if math.isinf(p):
            slope /= abs(slope).sum(axis=dim, keepdims=True)
        total = (grad_output * input).sum(axis=dim, keepdims=True)
        moves = (norm >= eps) & (p != 0)
        grad: Array = grad_output / divisor - xp.where(moves, slope * (total / divisor / divisor), 0)
    return grad


def _norm(input: Array, p: float, dim: int, eps: float) -> tuple[Any, Any]:
    """The norm and the divisor, with the dimension kept."""
    xp, p, sizes = array_module(input), number("p", p), abs(input)
    dimension("dim", dim, input.ndim)
    if math.isinf(p):
        norm = (xp.max if p > 0 else xp.min)(sizes, axis=dim, keepdims=True)
    elif p == 0:
        norm = (input != 0).sum(axis=dim, keepdims=True)
    else:
        norm = (sizes**p).sum(axis=dim, keepdims=True, dtype=np.float64) ** (1 / p)
    norm = norm.astype(input.dtype)
    return norm, xp.maximum(norm, number("eps", eps))

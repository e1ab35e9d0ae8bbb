"""Division of vectors by their length."""

import math
from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, dimension, number
from tinyconv.arrays import Array, array_module, underflow_allowed

__all__ = ["normalize", "normalize_backward", "normalize_backward_jvp", "normalize_jvp"]


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

    >>> grad, x = np.array([[25.0, 0.0]]), np.array([[3.0, 4.0]])
    >>> normalize_backward(grad, x).round(6)  # 25 / 5 - 3 * 75 / 125, -4 * 75 / 125
    array([[ 3.2, -2.4]])
    """
    xp = check_like(input, grad_output=grad_output)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        moves, divisor, slope, _ = _parts(input, p, dim, eps)
        total = (grad_output * input).sum(axis=dim, keepdims=True)
        grad: Array = grad_output / divisor - xp.where(moves, slope * (total / divisor / divisor), 0)
    return grad


@underflow_allowed
def normalize_jvp(input_dot: Array, input: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    """Compute the tangent v / d - x * d' / d^2 for a tangent v of x, with d' = sum(n' * v).

    >>> x_dot, x = np.array([[16.0, 0.0]]), np.array([[1.0, 3.0]])  # the norm is 4 and moves by 16
    >>> normalize_jvp(x_dot, x, p=1)  # 16 / 4 - 1 * 16 / 16, -3 * 16 / 16
    array([[ 3., -3.]])
    """
    xp = check_like(input, input_dot=input_dot)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        moves, divisor, slope, _ = _parts(input, p, dim, eps)
        moved = xp.where(moves, slope * input_dot, 0).sum(axis=dim, keepdims=True)
        output_dot: Array = xp.asarray(input_dot / divisor - input * (moved / divisor / divisor))
    return output_dot


@underflow_allowed
def normalize_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    grad_output: Array,
    input: Array,
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
) -> Array:
    """Compute the tangent of `normalize_backward` for tangents of `grad_output` and `input`.

    By the product rule, with n'' = (p - 1) * (|x / norm|^(p - 2) * v - n' * d') / norm, the tangent of n'.

    >>> x, grad, x_dot = np.array([[1.0, 3.0]]), np.array([[16.0, 0.0]]), np.array([[4.0, 0.0]])
    >>> normalize_backward(grad, x, p=1), normalize_backward_jvp(0 * grad, x_dot, grad, x, p=1)
    (array([[ 3., -1.]]), array([[-6., -2.]]))
    """
    xp = check_like(input, input_dot=input_dot, grad_output=grad_output, grad_output_dot=grad_output_dot)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        moves, divisor, slope, bend = _parts(input, p, dim, eps)
        slope = xp.where(moves, slope, 0)
        moved = (slope * input_dot).sum(axis=dim, keepdims=True) / divisor
        total = (grad_output * input).sum(axis=dim, keepdims=True) / divisor
        total_dot = (grad_output * input_dot).sum(axis=dim, keepdims=True) / divisor
        slope_dot = bend * input_dot - (number("p", p) - 1) * slope * moved if bend is not None else 0
        curved = grad_output * moved + slope_dot * total + slope * (total_dot - 2 * total * moved)
        moved_grad: Array = normalize_backward(grad_output_dot, input, p, dim, eps) - curved / divisor
    return moved_grad


def _parts(input: Array, p: float, dim: int, eps: float) -> tuple[Any, Any, Any, Any]:
    """Where the divisor is not constant, the divisor, its slope, and its second slope along each value."""
    xp, p = array_module(input), number("p", p)
    norm, divisor = _norm(input, p, dim, eps)
    moves = (norm >= eps) & (p != 0)
    sizes = abs(input) / norm
    slope = xp.where(input == 0, 0, xp.sign(input) * sizes ** (p - 1))
    if math.isinf(p):
        slope /= abs(slope).sum(axis=dim, keepdims=True)
    if math.isinf(p) or p in (0, 1):
        return moves, divisor, slope, None
    curved = moves if p >= 2 else moves & (input != 0)
    return moves, divisor, slope, xp.where(curved, (p - 1) * sizes ** (p - 2) / norm, 0)


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

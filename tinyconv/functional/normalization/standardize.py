"""Standardising sets of values to mean 0 and variance 1, and its derivatives: the core of the norms.

The values of a set lie along some `axes` of an array. With r = 1 / sqrt(var + eps),

    normalized = (x - mean) * r        grad_x = r * (g - mean(g) - normalized * mean(g * normalized))

for a gradient g of `normalized`. The Jacobian is symmetric, so that the same formula is the tangent of
`normalized` for a tangent of x.

A norm then scales by a weight and shifts by a bias, y = normalized * weight + bias, each of a shape that
broadcasts. Where the statistics are constants (batch norm in evaluation), there are no `axes`.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays import Array, array_module, row_dots


class Standardized(NamedTuple):
    """What `standardize` makes: the values, 1 / sqrt(var + eps), and the axes of a set."""

    normalized: Array
    inverse_std: Array
    axes: tuple[int, ...]


def standardize(x: Array, axes: tuple[int, ...], eps: float) -> Standardized:
    """`x` with mean 0 and variance 1 along `axes`."""
    xp = array_module(x)
    centred = x - _mean(x, axes)
    var = _mean(centred * centred, axes)
    with np.errstate(invalid="ignore", divide="ignore"):  # var + eps < 0: NaN, as in PyTorch
        inverse_std = 1 / xp.sqrt(var + eps)
        return Standardized(centred * inverse_std, inverse_std, axes)


def standardize_backward(grad: Array, normalized: Array, inverse_std: Array, axes: tuple[int, ...]) -> Array:
    """Gradient of `standardize` by its input; its tangent as well."""
    return _projected(grad, Standardized(normalized, inverse_std, axes))[0]


def _projected(values: Array, saved: Standardized) -> tuple[Array, Array]:
    """The Jacobian times `values`, and the mean of normalized * values."""
    slope = _mean_product(saved.normalized, values, saved.axes)
    product = (values - _mean(values, saved.axes) - saved.normalized * slope) * saved.inverse_std
    return product, slope


class Moved(NamedTuple):
    """Tangents of `normalized` and of the logarithm of `inverse_std`."""

    normalized: Array
    growth: Any

    @classmethod
    def of(cls, x_dot: Array, saved: Standardized) -> "Moved":
        """The tangents for a tangent of x."""
        if not saved.axes:
            return cls(x_dot * saved.inverse_std, 0)
        moved, slope = _projected(x_dot, saved)
        return cls(moved, -saved.inverse_std * slope)


def norm_jvp(
    moved: Moved,
    weight_dot: Array | None,
    bias_dot: Array | None,
    saved: Standardized,
    weight: Array | None,
) -> Array:
    """Tangent of normalized * weight + bias."""
    output_dot = moved.normalized if weight is None else moved.normalized * weight
    if weight_dot is not None:
        output_dot = output_dot + saved.normalized * weight_dot
    return output_dot if bias_dot is None else output_dot + bias_dot


def norm_backward_jvp(
    grad_output_dot: Array,
    moved: Moved,
    weight_dot: Array | None,
    grad_output: Array,
    saved: Standardized,
    weight: Array | None,
) -> tuple[Array, Array]:
    """Tangents of the gradient by x, and of grad_output * normalized, whose sum is the weight's gradient."""
    (normalized, inverse_std, axes), grad, grad_dot = saved, grad_output, grad_output_dot
    if weight is not None:
        grad, grad_dot = grad * weight, grad_dot * weight
    if weight_dot is not None:
        grad_dot = grad_dot + grad_output * weight_dot
    product_dot = grad_output_dot * normalized + grad_output * moved.normalized
    if not axes:
        return grad_dot * inverse_std, product_dot
    grad_dot = grad_dot + grad * moved.growth
    slope = _mean_product(grad, normalized, axes)
    slope_dot = _mean_product(grad_dot, normalized, axes) + _mean_product(grad, moved.normalized, axes)
    grad_dot -= _mean(grad_dot, axes)
    grad_dot -= normalized * slope_dot
    grad_dot -= moved.normalized * slope
    grad_dot *= inverse_std
    return grad_dot, product_dot


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean in the dtype of `x`; summed in float64, as sums over strides lose digits of float32."""
    size = max(1, math.prod(x.shape[axis] for axis in axes))
    mean: Array = (x.sum(axis=axes, keepdims=True, dtype=np.float64) / size).astype(x.dtype)
    return mean


def _mean_product(a: Array, b: Array, axes: tuple[int, ...]) -> Array:
    """Mean of a * b; of the rows of matrices as dot products."""
    if a.ndim != 2 or axes != (1,):
        return _mean(a * b, axes)
    dots = row_dots(a, b)[:, None]
    mean: Array = dots / max(1, a.shape[1])
    return mean

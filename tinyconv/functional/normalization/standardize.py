"""Standardisation of sets of values to mean 0 and variance 1, and its derivatives: the core of the norms.

A set has the values along some `axes` of an array. With r = 1 / sqrt(var + eps),

    normalized = (x - mean) * r        grad_x = r * (g - mean(g) - normalized * mean(g * normalized))

for a gradient g of `normalized`. The Jacobian is symmetric, so that the same formula is the tangent of
`normalized` for a tangent of x.

A norm then scales by a weight and shifts by a bias, y = normalized * weight + bias, each of a shape that
broadcasts. Where the statistics are constants (batch norm in evaluation), there are no `axes`.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays import Array, array_module, as_stored
from tinyconv.functional.normalization.rows import stretch_of


class Standardized(NamedTuple):
    """The result of `standardize`: the values, 1 / sqrt(var + eps), and the axes of a set."""

    normalized: Array
    inverse_std: Array
    axes: tuple[int, ...]


def standardize(x: Array, axes: tuple[int, ...], eps: float) -> Standardized:
    """Return `x` with mean 0 and variance 1 along `axes`."""
    xp = array_module(x)
    centred = x - _mean(x, axes)
    centred -= _mean(centred, axes)  # float32 has the mean only to half a unit in the last place
    var = _mean(centred * centred, axes)
    with np.errstate(invalid="ignore", divide="ignore"):  # var + eps < 0: NaN, as in PyTorch
        inverse_std = 1 / xp.sqrt(var + eps)
        return Standardized(centred * inverse_std, inverse_std, axes)


def standardize_backward(grad: Array, normalized: Array, inverse_std: Array, axes: tuple[int, ...]) -> Array:
    """Compute the gradient of `standardize` with respect to its input, which is also its tangent."""
    return _projected(grad, Standardized(normalized, inverse_std, axes))[0]


def _projected(values: Array, saved: Standardized) -> tuple[Array, Array]:
    """The Jacobian times `values`, and the mean of normalized * values."""
    slope = _mean(saved.normalized * values, saved.axes)
    product = (values - _mean(values, saved.axes) - saved.normalized * slope) * saved.inverse_std
    return product, slope


class Moved(NamedTuple):
    """Tangents of `normalized` and of the logarithm of `inverse_std`."""

    normalized: Array
    growth: Any

    @classmethod
    def of(cls, x_dot: Array, saved: Standardized) -> "Moved":
        """Return the tangents for a tangent of x."""
        if not saved.axes:
            return cls(x_dot * saved.inverse_std, 0)
        moved, slope = _projected(x_dot, saved)
        return cls(moved, -saved.inverse_std * slope)


def norm_jvp(
    moved: Moved, weight_dot: Array | None, bias_dot: Array | None, saved: Standardized, weight: Array | None
) -> Array:
    """Compute the tangent of normalized * weight + bias."""
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
    """Return the tangents of x's gradient and of grad_output * normalized, the weight's before summing."""
    (normalized, inverse_std, axes), grad, grad_dot = saved, grad_output, grad_output_dot
    if weight is not None:
        grad, grad_dot = grad * weight, grad_dot * weight
    if weight_dot is not None:
        grad_dot = grad_dot + grad_output * weight_dot
    product_dot = grad_output_dot * normalized + grad_output * moved.normalized
    if not axes:
        return grad_dot * inverse_std, product_dot
    grad_dot = grad_dot + grad * moved.growth
    slope = _mean(grad * normalized, axes)
    slope_dot = _mean(grad_dot * normalized + grad * moved.normalized, axes)
    grad_dot -= _mean(grad_dot, axes)
    grad_dot -= normalized * slope_dot
    grad_dot -= moved.normalized * slope
    grad_dot *= inverse_std
    return grad_dot, product_dot


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean in the dtype of `x`, with the axes kept."""
    size = max(1, math.prod(x.shape[axis] for axis in axes))
    mean: Array = (_sum(x, axes, size) / size).astype(x.dtype)
    return mean


def _sum(x: Array, axes: tuple[int, ...], size: int) -> Array:
    """The sums of `size` values each, with the axes kept, in float64, as long float32 sums lose digits.

    Stretches of neighbouring values are added up by a product with ones, NumPy's fastest sum.
    """
    kept, stretch = x.ndim - len(axes), stretch_of(size)
    if array_module(x) is np and x.size and stretch > 1 and axes == tuple(range(kept, x.ndim)):
        ones, shape = np.ones(stretch, x.dtype), (*x.shape[:kept], *[1] * len(axes))
        if x.flags.c_contiguous:
            by_stretch = x.reshape(-1, size // stretch, stretch) @ ones
            return np.reshape(by_stretch.sum(axis=1, dtype=np.float64), shape)
        if kept == 1 and as_stored(x).flags.c_contiguous:
            by_stretch = ones @ as_stored(x).reshape(size // stretch, stretch, len(x))
            return np.reshape(by_stretch.sum(axis=0, dtype=np.float64), shape)
    total: Array = x.sum(axis=axes, keepdims=True, dtype=np.float64)
    return total

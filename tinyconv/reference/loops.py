"""Loops that several operations share: over entries, over rows, and reductions of losses."""

import math
from collections.abc import Callable

import numpy as np

from tinyconv.arrays import Array


def each(function: Callable[..., float], x: Array, *others: Array) -> Array:
    """Return function(x, *others), entry by entry, as an array like x."""
    y = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        y[index] = function(*(float(a[index]) for a in (x, *others)))
    return y


def each_row(function: Callable[..., Array], dim: int, *arrays: Array) -> Array:
    """Return the function of the arrays' rows along `dim`, one after another."""
    y = np.zeros_like(arrays[0])
    y_rows, *rows = (np.moveaxis(a, dim, -1) for a in (y, *arrays))
    for index in np.ndindex(y_rows.shape[:-1]):
        y_rows[index] = function(*(a[index] for a in rows))
    return y


def reduce(losses: Array, reduction: str, divisor: float | None = None) -> Array:
    """Return the losses ("none"), their "sum", or the sum over `divisor` ("mean"; default: their number)."""
    if reduction == "none":
        return losses
    total = sum(losses.flat, 0.0)
    if reduction == "mean":
        total /= losses.size if divisor is None else divisor
    return np.array(total)


def reduce_backward(
    g: Array | float, shape: tuple[int, ...], reduction: str, divisor: float | None = None
) -> Array:
    """Return the gradient for each of the losses, of `shape`: g, divided by the number for "mean"."""
    grads = np.broadcast_to(g, shape)
    if reduction == "mean":
        return grads / (math.prod(shape) if divisor is None else divisor)
    return grads

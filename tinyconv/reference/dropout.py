"""Dropout, given which values are kept: the others become 0."""

import numpy as np

from tinyconv.arrays import Array


def dropout(x: Array, kept: Array, p: float) -> Array:
    """Return x / (1 - p) where `kept`, of the shape of x, is true, else 0."""
    y = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        if kept[i]:
            y[i] = x[i] / (1 - p)
    return y


def dropout_backward(g: Array, kept: Array, p: float) -> Array:
    """Return g / (1 - p) where `kept` is true, else 0."""
    return dropout(g, kept, p)


def dropout2d(x: Array, kept: Array, p: float) -> Array:
    """Return x[n,c] / (1 - p) for the channels where kept[n,c] is true, else 0."""
    y = np.zeros_like(x)
    for n, c in np.ndindex(x.shape[:2]):
        if kept[n, c]:
            y[n, c] = x[n, c] / (1 - p)
    return y


def dropout2d_backward(g: Array, kept: Array, p: float) -> Array:
    """Return g[n,c] / (1 - p) for the channels where kept[n,c] is true, else 0."""
    return dropout2d(g, kept, p)

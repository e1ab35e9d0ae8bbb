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
    dx = np.zeros_like(g)
    for i in np.ndindex(g.shape):
        if kept[i]:
            dx[i] = g[i] / (1 - p)
    return dx


def dropout2d(x: Array, kept: Array, p: float) -> Array:
    """Return x[n,c] / (1 - p) for the channels where kept[n,c] is true, else 0."""
    y = np.zeros_like(x)
    for n, c in np.ndindex(x.shape[:2]):
        if kept[n, c]:
            y[n, c] = x[n, c] / (1 - p)
    return y


def dropout2d_backward(g: Array, kept: Array, p: float) -> Array:
    """Return g[n,c] / (1 - p) for the channels where kept[n,c] is true, else 0."""
    dx = np.zeros_like(g)
    for n, c in np.ndindex(g.shape[:2]):
        if kept[n, c]:
            dx[n, c] = g[n, c] / (1 - p)
    return dx

"""The linear layer's function."""

import numpy as np

from tinyconv.arrays import Array


def linear(x: Array, w: Array, b: Array) -> Array:
    """Compute y[n,o] = b[o] + sum of x[n,i] * w[o,i]."""
    y = np.zeros((len(x), len(w)), x.dtype)
    for n, o in np.ndindex(y.shape):
        y[n, o] = b[o] + sum(x[n, i] * w[o, i] for i in range(x.shape[1]))
    return y


def linear_backward(g: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """Add g * w to dx and g * x to dw, for each product x * w of the forward sum."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w), w.dtype)
    for n, o in np.ndindex(g.shape):
        db[o] += g[n, o]
        for i in range(x.shape[1]):
            dx[n, i] += g[n, o] * w[o, i]
            dw[o, i] += g[n, o] * x[n, i]
    return dx, dw, db

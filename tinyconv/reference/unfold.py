"""Unfold (im2col) and fold (col2im)."""

import math

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference.window import Pair, output_size, positions


def unfold(
    x: Array, kernel: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0), stride: Pair = (1, 1)
) -> Array:
    """Return columns[n, (c, i, j), (p, q)] = x[n, c, y, x]."""
    n, c, h, w = x.shape
    out = output_size((h, w), kernel, stride, padding, dilation)
    columns = np.zeros((n, c, *kernel, *out), x.dtype)
    for pq, ij, yx in positions((h, w), kernel, out, stride, padding, dilation):
        columns[:, :, *ij, *pq] = x[:, :, *yx]
    return columns.reshape(n, c * math.prod(kernel), math.prod(out))


def unfold_backward(
    g: Array, x: Array, kernel: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0), stride: Pair = (1, 1)
) -> Array:
    """Add to each pixel the gradients of the entries it was copied to, which is to fold them."""
    return fold(g, x.shape[2:], kernel, dilation, padding, stride)


def fold(
    columns: Array,
    size: Pair,
    kernel: Pair,
    dilation: Pair = (1, 1),
    padding: Pair = (0, 0),
    stride: Pair = (1, 1),
) -> Array:
    """Compute x[n, c, y, x] = sum of columns[n, (c, i, j), (p, q)]."""
    n = columns.shape[0]
    c = columns.shape[1] // math.prod(kernel)
    out = output_size(size, kernel, stride, padding, dilation)
    columns = columns.reshape(n, c, *kernel, *out)
    x = np.zeros((n, c, *size), columns.dtype)
    for pq, ij, yx in positions(size, kernel, out, stride, padding, dilation):
        x[:, :, *yx] += columns[:, :, *ij, *pq]
    return x


def fold_backward(
    g: Array,
    columns: Array,
    size: Pair,
    kernel: Pair,
    dilation: Pair = (1, 1),
    padding: Pair = (0, 0),
    stride: Pair = (1, 1),
) -> Array:
    """Return for each entry of the columns the gradient of its pixel, or 0 outside: unfold the gradient."""
    return unfold(g, kernel, dilation, padding, stride)

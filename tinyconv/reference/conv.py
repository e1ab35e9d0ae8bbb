"""Convolutions: each output is a sum of products x * w."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference.window import Pair, output_size, positions

Triple: TypeAlias = tuple[int, int, int]


def conv1d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """Compute y[n,o,p] = b[o] + sum of x[n,c,p*stride+i*dilation-padding] * w[o,c,i]."""
    starts = range(-padding, x.shape[2] + padding - dilation * (w.shape[2] - 1), stride)
    y = np.zeros((len(x), len(w), len(starts)), x.dtype)
    for output, pixel, tap in _products1d(y, x, w, stride, padding, dilation, groups):
        y[output] += x[pixel] * w[tap]
    return y if b is None else y + b[:, None]


def conv1d_backward(
    g: Array, x: Array, w: Array, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> tuple[Array, Array, Array]:
    """Add g * w to dx and g * x to dw, for each product x * w of the forward sum."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for output, pixel, tap in _products1d(g, x, w, stride, padding, dilation, groups):
        dx[pixel] += g[output] * w[tap]
        dw[tap] += g[output] * x[pixel]
    return dx, dw, g.sum((0, 2))


def _products1d(
    y: Array, x: Array, w: Array, stride: int, padding: int, dilation: int, groups: int
) -> Iterator[tuple[Triple, Triple, Triple]]:
    """The indices into y, x and w of each product of the sum."""
    for n, o, p in np.ndindex(y.shape):
        first = o // (w.shape[0] // groups) * w.shape[1]  # the first input channel of this group
        for c, i in np.ndindex(w.shape[1:]):
            at = p * stride + i * dilation - padding
            if 0 <= at < x.shape[2]:
                yield (n, o, p), (n, first + c, at), (o, c, i)


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Compute y[n,o,p,q] = b[o] + sum of x[n,c,y,x] * w[o,c,i,j]."""
    n, _, *size = x.shape
    o, c_group, *kernel = w.shape
    out = output_size((size[0], size[1]), (kernel[0], kernel[1]), stride, padding, dilation)
    y = np.zeros((n, o, *out), x.dtype)
    for oo in range(o):
        first = oo // (o // groups) * c_group  # the first input channel of this group
        for pq, ij, yx in positions(x.shape[2:], w.shape[2:], out, stride, padding, dilation):
            for nn, c in np.ndindex(n, c_group):
                y[nn, oo, *pq] += x[nn, first + c, *yx] * w[oo, c, *ij]
        if b is not None:
            y[:, oo] += b[oo]
    return y


def conv2d_backward(
    g: Array,
    x: Array,
    w: Array,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """Add g * w to dx and g * x to dw, for each product x * w of the forward sum."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(w.shape[0], w.dtype)
    o, c_group = w.shape[:2]
    for oo in range(o):
        first = oo // (o // groups) * c_group
        for pq, ij, yx in positions(x.shape[2:], w.shape[2:], g.shape[2:], stride, padding, dilation):
            for nn, c in np.ndindex(x.shape[0], c_group):
                dx[nn, first + c, *yx] += g[nn, oo, *pq] * w[oo, c, *ij]
                dw[oo, c, *ij] += g[nn, oo, *pq] * x[nn, first + c, *yx]
        db[oo] = g[:, oo].sum()
    return dx, dw, db


def conv_transpose2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    groups: int = 1,
    dilation: Pair = (1, 1),
) -> Array:
    """Add x[n,c,p,q] * w[c,o,i,j] to y[n,o] where the window at (p, q) has its tap (i, j)."""
    size = _transposed_size(x, w, stride, padding, output_padding, dilation)
    o_group = w.shape[1]
    y = np.zeros((len(x), o_group * groups, *size), x.dtype)
    for n, c, o in np.ndindex(*x.shape[:2], o_group):
        first = c // (x.shape[1] // groups) * o_group  # the first output channel of this group
        for pq, ij, yx in positions(size, w.shape[2:], x.shape[2:], stride, padding, dilation):
            y[n, first + o, *yx] += x[n, c, *pq] * w[c, o, *ij]
    return y if b is None else y + b[:, None, None]


def conv_transpose2d_backward(
    g: Array,
    x: Array,
    w: Array,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    groups: int = 1,
    dilation: Pair = (1, 1),
) -> tuple[Array, Array, Array]:
    """Add g * w to dx and g * x to dw, for each product x * w of the forward sum."""
    size = _transposed_size(x, w, stride, padding, output_padding, dilation)
    o_group = w.shape[1]
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, c, o in np.ndindex(*x.shape[:2], o_group):
        first = c // (x.shape[1] // groups) * o_group
        for pq, ij, yx in positions(size, w.shape[2:], x.shape[2:], stride, padding, dilation):
            dx[n, c, *pq] += g[n, first + o, *yx] * w[c, o, *ij]
            dw[c, o, *ij] += g[n, first + o, *yx] * x[n, c, *pq]
    return dx, dw, g.sum((0, 2, 3))


def _transposed_size(
    x: Array, w: Array, stride: Pair, padding: Pair, output_padding: Pair, dilation: Pair
) -> Pair:
    """The size that the windows cover, minus the padding, plus `output_padding` at the bottom and right."""

    def length(axis: int) -> int:
        extent = dilation[axis] * (w.shape[2 + axis] - 1) + 1
        covered = (x.shape[2 + axis] - 1) * stride[axis] + extent
        return int(covered - 2 * padding[axis] + output_padding[axis])

    return length(0), length(1)

"""Convolutions: each output is a sum of products x * w."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference.window import Pair, Sizes, output_size, positions


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
    return _conv(x, w, b, (stride,), (padding,), (dilation,), groups)


def conv1d_backward(
    g: Array, x: Array, w: Array, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> tuple[Array, Array, Array]:
    """Add g * w to dx and g * x to dw, for each product x * w of the forward sum."""
    return _conv_backward(g, x, w, (stride,), (padding,), (dilation,), groups)


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
    return _conv(x, w, b, stride, padding, dilation, groups)


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
    return _conv_backward(g, x, w, stride, padding, dilation, groups)


def _conv(
    x: Array, w: Array, b: Array | None, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Array:
    out = output_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = np.zeros((len(x), len(w), *out), x.dtype)
    for output, pixel, tap in _products(y, x, w, stride, padding, dilation, groups):
        y[output] += x[pixel] * w[tap]
    return y if b is None else _plus_bias(y, b)


def _conv_backward(
    g: Array, x: Array, w: Array, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> tuple[Array, Array, Array]:
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for output, pixel, tap in _products(g, x, w, stride, padding, dilation, groups):
        dx[pixel] += g[output] * w[tap]
        dw[tap] += g[output] * x[pixel]
    return dx, dw, _bias_gradient(g)


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
    y = np.zeros((len(x), w.shape[1] * groups, *size), x.dtype)
    for pixel, output, tap in _products(x, y, w, stride, padding, dilation, groups):
        y[output] += x[pixel] * w[tap]
    return y if b is None else _plus_bias(y, b)


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
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for pixel, output, tap in _products(x, g, w, stride, padding, dilation, groups):
        dx[pixel] += g[output] * w[tap]
        dw[tap] += g[output] * x[pixel]
    return dx, dw, _bias_gradient(g)


def conv_transpose1d(x: Array, w: Array, b: Array | None = None, *options: int) -> Array:
    """Add x[n,c,p] * w[c,o,i] to y[n,o] where the window at p has its tap i.

    The options are those of `conv_transpose2d`, one number each.
    """
    return conv_transpose2d(x[:, :, None], w[:, :, None], b, *_row(options))[:, :, 0]


def conv_transpose1d_backward(g: Array, x: Array, w: Array, *options: int) -> tuple[Array, Array, Array]:
    """Add g * w to dx and g * x to dw, for each product x * w of the forward sum."""
    images = (g[:, :, None], x[:, :, None], w[:, :, None])
    dx, dw, db = conv_transpose2d_backward(*images, *_row(options))
    return dx[:, :, 0], dw[:, :, 0], db


def _row(options: Sequence[int]) -> list[Any]:
    """Stride, padding, output padding, groups and dilation for images of one row."""
    still = (1, 0, 0, None, 1)
    return [o if s is None else (s, o) for s, o in zip(still, options, strict=False)]


def _products(
    y: Array, x: Array, w: Array, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Iterator[tuple[Sizes, Sizes, Sizes]]:
    """The indices into y, x and w of each product of the convolution of x to y.

    A transposed convolution has the same products; there y is the input and x the output.
    """
    o, c_group, *kernel = w.shape
    for oo in range(o):
        first = oo // (o // groups) * c_group  # the first channel of x in this group
        for pq, ij, yx in positions(x.shape[2:], tuple(kernel), y.shape[2:], stride, padding, dilation):
            for n, c in np.ndindex(len(x), c_group):
                yield (n, oo, *pq), (n, first + c, *yx), (oo, c, *ij)


def _plus_bias(y: Array, b: Array) -> Array:
    for o in range(len(b)):
        y[:, o] += b[o]
    return y


def _bias_gradient(g: Array) -> Array:
    return np.array([g[:, o].sum() for o in range(g.shape[1])])


def _transposed_size(
    x: Array, w: Array, stride: Pair, padding: Pair, output_padding: Pair, dilation: Pair
) -> Pair:
    """The size that the windows cover, minus the padding, plus `output_padding` at the bottom and right."""

    def length(axis: int) -> int:
        extent = dilation[axis] * (w.shape[2 + axis] - 1) + 1
        covered = (x.shape[2 + axis] - 1) * stride[axis] + extent
        return int(covered - 2 * padding[axis] + output_padding[axis])

    return length(0), length(1)

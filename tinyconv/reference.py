"""The operations as plain loops, straight from their definitions: slow and obvious.

Nothing here is shared with `tinyconv.functional`; it is the independent oracle of the tests, and a
good first page to read. Shapes are the batched ones, pairs are (height, width), arrays are NumPy's.

>>> import numpy as np
>>> conv2d(np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)))
array([[[[ 8., 12.],
         [20., 24.]]]])
"""

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from tinyconv.arrays import Array

Pair: TypeAlias = tuple[int, int]


def positions(
    size: Pair, kernel: Pair, output: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Iterator[tuple[Pair, Pair, Pair]]:
    """All (output position, tap, pixel) where the tap of the window lies inside the image."""
    for p, q in np.ndindex(output):
        for i, j in np.ndindex(kernel):
            y = p * stride[0] + i * dilation[0] - padding[0]
            x = q * stride[1] + j * dilation[1] - padding[1]
            if 0 <= y < size[0] and 0 <= x < size[1]:
                yield (p, q), (i, j), (y, x)


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Number of positions of the window in each direction, counted by moving it."""

    def count(axis: int) -> int:
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        starts = range(-padding[axis], size[axis] + padding[axis] - extent + 1, stride[axis])
        return len(starts)

    return count(0), count(1)


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """y[n,o,p,q] = b[o] + sum of x[n,c,y,x] * w[o,c,i,j]."""
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
    """Each product x * w of the forward sum sends g * w to x, and g * x to w."""
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


def unfold(
    x: Array, kernel: Pair, dilation: Pair = (1, 1), padding: Pair = (0, 0), stride: Pair = (1, 1)
) -> Array:
    """columns[n, (c, i, j), (p, q)] = x[n, c, y, x]."""
    n, c, h, w = x.shape
    out = output_size((h, w), kernel, stride, padding, dilation)
    columns = np.zeros((n, c, *kernel, *out), x.dtype)
    for pq, ij, yx in positions((h, w), kernel, out, stride, padding, dilation):
        columns[:, :, *ij, *pq] = x[:, :, *yx]
    return columns.reshape(n, c * math.prod(kernel), math.prod(out))


def fold(
    columns: Array,
    size: Pair,
    kernel: Pair,
    dilation: Pair = (1, 1),
    padding: Pair = (0, 0),
    stride: Pair = (1, 1),
) -> Array:
    """x[n, c, y, x] = sum of columns[n, (c, i, j), (p, q)]."""
    n = columns.shape[0]
    c = columns.shape[1] // math.prod(kernel)
    out = output_size(size, kernel, stride, padding, dilation)
    columns = columns.reshape(n, c, *kernel, *out)
    x = np.zeros((n, c, *size), columns.dtype)
    for pq, ij, yx in positions(size, kernel, out, stride, padding, dilation):
        x[:, :, *yx] += columns[:, :, *ij, *pq]
    return x


def max_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """The maximum of each window, and its position y * W + x in the plane; the first of equal ones."""
    n, c, *size = x.shape

    def count(axis: int) -> int:
        extent = dilation[axis] * (kernel[axis] - 1) + 1
        end = size[axis] + padding[axis]
        starts = len(range(-padding[axis], end - extent + 1, stride[axis]))
        next_start = starts * stride[axis] - padding[axis]
        last_covered = next_start - stride[axis] + extent
        return starts + (ceil_mode and last_covered < end and next_start < size[axis])

    out = count(0), count(1)
    y = np.full((n, c, *out), -np.inf, x.dtype)
    where = np.full((n, c, *out), -1)
    for pq, _, yx in positions((size[0], size[1]), kernel, out, stride, padding, dilation):
        for nc in np.ndindex(n, c):
            if where[*nc, *pq] < 0 or x[*nc, *yx] > y[*nc, *pq] or np.isnan(x[*nc, *yx]):
                y[*nc, *pq] = x[*nc, *yx]
                where[*nc, *pq] = yx[0] * size[1] + yx[1]
    return y, where


def max_pool2d_backward(g: Array, x: Array, where: Array) -> Array:
    """The gradient of each maximum goes to the position it was found at."""
    dx = np.zeros_like(x)
    for n, c, p, q in np.ndindex(g.shape):
        dx[n, c, *divmod(where[n, c, p, q], x.shape[3])] += g[n, c, p, q]
    return dx


def linear(x: Array, w: Array, b: Array) -> Array:
    """y[n,o] = b[o] + sum of x[n,i] * w[o,i]."""
    y = np.zeros((len(x), len(w)), x.dtype)
    for n, o in np.ndindex(y.shape):
        y[n, o] = b[o] + sum(x[n, i] * w[o, i] for i in range(x.shape[1]))
    return y


def linear_backward(g: Array, x: Array, w: Array) -> tuple[Array, Array, Array]:
    """Each product x * w of the forward sum sends g * w to x, and g * x to w."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w), w.dtype)
    for n, o in np.ndindex(g.shape):
        db[o] += g[n, o]
        for i in range(x.shape[1]):
            dx[n, i] += g[n, o] * w[o, i]
            dw[o, i] += g[n, o] * x[n, i]
    return dx, dw, db


def relu(x: Array) -> Array:
    """x where it is positive, else 0."""
    y = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        y[index] = max(x[index], 0)
    return y


def relu_backward(g: Array, x: Array) -> Array:
    """g where x is positive, else 0."""
    dx = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        dx[index] = g[index] if x[index] > 0 else 0
    return dx


def batch_norm(x: Array, w: Array, b: Array, eps: float = 1e-5) -> Array:
    """In training: (x - mean) / sqrt(var + eps) * w + b for each channel of (N, C, ...)."""
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        values = x[:, c]
        mean = values.sum() / values.size
        var = sum((v - mean) ** 2 for v in values.flat) / values.size
        y[:, c] = (values - mean) / math.sqrt(var + eps) * w[c] + b[c]
    return y


def batch_norm_backward(g: Array, x: Array, w: Array, eps: float = 1e-5) -> tuple[Array, Array, Array]:
    """By the chain rule, value by value: y_k depends on x_i directly, through the mean and the variance.

    With m values in a channel, d mean / d x_i = 1 / m and d var / d x_i = 2 * (x_i - mean) / m, so
    d y_k / d x_i = w * ((k == i) - 1/m) / s  -  w * (x_k - mean) * (x_i - mean) / (m * s^3).
    """
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(w)
    for c in range(x.shape[1]):
        values, grads = x[:, c].ravel(), g[:, c].ravel()
        m = values.size
        centred = values - values.sum() / m
        s = math.sqrt((centred**2).sum() / m + eps)
        column = np.zeros(m)
        for i, k in np.ndindex(m, m):
            direct = ((k == i) - 1 / m) / s
            column[i] += grads[k] * w[c] * (direct - centred[k] * centred[i] / (m * s**3))
        dx[:, c] = column.reshape(x[:, c].shape)
        dw[c] = sum(grads * centred / s)
        db[c] = sum(grads)
    return dx, dw, db


def mse_loss(x: Array, t: Array) -> float:
    """The mean of (x - t)^2."""
    return float(sum((x[i] - t[i]) ** 2 for i in np.ndindex(x.shape)) / x.size)


def mse_loss_backward(x: Array, t: Array) -> Array:
    """2 * (x - t) / number of values."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = 2 * (x[i] - t[i]) / x.size
    return dx


def softmax(row: Array) -> Array:
    """exp(row) / sum of exp(row), for one row."""
    largest = max(row)
    powers = np.array([math.exp(value - largest) for value in row])
    powers /= sum(powers)
    return powers


def cross_entropy(x: Array, t: Array, w: Array) -> float:
    """Weighted mean of -log softmax(x)[t] over rows x and class indices t."""
    loss = sum(-w[t[n]] * math.log(softmax(x[n])[t[n]]) for n in range(len(x)))
    return float(loss / sum(w[t[n]] for n in range(len(x))))


def cross_entropy_backward(x: Array, t: Array, w: Array) -> Array:
    """Row by row, weight * (softmax(x) - onehot(t)), over the sum of the weights."""
    dx = np.zeros_like(x)
    total = sum(w[t[n]] for n in range(len(x)))
    for n in range(len(x)):
        onehot = np.array([c == t[n] for c in range(x.shape[1])])
        dx[n] = w[t[n]] * (softmax(x[n]) - onehot) / total
    return dx

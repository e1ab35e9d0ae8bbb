"""Pooling: each output is the maximum or the mean of a window; unpooling puts maxima back."""

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import TypeAlias

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference.window import Pair, Sizes, output_size, positions

# Output position, the pixels summed there, the divisor of the sum.
Mean: TypeAlias = tuple[Sizes, list[Pair], int]


def max_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Return the maximum of each window, and its position y * W + x in the plane, the first if several."""
    n, c, *size = x.shape
    out = output_size(tuple(size), kernel, stride, padding, dilation, ceil_mode)
    y = np.full((n, c, *out), -np.inf, x.dtype)
    where = np.full((n, c, *out), -1)
    for pq, _, yx in positions(tuple(size), kernel, out, stride, padding, dilation):
        for nc in np.ndindex(n, c):
            if where[*nc, *pq] < 0 or x[*nc, *yx] > y[*nc, *pq] or np.isnan(x[*nc, *yx]):
                y[*nc, *pq] = x[*nc, *yx]
                where[*nc, *pq] = yx[0] * size[1] + yx[1]
    return y, where


def max_pool2d_backward(g: Array, x: Array, where: Array) -> Array:
    """Add the gradient of each maximum at the position where it was found."""
    dx = np.zeros_like(x)
    for n, c, p, q in np.ndindex(g.shape):
        dx[n, c, *divmod(where[n, c, p, q], x.shape[3])] += g[n, c, p, q]
    return dx


def max_unpool2d(
    x: Array, where: Array, kernel: Pair, stride: Pair, padding: Pair = (0, 0), size: Pair | None = None
) -> Array:
    """Put each x[n,c,p,q] at its position where[n,c,p,q] = y * W + x of a plane of zeros.

    Without `size`, the plane is what the windows cover: (P - 1) * stride - 2 * padding + kernel.
    """
    covered = [(x.shape[2 + a] - 1) * stride[a] - 2 * padding[a] + kernel[a] for a in (0, 1)]
    y = np.zeros((*x.shape[:2], *(size or covered)), x.dtype)
    for n, c, p, q in np.ndindex(x.shape):
        y[n, c, *divmod(where[n, c, p, q], y.shape[3])] = x[n, c, p, q]
    return y


def max_unpool2d_backward(g: Array, where: Array) -> Array:
    """Return the gradient at the position where each value was put."""
    dx = np.zeros(where.shape, g.dtype)
    for n, c, p, q in np.ndindex(where.shape):
        dx[n, c, p, q] = g[n, c, *divmod(where[n, c, p, q], g.shape[3])]
    return dx


def avg_pool2d(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Divide the sum of each window by the number of its cells inside the padded image.

    Without `count_include_pad` it is the number of its pixels; `divisor_override` replaces either.
    """
    out = output_size(x.shape[2:], kernel, stride, padding, (1, 1), ceil_mode)
    return _means(x, out, _windows(x, kernel, out, stride, padding, count_include_pad, divisor_override))


def avg_pool2d_backward(
    g: Array,
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Add to each pixel of a window the window's gradient over the divisor of its sum."""
    out = output_size(x.shape[2:], kernel, stride, padding, (1, 1), ceil_mode)
    means = _windows(x, kernel, out, stride, padding, count_include_pad, divisor_override)
    return _means_backward(g, x, means)


def adaptive_avg_pool2d(x: Array, size: Pair) -> Array:
    """Compute y[p,q], the mean of the rows floor(p*H/P) to ceil((p+1)*H/P) - 1, and likewise columns."""
    return _means(x, size, _even_windows(x, size))


def adaptive_avg_pool2d_backward(g: Array, x: Array, size: Pair) -> Array:
    """Add to each pixel of a window the window's gradient over the number of its pixels."""
    return _means_backward(g, x, _even_windows(x, size))


def adaptive_max_pool2d(x: Array, size: Pair) -> tuple[Array, Array]:
    """Return the maximum of each window of `adaptive_avg_pool2d`, and its position y * W + x in the plane."""
    y = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
    where = np.full(y.shape, -1)
    for pq, pixels, _ in _even_windows(x, size):
        for nc, yx in product(np.ndindex(x.shape[:2]), pixels):
            if where[*nc, *pq] < 0 or x[*nc, *yx] > y[*nc, *pq] or np.isnan(x[*nc, *yx]):
                y[*nc, *pq], where[*nc, *pq] = x[*nc, *yx], yx[0] * x.shape[3] + yx[1]
    return y, where


def adaptive_max_pool2d_backward(g: Array, x: Array, where: Array) -> Array:
    """Add the gradient of each maximum at the position where it was found."""
    return max_pool2d_backward(g, x, where)


def max_pool1d(
    x: Array, kernel: int, stride: int, padding: int = 0, dilation: int = 1
) -> tuple[Array, Array]:
    """Return the maximum of each window of (N, C, L), and its position, the first if several."""
    y, where = max_pool2d(x[:, :, None], (1, kernel), (1, stride), (0, padding), (1, dilation))
    return y[:, :, 0], where[:, :, 0]


def max_pool1d_backward(g: Array, x: Array, where: Array) -> Array:
    """Add the gradient of each maximum at the position where it was found."""
    return max_pool2d_backward(g[:, :, None], x[:, :, None], where[:, :, None])[:, :, 0]


def avg_pool1d(x: Array, kernel: int, stride: int, padding: int = 0) -> Array:
    """Divide the sum of each window of (N, C, L) by the number of its cells, those of the padding as well."""
    return avg_pool2d(x[:, :, None], (1, kernel), (1, stride), (0, padding))[:, :, 0]


def avg_pool1d_backward(g: Array, x: Array, kernel: int, stride: int, padding: int = 0) -> Array:
    """Add to each cell of a window the window's gradient over the divisor of its sum."""
    image, grads = x[:, :, None], g[:, :, None]
    return avg_pool2d_backward(grads, image, (1, kernel), (1, stride), (0, padding))[:, :, 0]


def _windows(
    image: Array,
    kernel: Pair,
    out: Sizes,
    stride: Pair,
    padding: Pair,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Iterator[Mean]:
    """The windows of avg_pool2d, their cells counted one by one."""
    height, width = image.shape[2:]
    for p, q in np.ndindex(out):
        pixels, cells = [], 0
        for i, j in np.ndindex(kernel):
            y, x = p * stride[0] + i - padding[0], q * stride[1] + j - padding[1]
            cells += y < height + padding[0] and x < width + padding[1]
            if 0 <= y < height and 0 <= x < width:
                pixels.append((y, x))
        yield (p, q), pixels, divisor_override or (cells if count_include_pad else len(pixels))


def _even_windows(image: Array, out: Sizes) -> Iterator[Mean]:
    """The windows of adaptive_avg_pool2d."""

    def seen(p: int, axis: int) -> range:
        size = image.shape[2 + axis]
        return range(math.floor(p * size / out[axis]), math.ceil((p + 1) * size / out[axis]))

    for p, q in np.ndindex(out):
        pixels = [(y, x) for y in seen(p, 0) for x in seen(q, 1)]
        yield (p, q), pixels, len(pixels)


def _means(x: Array, out: Sizes, means: Iterable[Mean]) -> Array:
    y = np.zeros((*x.shape[:2], *out), x.dtype)
    for pq, pixels, divisor in means:
        for yx in pixels:
            y[:, :, *pq] += x[:, :, *yx] / divisor
    return y


def _means_backward(g: Array, x: Array, means: Iterable[Mean]) -> Array:
    dx = np.zeros_like(x)
    for pq, pixels, divisor in means:
        for yx in pixels:
            dx[:, :, *yx] += g[:, :, *pq] / divisor
    return dx

"""Padding, enlarging by copies of pixels, and merging and splitting axes."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference.window import Sizes


def pad(x: Array, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """Pad by `pads`, (before, after) of the last axis, then of the last but one ...; negative ones crop.

    y[i] is x[i - before]. Outside x it is `value` ("constant"), or the entry reached by turning back at the
    border ("reflect"), by stopping there ("replicate"), or by continuing at the opposite side ("circular").
    """
    sources = _sources(x, pads, mode)
    y = np.full([len(s) for s in sources], value, x.dtype)
    for i in np.ndindex(y.shape):
        source = tuple(s[k] for s, k in zip(sources, i, strict=True))
        if None not in source:
            y[i] = x[source]
    return y


def pad_backward(
    g: Array, x: Array, pads: Sequence[int], mode: str = "constant", value: float = 0.0
) -> Array:
    """Add to each entry of x the gradients of its copies, whatever `value` is."""
    sources = _sources(x, pads, mode)
    dx = np.zeros_like(x)
    for i in np.ndindex(g.shape):
        source = tuple(s[k] for s, k in zip(sources, i, strict=True))
        if None not in source:
            dx[source] += g[i]
    return dx


def _sources(x: Array, pads: Sequence[int], mode: str) -> list[list[int | None]]:
    """For each axis, which index of x each index of y copies."""
    given = [*zip(pads[::2], pads[1::2], strict=True)][::-1]
    every = [(0, 0)] * (x.ndim - len(given)) + given
    sources = []
    for size, (before, after) in zip(x.shape, every, strict=True):
        sources.append([_source(k, size, before, after, mode) for k in range(-before, size + after)])
    return sources


def _source(k: int, size: int, before: int, after: int, mode: str) -> int | None:
    """The index of 0 ... size - 1 that index k, perhaps outside, copies."""
    if mode == "reflect":
        return -k if k < 0 else 2 * (size - 1) - k if k >= size else k
    if mode == "replicate":
        return min(max(k, 0), size - 1)
    if mode == "circular":  # wraps around the cropped axis
        first = max(-before, 0)
        return first + (k - first) % (size + min(after, 0) - first)
    return k if 0 <= k < size else None


def interpolate(
    x: Array,
    size: Sequence[int] | None = None,
    scale_factor: Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Array:
    """Return y[n,c,p,...], the sum of the pixels that p sees, each times the weights of its axes.

    By "nearest" p sees the pixel floor(p / scale), by "nearest-exact" floor((p + 1/2) / scale). In linear
    modes it sees those less than 1 from s = (p + 1/2) / scale - 1/2, with the weight 1 - distance; with
    `align_corners` s goes from the first to the last pixel in equal steps. The scale is `scale_factor`, which
    gives floor(length * scale) positions, or `size` / length.
    """
    axes = _seen(x, size, scale_factor, mode, align_corners)
    y = np.zeros((*x.shape[:2], *map(len, axes)), x.dtype)
    for p, pixel, weight in _reads(axes):
        y[:, :, *p] += weight * x[:, :, *pixel]
    return y


def interpolate_backward(
    g: Array,
    x: Array,
    size: Sequence[int] | None = None,
    scale_factor: Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Array:
    """Add to each pixel the gradients of the positions that see it, times their weights."""
    dx = np.zeros_like(x)
    for p, pixel, weight in _reads(_seen(x, size, scale_factor, mode, align_corners)):
        dx[:, :, *pixel] += weight * g[:, :, *p]
    return dx


def _reads(axes: list[list[list[tuple[int, float]]]]) -> Iterator[tuple[Sizes, Sizes, float]]:
    """All (position, pixel that it sees, weight)."""
    for p in np.ndindex(*map(len, axes)):
        for seen in product(*(axis[k] for axis, k in zip(axes, p, strict=True))):
            yield p, tuple(pixel for pixel, _ in seen), math.prod(weight for _, weight in seen)


def _seen(
    x: Array, size: Sequence[int] | None, scale_factor: Sequence[float] | None, mode: str, align_corners: bool
) -> list[list[list[tuple[int, float]]]]:
    """For each axis, the pixels that each pixel of y sees along it, and their weights."""
    shift, axes = 0.0 if mode == "nearest" else 0.5, []
    for axis, length in enumerate(x.shape[2:]):
        out = math.floor(length * scale_factor[axis]) if scale_factor else size[axis] if size else 0
        step = 1 / scale_factor[axis] if scale_factor else length / out
        reached = [(p + shift) * step for p in range(out)]
        if mode.startswith("nearest"):
            axes.append([[(min(math.floor(r), length - 1), 1.0)] for r in reached])
            continue
        if align_corners:
            reached = [p * (length - 1) / max(1, out - 1) + 0.5 for p in range(out)]
        near = [min(max(r - 0.5, 0), length - 1) for r in reached]
        axes.append([[(q, 1 - abs(q - s)) for q in range(length) if abs(q - s) < 1] for s in near])
    return axes


def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Return y[..., k, ...] = x[..., i, j, ...], where k counts the merged (i, j, ...) in row order."""
    first, last = start_dim % x.ndim, end_dim % x.ndim
    merged = math.prod(x.shape[first : last + 1])
    y = np.zeros((*x.shape[:first], merged, *x.shape[last + 1 :]), x.dtype)
    for i in np.ndindex(x.shape):
        y[_merged(i, x.shape, first, last)] = x[i]
    return y


def flatten_backward(g: Array, x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Return the gradient of the position where each entry of x was put."""
    first, last = start_dim % x.ndim, end_dim % x.ndim
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = g[_merged(i, x.shape, first, last)]
    return dx


def unflatten(x: Array, dim: int, sizes: Sequence[int]) -> Array:
    """Return y[..., i, j, ...] = x[..., k, ...], where k counts (i, j, ...) below `sizes` in row order."""
    first = dim % x.ndim
    y = np.zeros((*x.shape[:first], *sizes, *x.shape[first + 1 :]), x.dtype)
    for i in np.ndindex(y.shape):
        y[i] = x[_merged(i, y.shape, first, first + len(sizes) - 1)]
    return y


def unflatten_backward(g: Array, x: Array, dim: int, sizes: Sequence[int]) -> Array:
    """Return the gradient of the position where each entry of x was put."""
    first = dim % x.ndim
    dx = np.zeros_like(x)
    for i in np.ndindex(g.shape):
        dx[_merged(i, g.shape, first, first + len(sizes) - 1)] = g[i]
    return dx


def _merged(i: tuple[int, ...], shape: tuple[int, ...], first: int, last: int) -> tuple[int, ...]:
    """The index i into `shape`, with one number, counted in row order, for its axes `first` to `last`."""
    k = 0
    for axis in range(first, last + 1):
        k = k * shape[axis] + i[axis]
    return *i[:first], k, *i[last + 1 :]


def pixel_shuffle(x: Array, r: int) -> Array:
    """Return y[n,c,i,j] = x[n, c*r*r + (i % r)*r + j % r, i // r, j // r]."""
    n, c, h, w = x.shape
    y = np.zeros((n, c // r**2, h * r, w * r), x.dtype)
    for k, m, i, j in np.ndindex(y.shape):
        y[k, m, i, j] = x[k, m * r * r + (i % r) * r + j % r, i // r, j // r]
    return y


def pixel_shuffle_backward(g: Array, x: Array, r: int) -> Array:
    """Return the gradient of the position where each entry of x was put."""
    dx = np.zeros_like(x)
    for k, m, i, j in np.ndindex(g.shape):
        dx[k, m * r * r + (i % r) * r + j % r, i // r, j // r] = g[k, m, i, j]
    return dx


def pixel_unshuffle(x: Array, r: int) -> Array:
    """Undo `pixel_shuffle`, whose backward moves values back."""
    n, c, h, w = x.shape
    return pixel_shuffle_backward(x, np.zeros((n, c * r**2, h // r, w // r), x.dtype), r)


def pixel_unshuffle_backward(g: Array, x: Array, r: int) -> Array:
    """Return the gradient of the position where each entry of x was put."""
    return pixel_shuffle(g, r)

"""Normalisations: (values - mean) / sqrt(var + eps) * w + b, over a channel, a sample or a group."""

import math
from typing import TypeAlias

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference import loops

Triple: TypeAlias = tuple[Array, Array, Array]


def _normalise(values: Array, eps: float) -> Array:
    """(values - mean) / sqrt(var + eps)."""
    mean = values.sum() / values.size
    var = sum((v - mean) ** 2 for v in values.flat) / values.size
    return np.array((values - mean) / math.sqrt(var + eps))


def _normalise_backward(g: Array, values: Array, eps: float) -> Array:
    """The chain rule, value by value: y_k depends on x_i directly, and through the mean and the variance.

    With m values, d mean / d x_i = 1 / m and d var / d x_i = 2 * (x_i - mean) / m, so
    d y_k / d x_i = ((k == i) - 1/m) / s  -  (x_k - mean) * (x_i - mean) / (m * s^3).
    """
    m, grads = values.size, g.ravel()
    centred = values.ravel() - values.sum() / m
    s = math.sqrt((centred**2).sum() / m + eps)
    dx = np.zeros(m)
    for i, k in np.ndindex(m, m):
        dx[i] += grads[k] * (((k == i) - 1 / m) / s - centred[k] * centred[i] / (m * s**3))
    return dx.reshape(values.shape)


def batch_norm(x: Array, w: Array, b: Array, eps: float = 1e-5) -> Array:
    """Normalise over the values of each channel of (N, C, ...), as in training."""
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        y[:, c] = _normalise(x[:, c], eps) * w[c] + b[c]
    return y


def batch_norm_backward(g: Array, x: Array, w: Array, eps: float = 1e-5) -> Triple:
    """Go channel by channel; the gradients of w and b are the sums of g * normalised and of g."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(w)
    for c in range(x.shape[1]):
        dx[:, c] = _normalise_backward(g[:, c] * w[c], x[:, c], eps)
        dw[c] = (g[:, c] * _normalise(x[:, c], eps)).sum()
        db[c] = g[:, c].sum()
    return dx, dw, db


def layer_norm(x: Array, shape: tuple[int, ...], w: Array, b: Array, eps: float = 1e-5) -> Array:
    """Normalise over the values of each sample of (..., *shape); w and b have that shape."""
    y = np.zeros_like(x)
    for n in np.ndindex(x.shape[: -len(shape)]):
        y[n] = _normalise(x[n], eps) * w + b
    return y


def layer_norm_backward(g: Array, x: Array, shape: tuple[int, ...], w: Array, eps: float = 1e-5) -> Triple:
    """Go sample by sample; the gradients of w and b are the sums of g * normalised and of g."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(w)
    for n in np.ndindex(x.shape[: -len(shape)]):
        dx[n] = _normalise_backward(g[n] * w, x[n], eps)
        dw += g[n] * _normalise(x[n], eps)
        db += g[n]
    return dx, dw, db


def group_norm(x: Array, num_groups: int, w: Array, b: Array, eps: float = 1e-5) -> Array:
    """Normalise over the values of each sample and group of channels of (N, C, ...)."""
    y = np.zeros_like(x)
    for n, group in np.ndindex(len(x), num_groups):
        channels = _channels(x, num_groups, group)
        normalised = _normalise(x[n, channels], eps)
        for c, values in zip(channels, normalised, strict=True):
            y[n, c] = values * w[c] + b[c]
    return y


def group_norm_backward(g: Array, x: Array, num_groups: int, w: Array, eps: float = 1e-5) -> Triple:
    """Go group by group; the gradients of w and b are the sums of g * normalised and of g."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(w)
    for n, group in np.ndindex(len(x), num_groups):
        channels = _channels(x, num_groups, group)
        scaled = np.array([g[n, c] * w[c] for c in channels])
        dx[n, channels] = _normalise_backward(scaled, x[n, channels], eps)
        normalised = _normalise(x[n, channels], eps)
        for c, values in zip(channels, normalised, strict=True):
            dw[c] += (g[n, c] * values).sum()
            db[c] += g[n, c].sum()
    return dx, dw, db


def instance_norm(x: Array, w: Array, b: Array, eps: float = 1e-5) -> Array:
    """Normalise over the values of each channel of each sample of (N, C, ...)."""
    return group_norm(x, x.shape[1], w, b, eps)


def instance_norm_backward(g: Array, x: Array, w: Array, eps: float = 1e-5) -> Triple:
    """Go channel by channel of each sample, as group norm with a group for each."""
    return group_norm_backward(g, x, x.shape[1], w, eps)


def normalize(x: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    """Divide each row along `dim` by (sum of |x|^p)^(1/p), or by eps if that is larger."""
    return loops.each_row(lambda x: x / max(_length(x, p), eps), dim, x)


def normalize_backward(g: Array, x: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    """Use the quotient rule, where the slope of the length is sign(x) * (|x| / length)^(p - 1)."""

    def of_row(g: Array, x: Array) -> Array:
        length = _length(x, p)
        if length < eps:
            return g / eps
        slopes = [math.copysign((abs(v) / length) ** (p - 1), v) for v in x]
        return np.array(g / length - sum(g * x) / length**2 * np.array(slopes))

    return loops.each_row(of_row, dim, g, x)


def _length(row: Array, p: float) -> float:
    return float(sum(abs(v) ** p for v in row) ** (1 / p))


def _channels(x: Array, num_groups: int, group: int) -> list[int]:
    """The channels of one group."""
    width = x.shape[1] // num_groups
    return list(range(group * width, (group + 1) * width))

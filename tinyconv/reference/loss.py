"""Losses: means over all values or all samples; backward for an incoming gradient of 1."""

import math
from typing import Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference.activation import softmax_row


def mse_loss(x: Array, t: Array) -> float:
    """The mean of (x - t)^2."""
    return float(sum((x[i] - t[i]) ** 2 for i in np.ndindex(x.shape)) / x.size)


def mse_loss_backward(x: Array, t: Array) -> Array:
    """2 * (x - t) / number of values."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = 2 * (x[i] - t[i]) / x.size
    return dx


def l1_loss(x: Array, t: Array) -> float:
    """The mean of |x - t|."""
    return float(sum(abs(x[i] - t[i]) for i in np.ndindex(x.shape)) / x.size)


def l1_loss_backward(x: Array, t: Array) -> tuple[Array, Array]:
    """The sign of x - t over the number of values, by x; the opposite by t."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = np.sign(x[i] - t[i]) / x.size
    return dx, -dx


def smooth_l1_loss(x: Array, t: Array, beta: float = 1.0) -> float:
    """The mean of d^2 / (2 * beta) where d = |x - t| is below beta, else of d - beta / 2."""
    total = 0.0
    for i in np.ndindex(x.shape):
        d = abs(float(x[i] - t[i]))
        total += d * d / (2 * beta) if d < beta else d - beta / 2
    return total / x.size


def smooth_l1_loss_backward(x: Array, t: Array, beta: float = 1.0) -> tuple[Array, Array]:
    """(x - t) / beta, cut off at -1 and 1, over the number of values, by x; the opposite by t."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = x[i] - t[i]
        dx[i] = (d / beta if abs(d) < beta else np.sign(d)) / x.size
    return dx, -dx


def nll_loss(x: Array, t: Array, w: Array, ignore_index: int = -100) -> float:
    """Weighted mean of -x[n,c,...] over the class indices c = t[n,...], but for `ignore_index`."""
    loss = total = 0.0
    for n, *place in np.ndindex(t.shape):
        c = t[n, *place]
        if c != ignore_index:
            loss -= w[c] * x[n, c, *place]
            total += w[c]
    return loss / total


def nll_loss_backward(x: Array, t: Array, w: Array, ignore_index: int = -100) -> Array:
    """-weight at the class indices, over the sum of the weights."""
    dx, total = np.zeros_like(x), 0.0
    for n, *place in np.ndindex(t.shape):
        c = t[n, *place]
        if c != ignore_index:
            dx[n, c, *place] = -w[c]
            total += w[c]
    return dx / total


def cross_entropy(x: Array, t: Array, w: Array) -> float:
    """Weighted mean of -log softmax(x)[t] over rows x and class indices t."""
    loss = sum(-w[t[n]] * math.log(softmax_row(x[n])[t[n]]) for n in range(len(x)))
    return float(loss / sum(w[t[n]] for n in range(len(x))))


def cross_entropy_backward(x: Array, t: Array, w: Array) -> Array:
    """Row by row, weight * (softmax(x) - onehot(t)), over the sum of the weights."""
    dx = np.zeros_like(x)
    total = sum(w[t[n]] for n in range(len(x)))
    for n in range(len(x)):
        onehot = np.array([c == t[n] for c in range(x.shape[1])])
        dx[n] = w[t[n]] * (softmax_row(x[n]) - onehot) / total
    return dx


def binary_cross_entropy(x: Array, t: Array, w: Array | None = None) -> float:
    """The mean of -w * (t * log(x) + (1 - t) * log(1 - x)), where no logarithm is below -100."""
    w = _spread(w, x)
    total = 0.0
    for i in np.ndindex(x.shape):
        total -= float(w[i] * (t[i] * _log(x[i]) + (1 - t[i]) * _log(1 - x[i])))
    return total / x.size


def binary_cross_entropy_backward(x: Array, t: Array, w: Array | None = None) -> tuple[Array, Array]:
    """w * (x - t) / (x * (1 - x)) by x, w * (log(1 - x) - log(x)) by t, over the number of values.

    No logarithm is below -100, and x * (1 - x) not below 1e-12.
    """
    w = _spread(w, x)
    dx, dt = np.zeros_like(x), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = w[i] * (x[i] - t[i]) / max(x[i] * (1 - x[i]), 1e-12) / x.size
        dt[i] = w[i] * (_log(1 - x[i]) - _log(x[i])) / x.size
    return dx, dt


def _log(v: Any) -> float:
    return max(math.log(v), -100.0) if v > 0 else -100.0


def binary_cross_entropy_with_logits(
    x: Array, t: Array, w: Array | None = None, pos_weight: Array | None = None
) -> float:
    """The mean of -w * (p * t * log sigmoid(x) + (1 - t) * log sigmoid(-x)), where p = pos_weight."""
    w, p = _spread(w, x), _spread(pos_weight, x)
    total = 0.0
    for i in np.ndindex(x.shape):
        total -= float(w[i] * (p[i] * t[i] * _log_sigmoid(x[i]) + (1 - t[i]) * _log_sigmoid(-x[i])))
    return total / x.size


def binary_cross_entropy_with_logits_backward(
    x: Array, t: Array, w: Array | None = None, pos_weight: Array | None = None
) -> tuple[Array, Array]:
    """By x and t, over the number of values; the derivative of log sigmoid(x) is sigmoid(-x).

    w * ((1 - t) * sigmoid(x) - p * t * sigmoid(-x)) and w * (log sigmoid(-x) - p * log sigmoid(x)).
    """
    w, p = _spread(w, x), _spread(pos_weight, x)
    dx, dt = np.zeros_like(x), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        positive, negative = _log_sigmoid(x[i]), _log_sigmoid(-x[i])
        dx[i] = w[i] * ((1 - t[i]) * math.exp(positive) - p[i] * t[i] * math.exp(negative)) / x.size
        dt[i] = w[i] * (negative - p[i] * positive) / x.size
    return dx, dt


def _log_sigmoid(v: Any) -> float:
    """-log(1 + exp(-v)), without an exp that overflows."""
    return float(min(v, 0)) - math.log1p(math.exp(-abs(v)))


def _spread(w: Array | None, x: Array) -> Array:
    """`w`, or 1, for every entry of x."""
    return np.broadcast_to(1.0 if w is None else w, x.shape)

"""Losses of each entry, and their reductions.

The backward functions take, last, the gradient g of the reduced loss: one number, or one per entry for
"none".
"""

import math
from typing import Any

import numpy as np

from tinyconv.arrays import Array


def reduce(losses: Array, reduction: str, divisor: float | None = None) -> Array:
    """Return the losses ("none"), their "sum", or the sum over `divisor` ("mean"; default: their number)."""
    if reduction == "none":
        return losses
    total = sum(losses.flat, 0.0)
    if reduction == "mean":
        total /= losses.size if divisor is None else divisor
    return np.array(total)


def reduce_backward(
    g: Array | float, shape: tuple[int, ...], reduction: str, divisor: float | None = None
) -> Array:
    """Return the gradient for each of the losses, of `shape`: g, divided by the number for "mean"."""
    each = np.broadcast_to(g, shape)
    if reduction == "mean":
        return each / (math.prod(shape) if divisor is None else divisor)
    return each


def mse_loss(x: Array, t: Array, reduction: str = "mean") -> Array:
    """Compute (x - t)^2."""
    losses = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        losses[i] = (x[i] - t[i]) ** 2
    return reduce(losses, reduction)


def mse_loss_backward(x: Array, t: Array, reduction: str = "mean", g: Array | float = 1.0) -> Array:
    """Return the gradient for x: g * 2 * (x - t)."""
    each = reduce_backward(g, x.shape, reduction)
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = each[i] * 2 * (x[i] - t[i])
    return dx


def l1_loss(x: Array, t: Array, reduction: str = "mean") -> Array:
    """Compute |x - t|."""
    losses = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        losses[i] = abs(x[i] - t[i])
    return reduce(losses, reduction)


def l1_loss_backward(
    x: Array, t: Array, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradient for x, g * the sign of x - t, and for t, its negative."""
    each = reduce_backward(g, x.shape, reduction)
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = each[i] * np.sign(x[i] - t[i])
    return dx, -dx


def smooth_l1_loss(x: Array, t: Array, beta: float = 1.0, reduction: str = "mean") -> Array:
    """Compute d^2 / (2 * beta) where d = |x - t| is below beta, else d - beta / 2."""
    losses = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = abs(x[i] - t[i])
        losses[i] = d * d / (2 * beta) if d < beta else d - beta / 2
    return reduce(losses, reduction)


def smooth_l1_loss_backward(
    x: Array, t: Array, beta: float = 1.0, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradient for x, g * (x - t) / beta, the quotient clipped to +-1, and for t, its negative."""
    each = reduce_backward(g, x.shape, reduction)
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = x[i] - t[i]
        dx[i] = each[i] * (d / beta if abs(d) < beta else np.sign(d))
    return dx, -dx


def binary_cross_entropy(x: Array, t: Array, w: Array | None = None, reduction: str = "mean") -> Array:
    """Compute -w * (t * log(x) + (1 - t) * log(1 - x)), with logarithms clamped to -100."""
    w = _spread(w, x)
    losses = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        losses[i] = -w[i] * (t[i] * _log(x[i]) + (1 - t[i]) * _log(1 - x[i]))
    return reduce(losses, reduction)


def binary_cross_entropy_backward(
    x: Array, t: Array, w: Array | None = None, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradients for x and t.

    g * w * (x - t) / (x * (1 - x)) and g * w * (log(1 - x) - log(x)), with logarithms clamped to -100 and
    x * (1 - x) to 1e-12.
    """
    w, each = _spread(w, x), reduce_backward(g, x.shape, reduction)
    dx, dt = np.zeros_like(x), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        dx[i] = each[i] * w[i] * (x[i] - t[i]) / max(x[i] * (1 - x[i]), 1e-12)
        dt[i] = each[i] * w[i] * (_log(1 - x[i]) - _log(x[i]))
    return dx, dt


def _log(v: Any) -> float:
    return max(math.log(v), -100.0) if v > 0 else -100.0


def binary_cross_entropy_with_logits(
    x: Array, t: Array, w: Array | None = None, pos_weight: Array | None = None, reduction: str = "mean"
) -> Array:
    """Compute -w * (p * t * log sigmoid(x) + (1 - t) * log sigmoid(-x)), where p = pos_weight."""
    w, p = _spread(w, x), _spread(pos_weight, x)
    losses = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        losses[i] = -w[i] * (p[i] * t[i] * _log_sigmoid(x[i]) + (1 - t[i]) * _log_sigmoid(-x[i]))
    return reduce(losses, reduction)


def binary_cross_entropy_with_logits_backward(
    x: Array,
    t: Array,
    w: Array | None = None,
    pos_weight: Array | None = None,
    reduction: str = "mean",
    g: Array | float = 1.0,
) -> tuple[Array, Array]:
    """Return the gradients for x and t; the derivative of log sigmoid(x) is sigmoid(-x).

    g * w * ((1 - t) * sigmoid(x) - p * t * sigmoid(-x)) and g * w * (log sigmoid(-x) - p * log sigmoid(x)).
    """
    w, p = _spread(w, x), _spread(pos_weight, x)
    each = reduce_backward(g, x.shape, reduction)
    dx, dt = np.zeros_like(x), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        positive, negative = _log_sigmoid(x[i]), _log_sigmoid(-x[i])
        dx[i] = each[i] * w[i] * ((1 - t[i]) * math.exp(positive) - p[i] * t[i] * math.exp(negative))
        dt[i] = each[i] * w[i] * (negative - p[i] * positive)
    return dx, dt


def _log_sigmoid(v: Any) -> float:
    """-log(1 + exp(-v)), without an exp that overflows."""
    return float(min(v, 0)) - math.log1p(math.exp(-abs(v)))


def _spread(w: Array | None, x: Array) -> Array:
    """`w`, or 1, for every entry of x."""
    return np.broadcast_to(1.0 if w is None else w, x.shape)

"""Losses of class scores x[n,c,...], where targets are class indices t[n,...] or probabilities t[n,c,...].

"mean" divides the sum of the losses by the sum of the weights of the targets' classes. The backward
functions take, last, the gradient g of the reduced loss: one number, or one per target for "none".
"""

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference import loops
from tinyconv.reference.activation import log_softmax, softmax


def nll_loss(
    x: Array, t: Array, w: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """Return -w[c] * x[n,c,...] for the class index c = t[n,...]; 0 if that is `ignore_index`."""
    w = _weights(w, x)
    losses = np.zeros(t.shape, x.dtype)
    for n, *place in np.ndindex(t.shape):
        c = t[n, *place]
        if c != ignore_index:
            losses[n, *place] = -w[c] * x[n, c, *place]
    return loops.reduce(losses, reduction, _total_weight(t, w, ignore_index))


def nll_loss_backward(
    x: Array,
    t: Array,
    w: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    g: Array | float = 1.0,
) -> Array:
    """Return g * -w[c] at the class indices, else 0."""
    w = _weights(w, x)
    each = loops.reduce_backward(g, t.shape, reduction, _total_weight(t, w, ignore_index))
    dx = np.zeros_like(x)
    for n, *place in np.ndindex(t.shape):
        c = t[n, *place]
        if c != ignore_index:
            dx[n, c, *place] = each[n, *place] * -w[c]
    return dx


def cross_entropy(
    x: Array,
    t: Array,
    w: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """Compute -sum over c of w[c] * q[n,c,...] * log softmax(x)[n,c,...], with q = `_probabilities`."""
    w = _weights(w, x)
    q, log_p = _probabilities(x, t, ignore_index, label_smoothing), log_softmax(x, 1)
    losses = np.zeros((len(x), *x.shape[2:]), x.dtype)
    for n, c, *place in np.ndindex(x.shape):
        losses[n, *place] -= w[c] * q[n, c, *place] * log_p[n, c, *place]
    return loops.reduce(losses, reduction, _total_weight(t, w, ignore_index))


def cross_entropy_backward(
    x: Array,
    t: Array,
    w: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    g: Array | float = 1.0,
) -> Array:
    """Add g * w[c] * q[c] * (softmax(x)[i] - (c == i)) to dx[i], for each class c of the forward sum."""
    w, classes = _weights(w, x), np.arange(x.shape[1])
    q = _probabilities(x, t, ignore_index, label_smoothing)
    losses_shape = len(x), *x.shape[2:]
    each = loops.reduce_backward(g, losses_shape, reduction, _total_weight(t, w, ignore_index))
    dx = np.zeros_like(x)
    for n, *place in np.ndindex(losses_shape):
        p = softmax(x[n, :, *place])
        for c in classes:
            dx[n, :, *place] += each[n, *place] * w[c] * q[n, c, *place] * (p - (classes == c))
    return dx


def cross_entropy_target_backward(
    x: Array,
    t: Array,
    w: Array | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    g: Array | float = 1.0,
) -> Array:
    """Return the gradient for t: g * -w[c] * (1 - label_smoothing) * log softmax(x)[n,c,...]."""
    w, log_p = _weights(w, x), log_softmax(x, 1)
    each = loops.reduce_backward(g, (len(x), *x.shape[2:]), reduction, _total_weight(t, w, ignore_index))
    dt = np.zeros_like(t)
    for n, c, *place in np.ndindex(t.shape):
        dt[n, c, *place] = each[n, *place] * -w[c] * (1 - label_smoothing) * log_p[n, c, *place]
    return dt


def _probabilities(x: Array, t: Array, ignore_index: int, label_smoothing: float) -> Array:
    """(1 - label_smoothing) * the target's probability of class c + label_smoothing / number of classes.

    A class index means probability 1 for its class and 0 for the others; for `ignore_index` all are 0.
    """
    q, spread = np.zeros_like(x), label_smoothing / x.shape[1]
    for n, c, *place in np.ndindex(x.shape):
        if t.dtype.kind == "f":
            q[n, c, *place] = (1 - label_smoothing) * t[n, c, *place] + spread
        elif t[n, *place] != ignore_index:
            q[n, c, *place] = (1 - label_smoothing) * (t[n, *place] == c) + spread
    return q


def _total_weight(t: Array, w: Array, ignore_index: int) -> float:
    """Sum of the weights of the targets' classes; targets given as class probabilities count 1 each."""
    if t.dtype.kind == "f":
        return t.size / len(w)
    return float(sum(w[c] for c in t.flat if c != ignore_index))


def _weights(w: Array | None, x: Array) -> Array:
    """`w`, or 1, for every class."""
    return np.ones(x.shape[1], x.dtype) if w is None else w

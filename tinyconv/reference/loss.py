"""Losses of each entry, and their reductions.

The backward functions take, last, the gradient g of the reduced loss: one number, or one per entry for
"none".
"""

import math

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference import loops


def mse_loss(x: Array, t: Array, reduction: str = "mean") -> Array:
    """Compute (x - t)^2."""
    return loops.reduce(loops.each(lambda x, t: (x - t) ** 2, x, t), reduction)


def mse_loss_backward(x: Array, t: Array, reduction: str = "mean", g: Array | float = 1.0) -> Array:
    """Return the gradient for x: g * 2 * (x - t)."""
    g = loops.reduce_backward(g, x.shape, reduction)
    return loops.each(lambda x, t, g: g * 2 * (x - t), x, t, g)


def l1_loss(x: Array, t: Array, reduction: str = "mean") -> Array:
    """Compute |x - t|."""
    return loops.reduce(loops.each(lambda x, t: abs(x - t), x, t), reduction)


def l1_loss_backward(
    x: Array, t: Array, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradient for x, g * the sign of x - t, and for t, its negative."""
    g = loops.reduce_backward(g, x.shape, reduction)
    dx = loops.each(lambda x, t, g: g * np.sign(x - t), x, t, g)
    return dx, -dx


def smooth_l1_loss(x: Array, t: Array, beta: float = 1.0, reduction: str = "mean") -> Array:
    """Compute d^2 / (2 * beta) where d = |x - t| is below beta, else d - beta / 2."""

    def loss(x: float, t: float) -> float:
        d = abs(x - t)
        return d * d / (2 * beta) if d < beta else d - beta / 2

    return loops.reduce(loops.each(loss, x, t), reduction)


def smooth_l1_loss_backward(
    x: Array, t: Array, beta: float = 1.0, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradient for x, g * (x - t) / beta, the quotient clipped to +-1, and for t, its negative."""
    g = loops.reduce_backward(g, x.shape, reduction)
    slopes = loops.each(lambda x, t: (x - t) / beta if abs(x - t) < beta else np.sign(x - t), x, t)
    return g * slopes, g * -slopes


def huber_loss(x: Array, t: Array, delta: float = 1.0, reduction: str = "mean") -> Array:
    """Compute d^2 / 2 where d = |x - t| is below delta, else delta * (d - delta / 2)."""
    return np.array(delta * smooth_l1_loss(x, t, delta, reduction))


def huber_loss_backward(
    x: Array, t: Array, delta: float = 1.0, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradient for x, g * (x - t), the difference clipped to +-delta, and for t, its negative."""
    return smooth_l1_loss_backward(x, t, delta, reduction, np.multiply(g, delta))


def kl_div(x: Array, t: Array, log_target: bool = False, reduction: str = "mean") -> Array:
    """Compute p * (log p - x), with p = exp(t) for a `log_target`, else t; the first term is 0 for p = 0."""

    def loss(x: float, t: float) -> float:
        p = math.exp(t) if log_target else t
        return (p * math.log(p) if p else 0.0) - p * x

    return loops.reduce(loops.each(loss, x, t), reduction)


def kl_div_backward(
    x: Array, t: Array, log_target: bool = False, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradients for x, -g * p, and for t, g * (log p + 1 - x), times p for a `log_target`."""
    g = loops.reduce_backward(g, x.shape, reduction)
    p, log_p = (np.exp(t), t) if log_target else (t, np.log(t))
    return -g * p, g * (log_p + 1 - x) * (p if log_target else 1)


def hinge_embedding_loss(x: Array, t: Array, margin: float = 1.0, reduction: str = "mean") -> Array:
    """Compute x where t is 1, and max(0, margin - x) where it is -1."""
    return loops.reduce(loops.each(lambda x, t: x if t == 1 else max(0.0, margin - x), x, t), reduction)


def hinge_embedding_loss_backward(
    x: Array, t: Array, margin: float = 1.0, reduction: str = "mean", g: Array | float = 1.0
) -> Array:
    """Return the gradient for x: g where t is 1, and -g where it is -1 and x is below the margin."""
    g = loops.reduce_backward(g, x.shape, reduction)
    return g * loops.each(lambda x, t: 1.0 if t == 1 else -1.0 * (x < margin), x, t)


def margin_ranking_loss(
    x1: Array, x2: Array, t: Array, margin: float = 0.0, reduction: str = "mean"
) -> Array:
    """Compute max(0, margin - t * (x1 - x2))."""
    losses = loops.each(lambda x1, x2, t: max(0.0, margin - t * (x1 - x2)), x1, x2, t)
    return loops.reduce(losses, reduction)


def margin_ranking_loss_backward(
    x1: Array, x2: Array, t: Array, margin: float = 0.0, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array, Array]:
    """Return the gradients for x1, x2 and t where the loss is above 0: -g * t, g * t and g * (x2 - x1)."""
    active = loops.each(lambda x1, x2, t: float(margin > t * (x1 - x2)), x1, x2, t)
    g = loops.reduce_backward(g, x1.shape, reduction) * active
    return -g * t, g * t, g * (x2 - x1)


def cosine_embedding_loss(
    x1: Array, x2: Array, t: Array, margin: float = 0.0, reduction: str = "mean"
) -> Array:
    """Compute 1 - cos(x1, x2) for the rows where t is 1, and max(0, cos - margin) where it is -1."""
    cosines = np.array([_cosine(a, b) for a, b in zip(x1, x2, strict=True)])
    losses = loops.each(lambda c, t: 1 - c if t == 1 else max(0.0, c - margin), cosines, t)
    return loops.reduce(losses, reduction)


def cosine_embedding_loss_backward(
    x1: Array, x2: Array, t: Array, margin: float = 0.0, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradients for x1 and x2: those of the cosine, times -g, g or 0."""
    g, grads = loops.reduce_backward(g, t.shape, reduction), (np.zeros_like(x1), np.zeros_like(x2))
    for n, (a, b) in enumerate(zip(x1, x2, strict=True)):
        cosine, aa, bb = _cosine(a, b), _dot(a, a) + 1e-12, _dot(b, b) + 1e-12
        slope = g[n] * (-1.0 if t[n] == 1 else float(cosine > margin))
        grads[0][n] = slope * (b / math.sqrt(aa * bb) - cosine * a / aa)
        grads[1][n] = slope * (a / math.sqrt(aa * bb) - cosine * b / bb)
    return grads


def _cosine(a: Array, b: Array) -> float:
    return _dot(a, b) / math.sqrt((_dot(a, a) + 1e-12) * (_dot(b, b) + 1e-12))


def _dot(a: Array, b: Array) -> float:
    return sum(float(i) * float(j) for i, j in zip(a, b, strict=True))


def triplet_margin_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Array:
    """Compute max(0, margin + |anchor - positive + eps| - |anchor - negative + eps|) for rows, with p-norms.

    With `swap` the last is the smaller of it and |positive - negative + eps|.
    """
    losses = []
    for a, b, c in zip(anchor, positive, negative, strict=True):
        near, far, swapped = (_norm(u - v + eps, p) for u, v in ((a, b), (a, c), (b, c)))
        losses.append(max(0.0, margin + near - (min(far, swapped) if swap else far)))
    return loops.reduce(np.array(losses), reduction)


def triplet_margin_loss_backward(
    anchor: Array,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
    g: Array | float = 1.0,
) -> tuple[Array, ...]:
    """Return the gradients for all three: where the loss is above 0, those of its lengths."""
    rows = anchor, positive, negative
    g, grads = loops.reduce_backward(g, anchor.shape[:1], reduction), tuple(map(np.zeros_like, rows))
    for n in range(len(anchor)):
        norms = {(i, j): _norm(rows[i][n] - rows[j][n] + eps, p) for i, j in ((0, 1), (0, 2), (1, 2))}
        other = (1, 2) if swap and norms[1, 2] < norms[0, 2] else (0, 2)
        if margin + norms[0, 1] > norms[other]:
            for (i, j), sign in (((0, 1), 1.0), (other, -1.0)):
                d = rows[i][n] - rows[j][n] + eps
                pull = sign * g[n] * np.sign(d) * (abs(d) / norms[i, j]) ** (p - 1)
                grads[i][n] += pull
                grads[j][n] -= pull
    return grads


def _norm(d: Array, p: float) -> float:
    return float(sum(abs(float(v)) ** p for v in d) ** (1 / p))


def binary_cross_entropy(x: Array, t: Array, w: Array | None = None, reduction: str = "mean") -> Array:
    """Compute -w * (t * log(x) + (1 - t) * log(1 - x)), with logarithms clamped to -100."""
    losses = loops.each(lambda x, t: -(t * _log(x) + (1 - t) * _log(1 - x)), x, t)
    return loops.reduce(losses * _spread(w, x), reduction)


def binary_cross_entropy_backward(
    x: Array, t: Array, w: Array | None = None, reduction: str = "mean", g: Array | float = 1.0
) -> tuple[Array, Array]:
    """Return the gradients for x and t.

    g * w * (x - t) / (x * (1 - x)) and g * w * (log(1 - x) - log(x)), with logarithms clamped to -100 and
    x * (1 - x) to 1e-12.
    """
    g = loops.reduce_backward(g, x.shape, reduction) * _spread(w, x)
    dx = loops.each(lambda x, t, g: g * (x - t) / max(x * (1 - x), 1e-12), x, t, g)
    dt = loops.each(lambda x, g: g * (_log(1 - x) - _log(x)), x, g)
    return dx, dt


def _log(v: float) -> float:
    return max(math.log(v), -100.0) if v > 0 else -100.0


def binary_cross_entropy_with_logits(
    x: Array, t: Array, w: Array | None = None, pos_weight: Array | None = None, reduction: str = "mean"
) -> Array:
    """Compute -w * (p * t * log sigmoid(x) + (1 - t) * log sigmoid(-x)), where p = pos_weight."""

    def loss(x: float, t: float, p: float) -> float:
        return -(p * t * _log_sigmoid(x) + (1 - t) * _log_sigmoid(-x))

    return loops.reduce(loops.each(loss, x, t, _spread(pos_weight, x)) * _spread(w, x), reduction)


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

    def slope(x: float, t: float, p: float) -> float:
        return (1 - t) * math.exp(_log_sigmoid(x)) - p * t * math.exp(_log_sigmoid(-x))

    p = _spread(pos_weight, x)
    g = loops.reduce_backward(g, x.shape, reduction) * _spread(w, x)
    dt = g * loops.each(lambda x, p: _log_sigmoid(-x) - p * _log_sigmoid(x), x, p)
    return g * loops.each(slope, x, t, p), dt


def _log_sigmoid(v: float) -> float:
    """-log(1 + exp(-v)), without an exp that overflows."""
    return min(v, 0.0) - math.log1p(math.exp(-abs(v)))


def _spread(w: Array | None, x: Array) -> Array:
    """`w`, or 1, for every entry of x."""
    return np.broadcast_to(1.0 if w is None else w, x.shape)

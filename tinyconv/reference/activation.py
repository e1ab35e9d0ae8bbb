"""Activations: a scalar function of each entry and its derivative; softmax over each row."""

import math

import numpy as np

from tinyconv.arrays import Array
from tinyconv.reference import loops


def relu(x: Array) -> Array:
    """Return x where it is positive, else 0."""
    return loops.each(lambda v: max(v, 0), x)


def relu_backward(g: Array, x: Array) -> Array:
    """Return g where x is positive, else 0."""
    return loops.each(lambda g, v: g if v > 0 else 0, g, x)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """Return x where it is positive, else negative_slope * x."""
    return loops.each(lambda v: v if v > 0 else negative_slope * v, x)


def leaky_relu_backward(g: Array, x: Array, negative_slope: float = 0.01) -> Array:
    """Return g where x is positive, else negative_slope * g."""
    return g * loops.each(lambda v: 1 if v > 0 else negative_slope, x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Return x where it is positive, else alpha * (exp(x) - 1)."""
    return loops.each(lambda v: v if v > 0 else alpha * math.expm1(v), x)


def elu_backward(g: Array, x: Array, alpha: float = 1.0) -> Array:
    """Return g where x is positive, else g * alpha * exp(x)."""
    return g * loops.each(lambda v: 1 if v > 0 else alpha * math.exp(v), x)


def gelu(x: Array, approximate: str = "none") -> Array:
    """Compute x * P(normal variable < x) = x * (1 + erf(x / sqrt(2))) / 2.

    With "tanh" it is x * (1 + tanh(u)) / 2, where u = sqrt(2 / pi) * (x + 0.044715 * x^3).
    """
    if approximate == "tanh":
        return loops.each(lambda v: v * (1 + math.tanh(_gelu_u(v))) / 2, x)
    return loops.each(lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2, x)


def gelu_backward(g: Array, x: Array, approximate: str = "none") -> Array:
    """Use the product rule: the factor of x, plus x times the factor's derivative."""

    def exact(v: float) -> float:
        density = math.exp(-v * v / 2) / math.sqrt(2 * math.pi)
        return (1 + math.erf(v / math.sqrt(2))) / 2 + v * density

    def with_tanh(v: float) -> float:
        t = math.tanh(_gelu_u(v))
        du = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * v**2)
        return (1 + t) / 2 + v * (1 - t * t) * du / 2

    return g * loops.each(with_tanh if approximate == "tanh" else exact, x)


def _gelu_u(v: float) -> float:
    return math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)


def _logistic(v: float) -> float:
    """1 / (1 + exp(-v)), without an exp that overflows."""
    return 1 / (1 + math.exp(-v)) if v > 0 else math.exp(v) / (1 + math.exp(v))


def sigmoid(x: Array) -> Array:
    """Compute 1 / (1 + exp(-x))."""
    return loops.each(_logistic, x)


def sigmoid_backward(g: Array, x: Array) -> Array:
    """Compute g * sigmoid(x) * sigmoid(-x)."""
    return g * loops.each(lambda v: _logistic(v) * _logistic(-v), x)


def tanh(x: Array) -> Array:
    """Compute (exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    return loops.each(math.tanh, x)


def tanh_backward(g: Array, x: Array) -> Array:
    """Compute g * (1 - tanh(x)^2)."""
    return g * loops.each(lambda v: 1 - math.tanh(v) ** 2, x)


def silu(x: Array) -> Array:
    """Compute x * sigmoid(x)."""
    return loops.each(lambda v: v * _logistic(v), x)


def silu_backward(g: Array, x: Array) -> Array:
    """Compute g * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x))."""
    return g * loops.each(lambda v: _logistic(v) + v * _logistic(v) * _logistic(-v), x)


def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Compute log(1 + exp(beta * x)) / beta, or x where beta * x > threshold."""
    return loops.each(lambda v: v if beta * v > threshold else math.log1p(math.exp(beta * v)) / beta, x)


def softplus_backward(g: Array, x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Compute g * sigmoid(beta * x), or g where beta * x > threshold."""
    return g * loops.each(lambda v: 1 if beta * v > threshold else _logistic(beta * v), x)


def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """Return x within [min_val, max_val], else the nearer of both."""
    return loops.each(lambda v: min(max(v, min_val), max_val), x)


def hardtanh_backward(g: Array, x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """Return g where min_val < x < max_val, else 0."""
    return g * loops.each(lambda v: min_val < v < max_val, x)


def relu6(x: Array) -> Array:
    """Return x within [0, 6], else the nearer of both."""
    return hardtanh(x, 0, 6)


def relu6_backward(g: Array, x: Array) -> Array:
    """Return g where 0 < x < 6, else 0."""
    return hardtanh_backward(g, x, 0, 6)


def hardsigmoid(x: Array) -> Array:
    """Return (x + 3) / 6 where that is in [0, 1], else the nearer of both."""
    return hardtanh((x + 3) / 6, 0, 1)


def hardsigmoid_backward(g: Array, x: Array) -> Array:
    """Return g / 6 where -3 < x < 3, else 0."""
    return hardtanh_backward(g, x, -3, 3) / 6


def hardswish(x: Array) -> Array:
    """Compute x * hardsigmoid(x)."""
    return x * hardsigmoid(x)


def hardswish_backward(g: Array, x: Array) -> Array:
    """Use the product rule from -3 to 3; the slope is 0 up to -3, and 1 from 3 on."""
    return g * loops.each(lambda v: v >= 3 if abs(v) >= 3 else (v + 3) / 6 + v / 6, x)


def selu(x: Array) -> Array:
    """Compute scale * elu(x, alpha) with the two constants of the paper."""
    return _SELU[0] * elu(x, _SELU[1])


def selu_backward(g: Array, x: Array) -> Array:
    """Compute scale times the gradient of elu."""
    return _SELU[0] * elu_backward(g, x, _SELU[1])


_SELU = 1.0507009873554805, 1.6732632423543772


def mish(x: Array) -> Array:
    """Compute x * tanh(log(1 + exp(x)))."""
    return x * loops.each(math.tanh, softplus(x, 1.0, math.inf))


def mish_backward(g: Array, x: Array) -> Array:
    """Use the product rule, and the chain rule for the factor of x."""

    def slope(v: float) -> float:
        t = math.tanh(math.log1p(math.exp(v)))
        return t + v * (1 - t * t) * _logistic(v)

    return g * loops.each(slope, x)


def prelu(x: Array, w: Array) -> Array:
    """Return x where it is positive, else its channel's w * x; one w is for all channels."""
    y = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        y[i] = x[i] if x[i] > 0 else w[i[1] % len(w)] * x[i]
    return y


def prelu_backward(g: Array, x: Array, w: Array) -> tuple[Array, Array]:
    """Return g or w * g; and for each w the sum of g * x where x is not positive."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in np.ndindex(x.shape):
        dx[i] = g[i] if x[i] > 0 else w[i[1] % len(w)] * g[i]
        dw[i[1] % len(w)] += 0 if x[i] > 0 else g[i] * x[i]
    return dx, dw


def softmax(x: Array, dim: int = -1) -> Array:
    """Compute exp(x) / sum of exp(x), for each row along `dim`."""
    return loops.each_row(_softmax_row, dim, x)


def softmax_backward(g: Array, x: Array, dim: int = -1) -> Array:
    """Compute dx_i = sum over k of g_k * y_k * ((k == i) - y_i), where y = softmax(x)."""

    def row_backward(g: Array, x: Array) -> Array:
        y, k = _softmax_row(x), np.arange(len(x))
        return np.array([sum(g * y * ((k == i) - y[i])) for i in k])

    return loops.each_row(row_backward, dim, g, x)


def log_softmax(x: Array, dim: int = -1) -> Array:
    """Compute x - log(sum of exp(x)), for each row along `dim`."""

    def of_row(x: Array) -> Array:
        largest = max(x)
        return np.array(x - largest - math.log(sum(math.exp(v - largest) for v in x)))

    return loops.each_row(of_row, dim, x)


def log_softmax_backward(g: Array, x: Array, dim: int = -1) -> Array:
    """Compute dx_i = sum over k of g_k * ((k == i) - y_i), where y = softmax(x)."""

    def row_backward(g: Array, x: Array) -> Array:
        y, k = _softmax_row(x), np.arange(len(x))
        return np.array([sum(g * ((k == i) - y[i])) for i in k])

    return loops.each_row(row_backward, dim, g, x)


def _softmax_row(row: Array) -> Array:
    """exp(row) / sum of exp(row), for one row."""
    largest = max(row)
    powers = np.array([math.exp(value - largest) for value in row])
    powers /= sum(powers)
    return powers

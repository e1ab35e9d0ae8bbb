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

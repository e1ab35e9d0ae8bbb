"""Layers as users write them: with children and arrays by attribute, rules of shapes left to a dry run."""

from collections.abc import Mapping

import numpy as np

import tinyconv as tc
from tinyconv.arrays import Array


class Scale(tc.Layer):
    """factor * x, with one factor."""

    def __init__(self, factor: float = 1.0, *, dtype: type = np.float32) -> None:
        super().__init__()
        self.factor = tc.Parameter(np.asarray(factor, dtype))

    def forward(self, x: Array) -> Array:
        return self.save(x * self.factor, x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        self.grads["factor"] += (grad_output * x).sum()
        result: Array = grad_output * self.factor
        return result

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        (factor_dot,) = self.tangents_of(params_dot, "factor")
        moved = 0.0 if factor_dot is None else factor_dot
        return self.save_tangents(x_dot * self.factor + x * moved, x_dot, moved)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot, factor_dot), grad_output = self.saved_tangents(grad_output_dot)
        self.add_grad_dot("factor", (grad_output_dot * x + grad_output * x_dot).sum())
        result: Array = grad_output_dot * self.factor + grad_output * factor_dot
        return result


class Block(tc.Layer):
    """scale(x) + convolution(x), then batch norm and an activation: children by attribute, two paths."""

    def __init__(self, channels: int, *, dtype: type = np.float32) -> None:
        super().__init__()
        self.channels = channels
        self.conv = tc.Conv2d(channels, channels, 3, padding=1, bias=False, dtype=dtype, generator=0)
        self.scale = Scale(0.5, dtype=dtype)
        self.after = tc.Sequential(tc.BatchNorm2d(channels, dtype=dtype), tc.SiLU())

    def forward(self, x: Array) -> Array:
        output: Array = self.after(self.conv(x) + self.scale(x))
        return output

    def backward(self, grad_output: Array) -> Array:
        grad = self.after.backward(grad_output)
        result: Array = self.conv.backward(grad) + self.scale.backward(grad)
        return result

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        dots = self.tangents_by_child(params_dot)
        sums = self.conv.jvp(x_dot, dots["conv"]) + self.scale.jvp(x_dot, dots["scale"])
        output_dot: Array = self.after.jvp(sums, dots["after"])
        return output_dot

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        grad_dot = self.after.backward_jvp(grad_output_dot)
        result: Array = self.conv.backward_jvp(grad_dot) + self.scale.backward_jvp(grad_dot)
        return result

"""Linear."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyconv.functional as F
from tinyconv.arguments import Generator, integer
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array
from tinyconv.layers.affine import Affine
from tinyconv.layers.attributes import Parameter
from tinyconv.layers.initialization import fan_in_uniform

__all__ = ["Linear"]


class Linear(Affine):
    """Compute x @ weight.T + bias on the last dimension of (..., in_features).

    Args:
        in_features, out_features: lengths of the last dimension of input and output.
        bias: whether to add a bias.
        dtype: float32 (default) or float64.
        generator: a numpy.random.Generator or seed that the parameters are drawn from.

    Parameters: weight (out_features, in_features) and bias (out_features,), uniform in
    +-1 / sqrt(in_features).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html

    >>> layer = Linear(2, 1)
    >>> layer.weight, layer.bias = [[3.0, 4.0]], [0.5]
    >>> layer(np.array([[1.0, 2.0]], np.float32)).tolist()
    [[11.5]]
    >>> layer.backward(np.array([[10.0]], np.float32)).tolist(), layer.grads["weight"].tolist()
    ([[30.0, 40.0]], [[10.0, 20.0]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: Generator = None,
    ) -> None:
        super().__init__()
        self.in_features = integer("in_features", in_features)
        self.out_features = integer("out_features", out_features)
        shape, generator = (self.out_features, self.in_features), as_generator(generator)
        self.weight = Parameter(fan_in_uniform(shape, in_features, dtype, generator))
        self.bias = Parameter(fan_in_uniform(shape[:1], in_features, dtype, generator)) if bias else None

    def product(self, x: Array, bias: Array | None) -> Array:
        return self.save(F.linear(x, self._params["weight"], bias), x)

    def product_backward(self, grad_output: Array, wants_input: bool = True) -> Any:
        (x,) = self.saved(grad_output)
        weight = self._params["weight"]
        if "weight" in self._grads:
            self._grads["weight"] += F.linear_weight(x, weight.shape, grad_output)
        return F.linear_input(x.shape, weight, grad_output) if wants_input else None

    def bias_gradient(self, grad_output: Array) -> Array:
        return F.linear_bias(grad_output)

    def as_batch(self, y: Array) -> Array:
        return y.reshape(-1, y.shape[-1])

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        weight_dot, bias_dot = self.tangents_of(params_dot, "weight", "bias")
        output_dot = F.linear(x_dot, self.weight, bias_dot)
        if weight_dot is not None:
            output_dot += F.linear(x, weight_dot)
        return self.save_tangents(output_dot, x_dot, weight_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot, weight_dot), grad_output = self.saved_tangents(grad_output_dot)
        weight = self.weight
        self.add_grad_dot("weight", F.linear_weight(x, weight.shape, grad_output_dot))
        self.add_grad_dot("weight", F.linear_weight(x_dot, weight.shape, grad_output))
        if self.bias is not None:
            self.add_grad_dot("bias", F.linear_bias(grad_output_dot))
        grad_dot = F.linear_input(x.shape, weight, grad_output_dot)
        return grad_dot if weight_dot is None else grad_dot + F.linear_input(x.shape, weight_dot, grad_output)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if not input_shape or input_shape[-1] != self.in_features:
            raise ValueError(
                f"`input` (of shape {tuple(input_shape)}) must have {self.in_features} features "
                "in its last dimension"
            )
        return *input_shape[:-1], self.out_features

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return int(np.prod(input_shape, dtype=int) * self.out_features)

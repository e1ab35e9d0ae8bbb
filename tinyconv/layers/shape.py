"""Flatten."""

import tinyconv.functional as F
from tinyconv.arguments import integer
from tinyconv.arrays import Array
from tinyconv.functional.shape import flatten_shape
from tinyconv.layers.layer import Layer


class Flatten(Layer):
    """Make one dimension of the dimensions `start_dim` to `end_dim`; by default all but the batch.

    Args:
        start_dim, end_dim: dimensions (both included), counted from the end where negative.

    Raises:
        TypeError: a dimension that is no integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Flatten.html
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = integer("start_dim", start_dim, minimum=-64)
        self.end_dim = integer("end_dim", end_dim, minimum=-64)

    def forward(self, x: Array) -> Array:
        return self.save(F.flatten(x, self.start_dim, self.end_dim), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        return F.flatten_backward(grad_output, x, self.start_dim, self.end_dim)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return flatten_shape(tuple(input_shape), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"

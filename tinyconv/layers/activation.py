"""ReLU."""

import tinyconv.functional as F
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer


class ReLU(Layer):
    """max(x, 0), elementwise.

    Args:
        inplace: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Array) -> Array:
        output = F.relu(x)
        return self.save(output, output)  # has the signs of x, and the next layer keeps it anyway

    def backward(self, grad_output: Array) -> Array:
        (output,) = self.saved(grad_output)
        return F.relu_backward(grad_output, output)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)

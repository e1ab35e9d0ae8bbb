"""MaxPool2d."""

import tinyconv.functional as F
from tinyconv.arguments import IntOrPair
from tinyconv.arrays import Array
from tinyconv.functional.pool import pool_geometry, pool_window
from tinyconv.layers.layer import Layer


class MaxPool2d(Layer):
    """Maximum over windows of (N, C, H, W) or (C, H, W) images; see `functional.max_pool2d`.

    Args:
        kernel_size, padding, dilation: an int, or a pair for height and width.
        stride: the same; default `kernel_size`.
        ceil_mode: round the output's size up.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self._geometry = (kernel_size, stride, padding, dilation, ceil_mode)
        pool_window(kernel_size, stride, padding, dilation)

    def forward(self, x: Array) -> Array:
        if not self._keeps_caches:
            return F.max_pool2d(x, *self._geometry)
        output, winners = F.max_pool2d_saved(x, *self._geometry)
        return self.save(output, winners, x.shape)

    def backward(self, grad_output: Array) -> Array:
        winners, input_size = self.saved(grad_output)
        return F.max_pool2d_saved_backward(grad_output, winners, input_size, *self._geometry)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        _, size = pool_geometry(tuple(input_shape), *self._geometry)
        return *input_shape[:-2], *size

    def extra_repr(self) -> str:
        return "kernel_size={}, stride={}, padding={}, dilation={}, ceil_mode={}".format(*self._geometry)

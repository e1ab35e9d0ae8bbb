"""Unfold and Fold."""

import tinyconv.functional as F
from tinyconv.arguments import IntOrPair, pair
from tinyconv.arrays import Array
from tinyconv.functional.conv.unfold import Window, fold_output_shape
from tinyconv.layers.layer import LinearMap


class Unfold(LinearMap):
    """(N, C, H, W) images to (N, C * KH * KW, L) columns; see `functional.unfold`.

    Args:
        kernel_size, dilation, padding, stride: an int, or a pair for height and width.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        dilation: IntOrPair = 1,
        padding: IntOrPair = 0,
        stride: IntOrPair = 1,
    ) -> None:
        super().__init__()
        self._window = Window.of(kernel_size, stride, padding, dilation)
        self._geometry = (kernel_size, dilation, padding, stride)

    def map(self, x: Array) -> Array:
        return F.unfold(x, *self._geometry)

    def map_backward(self, grad_output: Array, x: Array) -> Array:
        return F.unfold_backward(grad_output, x, *self._geometry)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) not in (3, 4):
            raise ValueError(f"`input` (of shape {input_shape}) must have the form (N, C, H, W) or (C, H, W)")
        *batch, channels, height, width = input_shape
        oh, ow = self._window.output_size((height, width))
        return *batch, self._window.rows(channels), oh * ow

    def extra_repr(self) -> str:
        return "kernel_size={}, dilation={}, padding={}, stride={}".format(*self._geometry)


class Fold(LinearMap):
    """(N, C * KH * KW, L) columns, added up to (N, C, H, W) images; see `functional.fold`.

    Args:
        output_size: (H, W).
        kernel_size, dilation, padding, stride: an int, or a pair for height and width.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Fold.html
    """

    def __init__(
        self,
        output_size: IntOrPair,
        kernel_size: IntOrPair,
        dilation: IntOrPair = 1,
        padding: IntOrPair = 0,
        stride: IntOrPair = 1,
    ) -> None:
        super().__init__()
        self.output_size = pair("output_size", output_size)
        self._window = Window.of(kernel_size, stride, padding, dilation)
        self._geometry = (kernel_size, dilation, padding, stride)

    def map(self, x: Array) -> Array:
        return F.fold(x, self.output_size, *self._geometry)

    def map_backward(self, grad_output: Array, x: Array) -> Array:
        return F.fold_backward(grad_output, x, self.output_size, *self._geometry)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return fold_output_shape(tuple(input_shape), self.output_size, self._window)

    def extra_repr(self) -> str:
        return "output_size={}, kernel_size={}, dilation={}, padding={}, stride={}".format(
            self.output_size, *self._geometry
        )

"""Unfold and Fold."""

import tinyconv.functional as F
from tinyconv.arguments import IntOrPair, Pair, pair
from tinyconv.arrays import Array
from tinyconv.functional.conv.unfold import fold_shape, unfold_shape
from tinyconv.layers.linear_map import LinearMap

__all__ = ["Fold", "Unfold"]


class Unfold(LinearMap):
    """Copy windows of (N, C, H, W) images to (N, C * KH * KW, L) columns; see `functional.unfold`.

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
        self.kernel_size, self.dilation = pair("kernel_size", kernel_size), pair("dilation", dilation)
        self.padding, self.stride = pair("padding", padding, minimum=0), pair("stride", stride)

    @property
    def _geometry(self) -> tuple[Pair, ...]:
        return self.kernel_size, self.dilation, self.padding, self.stride

    def map(self, x: Array) -> Array:
        return F.unfold(x, *self._geometry)

    def map_backward(self, grad_output: Array, x: Array) -> Array:
        return F.unfold_backward(grad_output, x, *self._geometry)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return unfold_shape(tuple(input_shape), *self._geometry)


class Fold(LinearMap):
    """Add (N, C * KH * KW, L) columns up to (N, C, H, W) images; see `functional.fold`.

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
        self.kernel_size, self.dilation = pair("kernel_size", kernel_size), pair("dilation", dilation)
        self.padding, self.stride = pair("padding", padding, minimum=0), pair("stride", stride)

    @property
    def _geometry(self) -> tuple[Pair, ...]:
        return self.output_size, self.kernel_size, self.dilation, self.padding, self.stride

    def map(self, x: Array) -> Array:
        return F.fold(x, *self._geometry)

    def map_backward(self, grad_output: Array, x: Array) -> Array:
        return F.fold_backward(grad_output, x, *self._geometry)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return fold_shape(tuple(input_shape), *self._geometry)

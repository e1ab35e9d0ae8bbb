"""Unfold and Fold."""

import tinyconv.functional as F
from tinyconv.arguments import IntOrPair, pair
from tinyconv.functional.conv.unfold import fold_shape, unfold_shape
from tinyconv.layers.function import LinearMap

__all__ = ["Fold", "Unfold"]


class Unfold(LinearMap, function=F.unfold, options=("kernel_size", "dilation", "padding", "stride")):
    """Copy windows of (N, C, H, W) images to (N, C * KH * KW, L) columns; see `functional.unfold`.

    Args:
        kernel_size, dilation, padding, stride: an int, or a pair for height and width.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html

    >>> import numpy as np
    >>> layer = Unfold(kernel_size=2, padding=(0, 1), stride=2)
    >>> layer(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]))  # a column for each of two windows
    array([[[0., 2.],
            [1., 0.],
            [0., 4.],
            [3., 0.]]])
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

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return unfold_shape(tuple(input_shape), *self._options.values())


class Fold(
    LinearMap, function=F.fold, options=("output_size", "kernel_size", "dilation", "padding", "stride")
):
    """Add (N, C * KH * KW, L) columns up to (N, C, H, W) images; see `functional.fold`.

    Args:
        output_size: (H, W).
        kernel_size, dilation, padding, stride: an int, or a pair for height and width.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Fold.html

    >>> import numpy as np
    >>> columns = np.array([[[1.0, 2.0], [3.0, 4.0]]])  # a column for each of two windows
    >>> Fold(output_size=(1, 3), kernel_size=(1, 2))(columns)
    array([[[[1., 5., 4.]]]])
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

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return fold_shape(tuple(input_shape), *self._options.values())

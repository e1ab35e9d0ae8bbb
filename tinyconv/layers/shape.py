"""Flatten, Identity, Unflatten, Upsample, PixelShuffle and PixelUnshuffle."""

from collections.abc import Mapping, Sequence
from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import boolean, check_arrays, integer, integers, one_of
from tinyconv.arrays import Array
from tinyconv.functional.interpolate import MODES, interpolate_taps
from tinyconv.functional.shape import flatten_shape, unflatten_shape
from tinyconv.layers.function import LinearMap
from tinyconv.layers.layer import Layer

__all__ = ["Flatten", "Identity", "PixelShuffle", "PixelUnshuffle", "Unflatten", "Upsample"]


class Flatten(LinearMap, function=F.flatten, options=("start_dim", "end_dim")):
    """Merge the dimensions `start_dim` to `end_dim` into one; by default all but the batch.

    Args:
        start_dim, end_dim: dimensions (both included), counted from the end if negative.

    Raises:
        TypeError: a dimension that is not an integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Flatten.html

    >>> import numpy as np
    >>> x = np.zeros((2, 3, 4, 5))
    >>> Flatten()(x).shape, Flatten(2)(x).shape, Flatten(end_dim=2)(x).shape
    ((2, 60), (2, 3, 20), (2, 12, 5))
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = integer("start_dim", start_dim, minimum=-64)
        self.end_dim = integer("end_dim", end_dim, minimum=-64)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return flatten_shape(tuple(input_shape), self.start_dim, self.end_dim)


class Identity(Layer):
    """Return the input.

    Args:
        args, kwargs: accepted for PyTorch's signature and ignored.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Identity.html

    >>> import numpy as np
    >>> Identity(54, unused=True)(np.array([1.0, -2.0]))
    array([ 1., -2.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Array) -> Array:
        check_arrays(x=x)
        return self.save(x)

    def backward(self, grad_output: Array) -> Array:
        self.saved(grad_output)
        return grad_output

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        self.kept()
        self.tangents_of(params_dot)
        return self.save_tangents(x_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        self.saved_tangents(grad_output_dot)
        return grad_output_dot

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


class Unflatten(LinearMap, function=F.unflatten, options=("dim", "unflattened_size")):
    """Split the dimension `dim` into several: the inverse of Flatten.

    Args:
        dim: the dimension, counted from the end if negative.
        unflattened_size: lengths of the new dimensions, whose product is that of `dim`; one may be -1.

    Raises:
        TypeError: an argument of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unflatten.html

    >>> import numpy as np
    >>> Unflatten(1, (2, -1))(np.arange(6.0).reshape(1, 6))
    array([[[0., 1., 2.],
            [3., 4., 5.]]])
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = integer("dim", dim, minimum=-64)
        self.unflattened_size = tuple(integers("unflattened_size", unflattened_size, minimum=-1))

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return unflatten_shape(tuple(input_shape), self.dim, self.unflattened_size)


class Upsample(LinearMap, function=F.interpolate, options=("size", "scale_factor", "mode", "align_corners")):
    """Resize images to the nearest position, or linearly; see `functional.interpolate`.

    The input is (N, C, L), (N, C, H, W) or (N, C, D, H, W).

    Args:
        size: the output's lengths, an int for all spatial dimensions or one for each.
        scale_factor: instead of `size`, factors of the lengths; the results are rounded down.
        mode: "nearest", "nearest-exact", or by the number of dimensions "linear", "bilinear" or "trilinear".
        align_corners: of linear modes, whether the outermost positions fall on each other; default False.

    Raises:
        ValueError: another `mode`, or not exactly one of `size` and
            `scale_factor`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Upsample.html

    >>> import numpy as np
    >>> x = np.array([[[0.0, 3.0]]])
    >>> Upsample(scale_factor=2)(x), Upsample(4, mode="linear", align_corners=True)(x)
    (array([[[0., 0., 3., 3.]]]), array([[[0., 1., 2., 3.]]]))
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        self.size, self.scale_factor, self.mode = size, scale_factor, one_of("mode", mode, MODES)
        self.align_corners = (
            align_corners if align_corners is None else boolean("align_corners", align_corners)
        )
        if (size is None) == (scale_factor is None):
            raise ValueError(f"one of `size` (={size}) and `scale_factor` (={scale_factor}) must be given")

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        axes = interpolate_taps(tuple(input_shape), *self._options.values())
        return *input_shape[:2], *(len(taps[0][0]) for taps in axes)


class PixelShuffle(LinearMap, function=F.pixel_shuffle, options=("upscale_factor",)):
    """Put channels into rows of pixels, (..., C * r * r, H, W) to (..., C, H * r, W * r).

    Args:
        upscale_factor: r; see `functional.pixel_shuffle`.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PixelShuffle.html

    >>> import numpy as np
    >>> PixelShuffle(2)(np.arange(8.0).reshape(4, 1, 2))
    array([[[0., 2., 1., 3.],
            [4., 6., 5., 7.]]])
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = integer("upscale_factor", upscale_factor)


class PixelUnshuffle(LinearMap, function=F.pixel_unshuffle, options=("downscale_factor",)):
    """Put rows of pixels into channels, (..., C, H * r, W * r) to (..., C * r * r, H, W).

    Args:
        downscale_factor: r; see `functional.pixel_unshuffle`.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PixelUnshuffle.html

    >>> import numpy as np
    >>> PixelUnshuffle(2)(np.arange(4.0).reshape(1, 2, 2)).tolist()
    [[[0.0]], [[1.0]], [[2.0]], [[3.0]]]
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = integer("downscale_factor", downscale_factor)

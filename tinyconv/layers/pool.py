"""MaxPool2d, MaxUnpool2d, AvgPool2d and AdaptiveAvgPool2d."""

from collections.abc import Mapping, Sequence
from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_shape, integer
from tinyconv.arrays import Array
from tinyconv.functional.pooling.avg_pool import OutputSize, adaptive_output_size
from tinyconv.functional.pooling.geometry import checked_geometry, pool_geometry, pool_options
from tinyconv.functional.pooling.max_pool import pooled, pooled_backward, pooled_positions
from tinyconv.functional.pooling.max_unpool import unpool_size
from tinyconv.layers.function import LinearMap
from tinyconv.layers.layer import Layer

__all__ = ["AdaptiveAvgPool2d", "AvgPool2d", "MaxPool2d", "MaxUnpool2d"]


class MaxPool2d(Layer):
    """Compute the maxima of windows of (N, C, H, W) or (C, H, W) images; see `functional.max_pool2d`.

    Args:
        kernel_size, padding, dilation: an int, or a pair for height and width.
        stride: the same; default `kernel_size`.
        return_indices: let forward return a pair of the output and the positions of the maxima, which
            `MaxUnpool2d` takes; such a layer cannot be part of a Sequential.
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
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        options = pool_options(kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride, self.padding, self.dilation = options
        self.return_indices, self.ceil_mode = bool(return_indices), bool(ceil_mode)

    @property
    def _window(self) -> tuple[Any, ...]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode

    def forward(self, x: Array) -> Any:  # an array, or with `return_indices` a pair
        if self._caches() is None and not self.return_indices:
            return F.max_pool2d(x, *self._window)
        check_arrays(input=x)
        geometry = checked_geometry(x.shape, *self._window)
        output, winners = pooled(x, geometry)
        self.save(output, winners, x.shape, geometry)
        if not self.return_indices:
            return output
        return output, pooled_positions(winners, geometry)

    def backward(self, grad_output: Array) -> Array:
        winners, _, geometry = self.saved(grad_output)
        return pooled_backward(grad_output, winners, geometry)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        winners, input_size, _ = self.kept()
        self.tangents_of(params_dot)
        check_shape("x_dot", x_dot, input_size, "of the input")
        return self.save_tangents(F.max_pool2d_saved_jvp(x_dot, winners, *self._window))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (winners, _, geometry), _, _ = self.saved_tangents(grad_output_dot)
        return pooled_backward(grad_output_dot, winners, geometry)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return *input_shape[:-2], *pool_geometry(input_shape, *self._window).output_size


class MaxUnpool2d(Layer):
    """Put values where a MaxPool2d with `return_indices` found them, and 0 elsewhere.

    Its forward takes the indices as a second argument, and optionally the output's size:
    `forward(x, indices, output_size=None)`; see `functional.max_unpool2d`.

    Args:
        kernel_size, padding: those of the pooling; an int, or a pair for height and width.
        stride: the same; default `kernel_size`.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool2d.html
    """

    def __init__(
        self, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, _ = pool_options(kernel_size, stride, padding)

    @property
    def _window(self) -> tuple[Pair, Pair, Pair]:
        return self.kernel_size, self.stride, self.padding

    def forward(  # type: ignore[override]  # one more argument: not for a Sequential
        self, x: Array, indices: Array, output_size: Sequence[int] | None = None
    ) -> Array:
        output = F.max_unpool2d(x, indices, *self._window, output_size)
        return self.save(output, x, indices, output_size)

    def backward(self, grad_output: Array) -> Array:
        x, indices, output_size = self.saved(grad_output)
        return F.max_unpool2d_backward(grad_output, x, indices, *self._window, output_size)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        _, indices, output_size = self.kept()
        self.tangents_of(params_dot)
        return self.save_tangents(F.max_unpool2d(x_dot, indices, *self._window, output_size))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x, indices, output_size), _, _ = self.saved_tangents(grad_output_dot)
        return F.max_unpool2d_backward(grad_output_dot, x, indices, *self._window, output_size)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return *input_shape[:-2], *unpool_size(tuple(input_shape), *self._window, None)


class AvgPool2d(
    LinearMap,
    function=F.avg_pool2d,
    options=("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
):
    """Compute the means of windows of (N, C, H, W) or (C, H, W) images; see `functional.avg_pool2d`.

    Args:
        kernel_size, padding: an int, or a pair for height and width.
        stride: the same; default `kernel_size`.
        ceil_mode: round the output's size up.
        count_include_pad: whether padding counts in the number that a sum is divided by.
        divisor_override: the number to divide every sum by.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, _ = pool_options(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)
        self.divisor_override = divisor_override
        if divisor_override is not None:
            self.divisor_override = integer("divisor_override", divisor_override, -(1 << 62))
            if self.divisor_override == 0:
                raise ValueError("`divisor_override` (=0) must not be 0")

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        window = self.kernel_size, self.stride, self.padding
        geometry = pool_geometry(input_shape, *window, 1, self.ceil_mode)
        return *input_shape[:-2], *geometry.output_size


class AdaptiveAvgPool2d(LinearMap, function=F.adaptive_avg_pool2d, options=("output_size",)):
    """Compute the means of OH x OW windows that cover an image; see `functional.adaptive_avg_pool2d`.

    Args:
        output_size: an int, or a pair (OH, OW); None means the input's length.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html
    """

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        adaptive_output_size((1, 1, 1), output_size)
        self.output_size = output_size

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return *input_shape[:-2], *adaptive_output_size(tuple(input_shape), self.output_size)

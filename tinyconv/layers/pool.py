"""MaxPool1d, MaxPool2d, MaxUnpool2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool2d and AdaptiveMaxPool2d."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tinyconv.functional as F
from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_kinds, check_ndim, check_shape, integer
from tinyconv.arrays import Array
from tinyconv.functional.one_row import with_row, without_row
from tinyconv.functional.pooling.adaptive_max_pool import added_at, values_at, winners
from tinyconv.functional.pooling.avg_pool import OutputSize, adaptive_output_size
from tinyconv.functional.pooling.geometry import checked_geometry, pool_geometry, pool_options
from tinyconv.functional.pooling.max_pool import pooled, pooled_backward, pooled_positions
from tinyconv.functional.pooling.max_unpool import unpool_size
from tinyconv.layers.function import LinearMap
from tinyconv.layers.layer import Layer

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxUnpool2d",
]


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

    >>> import numpy as np
    >>> layer = MaxPool2d(2, stride=1, dilation=2)  # a window reaches over three pixels
    >>> layer(np.arange(12.0).reshape(1, 3, 4))
    array([[[10., 11.]]])
    >>> layer.backward(np.array([[[5.0, 7.0]]]))
    array([[[0., 0., 0., 0.],
            [0., 0., 0., 0.],
            [0., 0., 5., 7.]]])
    """

    _sizes: Callable[..., tuple[tuple[int, ...], ...]] = staticmethod(pool_options)

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
        options = self._sizes(kernel_size, stride, padding, dilation)
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


def _row_options(*options: Any) -> tuple[tuple[int, ...], ...]:
    """The options of a pooling of sequences, checked, as tuples of one."""
    given = with_row(dict(zip(("kernel_size", "stride", "padding", "dilation"), options, strict=False)))
    return tuple(pair[1:] for pair in pool_options(*given.values()))


class MaxPool1d(MaxPool2d):
    """Compute the maxima of windows of (N, C, L) or (C, L) sequences; see `functional.max_pool1d`.

    Args:
        kernel_size, padding, dilation: an int or a sequence of one.
        stride: the same; default `kernel_size`.
        return_indices: let forward return a pair of the output and the positions of the maxima; such a layer
            cannot be part of a Sequential.
        ceil_mode: round the output's length up.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool1d.html

    >>> import numpy as np
    >>> x = np.array([[1.0, 3.0, 2.0]])
    >>> MaxPool1d(2)(x), MaxPool1d(2, ceil_mode=True)(x)
    (array([[3.]]), array([[3., 2.]]))
    """

    _sizes = staticmethod(_row_options)

    @property
    def _window(self) -> tuple[Any, ...]:
        *sizes, ceil_mode = super()._window
        return *(((least, *size)) for least, size in zip((1, 1, 0, 1), sizes, strict=True)), ceil_mode

    def forward(self, x: Array) -> Any:
        check_ndim("input", x, (2, 3), "(N, C, L) or (C, L)")
        return without_row(super().forward(x[..., None, :]))

    def backward(self, grad_output: Array) -> Array:
        check_kinds(grad_output=grad_output)
        return super().backward(grad_output[..., None, :])[..., 0, :]

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        check_kinds(x_dot=x_dot)
        return super().jvp(x_dot[..., None, :], params_dot)[..., 0, :]

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        check_kinds(grad_output_dot=grad_output_dot)
        return super().backward_jvp(grad_output_dot[..., None, :])[..., 0, :]

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        *leading, _, length = super().output_shape((*input_shape[:-1], 1, input_shape[-1]))
        return *leading, length


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

    >>> import numpy as np
    >>> from tinyconv import MaxPool2d
    >>> pooled, indices = MaxPool2d(2, return_indices=True)(np.array([[[1.0, 2.0], [4.0, 3.0]]]))
    >>> MaxUnpool2d(2)(pooled, indices)
    array([[[0., 0.],
            [4., 0.]]])
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

    >>> import numpy as np
    >>> x = np.arange(8.0).reshape(1, 2, 4)
    >>> AvgPool2d(2)(x), AvgPool2d(2, divisor_override=1)(x)
    (array([[[2.5, 4.5]]]), array([[[10., 18.]]]))
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


class AvgPool1d(
    LinearMap,
    function=F.avg_pool1d,
    options=("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
):
    """Compute the means of windows of (N, C, L) or (C, L) sequences; see `functional.avg_pool1d`.

    Args:
        kernel_size, padding: an int or a sequence of one.
        stride: the same; default `kernel_size`.
        ceil_mode: round the output's length up.
        count_include_pad: whether padding counts in the number that a sum is divided by.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool1d.html

    >>> import numpy as np
    >>> x = np.array([[4.0, 6.0]])
    >>> AvgPool1d(2, padding=1)(x), AvgPool1d(2, padding=1, count_include_pad=False)(x)
    (array([[2., 3.]]), array([[4., 6.]]))
    """

    def __init__(
        self,
        kernel_size: IntOrPair,
        stride: IntOrPair | None = None,
        padding: IntOrPair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, _ = _row_options(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = bool(ceil_mode), bool(count_include_pad)


class AdaptiveAvgPool2d(LinearMap, function=F.adaptive_avg_pool2d, options=("output_size",)):
    """Compute the means of OH x OW windows that cover an image; see `functional.adaptive_avg_pool2d`.

    Args:
        output_size: an int, or a pair (OH, OW); None means the input's length.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html

    >>> import numpy as np
    >>> AdaptiveAvgPool2d((1, None))(np.arange(6.0).reshape(1, 2, 3))  # the mean of each column
    array([[[1.5, 2.5, 3.5]]])
    """

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        adaptive_output_size((1, 1, 1), output_size)
        self.output_size = output_size

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return *input_shape[:-2], *adaptive_output_size(tuple(input_shape), self.output_size)


class AdaptiveMaxPool2d(Layer):
    """Compute the maxima of OH x OW windows that cover an image; see `functional.adaptive_max_pool2d`.

    Args:
        output_size: an int, or a pair (OH, OW); None means the input's length.
        return_indices: let forward return a pair of the output and the positions of the maxima; such a layer
            cannot be part of a Sequential.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool2d.html

    >>> import numpy as np
    >>> AdaptiveMaxPool2d(1, return_indices=True)(np.array([[[1.0, 5.0], [3.0, 2.0]]]))
    (array([[[5.]]]), array([[[1]]]))
    """

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__()
        adaptive_output_size((1, 1, 1), output_size)
        self.output_size, self.return_indices = output_size, bool(return_indices)

    def forward(self, x: Array) -> Any:  # an array, or with `return_indices` a pair
        check_arrays(input=x)
        found = winners(x, self.output_size)
        output = self.save(values_at(x, found), x.shape, found)
        return (output, found) if self.return_indices else output

    def backward(self, grad_output: Array) -> Array:
        input_size, found = self.saved(grad_output)
        return added_at(grad_output, found, input_size)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        input_size, found = self.kept()
        self.tangents_of(params_dot)
        check_shape("x_dot", x_dot, input_size, "of the input")
        return self.save_tangents(values_at(x_dot, found))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (input_size, found), _, _ = self.saved_tangents(grad_output_dot)
        return added_at(grad_output_dot, found, input_size)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return *input_shape[:-2], *adaptive_output_size(tuple(input_shape), self.output_size)

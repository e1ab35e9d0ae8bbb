"""Average pooling: the mean of each window, and adaptive pooling to a given output size."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_shape, given, integer
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.functional.conv.geometry import Geometry
from tinyconv.functional.pooling.geometry import (
    as_image,
    by_channels,
    check_pooled,
    from_image,
    pool_geometry,
)

__all__ = ["adaptive_avg_pool2d", "adaptive_avg_pool2d_backward", "avg_pool2d", "avg_pool2d_backward"]

OutputSize: TypeAlias = int | Sequence[int | None] | None


@underflow_allowed
def avg_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Compute the mean of each window of an image.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        kernel_size: an int, or a pair for height and width.
        stride: default `kernel_size`.
        padding: pixels of 0 around the image, at most half of `kernel_size`.
        ceil_mode: round the output's size up, so that a window may reach beyond the padded image
            (one that would start there is left out).
        count_include_pad: whether padding counts in the number that the sum is divided by; positions beyond
            the padded image never do.
        divisor_override: the number to divide every sum by.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), in the memory format (see `tinyconv.arrays.layout`), with
        OH = floor((H + 2 * padding - KH) / stride) + 1.

    Raises:
        ValueError: wrong number of dimensions, no channel or pixel, an argument out of range, an output
            size below 1, a `divisor_override` of 0.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool2d.html

    >>> import numpy as np
    >>> avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
    xp = check_arrays(input=input)
    geometry = pool_geometry(input.shape, kernel_size, stride, padding, 1, ceil_mode)
    divisors = _divisors(xp, geometry, count_include_pad, divisor_override).astype(input.dtype)
    image = as_image(input)
    means = xp.zeros((*geometry.output_size, *image.shape[2:]), input.dtype)

    def run(part: slice) -> None:
        own_means, own_image = means[:, :, part], image[:, :, part]
        for _, _, outputs, pixels in geometry.taps:
            own_means[outputs] += own_image[pixels]
        own_means /= divisors

    by_channels(run, image)
    return from_image(means, input.ndim)


@underflow_allowed
def avg_pool2d_backward(
    grad_output: Array,
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Add to each pixel its share of the gradient of every window that sees it.

    >>> import numpy as np
    >>> avg_pool2d_backward(np.array([[[4.0, 8.0]]]), np.zeros((1, 2, 4)), 2)
    array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]])
    """
    xp = check_arrays(input=input, grad_output=grad_output)
    geometry = pool_geometry(input.shape, kernel_size, stride, padding, 1, ceil_mode)
    check_shape("grad_output", grad_output, (*input.shape[:-2], *geometry.output_size), "of the output")
    divisors = _divisors(xp, geometry, count_include_pad, divisor_override)
    shares = as_image(grad_output) / divisors.astype(input.dtype)
    image = xp.zeros((*input.shape[-2:], *shares.shape[2:]), input.dtype)

    def run(part: slice) -> None:
        own_image, own_shares = image[:, :, part], shares[:, :, part]
        for _, _, outputs, pixels in geometry.taps:
            own_image[pixels] += own_shares[outputs]

    by_channels(run, image)
    return from_image(image, input.ndim)


@underflow_allowed
def adaptive_avg_pool2d(input: Array, output_size: OutputSize) -> Array:
    """Compute the means of OH x OW windows that cover an image.

    Window p covers the rows from floor(p * H / OH) up to, but not including, ceil((p + 1) * H / OH), so
    neighbours may share a row.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        output_size: an int, or a pair (OH, OW); None means the input's length.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), in the memory format (see `tinyconv.arrays.layout`).

    Raises:
        ValueError: wrong number of dimensions, no channel or pixel, a negative `output_size`.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool2d.html

    >>> import numpy as np
    >>> adaptive_avg_pool2d(np.arange(9.0).reshape(1, 3, 3), (1, 2))
    array([[[3.5, 4.5]]])
    """
    xp = check_arrays(input=input)
    size = adaptive_output_size(input.shape, output_size)
    image = as_image(input)
    height, width, *values = image.shape
    rows = xp.empty((size[0], width, *values), input.dtype)
    for p, (start, stop) in enumerate(bins(height, size[0])):
        rows[p] = image[start:stop].mean(axis=0)
    means = xp.empty((*size, *values), input.dtype)
    for q, (start, stop) in enumerate(bins(width, size[1])):
        means[:, q] = rows[:, start:stop].mean(axis=1)
    return from_image(means, input.ndim)


@underflow_allowed
def adaptive_avg_pool2d_backward(grad_output: Array, input: Array, output_size: OutputSize) -> Array:
    """Add to each pixel its share of the gradient of every window that sees it.

    >>> import numpy as np
    >>> adaptive_avg_pool2d_backward(np.array([[[6.0, 12.0]]]), np.zeros((1, 1, 3)), (1, 2))
    array([[[3., 9., 6.]]])
    """
    xp = check_arrays(input=input, grad_output=grad_output)
    size = adaptive_output_size(input.shape, output_size)
    check_shape("grad_output", grad_output, (*input.shape[:-2], *size), "of the output")
    grads = as_image(grad_output)
    values, (height, width) = grads.shape[2:], input.shape[-2:]
    rows = xp.zeros((size[0], width, *values), input.dtype)
    for q, (start, stop) in enumerate(bins(width, size[1])):
        rows[:, start:stop] += grads[:, q : q + 1] / (stop - start)
    image = xp.zeros((height, width, *values), input.dtype)
    for p, (start, stop) in enumerate(bins(height, size[0])):
        image[start:stop] += rows[p] / (stop - start)
    return from_image(image, input.ndim)


def adaptive_output_size(input_size: tuple[int, ...], output_size: OutputSize) -> Pair:
    """Return `output_size`, checked, as a pair, with None replaced by the input's length."""
    check_pooled(input_size)
    both = output_size if isinstance(output_size, Sequence) else (output_size, output_size)
    if len(both) != 2:
        raise ValueError(f"`output_size` ({given(output_size)}) must be an int or a pair of ints or None")
    height, width = (
        length if out is None else integer("output_size", out, minimum=0)
        for length, out in zip(input_size[-2:], both, strict=True)
    )
    return height, width


def bins(length: int, count: int) -> list[Pair]:
    """Return the start and the end of each of `count` windows over `length` positions."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _divisors(xp: Any, geometry: Geometry, count_include_pad: bool, divisor_override: int | None) -> Array:
    """What the sum of each window is divided by, (OH, OW, 1, 1)."""
    if divisor_override is not None:
        if integer("divisor_override", divisor_override, minimum=-(1 << 62)) == 0:
            raise ValueError("`divisor_override` (=0) must not be 0")
        override: Array = xp.full((1, 1, 1, 1), divisor_override)
        return override
    down, across = (_pixels(xp, geometry, axis, count_include_pad) for axis in (0, 1))
    counts: Array = (down[:, None] * across)[..., None, None]
    return counts


def _pixels(xp: Any, geometry: Geometry, axis: int, include_pad: bool) -> Array:
    """How many positions of an axis each window covers."""
    length, pad = geometry.input_shape[2 + axis], geometry.padding[axis][0]
    starts = xp.arange(geometry.output_size[axis]) * geometry.stride[axis] - pad
    ends = xp.minimum(starts + geometry.kernel_size[axis], length + pad)
    if not include_pad:
        starts, ends = xp.maximum(starts, 0), xp.minimum(ends, length)
    covered: Array = ends - starts
    return covered

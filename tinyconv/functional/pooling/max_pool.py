"""Pooling: the maximum of each window, and which tap of the window it came from.

Instead of positions in the image, forward keeps the number i * KW + j of the winning tap, one byte
an output. Backward walks over the same taps and gives each winner its gradient.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_shape
from tinyconv.arrays import (
    Array,
    array_module,
    batch_first,
    batch_last,
    constant,
    contiguous_batch_last,
    empty_batch_last,
    maybe,
    zero_where,
)
from tinyconv.functional.conv.unfold import Window

__all__ = [
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_saved",
    "max_pool2d_saved_backward",
    "max_pool2d_saved_jvp",
]

# The tap's number, the outputs where it lies inside the image, and the pixels that it sees there.
Tap: TypeAlias = tuple[int, tuple[slice, ...], tuple[slice, ...]]
UNPADDED = ((0, 0), (0, 0))


@overload
def max_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: Literal[False] = False,
) -> Array: ...


@overload
def max_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    *,
    return_indices: Literal[True],
) -> tuple[Array, Array]: ...


def max_pool2d(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """Maximum over each window of an image.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        kernel_size: an int, or a pair for height and width.
        stride: default `kernel_size`.
        padding: pixels of -inf around the image, at most half of `kernel_size`.
        dilation: distance between the taps of a window.
        ceil_mode: round the output's size up, so that a window may reach beyond the padded image
            (one that would start there is left out).
        return_indices: also return where each maximum lies.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), batch last in memory; with `return_indices` a pair of it and
        an int64 array of the same shape, positions in the unpadded H x W plane. Of equal maxima the
        first in row order counts; NaN counts as larger than any number.

    Raises:
        ValueError: wrong number of dimensions, an argument out of range, an output size below 1.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool2d.html

    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 5.,  7.],
            [13., 15.]]])
    """
    xp = check_arrays(input=input)
    window, size = pool_geometry(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    if return_indices:
        geometry = (kernel_size, stride, padding, dilation, ceil_mode)
        output, winners = max_pool2d_saved(input, *geometry)
        return output, max_pool2d_positions(winners, input.shape, *geometry)
    if input.ndim == 3:
        single: Array = max_pool2d(input[None], kernel_size, stride, padding, dilation, ceil_mode)[0]
        return single
    image = contiguous_batch_last(input)
    output, taps = _begin(image, window, size)
    for _, outputs, inputs in taps:
        best = output[outputs]
        xp.maximum(best, image[inputs], out=best)
    return batch_first(output)


def max_pool2d_backward(
    grad_output: Array,
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Gradient of `max_pool2d` by its input: each maximum's gradient goes to where it was found."""
    check_arrays(grad_output=grad_output, input=input)
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    _, winners = max_pool2d_saved(input, *geometry)
    return max_pool2d_saved_backward(grad_output, winners, input.shape, *geometry)


def max_pool2d_saved(
    input: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """`max_pool2d`, and the number i * KW + j of the tap that each maximum came from."""
    xp = check_arrays(input=input)
    window, size = pool_geometry(input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    if input.ndim == 3:
        geometry = (kernel_size, stride, padding, dilation, ceil_mode)
        output, winners = max_pool2d_saved(input[None], *geometry)
        return output[0], winners[0]
    image = contiguous_batch_last(input)
    output, taps = _begin(image, window, size)
    winners = xp.zeros(output.shape, xp.min_scalar_type(window.rows(1) - 1))
    if window.padding != UNPADDED:
        winners[...] = constant(_first_taps_inside(window, size), "int64", xp)[..., None]
    for tap, outputs, inputs in taps:
        best, winner = output[outputs], winners[outputs]
        larger = xp.maximum(best, image[inputs])
        # Taps come in rising order, so the larger number is that of the later, strictly greater value.
        xp.maximum(winner, (larger != best).view(np.uint8) * winners.dtype.type(tap), out=winner)
        if larger.shape == output.shape:
            output = larger
        else:
            best[...] = larger
    if output.size and maybe(xp.isnan(output.max())):
        for tap, outputs, inputs in pool_taps(window, image.shape[1:3], size):
            winner = winners[outputs]
            winner[...] = xp.where(xp.isnan(image[inputs]), winners.dtype.type(tap), winner)
    return batch_first(output), batch_first(winners)


def max_pool2d_positions(
    winners: Array,
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """The int64 positions, row * W + column in the unpadded plane, of `max_pool2d_saved`'s `winners`."""
    xp = array_module(winners)
    window, size = pool_geometry(input_size, kernel_size, stride, padding, dilation, ceil_mode)
    i, j = xp.divmod(winners.astype(xp.int64), window.kernel[1])
    rows = xp.arange(size[0])[:, None] * window.stride[0] - window.padding[0][0]
    cols = xp.arange(size[1]) * window.stride[1] - window.padding[1][0]
    positions: Any = (rows + i * window.dilation[0]) * input_size[-1] + cols + j * window.dilation[1]
    return positions  # type: ignore[no-any-return]


def max_pool2d_saved_backward(
    grad_output: Array,
    winners: Array,
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """`max_pool2d_backward` from the `winners` that `max_pool2d_saved` returned."""
    xp = check_arrays(grad_output=grad_output)
    check_shape("grad_output", grad_output, winners.shape, "of the output")
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    if len(input_size) == 3:
        batch = (1, *input_size)
        single: Array = max_pool2d_saved_backward(grad_output[None], winners[None], batch, *geometry)[0]
        return single
    window, size = pool_geometry(input_size, *geometry)
    grad_input = empty_batch_last(input_size, grad_output.dtype, xp)
    image, grads, winners = batch_last(grad_input), batch_last(grad_output), batch_last(winners)
    taps = pool_taps(window, input_size[2:], size)
    disjoint = all(
        d * (k - 1) < s for k, s, d in zip(window.kernel, window.stride, window.dilation, strict=True)
    )
    if not disjoint or sum(image[inputs].size for _, _, inputs in taps) < image.size:
        image[...] = 0
    for tap, outputs, inputs in taps:
        lost = winners[outputs] != tap
        if disjoint:
            zero_where(lost, grads[outputs], out=image[inputs])
        else:
            image[inputs] += zero_where(lost, grads[outputs])
    return grad_input


def max_pool2d_saved_jvp(
    input_dot: Array,
    winners: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Tangent of `max_pool2d`: that of the input where each maximum was found."""
    xp = check_arrays(input_dot=input_dot)
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    if input_dot.ndim == 3:
        single: Array = max_pool2d_saved_jvp(input_dot[None], winners[None], *geometry)[0]
        return single
    window, size = pool_geometry(input_dot.shape, *geometry)
    image, winners = contiguous_batch_last(input_dot), batch_last(winners)
    output_dot = xp.zeros(winners.shape, input_dot.dtype)
    for tap, outputs, inputs in pool_taps(window, image.shape[1:3], size):
        output_dot[outputs] += zero_where(winners[outputs] != tap, image[inputs])
    return batch_first(output_dot)


def pool_window(
    kernel_size: IntOrPair, stride: IntOrPair | None, padding: IntOrPair, dilation: IntOrPair
) -> Window:
    """The window of a pooling; its stride is by default its kernel size."""
    if stride is None or (isinstance(stride, Sequence) and not len(stride)):
        stride = kernel_size
    window = Window.of(kernel_size, stride, padding, dilation)
    if any(2 * p > k for (p, _), k in zip(window.padding, window.kernel, strict=True)):
        raise ValueError(f"`padding` (={padding}) must be at most half of `kernel_size` (={kernel_size})")
    return window


def pool_geometry(
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair | None,
    padding: IntOrPair,
    dilation: IntOrPair,
    ceil_mode: bool,
) -> tuple[Window, Pair]:
    """The window of a pooling and its output's (OH, OW); raises ValueError where they do not fit."""
    check_pooled(input_size)
    window = pool_window(kernel_size, stride, padding, dilation)
    pads = window.padding[0][0], window.padding[1][0]
    height, width = input_size[-2:]
    if not ceil_mode:
        return window, window.output_size((height, width))
    # As if the image were longer by stride - 1, less a window that would start beyond its end.
    down, across = ((p, p + s - 1) for p, s in zip(pads, window.stride, strict=True))
    roomy = window._replace(padding=(down, across)).output_size((height, width))
    oh, ow = (
        o - ((o - 1) * s >= length + p)
        for o, s, length, p in zip(roomy, window.stride, (height, width), pads, strict=True)
    )
    return window, (oh, ow)


def check_pooled(input_size: tuple[int, ...]) -> None:
    """Check that an input of a pooling is an image or a batch, and only the batch may be empty."""
    if len(input_size) not in (3, 4) or 0 in input_size[-3:]:
        raise ValueError(
            f"`input` (of shape {input_size}) must have the form (N, C, H, W) or (C, H, W), "
            "and hold channels and pixels"
        )


@lru_cache(maxsize=256)  # a small network spends longer on them than on the maxima
def pool_taps(window: Window, size: tuple[int, ...], output_size: Pair) -> tuple[Tap, ...]:
    """For each tap its number, the outputs (C, OH, OW, N) where it lies in the image, what it sees."""
    positions = slice(0, output_size[0]), slice(0, output_size[1])
    return tuple(
        (tap, (slice(None), *outputs), (slice(None), *pixels))
        for tap, (_, outputs, pixels) in enumerate(window.taps(size, *positions))
    )


def _begin(image: Array, window: Window, output_size: Pair) -> tuple[Array, tuple[Tap, ...]]:
    """The outputs (C, OH, OW, N) before the maxima are taken, and the taps to take them over."""
    xp = array_module(image)
    taps = pool_taps(window, image.shape[1:3], output_size)
    if window.padding == UNPADDED:  # the first tap lies inside the image everywhere
        return xp.array(image[taps[0][2]], order="C"), taps[1:]
    shape = (image.shape[0], *output_size, image.shape[3])
    return xp.full(shape, -xp.inf, image.dtype), taps


def _first_taps_inside(window: Window, output_size: Pair) -> tuple[tuple[int, ...], ...]:
    """For each output position the number of the first tap that does not lie in the padding."""
    down, across = (
        [max(0, -((o * s - before) // d)) for o in range(length)]
        for length, s, (before, _), d in zip(
            output_size, window.stride, window.padding, window.dilation, strict=True
        )
    )
    return tuple(tuple(i * window.kernel[1] + j for j in across) for i in down)

"""Sliding windows: unfold (im2col) and fold (col2im), the ground that convolution stands on.

A window of KH x KW taps moves over an image. The value that tap (i, j) sees when the window
stands at output position (p, q) is

    x[n, c, p * stride[0] + i * dilation[0] - padding[0], q * stride[1] + j * dilation[1] - padding[1]]

and zero outside the image. `unfold` writes these values into a matrix with a row for each (c, i, j)
and a column for each (p, q); `fold` adds a matrix of that form back onto the image. Each is linear,
and each is the transpose (hence the backward) of the other.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_ndim, check_shape, pair
from tinyconv.arrays import (
    Array,
    array_module,
    batch_first,
    batch_last,
    contiguous_batch_last,
    empty_batch_last,
    scratch,
)

__all__ = [
    "fold",
    "fold_backward",
    "unfold",
    "unfold_backward",
]

# A block of columns should stay in the cache between being built and being multiplied, and be large
# enough that the time goes into the arrays, not into Python.
BLOCK_BYTES = 4 << 20
# On a GPU each block costs two kernels, and only its memory bounds it.
GPU_BLOCK_BYTES = 1 << 30


class Window(NamedTuple):
    """Geometry of a sliding window: every field holds one entry for the height, one for the width.

    `padding` is ((top, bottom), (left, right)).
    """

    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair

    @classmethod
    def of(
        cls, kernel_size: IntOrPair, stride: IntOrPair, padding: IntOrPair, dilation: IntOrPair
    ) -> "Window":
        """Window from the arguments of an operation, checked."""
        top, left = pair("padding", padding, minimum=0)
        return cls(
            pair("kernel_size", kernel_size),
            pair("stride", stride),
            ((top, top), (left, left)),
            pair("dilation", dilation),
        )

    @property
    def reaches(self) -> Pair:
        """How far the last tap lies from the first, down and across."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1), dw * (kw - 1)

    def output_size(self, size: tuple[int, ...]) -> Pair:
        """Number of window positions over an image of `size` (H, W).

        floor((size + padding before and after - dilation * (kernel - 1) - 1) / stride) + 1

        Raises:
            ValueError: the window is larger than the padded image.
        """
        (top, bottom), (left, right) = self.padding
        height, width = size[0] + top + bottom, size[1] + left + right
        reach_down, reach_across = (reach + 1 for reach in self.reaches)
        if height < reach_down or width < reach_across:
            raise ValueError(
                f"`kernel_size` (={self.kernel}, with `dilation` {self.dilation} an extent of "
                f"{(reach_down, reach_across)}) must not be larger than the padded input "
                f"(={(height, width)})"
            )
        return (height - reach_down) // self.stride[0] + 1, (width - reach_across) // self.stride[1] + 1

    def rows(self, channels: int) -> int:
        """Rows of the column matrix: C * KH * KW."""
        return channels * self.kernel[0] * self.kernel[1]

    def taps(
        self, size: tuple[int, ...], rows: slice, cols: slice
    ) -> Iterator[tuple[Pair, tuple[slice, slice], tuple[slice, slice]]]:
        """For each tap (i, j) in row order, where it lies inside an unpadded image of `size` (H, W).

        Yields:
            The tap; of the output positions `rows` x `cols` those where it does, counted from the
            slices' starts; and the pixels that it sees there.
        """
        down = [self.inside(0, i, size[0], rows) for i in range(self.kernel[0])]
        across = [self.inside(1, j, size[1], cols) for j in range(self.kernel[1])]
        for i, (out_rows, in_rows) in enumerate(down):
            for j, (out_cols, in_cols) in enumerate(across):
                yield (i, j), (out_rows, out_cols), (in_rows, in_cols)

    def inside(self, axis: int, tap: int, size: int, positions: slice) -> tuple[slice, slice]:
        """Along one axis, the output `positions` where `tap` lies in the image, and the pixels it sees."""
        stride = self.stride[axis]
        offset = tap * self.dilation[axis] - self.padding[axis][0]
        first = max(positions.start, -(offset // stride))  # ceil(-offset / stride)
        last = min(positions.stop, (size - 1 - offset) // stride + 1)
        if last <= first:
            return slice(0, 0), slice(0, 0)
        outputs = slice(first - positions.start, last - positions.start)
        return outputs, slice(first * stride + offset, (last - 1) * stride + offset + 1, stride)


def unfold(
    input: Array,
    kernel_size: IntOrPair,
    dilation: IntOrPair = 1,
    padding: IntOrPair = 0,
    stride: IntOrPair = 1,
) -> Array:
    """Copy every window of an image into a column (im2col).

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        kernel_size, dilation, padding, stride: an int, or a pair for height and width.

    Returns:
        (N, C * KH * KW, L) or (C * KH * KW, L): row (c, i, j), column (p, q) holds what tap (i, j)
        sees of channel c at position (p, q); L is the number of positions, in row order.

    Raises:
        ValueError: wrong number of dimensions, an argument out of range, a window larger than the
            padded image.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.unfold.html

    >>> import numpy as np
    >>> unfold(np.arange(9.0).reshape(1, 3, 3), kernel_size=2)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    xp = check_arrays(input=input)
    check_ndim("input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    if 0 in input.shape[-3:]:
        raise ValueError(f"`input` (of shape {input.shape}) must hold channels and pixels")
    if input.ndim == 3:
        columns: Array = unfold(input[None], kernel_size, dilation, padding, stride)[0]
        return columns
    window = Window.of(kernel_size, stride, padding, dilation)
    n, c, *size = input.shape
    oh, ow = window.output_size(tuple(size))
    columns = xp.empty((c, *window.kernel, oh, ow, n), input.dtype)
    columns[...] = strided_windows(padded(input, window), window, (oh, ow))
    return batch_first(columns.reshape(window.rows(c), oh * ow, n))


def unfold_backward(
    grad_output: Array,
    input: Array,
    kernel_size: IntOrPair,
    dilation: IntOrPair = 1,
    padding: IntOrPair = 0,
    stride: IntOrPair = 1,
) -> Array:
    """Gradient of `unfold` by its input: `fold` of `grad_output` onto the shape of `input`."""
    check_arrays(grad_output=grad_output, input=input)
    window = Window.of(kernel_size, stride, padding, dilation)
    positions = math.prod(window.output_size(input.shape[-2:]))
    shape = (*input.shape[:-3], window.rows(input.shape[-3]), positions)
    check_shape("grad_output", grad_output, shape, "of the output")
    return fold(grad_output, input.shape[-2:], kernel_size, dilation, padding, stride)


def fold(
    input: Array,
    output_size: IntOrPair,
    kernel_size: IntOrPair,
    dilation: IntOrPair = 1,
    padding: IntOrPair = 0,
    stride: IntOrPair = 1,
) -> Array:
    """Add columns back onto the image that `unfold` would take them from (col2im).

    Args:
        input: (N, C * KH * KW, L) or (C * KH * KW, L), float32 or float64.
        output_size: the image's (H, W).
        kernel_size, dilation, padding, stride: an int, or a pair for height and width.

    Returns:
        (N, C, H, W) or (C, H, W): each pixel is the sum of all entries that `unfold` would copy it to.

    Raises:
        ValueError: wrong number of dimensions, an argument out of range, a number of rows that is no
            multiple of KH * KW, a number of columns that is not the number of window positions.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fold.html

    >>> import numpy as np
    >>> fold(np.ones((4, 4)), output_size=3, kernel_size=2)  # how many windows see each pixel
    array([[[1., 2., 1.],
            [2., 4., 2.],
            [1., 2., 1.]]])
    """
    check_arrays(input=input)
    if input.ndim == 2:
        image: Array = fold(input[None], output_size, kernel_size, dilation, padding, stride)[0]
        return image
    window = Window.of(kernel_size, stride, padding, dilation)
    size = pair("output_size", output_size)
    shape = fold_output_shape(input.shape, size, window)
    (oh, ow), n = window.output_size(size), shape[0]
    image = zeros_batch_last(shape, like=input)
    columns = batch_last(input).reshape(shape[1], *window.kernel, oh, ow, n)
    add_columns(batch_last(image), columns, window, slice(0, oh), slice(0, ow))
    return image


def fold_backward(
    grad_output: Array,
    input: Array,
    output_size: IntOrPair,
    kernel_size: IntOrPair,
    dilation: IntOrPair = 1,
    padding: IntOrPair = 0,
    stride: IntOrPair = 1,
) -> Array:
    """Gradient of `fold` by its input: `unfold` of `grad_output`."""
    check_arrays(grad_output=grad_output, input=input)
    window = Window.of(kernel_size, stride, padding, dilation)
    shape = fold_output_shape(input.shape, pair("output_size", output_size), window)
    check_shape("grad_output", grad_output, shape, "of the output")
    return unfold(grad_output, kernel_size, dilation, padding, stride)


def fold_output_shape(input_size: tuple[int, ...], output_size: Pair, window: Window) -> tuple[int, ...]:
    """Shape of the images that columns of `input_size` are folded to; ValueError if they do not fit."""
    if len(input_size) not in (2, 3):
        raise ValueError(
            f"`input` (of shape {input_size}) must have the form (N, C * KH * KW, L) or (C * KH * KW, L)"
        )
    *batch, rows, positions = input_size
    (oh, ow), taps = window.output_size(output_size), window.rows(1)
    if rows == 0 or rows % taps or positions != oh * ow:
        raise ValueError(
            f"`input` (of shape {input_size}) must have a multiple of KH * KW (={taps}) rows "
            f"and {oh * ow} columns for `output_size` {output_size}"
        )
    return *batch, rows // taps, *output_size


def zeros_batch_last(shape: tuple[int, ...], like: Array) -> Array:
    """Zeros of `shape` (N, ...), batch last in memory, with the dtype and device of `like`."""
    zeros = empty_batch_last(shape, like.dtype, array_module(like))
    zeros[...] = 0
    return zeros


def padded(x: Array, window: Window) -> Array:
    """`x`, (N, C, H, W), as (C, H + padding, W + padding, N), C-contiguous.

    Without padding the result may be a view of `x`, with padding it is a scratch buffer.
    """
    (top, bottom), (left, right) = window.padding
    if not (top or bottom or left or right):
        return contiguous_batch_last(x)
    n, c, h, w = x.shape
    image = scratch("padded", (c, h + top + bottom, w + left + right, n), x.dtype, array_module(x))
    if array_module(x) is not np:
        image.fill(0)  # one kernel instead of four
    else:
        image[:, :top] = image[:, top + h :] = 0
        image[:, top : top + h, :left] = image[:, top : top + h, left + w :] = 0
    image[:, top : top + h, left : left + w] = batch_last(x)
    return image


def strided_windows(image: Array, window: Window, output_size: Pair) -> Array:
    """View of a padded `image`, (C, H, W, N), as (C, KH, KW, OH, OW, N): all windows, nothing copied."""
    xp = array_module(image)
    (c, _, _, n), (channel, row, column, sample) = image.shape, image.strides
    moves = [s if out > 1 else 0 for s, out in zip(window.stride, output_size, strict=True)]
    taps = [d if k > 1 else 0 for d, k in zip(window.dilation, window.kernel, strict=True)]
    view: Array = xp.lib.stride_tricks.as_strided(
        image,
        shape=(c, *window.kernel, *output_size, n),
        strides=(
            channel,
            row * taps[0],
            column * taps[1],
            row * moves[0],
            column * moves[1],
            sample,
        ),
    )
    return view


def position_blocks(output_size: Pair, bytes_per_position: int, xp: Any) -> Iterator[tuple[slice, slice]]:
    """Cut the output positions into blocks, whole rows or parts of one row, of about BLOCK_BYTES."""
    height, width = output_size
    most = BLOCK_BYTES if xp is np else GPU_BLOCK_BYTES
    across = min(width, max(1, most // max(1, bytes_per_position)))
    down = max(1, most // max(1, bytes_per_position * width)) if across == width else 1
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield (
                slice(top, min(top + down, height)),
                slice(left, min(left + across, width)),
            )


def column_blocks(x: Array, window: Window) -> Iterator[tuple[slice, Array]]:
    """The columns of `x`, (N, C, H, W), block by block, in a scratch buffer that each block overwrites.

    Yields:
        The slice of OH * OW * N that the block covers, and the block as (C * KH * KW, its length).
    """
    image = padded(x, window)
    n, c, *size = x.shape
    output_size = window.output_size(tuple(size))
    windows = strided_windows(image, window, output_size)
    for rows, cols in position_blocks(output_size, columns_bytes(x, window), array_module(x)):
        source = windows[:, :, :, rows, cols]
        columns = scratch("columns", source.shape, x.dtype, array_module(x))
        columns[...] = source
        yield span(rows, cols, output_size[1], n), columns.reshape(window.rows(c), -1)


def add_columns(image: Array, columns: Array, window: Window, rows: slice, cols: slice) -> None:
    """Add the `columns`, (C, KH, KW, rows, cols, N), of some positions onto `image`, (C, H, W, N)."""
    xp = array_module(image)
    for (i, j), outputs, pixels in window.taps(image.shape[1:3], rows, cols):
        seen = image[:, *pixels]
        xp.add(seen, columns[:, i, j, *outputs], out=seen)


def columns_bytes(x: Array, window: Window) -> int:
    """Bytes that the columns of one output position take, for an `x` of (N, C, H, W)."""
    return int(x.shape[0] * window.rows(x.shape[1]) * x.itemsize)


def span(rows: slice, cols: slice, width: int, n: int) -> slice:
    """Where a block of positions lies in the flattened (OH, OW, N)."""
    return slice((rows.start * width + cols.start) * n, ((rows.stop - 1) * width + cols.stop) * n)

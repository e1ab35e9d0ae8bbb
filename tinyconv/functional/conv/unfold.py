"""Unfold (im2col) and fold (col2im): windows as columns, and columns added up.

`unfold` writes what each tap of a sliding window sees (see `geometry`) into a matrix with a row for each
(c, i, j) and a column for each position (p, q); `fold` adds a matrix of that form back onto the image. Each
is linear, and each is the transpose (hence the backward) of the other.
"""

from math import prod

from tinyconv.arguments import IntOrPair, check_arrays, check_ndim, check_shape, pair
from tinyconv.arrays import Array, array_module, as_logical, zeros_stored
from tinyconv.functional.conv.columns import add_windows, all_windows
from tinyconv.functional.conv.geometry import Geometry, window_geometry

__all__ = [
    "fold",
    "fold_backward",
    "unfold",
    "unfold_backward",
]


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
        (N, C * KH * KW, L) or (C * KH * KW, L), where L is the number of positions, in row order: row (c, i,
        j), column (p, q) has what tap (i, j) sees of channel c at position (p, q).

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
    check_arrays(input=input)
    check_ndim("input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    batch = input[None] if input.ndim == 3 else input
    geometry = unfold_geometry(batch.shape, kernel_size, dilation, padding, stride)
    windows = all_windows(batch, geometry).transpose(1, 2, 5, 3, 4, 0)  # (OH, OW, C, KH, KW, N)
    positions, rows, n = prod(windows.shape[:2]), prod(windows.shape[2:5]), len(batch)
    columns = as_logical(array_module(input).ascontiguousarray(windows).reshape(positions, rows, n))
    return columns if batch is input else columns[0]


def unfold_backward(
    grad_output: Array,
    input: Array,
    kernel_size: IntOrPair,
    dilation: IntOrPair = 1,
    padding: IntOrPair = 0,
    stride: IntOrPair = 1,
) -> Array:
    """Fold `grad_output` onto the shape of `input`: the gradient of `unfold` with respect to it.

    >>> import numpy as np
    >>> grad_output = np.array([[1.0, 2.0], [3.0, 4.0]])  # a column for each of two windows
    >>> unfold_backward(grad_output, np.zeros((1, 1, 3)), kernel_size=(1, 2))
    array([[[1., 5., 4.]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    shape = unfold_shape(input.shape, kernel_size, dilation, padding, stride)
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
        ValueError: wrong number of dimensions, an argument out of range, a number of rows that is not a
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
    image_shape = fold_shape(input.shape, output_size, kernel_size, dilation, padding, stride)
    batch = input[None] if input.ndim == 2 else input
    image = zeros_stored((len(batch), *image_shape[-3:]), like=input)
    geometry = window_geometry(image.shape, kernel_size, stride, padding, dilation)
    windows = batch.reshape(len(batch), image.shape[1], *geometry.kernel_size, *geometry.output_size)
    add_windows(image.transpose(0, 2, 3, 1), windows.transpose(0, 4, 5, 2, 3, 1), geometry)
    return image if batch is input else image[0]


def fold_backward(
    grad_output: Array,
    input: Array,
    output_size: IntOrPair,
    kernel_size: IntOrPair,
    dilation: IntOrPair = 1,
    padding: IntOrPair = 0,
    stride: IntOrPair = 1,
) -> Array:
    """Compute the gradient of `fold` with respect to its input: `unfold` of `grad_output`.

    >>> import numpy as np
    >>> fold_backward(np.array([[[1.0, 2.0, 3.0]]]), np.zeros((2, 2)), output_size=(1, 3), kernel_size=(1, 2))
    array([[1., 2.],
           [2., 3.]])
    """
    check_arrays(input=input, grad_output=grad_output)
    shape = fold_shape(input.shape, output_size, kernel_size, dilation, padding, stride)
    check_shape("grad_output", grad_output, shape, "of the output")
    return unfold(grad_output, kernel_size, dilation, padding, stride)


def unfold_geometry(
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    dilation: IntOrPair,
    padding: IntOrPair,
    stride: IntOrPair,
) -> Geometry:
    """Return the geometry of `unfold` for images of `input_size`, (N, C, H, W)."""
    if 0 in input_size[-3:]:
        raise ValueError(f"`input` (of shape {input_size}) must have channels and pixels")
    return window_geometry(input_size, kernel_size, stride, padding, dilation)


def unfold_shape(input_size: tuple[int, ...], *options: IntOrPair) -> tuple[int, ...]:
    """Return the shape of `unfold`'s output for `input_size`; raise ValueError if it does not fit."""
    if len(input_size) not in (3, 4):
        raise ValueError(f"`input` (of shape {input_size}) must have the form (N, C, H, W) or (C, H, W)")
    *batch, channels, height, width = input_size
    geometry = unfold_geometry((1, channels, height, width), *options)
    return *batch, channels * prod(geometry.kernel_size), prod(geometry.output_size)


def fold_shape(
    input_size: tuple[int, ...],
    output_size: IntOrPair,
    kernel_size: IntOrPair,
    dilation: IntOrPair,
    padding: IntOrPair,
    stride: IntOrPair,
) -> tuple[int, ...]:
    """Return the shape of the images that columns of `input_size` fold to; raise ValueError if unfit."""
    size = pair("output_size", output_size)
    geometry = window_geometry((1, 1, *size), kernel_size, stride, padding, dilation)
    if len(input_size) not in (2, 3):
        raise ValueError(
            f"`input` (of shape {input_size}) must have the form (N, C * KH * KW, L) or (C * KH * KW, L)"
        )
    *batch, rows, positions = input_size
    taps, wanted = prod(geometry.kernel_size), prod(geometry.output_size)
    if rows == 0 or rows % taps or positions != wanted:
        raise ValueError(
            f"`input` (of shape {input_size}) must have a multiple of KH * KW (={taps}) rows "
            f"and {wanted} columns for `output_size` {size}"
        )
    return *batch, rows // taps, *size

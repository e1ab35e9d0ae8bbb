"""Columns: a convolution as one matrix product, as the textbooks have it (im2col).

Copy what the window sees at each output position into a row of a matrix, ordered by taps and channels. With
the kernels as the columns of another matrix, in the same order,

    columns    (N*OH*OW, KH*KW*C)      columns[(n, p, q), (i, j, c)] = x[n, c, p*s + i*d - P, q*s + j*d - P]
    matrix     (KH*KW*C, O)            matrix[(i, j, c), o] = weight[o, c, i, j]

the three maps are three products:

    output = columns @ matrix        columns' gradient = g @ matrix.T        matrix's gradient = columns.T @ g

and the gradient with respect to the image adds the columns' gradient up where the columns were read (col2im).
No kernel is turned and no stride is divided. This supports every convolution, and is the fastest for few
samples: for one sample, the product is the output as stored. With `groups` there is one such product per
group.

The copy has KH * KW times the image's values, so it is made for a block of samples at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyconv.arrays import Array, array_module, as_logical, empty_stored, matmul
from tinyconv.functional.conv.geometry import UNPADDED, Geometry

BLOCK_BYTES = 4 << 20  # of columns: they should be in the cache when they are multiplied
GPU_BLOCK_BYTES = 1 << 30  # there each block launches kernels, so only memory limits it


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None) -> Array:
    """Return the output, of arrays that fit the geometry."""
    (n, o, oh, ow), xp, matrix = geometry.output_shape, array_module(input), _matrix(weight, geometry)
    if n == geometry.groups == 1:  # the product is the output as stored
        output = as_logical(matmul(_columns(input, geometry), matrix).reshape(oh, ow, o, 1))
    else:
        output = empty_stored(geometry.output_shape, input.dtype, xp)
        for samples in _blocks(geometry, input, xp):
            output[samples] = _from_rows(matmul(_columns(input[samples], geometry), matrix), geometry)
    if bias is not None:
        output += bias[:, None, None]
    return output


def conv2d_input(geometry: Geometry, weight: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the image."""
    xp, matrix = array_module(grad_output), _matrix(weight, geometry)
    (_, c, h, w), groups = geometry.input_shape, geometry.groups
    grad_input = empty_stored(geometry.input_shape, grad_output.dtype, xp)
    for samples in _blocks(geometry, grad_output, xp):
        rows = _rows(grad_output[samples], geometry)
        n = rows.shape[1] // (geometry.output_size[0] * geometry.output_size[1])
        columns = matmul(rows, matrix.swapaxes(1, 2))
        columns = columns.reshape(groups, n, *geometry.output_size, *geometry.kernel_size, c // groups)
        image = xp.zeros((n, h, w, groups, c // groups), grad_output.dtype)
        add_windows(image, columns.transpose(1, 2, 3, 4, 5, 0, 6), geometry)
        grad_input[samples] = image.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return grad_input


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    xp, (o, c, kh, kw), groups = array_module(input), geometry.weight_shape, geometry.groups
    total = xp.zeros((groups, kh * kw * c, o // groups), input.dtype)
    for samples in _blocks(geometry, input, xp):
        columns = _columns(input[samples], geometry)
        total += matmul(columns.swapaxes(1, 2), _rows(grad_output[samples], geometry))
    by_tap = total.reshape(groups, kh, kw, c, o // groups).transpose(0, 4, 3, 1, 2)
    weight: Array = xp.ascontiguousarray(by_tap).reshape(o, c, kh, kw)
    return weight


def all_windows(input: Array, geometry: Geometry) -> Array:
    """Return a view of all windows of the padded `input`, (N, C, H, W), as (N, OH, OW, KH, KW, C)."""
    xp, (n, c, h, w) = array_module(input), input.shape
    image = input.transpose(0, 2, 3, 1)
    if geometry.padding == UNPADDED:
        padded = xp.ascontiguousarray(image)
    else:
        (top, bottom), (left, right) = geometry.padding
        padded = xp.zeros((n, top + h + bottom, left + w + right, c), input.dtype)
        padded[:, top : top + h, left : left + w] = image
    item = padded.itemsize
    pixel, (sh, sw), (dh, dw) = c * item, geometry.stride, geometry.dilation
    row = padded.shape[2] * pixel
    shape = (n, *geometry.output_size, *geometry.kernel_size, c)
    strides = (padded.shape[1] * row, sh * row, sw * pixel, dh * row, dw * pixel, item)
    windows: Array = xp.lib.stride_tricks.as_strided(padded, shape, strides)
    return windows


def add_windows(image: Array, windows: Array, geometry: Geometry) -> None:
    """Add `windows`, (N, OH, OW, KH, KW, ...), to `image`, (N, H, W, ...): the transpose of `all_windows`."""
    for tap in geometry.taps:
        image[:, *tap.pixels] += windows[:, *tap.outputs, tap.i, tap.j]


def _matrix(weight: Array, geometry: Geometry) -> Array:
    """The weight, (O, C / G, KH, KW), as (G, KH * KW * C / G, O / G)."""
    (o, c, kh, kw), groups = geometry.weight_shape, geometry.groups
    taps = weight.reshape(groups, o // groups, c, kh, kw).transpose(0, 3, 4, 2, 1)
    return taps.reshape(groups, kh * kw * c, o // groups)


def _columns(input: Array, geometry: Geometry) -> Array:
    """What the windows over some samples see: (G, positions, KH * KW * C / G)."""
    windows, groups = all_windows(input, geometry), geometry.groups
    n, oh, ow, kh, kw, c = windows.shape
    by_group = windows.reshape(n, oh, ow, kh, kw, groups, c // groups)
    return by_group.transpose(5, 0, 1, 2, 3, 4, 6).reshape(groups, n * oh * ow, kh * kw * c // groups)


def _rows(grads: Array, geometry: Geometry) -> Array:
    """The cotangent of some samples, (N, O, OH, OW), as (G, positions, O / G)."""
    (n, o, oh, ow), groups = grads.shape, geometry.groups
    by_group = grads.reshape(n, groups, o // groups, oh, ow).transpose(1, 0, 3, 4, 2)
    return by_group.reshape(groups, n * oh * ow, o // groups)


def _from_rows(rows: Array, geometry: Geometry) -> Array:
    """The inverse of `_rows`."""
    (oh, ow), (groups, positions, o) = geometry.output_size, rows.shape
    by_group = rows.reshape(groups, positions // (oh * ow), oh, ow, o).transpose(1, 0, 4, 2, 3)
    return by_group.reshape(positions // (oh * ow), groups * o, oh, ow)


def _blocks(geometry: Geometry, array: Array, xp: Any) -> Iterator[slice]:
    """Cut the batch into blocks of samples, whose columns have about BLOCK_BYTES."""
    (n, c, *_), (kh, kw), (oh, ow) = geometry.input_shape, geometry.kernel_size, geometry.output_size
    most = BLOCK_BYTES if xp is np else GPU_BLOCK_BYTES
    step = max(1, most // (oh * ow * kh * kw * c * array.itemsize))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))

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

import math
from typing import Any

import numpy as np

from tinyconv.arrays import Array, array_module, as_strided, cut, in_threads, matmul
from tinyconv.functional.conv.geometry import UNPADDED, Geometry

BLOCK_BYTES = 4 << 20  # of columns: they should be in the cache when they are multiplied
PART_WORK, LEAST_POSITIONS = 8_000_000, 32  # multiply-adds and output positions of a part, at least
MANY_CHANNELS = 16
GPU_BLOCK_BYTES = 1 << 30  # there each block launches kernels, so only memory limits it


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write the output, of arrays that fit the geometry, to `out`."""
    windows, matrix = all_windows(input, geometry), _matrix(weight, geometry)
    (n, o, _, ow), groups, by_tap = geometry.output_shape, geometry.groups, taps_first(geometry)

    def run(block: tuple[slice, slice]) -> None:
        samples, rows = block
        target, columns = out[samples, :, rows], _columns(windows[samples, rows], groups, by_tap)
        pixels = target[0].transpose(1, 2, 0)
        if n == groups == 1 and pixels.flags.c_contiguous:  # the product is the output as stored
            matmul(columns[0], matrix[0], out=pixels.reshape(-1, o))
        else:
            product = matmul(columns, matrix).reshape(groups, len(target), -1, ow, o // groups)
            target[...] = product.transpose(1, 0, 4, 2, 3).reshape(target.shape)
        if bias is not None:
            target += bias[:, None, None]

    in_threads(run, _blocks(geometry, input), weight.size * out[:, 0].size)


def conv2d_input(geometry: Geometry, weight: Array, grad_output: Array, out: Array) -> None:
    """Write the gradient with respect to the image to `out`."""
    xp, matrix = array_module(grad_output), _matrix(weight, geometry).swapaxes(1, 2)
    (_, c, h, w), groups, (oh, ow) = geometry.input_shape, geometry.groups, geometry.output_size
    for samples in _sample_blocks(geometry, grad_output):
        grads = grad_output[samples]
        columns = matmul(_rows(grads, groups), matrix)
        image = xp.zeros((len(grads), h, w, groups, c // groups), grads.dtype)
        if taps_first(geometry):
            columns = columns.reshape(groups, len(grads), oh, ow, *geometry.kernel_size, c // groups)
            columns = columns.transpose(1, 2, 3, 4, 5, 0, 6)
        else:
            columns = columns.reshape(groups, len(grads), oh, ow, c // groups, *geometry.kernel_size)
            columns = columns.transpose(1, 2, 3, 5, 6, 0, 4)
        add_windows(image, columns, geometry)
        out[samples] = image.reshape(len(grads), h, w, c).transpose(0, 3, 1, 2)


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    xp, (o, c, kh, kw), groups = array_module(input), geometry.weight_shape, geometry.groups
    windows, grads = all_windows(input, geometry), _rows(grad_output, groups).swapaxes(1, 2)
    weight: Array = xp.empty((o, c, kh, kw), input.dtype)

    def run(taps: tuple[slice, slice]) -> None:
        columns = _columns(windows[:, :, :, *taps], groups, by_tap=True)
        target = weight[:, :, *taps]
        product = matmul(grads, columns).reshape(o, *target.shape[2:], c)
        target[...] = product.transpose(0, 3, 1, 2)

    in_threads(run, _taps(geometry, xp), weight.size * grad_output[:, 0].size)
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
    return as_strided(padded, shape, strides)


def add_windows(image: Array, windows: Array, geometry: Geometry) -> None:
    """Add `windows`, (N, OH, OW, KH, KW, ...), to `image`, (N, H, W, ...): the transpose of `all_windows`."""
    for tap in geometry.taps:
        image[:, *tap.pixels] += windows[:, *tap.outputs, tap.i, tap.j]


def taps_first(geometry: Geometry) -> bool:
    """Return whether columns are ordered by taps, then channels: not where the weight has more values.

    To order columns so is faster, and to order them as the weight is, by channels, saves a copy of it.
    """
    n, o, oh, ow = geometry.output_shape
    return o // geometry.groups <= n * oh * ow


def _matrix(weight: Array, geometry: Geometry) -> Array:
    """The weight, (O, C / G, KH, KW), as (G, KH * KW * C / G, O / G), in the order of the columns."""
    (o, c, kh, kw), groups = geometry.weight_shape, geometry.groups
    taps = weight.reshape(groups, o // groups, c, kh, kw)
    axes = (0, 3, 4, 2, 1) if taps_first(geometry) else (0, 2, 3, 4, 1)
    return taps.transpose(axes).reshape(groups, kh * kw * c, o // groups)


def _columns(windows: Array, groups: int, by_tap: bool) -> Array:
    """Some windows, (N, rows, OW, KH, KW, C), as (G, positions, KH * KW * C / G)."""
    n, rows, ow, kh, kw, c = windows.shape
    by_group = windows.reshape(n, rows, ow, kh, kw, groups, c // groups)
    axes = (5, 0, 1, 2, 3, 4, 6) if by_tap else (5, 0, 1, 2, 6, 3, 4)
    return by_group.transpose(axes).reshape(groups, n * rows * ow, kh * kw * c // groups)


def _rows(grads: Array, groups: int) -> Array:
    """The cotangent of some samples, (N, O, OH, OW), as (G, positions, O / G)."""
    n, o, oh, ow = grads.shape
    by_group = grads.reshape(n, groups, o // groups, oh, ow).transpose(1, 0, 3, 4, 2)
    return by_group.reshape(groups, n * oh * ow, o // groups)


def _sample_blocks(geometry: Geometry, array: Array) -> list[slice]:
    """Cut the batch into blocks of samples, whose columns have about BLOCK_BYTES."""
    (n, c, *_), (kh, kw), (oh, ow) = geometry.input_shape, geometry.kernel_size, geometry.output_size
    most = BLOCK_BYTES if array_module(array) is np else GPU_BLOCK_BYTES
    step = max(1, most // (oh * ow * kh * kw * c * array.itemsize))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _blocks(geometry: Geometry, array: Array) -> list[tuple[slice, slice]]:
    """The same, and cut the output rows of few samples into parts."""
    (oh, ow), size = geometry.output_size, math.prod(geometry.weight_shape)
    if geometry.input_shape[0] == 1 and size * oh * ow < PART_WORK:
        return [(slice(None), slice(None))]
    on_cpu = array_module(array) is np
    count = min(size * oh * ow // PART_WORK, oh * ow // LEAST_POSITIONS) if on_cpu else 1
    even = 1 << max(1, count).bit_length() - 1
    return [(samples, rows) for samples in _sample_blocks(geometry, array) for rows in cut(oh, even)]


def _taps(geometry: Geometry, xp: Any) -> list[tuple[slice, slice]]:
    """Cut the kernel into its taps, that of few channels into halves; on a GPU it is one part."""
    (_, c, kh, kw), every = geometry.weight_shape, slice(None)
    if xp is np and c >= MANY_CHANNELS:
        return [(i, j) for i in cut(kh, kh) for j in cut(kw, kw)]
    return [(i, every) for i in cut(kh, 2 if xp is np else 1)]

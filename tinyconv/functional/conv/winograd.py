"""Convolution with 3 x 3 and 5 x 5 kernels by Winograd's minimal filtering (Lavin and Gray, 2015).

A product of two polynomials of 3 and 4 coefficients follows from its values at five points and its leading
coefficient: 6 products, not 12. V(k) maps k coefficients to those values; let G = V(3), A = V(4), and let
B = 1 / V(6) map values back. A filter w that computes 4 outputs from 6 inputs x is the transpose of that,
A' [(G w) * (B' x)] with * elementwise. Applied down and across, it computes a tile of 4 x 4 outputs from a
patch of 6 x 6 pixels with 36 products, not 144:

    y = A' [sum over c of (G w G') * (B' x B)] A

(For 5 x 5 kernels a patch has p = 8 pixels, and 64 products replace 400.) The channels are summed in between,
so each of the products is one of matrices, (O, C) by (C, N); with many channels these are nearly all of the
work. In an image stored as (H, W, C, N) the transforms are products with long contiguous rows too: B' times
the rows of a patch, then B' times neighbouring columns of the result. Padding is left out: the rows of zeros
with the columns of B' that they are multiplied by. Blocks of tiles are computed one after another, so that
each stays in the cache, and by several threads.

For few samples the pixels are stored as (N, C), and the tiles of a block are rows of the products,
(tiles * N, C) by (C, O).

y is linear in x and in w, and the other maps are its transposes: dw = G' [sum over tiles of (A g A') *
(B' x B)] G, with pixels (N, C) so that the sum over tiles and samples is one product; and the gradient with
respect to the image is a convolution with the turned kernel.

The transforms lose digits by cancellation, fewest with points near 1/sqrt(2) and sqrt(2): in float32 the
largest error is 2e-6 to 4e-6 of the largest output for 3 x 3 kernels, and 4e-6 to 6e-6 for 5 x 5, three to
ten times that of the plain sum (1e-5 with the paper's points, 1 and 2). An inf or a NaN spreads over its
whole tile.

Source: https://arxiv.org/abs/1509.09308
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyconv.arrays import Array, cut, in_threads, matmul
from tinyconv.functional.conv import windows
from tinyconv.functional.conv.geometry import UNPADDED, Geometry, Pads, within

TILE = 4
POINTS = {3: [0, 5 / 8, -5 / 8, 3 / 2, -3 / 2], 5: [0, 5 / 8, -5 / 8, 1, -1, 7 / 4, -7 / 4]}  # by kernel size
MOST_PRODUCTS, LEAST_CHANNELS, LEAST_TILES = 0.6, 12, 48  # where it is faster
FEW = 8  # samples up to which the tiles are rows of a product too
BLOCK_BYTES, SUM_BYTES = 3 << 19, 2 << 20  # of patches
KERNEL_BYTES = 24 << 20  # of the values of a part of a weight: the C library keeps such blocks
LEAST_TERMS = 512  # of a sum over tiles and samples that is added to the others
MOST_PARTS, TOTAL_BYTES = 8, 16 << 20  # of sums that several threads add up
PIECES = 16  # that a block of tiles is cut into

Block: TypeAlias = tuple[slice, slice]  # of tiles, down and across


class Matrices(NamedTuple):
    """The matrices of a kernel size k, for patches of p x p pixels, with p = k + 3.

    Attributes:
        kernel: G for both axes of a flattened kernel, (p * p, k * k).
        tile: A, (p, 4).
        patch: the transpose of B, (p, p).
    """

    kernel: Array
    tile: Array
    patch: Array


@lru_cache
def matrices(kernel_size: int, dtype: Any) -> Matrices:
    """Return the matrices of a kernel size, 3 or 5."""
    points, extent = POINTS[kernel_size], kernel_size + TILE - 1
    g, a, v = (
        np.vstack([np.vander(points, k, increasing=True), np.eye(k)[-1:]])
        for k in (kernel_size, TILE, extent)
    )
    return Matrices(*(np.ascontiguousarray(m, dtype) for m in (np.kron(g, g), a, np.linalg.inv(v).T)))


def supports(geometry: Geometry) -> bool:
    """A 3x3 or 5x5 kernel, one group, no stride, no dilation."""
    plain = geometry.groups == 1 and geometry.kernel_size in ((3, 3), (5, 5))
    return plain and geometry.stride == geometry.dilation == (1, 1)


def supports_input(geometry: Geometry) -> bool:
    """A 3x3 or 5x5 kernel, one group, no stride, no dilation, less padding than the kernel's extent."""
    return supports(geometry) and windows.supports_input(geometry)


def is_faster(geometry: Geometry) -> bool:
    """Return whether there are enough channels and tiles, and the tiles are not mostly padding."""
    if not supports(geometry):
        return False
    (o, c, k, _), (n, _, oh, ow), tiles = (
        geometry.weight_shape,
        geometry.output_shape,
        math.prod(grid(geometry)),
    )
    products = (k + TILE - 1) ** 2 * tiles / (oh * ow)  # for an output, instead of k * k
    enough = min(o, c) >= LEAST_CHANNELS and tiles * n >= LEAST_TILES
    return enough and products < MOST_PRODUCTS * k * k


def is_faster_input(geometry: Geometry) -> bool:
    """Return whether it is faster for the convolution with the turned kernel."""
    return supports_input(geometry) and is_faster(geometry.turned)


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write the output, of arrays that fit the geometry, to `out`: large weights in parts."""

    def run(part: slice) -> None:
        _conv2d(geometry, input, weight[part], None if bias is None else bias[part], out[:, part])

    kernel_bytes = 4 * weight.nbytes  # of their values
    in_threads(run, cut(len(weight), -(-kernel_bytes // KERNEL_BYTES)), 4 * out.size * input.shape[1])


def _conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array) -> None:
    (n, o, oh, ow), c, dtype = out.shape, input.shape[1], input.dtype
    few, by = n <= FEW, matrices(geometry.kernel_size[0], dtype)
    kernels, to_pixels, extent = _kernels(weight, by.kernel, few), by.tile.T, len(by.tile)
    shift = None if bias is None else np.tile(bias, n) if few else np.repeat(bias, n)
    direct = n == 1 or not few
    target = _pixels(out, few) if direct else np.empty((oh, ow, n * o), dtype)

    def run(block: Block) -> None:
        down, across = block
        shape = extent, extent, down.stop - down.start, across.stop - across.start
        patches, products = _empty((*shape, c * n), few, dtype), _empty((*shape, o * n), few, dtype)
        _to_values(by.patch, input, block, geometry.padding, few, patches)
        if few:
            products = np.matmul(patches.reshape(extent, extent, -1, c), kernels).reshape(*shape, n * o)
        else:
            values, sums = patches.reshape(*shape, c, n), products.reshape(*shape, o, n)
            for channels in windows.small_products(o, c * n):
                np.matmul(kernels[..., channels, :], values, out=sums[..., channels, :])
        rows = target[TILE * down.start : TILE * down.stop, TILE * across.start : TILE * across.stop]
        for t in range(shape[2]):
            pixels = np.matmul(to_pixels, products[:, :, t].swapaxes(1, 2)).reshape(extent, -1, o * n)
            row = rows[TILE * t : TILE * (t + 1)]
            np.matmul(to_pixels[: len(row)], pixels[:, : row.shape[1]].swapaxes(0, 1), out=row.swapaxes(0, 1))
        if shift is not None:
            rows += shift

    in_threads(run, _blocks(geometry, BLOCK_BYTES, dtype), 4 * n * oh * ow * c * o)
    if not direct:
        out.transpose(2, 3, 0, 1)[...] = target.reshape(oh, ow, n, o)


def conv2d_input(geometry: Geometry, weight: Array, grad_output: Array, out: Array) -> None:
    """Write the gradient with respect to the image to `out`; see `supports_input`."""
    conv2d(geometry.turned, grad_output, geometry.turned_weight(weight), None, out)


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    (o, c, k, _), blocks = geometry.weight_shape, _blocks(geometry, SUM_BYTES, input.dtype, LEAST_TERMS)
    by = matrices(k, input.dtype)
    count = min(MOST_PARTS, TOTAL_BYTES // (len(by.kernel) * o * c * input.itemsize))
    parts = cut(len(blocks), count)
    totals = np.zeros((len(parts), len(by.kernel), o, c), input.dtype)

    def run(number: int) -> None:
        for block in blocks[parts[number]]:
            _add_products(totals[number], geometry, input, grad_output, block, count < 2)

    in_threads(run, range(len(parts)), 4 * o * c * input[:, 0].size)
    total = totals[0] if len(parts) == 1 else totals.sum(axis=0)
    return matmul(total.reshape(-1, o * c).T, by.kernel).reshape(o, c, k, k)


def _add_products(
    total: Array, geometry: Geometry, input: Array, grad_output: Array, block: Block, large: bool
) -> None:
    """Add the products of a block of tiles to `total`, (p * p, O, C); by several threads if `large`."""
    (points, o, c), by = total.shape, matrices(geometry.kernel_size[0], input.dtype)
    shape = *by.patch.shape, *(tiles.stop - tiles.start for tiles in block)
    patches = np.empty((*shape, len(input) * c), input.dtype)
    values = np.empty((*shape, len(input) * o), input.dtype)
    seen, seeing = patches.reshape(points, -1, c), values.reshape(points, -1, o)

    def transform(piece: Block) -> None:
        own = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(piece, block, strict=True))
        _to_values(by.patch, input, piece, geometry.padding, True, patches[:, :, *own])
        _to_values(by.tile, grad_output, piece, UNPADDED, True, values[:, :, *own])

    def multiply(part: slice) -> None:
        total[part] += np.matmul(seeing[part].swapaxes(1, 2), seen[part])

    work = 4 * o * c * input[:, 0].size
    in_threads(transform, _pieces(block) if large else [block], work)
    in_threads(multiply, cut(points, points if large else 1), work)


def grid(geometry: Geometry) -> tuple[int, int]:
    """Return how many tiles the output has down and across."""
    return -(-geometry.output_size[0] // TILE), -(-geometry.output_size[1] // TILE)


def _blocks(geometry: Geometry, nbytes: int, dtype: np.dtype[Any], samples: int = 1) -> list[Block]:
    """Cut the tiles into blocks whose patches have about `nbytes`: some whole rows, or a part of one.

    A block has tiles of at least so many `samples`.
    """
    (n, o, *_), c, (down, across) = geometry.output_shape, geometry.input_shape[1], grid(geometry)
    tile_bytes = (geometry.kernel_size[0] + TILE - 1) ** 2 * max(c, o) * n * dtype.itemsize
    count = max(nbytes // tile_bytes, -(-samples // n))
    parts = cut(across, -(-across // count))
    return [(rows, columns) for rows in cut(down, -(-down * across // count)) for columns in parts]


def _pieces(block: Block) -> list[Block]:
    """Cut a block of tiles into rows, and these into parts, if there are few."""
    down, across = block
    rows, length = range(down.start, down.stop), across.stop - across.start
    parts = cut(length, PIECES // len(rows))
    return [
        (slice(t, t + 1), slice(across.start + part.start, across.start + part.stop))
        for t in rows
        for part in parts
    ]


def _kernels(weight: Array, matrix: Array, few: bool) -> Array:
    """The values of the kernels, (p, p, C, O) for few samples or (p, p, 1, 1, O, C)."""
    (o, c, k, _), extent = weight.shape, weight.shape[2] + TILE - 1
    values = matmul(matrix, (weight.swapaxes(0, 1) if few else weight).reshape(-1, k * k).T)
    return values.reshape(extent, extent, c, o) if few else values.reshape(extent, extent, 1, 1, o, c)


def _empty(shape: tuple[int, ...], few: bool, dtype: Any) -> Array:
    """An array (p, p, rows, tiles, pixel), stored so or as (rows, p, tiles, p, pixel)."""
    if few:
        return np.empty(shape, dtype)
    return np.empty([shape[axis] for axis in (2, 0, 3, 1, 4)], dtype).transpose(1, 3, 0, 2, 4)


def _pixels(image: Array, few: bool) -> Array:
    """An image, (N, C, H, W), as (H, W, pixel), a pixel being (C, N) or for few samples (N, C)."""
    n, c, h, w = image.shape
    return (image.transpose(2, 3, 0, 1) if few else image.transpose(2, 3, 1, 0)).reshape(h, w, n * c)


def _to_values(matrix: Array, image: Array, block: Block, padding: Pads, few: bool, out: Array) -> None:
    """Write matrix times patch times its transpose to `out`, (p, p, rows, tiles, pixel).

    The patches are those of the tiles of `block`: as many rows and columns as the matrix has columns.
    """
    (down, across), ((top, _), (left, _)), extent = block, padding, matrix.shape[1]
    columns = TILE * (across.stop - across.start - 1) + extent
    inside, seen = within(TILE * across.start - left, columns, image.shape[3])
    half = np.empty((len(matrix), columns, out.shape[-1]), out.dtype)
    half[:, : inside.start] = half[:, inside.stop :] = 0
    row, column, item = half.strides
    shape, strides = (len(half), out.shape[3], extent, half.shape[2]), (row, TILE * column, column, item)
    overlapping = as_strided(half, shape, strides)
    for t in range(down.start, down.stop):
        valid, lines = within(TILE * t - top, extent, image.shape[2])
        pixels = _pixels(image[:, :, lines, seen], few)
        np.matmul(matrix[:, valid], pixels.swapaxes(0, 1), out=half[:, inside].swapaxes(0, 1))
        np.matmul(matrix, overlapping, out=out[:, :, t - down.start].swapaxes(1, 2))

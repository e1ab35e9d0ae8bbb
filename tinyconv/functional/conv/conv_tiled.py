"""Convolution of few channels: a tile of T output rows in one row of the product.

With few channels in and out, the matrices of a convolution are long and thin, (O, C*KH*KW) by
(C*KH*KW, OH*OW*N), which BLAS multiplies slowly, and each pixel is copied into KH*KW columns. So let
a column serve T outputs, one below the other: it holds the patch of (KH+T-1) x KW pixels that they see,
and the kernel becomes T kernels of that size, zero but for a copy of the kernel shifted down by t:

    tiled[o, t, c, t+i, j] = weight[o, c, i, j]
    y[n, o, p*T+t, q] = sum over c, i, j of patch(p, q)[c, i, j] * tiled[o, t, c, i, j]

That is a convolution with a stride of (T, 1), whose T outputs a channel are then put back in their rows.
The matrices are T times as tall and as short, each pixel is copied about (KH+T-1)*KW / T times, and the price
is a product with the zeros around the shifted copies. The weight's gradient is the tiled weight's, each
shifted copy read back and added up.
"""

import math

from tinyconv.arrays import (
    Array,
    array_module,
    batch_last,
    contiguous_batch_last,
    empty_batch_last,
    scratch,
)
from tinyconv.functional.conv.unfold import Window, column_blocks

TILE = 4


def conv2d_tiled(
    input: Array, weight: Array, bias: Array | None, window: Window, groups: int, shape: tuple[int, ...]
) -> Array:
    """`conv2d` with an output of `shape`; the arguments are checked, there is one group."""
    xp = array_module(input)
    output = empty_batch_last(shape, input.dtype, xp)
    view, matrix = tile_view(batch_last(output)), tiled_weight(weight)
    tiles = scratch("tiles", (matrix.shape[0], math.prod(view.shape[2:])), input.dtype, xp)
    for block, columns in column_blocks(input, tiled_window(window)):
        xp.matmul(matrix, columns, out=tiles[:, block])
    tiles = tiles.reshape(view.shape)
    if bias is None:
        view[...] = tiles
    else:
        xp.add(tiles, bias.reshape(-1, 1, 1, 1), out=view)
    return output


def conv2d_weight_tiled(
    input: Array, weight_size: tuple[int, ...], grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_weight`; the arguments are checked, there is one group."""
    xp = array_module(input)
    view = tile_view(contiguous_batch_last(grad_output))
    tiles = scratch("tiles", view.shape, input.dtype, xp)
    tiles[...] = view
    tiles = tiles.reshape(weight_size[0] * TILE, math.prod(view.shape[2:]))
    window = tiled_window(window)
    grad = xp.zeros((tiles.shape[0], window.rows(weight_size[1])), input.dtype)
    for block, columns in column_blocks(input, window):
        grad += tiles[:, block] @ columns.T
    return tiled_weight_backward(grad, weight_size)


def tiled_window(window: Window) -> Window:
    """The window that moves from tile to tile."""
    return window._replace(kernel=(window.kernel[0] + TILE - 1, window.kernel[1]), stride=(TILE, 1))


def tiled_weight(weight: Array) -> Array:
    """The shifted copies of `weight`, (O, C, KH, KW), as a matrix (O*T, C * taps of a patch)."""
    o, c, kh, kw = weight.shape
    tiled = array_module(weight).zeros((o, TILE, c, kh + TILE - 1, kw), weight.dtype)
    for t in range(TILE):
        tiled[:, t, :, t : t + kh] = weight
    matrix: Array = tiled.reshape(o * TILE, -1)
    return matrix


def tiled_weight_backward(grad: Array, weight_size: tuple[int, ...]) -> Array:
    """Gradient of `tiled_weight`: what the shifted copies received, added up."""
    o, c, kh, kw = weight_size
    tiled = grad.reshape(o, TILE, c, kh + TILE - 1, kw)
    total: Array = array_module(grad).zeros(weight_size, grad.dtype)
    for t in range(TILE):
        total += tiled[:, t, :, t : t + kh]
    return total


def tile_view(rows: Array) -> Array:
    """View of contiguous `rows`, (O, p*T, W, N), as (O, T, p, W * N)."""
    o, height, width, n = rows.shape
    return rows.reshape(o, height // TILE, TILE, width * n).swapaxes(1, 2)

"""Convolution of few channels: a tile of T x U neighbouring outputs in one column of the product.

With few channels in and out, the matrices of a convolution are long and thin, (O, C*KH*KW) by
(C*KH*KW, OH*OW*N), which BLAS multiplies slowly, and each pixel is copied into KH*KW columns. So let
a column serve a whole tile of outputs: it holds the patch of (KH+T-1) x (KW+U-1) pixels that they see,
and the kernel becomes T*U kernels of that size, zero but for a copy of the kernel shifted by (a, b):

    tiled[o, a, b, c, a+i, b+j] = weight[o, c, i, j]
    y[n, o, p*T+a, q*U+b] = sum over c, i, j of patch(p, q)[c, i, j] * tiled[o, a, b, c, i, j]

That is a convolution with a stride of (T, U), whose T*U planes a channel are then interleaved. The
matrices are T*U times as tall and as short, each pixel is copied about KH*KW / (T*U) times, and the price
is a product with the zeros of the shifted copies. The weight's gradient is the tiled weight's, each
shifted copy read back and added up.
"""

import math

from tinyconv.arguments import Pair
from tinyconv.arrays import (
    Array,
    array_module,
    batch_last,
    contiguous_batch_last,
    empty_batch_last,
    scratch,
)
from tinyconv.functional.unfold import Window, column_blocks

TILE = (2, 2)
# Measured with OpenBLAS: tiles pay for LeNet's first convolution (6 outputs, 25 taps), and no longer
# for its second (16, 150), nor for 32 outputs of 9 taps.
MOST_OUTPUTS = 8
MOST_TAPS = 50


def is_tiled(weight_size: tuple[int, ...], window: Window, groups: int, output_size: Pair) -> bool:
    """Whether a convolution is computed in tiles; a rule of shapes only."""
    return (
        weight_size[0] <= MOST_OUTPUTS
        and 4 < window.rows(weight_size[1]) <= MOST_TAPS
        and groups == 1
        and window.stride == window.dilation == (1, 1)
        and not output_size[0] % TILE[0]
        and not output_size[1] % TILE[1]
    )


def conv2d_tiled(
    input: Array, weight: Array, bias: Array | None, window: Window, shape: tuple[int, int, int, int]
) -> Array:
    """`conv2d` with an output of `shape`; the arguments are checked."""
    xp = array_module(input)
    output = empty_batch_last(shape, input.dtype, xp)
    view = tile_view(batch_last(output))
    matrix = tiled_weight(weight)
    tiles = scratch("tiles", (matrix.shape[0], math.prod(view.shape[3:])), input.dtype, xp)
    for block, columns in column_blocks(input, tiled_window(window)):
        xp.matmul(matrix, columns, out=tiles[:, block])
    tiles = tiles.reshape(view.shape)
    if bias is None:
        view[...] = tiles
    else:
        xp.add(tiles, bias.reshape(-1, 1, 1, 1, 1, 1), out=view)
    return output


def conv2d_weight_tiled(
    input: Array, weight_size: tuple[int, ...], grad_output: Array, window: Window
) -> Array:
    """`conv2d_weight`; the arguments are checked."""
    xp = array_module(input)
    view = tile_view(contiguous_batch_last(grad_output))
    tiles = scratch("tiles", view.shape, input.dtype, xp)
    tiles[...] = view
    tiles = tiles.reshape(math.prod(view.shape[:3]), -1)
    window = tiled_window(window)
    grad = xp.zeros((tiles.shape[0], window.rows(weight_size[1])), input.dtype)
    for block, columns in column_blocks(input, window):
        grad += tiles[:, block] @ columns.T
    return tiled_weight_backward(grad, weight_size)


def tiled_window(window: Window) -> Window:
    """The window that moves from tile to tile."""
    (kh, kw), (t, u) = window.kernel, TILE
    return Window((kh + t - 1, kw + u - 1), TILE, window.padding, (1, 1))


def tiled_weight(weight: Array) -> Array:
    """The shifted copies of `weight`, (O, C, KH, KW), as a matrix (O*T*U, C * taps of a patch)."""
    o, c, kh, kw = weight.shape
    t, u = TILE
    tiled = array_module(weight).zeros((o, t, u, c, kh + t - 1, kw + u - 1), weight.dtype)
    for a in range(t):
        for b in range(u):
            tiled[:, a, b, :, a : a + kh, b : b + kw] = weight
    matrix: Array = tiled.reshape(o * t * u, -1)
    return matrix


def tiled_weight_backward(grad: Array, weight_size: tuple[int, ...]) -> Array:
    """Gradient of `tiled_weight`: what the shifted copies received, added up."""
    o, c, kh, kw = weight_size
    t, u = TILE
    tiled = grad.reshape(o, t, u, c, kh + t - 1, kw + u - 1)
    total: Array = array_module(grad).zeros(weight_size, grad.dtype)
    for a in range(t):
        for b in range(u):
            total += tiled[:, a, b, :, a : a + kh, b : b + kw]
    return total


def tile_view(rows: Array) -> Array:
    """View of contiguous `rows`, (O, p*T, q*U, N), as (O, T, U, p, q, N)."""
    o, height, width, n = rows.shape
    t, u = TILE
    return rows.reshape(o, height // t, t, width // u, u, n).transpose(0, 2, 4, 1, 3, 5)

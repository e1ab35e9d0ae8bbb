"""Convolution with 3 x 3 kernels by Winograd's minimal filtering, F(4 x 4, 3 x 3) of Lavin and Gray (2015).

A product of two polynomials of 3 and 4 coefficients follows from its values at five points and its leading
coefficient: 6 products, not 12. V(k) takes k coefficients to those values; let G = V(3), A = V(4), and let
B = 1 / V(6) take values back. A filter w that makes 4 outputs of 6 inputs x is the transpose of that,
A' [(G w) * (B' x)] with * elementwise. Done down and across, it makes a tile of 4 x 4 outputs of a patch of
6 x 6 pixels with 36 products, not 144:

    y = A' [sum over c of (G w G') * (B' x B)] A

The channels are summed in between, so each of the 36 is a matrix product of its own, (O, C) by (C, tiles),
and nearly all of the work once the channels are many. y is linear in x and in w, and the other maps are its
transposes: dw = G' [sum over tiles of (A g A') * (B' x B)] G, and the gradient by the image is taken as a
convolution with the rotated kernel (`conv_rotated`).

The transforms cancel in part, least with points near 1/sqrt(2) and sqrt(2): in float32 the largest error is
2e-6 to 4e-6 of the largest output, three to ten times that of the plain sum (1e-5 with the paper's points,
1 and 2). An inf or a NaN reaches its whole tile.

Source: https://arxiv.org/abs/1509.09308
"""

from collections.abc import Iterator
from functools import reduce
from math import prod
from operator import iadd

import numpy as np

from tinyconv.arguments import Pair
from tinyconv.arrays import Array, array_module, batch_last, contiguous_batch_last, empty_batch_last, scratch
from tinyconv.functional.conv.conv_rotated import rotated
from tinyconv.functional.conv.unfold import Window, padded

TILE, PATCH = 4, 6
POINTS = [0, 5 / 8, -5 / 8, 3 / 2, -3 / 2]
G, A, V = (np.vstack([np.vander(POINTS, k, increasing=True), np.eye(k)[-1:]]) for k in (3, TILE, PATCH))
B = np.linalg.inv(V)
GG, AA = np.kron(G, G), np.kron(A, A)  # both axes of flattened kernels and tiles
# A block's patches take a few times what the kernels take, which each block reads anew, within these limits.
LEAST_BYTES, MOST_BYTES = 4 << 20, 16 << 20
Sizes = tuple[int, ...]


def conv2d_winograd(
    input: Array, weight: Array, bias: Array | None, window: Window, groups: int, shape: Sizes
) -> Array:
    """`conv2d` with an output of `shape`; the arguments are checked, `serves_winograd` holds."""
    xp = array_module(input)
    n, o, height, width = shape
    output = empty_batch_last(shape, input.dtype, xp)
    image = _padded(input, window, shape)
    kernels = (xp.asarray(GG, input.dtype) @ weight.reshape(-1, 9).T).reshape(PATCH**2, o, -1)
    for rows in _blocks(weight.shape, shape, input.itemsize):
        patches = _patches(image, rows)
        products = scratch("products", (PATCH**2, o, patches.shape[2]), input.dtype, xp)
        xp.matmul(kernels, patches, out=products)
        tiles = scratch("tiles", (o, TILE**2, patches.shape[2]), input.dtype, xp)
        xp.matmul(xp.asarray(AA.T, input.dtype), products.swapaxes(0, 1), out=tiles)
        down, across = rows.stop - rows.start, grid(shape)[1]
        i, j = xp.arange(min(TILE * down, height - TILE * rows.start))[:, None], xp.arange(width)
        places = ((i % TILE * TILE + j % TILE) * down + i // TILE) * across + j // TILE
        pixels = tiles.reshape(o, TILE**2 * down * across, n).take(places, axis=1)
        if bias is not None:
            pixels += bias.reshape(-1, 1, 1, 1)
        batch_last(output)[:, TILE * rows.start : TILE * rows.stop] = pixels
    return output


def conv2d_input_winograd(
    input_size: Sizes, weight: Array, grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_input`; the arguments are checked, `serves_winograd` holds."""
    kernel, around = rotated(weight, window, groups)
    return conv2d_winograd(grad_output, kernel, None, around, groups, input_size)


def conv2d_weight_winograd(
    input: Array, weight_size: Sizes, grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_weight`; the arguments are checked, `serves_winograd` holds."""
    xp = array_module(input)
    image = _padded(input, window, grad_output.shape)
    grads = contiguous_batch_last(grad_output)
    blocks = _blocks(weight_size, grad_output.shape, input.itemsize)
    products = (_tiles(grads, rows) @ _patches(image, rows).swapaxes(1, 2) for rows in blocks)
    weight: Array = reduce(iadd, products).reshape(PATCH**2, -1).T @ xp.asarray(GG, input.dtype)
    return weight.reshape(weight_size)


def _padded(input: Array, window: Window, shape: Sizes) -> Array:
    """The padded image, with as much more as the last tiles of an output of `shape` want."""
    (top, bottom), (left, right) = window.padding
    around = (top, bottom + -shape[2] % TILE), (left, right + -shape[3] % TILE)
    return padded(input, window._replace(padding=around))


def grid(shape: Sizes) -> Pair:
    """How many tiles lie down and across an output of `shape`."""
    return -(-shape[2] // TILE), -(-shape[3] // TILE)


def _blocks(weight_size: Sizes, shape: Sizes, itemsize: int) -> Iterator[slice]:
    """The tile rows of an output of `shape`, block by block."""
    down, across = grid(shape)
    row = PATCH**2 * itemsize * max(weight_size[:2]) * max(1, across * shape[0])
    kernels = PATCH**2 * itemsize * prod(weight_size[:2])
    step = max(1, min(max(LEAST_BYTES, 4 * kernels), MOST_BYTES) // row)
    for top in range(0, down, step):
        yield slice(top, min(top + step, down))


def _patches(image: Array, rows: slice) -> Array:
    """B' x B of the patches of some tile rows of a padded `image`, (C, H, W, N): (36, C, tiles*N)."""
    xp = array_module(image)
    c, height, width, n = image.shape
    down, across = rows.stop - rows.start, width // TILE
    lines = xp.arange(TILE * rows.start, TILE * rows.stop + PATCH - TILE)
    places = xp.arange(PATCH)[:, None, None] + lines[:, None] * width + TILE * xp.arange(across)
    # Taken by index, since runs of N values, four pixels apart, are slow to copy by strides.
    pixels = image.reshape(c, height * width, n).take(places, axis=1)
    matrix = xp.asarray(B.T, image.dtype)
    half = scratch("across", (c, PATCH, len(lines), across * n), image.dtype, xp)
    flat = c, PATCH, len(lines) * across * n
    xp.matmul(matrix, pixels.reshape(flat), out=half.reshape(flat))
    windows = xp.lib.stride_tricks.sliding_window_view(half, PATCH, axis=2)[:, :, ::TILE].swapaxes(3, 4)
    patches = scratch("patches", (PATCH, PATCH, c, down, across * n), image.dtype, xp)
    xp.matmul(matrix, windows, out=patches.transpose(2, 1, 3, 0, 4))
    return patches.reshape(PATCH**2, c, down * across * n)


def _tiles(grads: Array, rows: slice) -> Array:
    """A g A' of the tiles of some tile rows of `grads`, (O, OH, OW, N): (36, O, tiles*N)."""
    xp = array_module(grads)
    o, height, width, n = grads.shape
    down, across, step = rows.stop - rows.start, -(-width // TILE), xp.arange(TILE)
    i = (step[:, None] + TILE * xp.arange(rows.start, rows.stop)).clip(0, height - 1)
    j = (step[:, None] + TILE * xp.arange(across)).clip(0, width - 1)
    tiles = grads.reshape(o, height * width, n).take(i[:, None, :, None] * width + j[:, None], axis=1)
    tiles[:, height - TILE * (rows.stop - 1) :, :, -1] = 0
    tiles[:, :, width - TILE * (across - 1) :, :, -1] = 0
    products = scratch("products", (PATCH**2, o, down * across * n), grads.dtype, xp)
    tiles = tiles.reshape(o, TILE**2, down * across * n)
    xp.matmul(xp.asarray(AA, grads.dtype), tiles, out=products.swapaxes(0, 1))
    return products

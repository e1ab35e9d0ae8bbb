"""Convolution with 3 x 3 kernels by Winograd's minimal filtering, F(4 x 4, 3 x 3) of Lavin and Gray (2015).

A product of two polynomials of 3 and 4 coefficients follows from its values at five points and its leading
coefficient: 6 products, not 12. V(k) maps k coefficients to those values; let G = V(3), A = V(4), and let
B = 1 / V(6) map values back. A filter w that computes 4 outputs from 6 inputs x is the transpose of that,
A' [(G w) * (B' x)] with * elementwise. Applied down and across, it computes a tile of 4 x 4 outputs from a
patch of 6 x 6 pixels with 36 products, not 144:

    y = A' [sum over c of (G w G') * (B' x B)] A

The channels are summed in between, so each of the 36 is a matrix product, (O, C) by (C, N); with many
channels these are nearly all of the work. In an image stored as (H, W, C, N) the transforms are products with
long contiguous rows too: B' times 6 rows of an image, then B' times 6 neighbouring columns of the result.
Rows of tiles are computed one after another, so that each stays in the cache.

y is linear in x and in w, and the other maps are its transposes: dw = G' [sum over tiles of (A g A') *
(B' x B)] G, with x and g stored as (H, W, N, C) so that the sum over the tiles of a row and over N is one
product; and the gradient with respect to the image is a convolution with the turned kernel.

The transforms lose digits by cancellation, fewest with points near 1/sqrt(2) and sqrt(2): in float32 the
largest error is 2e-6 to 4e-6 of the largest output, three to ten times that of the plain sum (1e-5 with the
paper's points, 1 and 2). An inf or a NaN spreads over its whole tile.

Source: https://arxiv.org/abs/1509.09308
"""

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyconv.arrays import Array
from tinyconv.functional.conv.geometry import Geometry
from tinyconv.functional.conv.windows import padded, sample_blocks

TILE, PATCH = 4, 6
POINTS = [0, 5 / 8, -5 / 8, 3 / 2, -3 / 2]
G, A, V = (np.vstack([np.vander(POINTS, k, increasing=True), np.eye(k)[-1:]]) for k in (3, TILE, PATCH))
B = np.linalg.inv(V)
GG = np.kron(G, G)  # for both axes of flattened kernels


def supports(geometry: Geometry) -> bool:
    """A 3x3 kernel, one group, no stride, no dilation."""
    plain = geometry.groups == 1 and geometry.kernel_size == (3, 3)
    return plain and geometry.stride == geometry.dilation == (1, 1)


def supports_input(geometry: Geometry) -> bool:
    """A 3x3 kernel, one group, no stride, no dilation, at most 2 rows and columns of padding."""
    return supports(geometry) and max(map(max, geometry.padding)) <= 2


def is_faster(geometry: Geometry) -> bool:
    """Return whether there are enough channels and tiles, and the tiles are not mostly padding."""
    (o, c, _, _), (n, _, oh, ow), (down, across) = (
        geometry.weight_shape,
        geometry.output_shape,
        grid(geometry),
    )
    filled = oh * ow / (TILE**2 * down * across)
    return supports(geometry) and n > 1 and min(o, c) * filled >= 12 and down * across * n >= 32


def is_faster_input(geometry: Geometry) -> bool:
    """Return whether it is faster for the convolution with the turned kernel."""
    return supports_input(geometry) and is_faster(geometry.turned)


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None) -> Array:
    """Return the output, of arrays that fit the geometry."""
    n, o, oh, ow = geometry.output_shape
    down, tiles = grid(geometry)
    image = padded(input, _whole_tiles(geometry))
    kernels = (GG.astype(weight.dtype) @ weight.reshape(-1, 9).T).reshape(PATCH, 1, PATCH, o, -1)
    to_pixels = A.T.astype(weight.dtype)
    output = np.empty((oh, ow, o, n), input.dtype)
    pixels = np.empty((TILE, TILE * tiles, o * n), input.dtype)
    products = np.empty((PATCH, tiles, PATCH, o, n), input.dtype)
    for t in range(down):
        patches = _patches(image, t, tiles)
        patches = patches.reshape(PATCH, tiles, PATCH, image.shape[2], n)
        for samples in sample_blocks(n, o * image.shape[2]):
            np.matmul(kernels, patches[..., samples], out=products[..., samples])
        across = np.matmul(to_pixels, products.reshape(PATCH, tiles, PATCH, o * n))
        _times_rows(to_pixels, across.reshape(PATCH, TILE * tiles, o * n), pixels)
        rows = output[TILE * t : TILE * t + TILE]
        rows[...] = pixels[: len(rows), :ow].reshape(rows.shape)
        if bias is not None:
            rows += bias[:, None]
    return output.transpose(3, 2, 0, 1)


def conv2d_input(geometry: Geometry, weight: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the image; see `supports_input`."""
    return conv2d(geometry.turned, grad_output, geometry.turned_weight(weight), None)


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    (o, c, _, _), (n, _, oh, ow), (down, tiles) = geometry.weight_shape, geometry.output_shape, grid(geometry)
    image = np.ascontiguousarray(padded(input, _whole_tiles(geometry)).swapaxes(2, 3))
    grads = np.zeros((TILE * down, TILE * tiles, n, o), grad_output.dtype)
    grads[:oh, :ow] = grad_output.transpose(2, 3, 1, 0).swapaxes(2, 3)
    to_values = A.astype(input.dtype)
    total = np.zeros((PATCH, PATCH, o, c), input.dtype)
    for t in range(down):
        rows, half = grads[TILE * t : TILE * t + TILE], np.empty((PATCH, TILE * tiles, n * o), grads.dtype)
        _times_rows(to_values, rows.reshape(TILE, TILE * tiles, n * o), half)
        values = np.empty((PATCH, PATCH, tiles, n * o), grads.dtype)
        np.matmul(to_values, half.reshape(PATCH, tiles, TILE, n * o), out=values.swapaxes(1, 2))
        patches = np.empty((PATCH, PATCH, tiles, n * c), grads.dtype)
        _patches(image, t, tiles, out=patches.swapaxes(1, 2))
        values, patches = (
            values.reshape(PATCH, PATCH, tiles * n, o),
            patches.reshape(PATCH, PATCH, tiles * n, c),
        )
        total += np.matmul(values.swapaxes(2, 3), patches)
    by_tap = GG.T.astype(input.dtype) @ total.reshape(PATCH**2, o * c)
    return np.ascontiguousarray(by_tap.T).reshape(o, c, 3, 3)


def grid(geometry: Geometry) -> tuple[int, int]:
    """Return how many tiles the output has down and across."""
    return -(-geometry.output_size[0] // TILE), -(-geometry.output_size[1] // TILE)


def _whole_tiles(geometry: Geometry) -> Geometry:
    """The geometry with the padding that completes the last tiles of the output."""
    (top, bottom), (left, right) = geometry.padding
    height, width = geometry.output_size
    return replace(geometry, padding=((top, bottom + -height % TILE), (left, right + -width % TILE)))


def _patches(image: Array, t: int, tiles: int, out: Array | None = None) -> Array:
    """B' x B of the patches of row of tiles `t`, of a padded `image`: (6, tiles, 6, pixel)."""
    matrix, rows, pixel = B.T.astype(image.dtype), image[TILE * t : TILE * t + PATCH], image[0, 0].size
    half = np.empty((PATCH, image.shape[1], pixel), image.dtype)
    _times_rows(matrix, rows.reshape(half.shape), half)
    row, column, item = half.strides
    windows = as_strided(half, (PATCH, tiles, PATCH, pixel), (row, TILE * column, column, item))
    return np.matmul(matrix, windows, out=out)


def _times_rows(matrix: Array, rows: Array, out: Array) -> None:
    """Matrix times rows of an image, (rows, W, pixel), column by column: BLAS is fastest with short rows."""
    np.matmul(matrix, rows.swapaxes(0, 1), out=out.swapaxes(0, 1))

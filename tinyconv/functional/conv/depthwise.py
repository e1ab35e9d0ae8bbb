"""Depthwise convolution: one input channel per group, by shifted multiplications and additions.

With a group for each channel, the sum is only over the taps, without a matrix product. So the
definition is computed literally, for all channels and samples at once:

    output[p, q] = sum over i, j of  weight[i, j] * x[p*s + i*d - P, q*s + j*d - P]      each a matrix (C, N)

a block of positions at a time, so that it stays in the cache while the taps are added up. The gradient with
respect to the weight is, for each tap, the sum over positions of g * x; that with respect to the image, for
stride 1, the same convolution with the turned kernel (`algorithms.py`).
"""

from collections.abc import Iterator

import numpy as np

from tinyconv.arrays import Array
from tinyconv.functional.conv.geometry import Geometry
from tinyconv.functional.conv.windows import padded

BLOCK_VALUES = 1 << 16  # of the output
MOST_SAMPLES = 16


def supports(geometry: Geometry) -> bool:
    """One input channel per group."""
    return geometry.groups > 1 and geometry.weight_shape[1] == 1


def is_faster(geometry: Geometry) -> bool:
    """Return whether there are too few samples for a matrix product per window to pay off."""
    return supports(geometry) and geometry.input_shape[0] < MOST_SAMPLES


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None) -> Array:
    """Return the output, of arrays that fit the geometry."""
    (n, o, oh, ow), c = geometry.output_shape, geometry.groups
    image, output = padded(input, geometry), np.empty((oh, ow, c, o // c, n), input.dtype)
    by_tap = weight.reshape(c, o // c, *geometry.kernel_size).transpose(2, 3, 0, 1)[..., None]
    factors = np.ascontiguousarray(np.broadcast_to(by_tap, (*geometry.kernel_size, c, o // c, n)))
    for rows, cols in _blocks(geometry):
        target = output[rows, cols]
        target[...] = 0 if bias is None else bias.reshape(c, o // c, 1)
        product = np.empty(target.shape, input.dtype)
        for i, j, _, _ in geometry.taps:
            np.multiply(_seen(image, geometry, i, j, rows, cols), factors[i, j], out=product)
            target += product
    return output.reshape(oh, ow, o, n).transpose(3, 2, 0, 1)


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    (n, o, oh, ow), c, (kh, kw) = geometry.output_shape, geometry.groups, geometry.kernel_size
    image, grads = padded(input, geometry), np.ascontiguousarray(grad_output.transpose(2, 3, 1, 0))
    grads, total = grads.reshape(oh, ow, c, o // c, n), np.zeros((kh, kw, o * n), input.dtype)
    for rows, cols in _blocks(geometry):
        seen_by = grads[rows, cols]
        product = np.empty(seen_by.shape, input.dtype)
        for i, j, _, _ in geometry.taps:
            np.multiply(_seen(image, geometry, i, j, rows, cols), seen_by, out=product)
            total[i, j] += product.reshape(-1, o * n).sum(axis=0) if n else 0
    return np.ascontiguousarray(total.reshape(kh, kw, o, n).sum(axis=3).transpose(2, 0, 1))[:, None]


def _blocks(geometry: Geometry) -> Iterator[tuple[slice, slice]]:
    """Cut the output positions into blocks of rows, or of parts of one row."""
    n, o, oh, ow = geometry.output_shape
    positions = max(1, BLOCK_VALUES // max(1, o * n))
    down, across = max(1, positions // ow), min(ow, positions)
    for top in range(0, oh, down):
        for left in range(0, ow, across):
            yield slice(top, min(top + down, oh)), slice(left, min(left + across, ow))


def _seen(image: Array, geometry: Geometry, i: int, j: int, rows: slice, cols: slice) -> Array:
    """What tap (i, j) sees of a padded `image` from the outputs `rows` x `cols`: (rows, cols, C, 1, N)."""
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    pixels = (
        slice(rows.start * sh + i * dh, (rows.stop - 1) * sh + i * dh + 1, sh),
        slice(cols.start * sw + j * dw, (cols.stop - 1) * sw + j * dw + 1, sw),
    )
    return image[pixels][..., None, :]

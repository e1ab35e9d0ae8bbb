"""Depthwise convolution: one channel per group, by the definition.

With a group for each channel the sum is over the taps only, without a matrix product. So `einsum` computes
the definition, for all channels and samples k at once:

    output[p, q, k]  = sum over i, j of  x[p*s + i, q*s + j, k] * w[i, j, k]
    dweight[i, j, k] = sum over p, q of  x[p*s + i, q*s + j, k] * g[p, q, k]

Its loop over k adds products up in the first-level cache, several times as fast as multiplications and
additions of whole arrays. The gradient with respect to the image is, for stride 1, the same
convolution with the turned kernel.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyconv.arrays import VALUE_WORK, Array, cut, in_threads, stored
from tinyconv.functional.conv.geometry import Geometry
from tinyconv.functional.conv.windows import rows_seen

SHORT_ROW = 1 << 14  # values of an output row that is one inner loop: the kernel is repeated for each pixel
MOST_PARTS, PART_VALUES = 16, 400_000  # blocks of rows, and values of one


def supports(geometry: Geometry) -> bool:
    """One input and one output channel per group, no dilation."""
    single = geometry.groups > 1 and geometry.groups == geometry.out_channels == geometry.input_shape[1]
    return single and geometry.dilation == (1, 1)


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write the output, of arrays that fit the geometry, to `out`."""
    n, c, oh, ow = geometry.output_shape
    target = out.transpose(2, 3, 1, 0).reshape(oh, ow, c * n)
    span = _span(geometry) if target[0].flags.c_contiguous else 1
    by_tap = weight.reshape(c, *geometry.kernel_size).transpose(1, 2, 0)
    factors = np.tile(np.repeat(by_tap, n, axis=2), span)
    shift = None if bias is None else np.repeat(bias, n)

    def run(block: slice) -> None:
        rows = target[block]
        result = rows.reshape(len(rows), ow // span, span * c * n)
        np.einsum("pqijk,ijk->pqk", _windows(input, geometry, block, span), factors, out=result)
        if shift is not None:
            rows += shift

    in_threads(run, _blocks(geometry), VALUE_WORK * target.size * len(geometry.taps))


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    (n, c, oh, ow), (kh, kw), span = geometry.output_shape, geometry.kernel_size, _span(geometry)
    grads, parts = stored(grad_output).reshape(oh, ow // span, span * c * n), _blocks(geometry)
    totals = np.empty((len(parts), kh, kw, span * c * n), input.dtype)

    def run(number: int) -> None:
        windows = _windows(input, geometry, parts[number], span)
        np.einsum("pqijk,pqk->ijk", windows, grads[parts[number]], out=totals[number])

    in_threads(run, range(len(parts)), VALUE_WORK * grads.size * kh * kw)
    by_tap = totals.sum(axis=0).reshape(kh, kw, span, c, n).sum(axis=(2, 4))
    return np.ascontiguousarray(by_tap.transpose(2, 0, 1))[:, None]


def _span(geometry: Geometry) -> int:
    """How many output columns one inner loop computes: all, if they are neighbours and few values."""
    n, c, _, ow = geometry.output_shape
    return ow if geometry.stride[1] == 1 and ow * c * n <= SHORT_ROW else 1


def _blocks(geometry: Geometry) -> list[slice]:
    """Cut the output rows into blocks: few enough that little is copied twice."""
    n, c, oh, ow = geometry.output_shape
    return cut(oh, min(MOST_PARTS, oh * ow * c * n // PART_VALUES))


def _windows(input: Array, geometry: Geometry, block: slice, span: int) -> Array:
    """The windows of some output rows: (rows, OW / span, KH, KW, span * C * N), a view."""
    rows, (sh, sw) = rows_seen(input, geometry, block), geometry.stride
    if span > 1:  # columns must be neighbours
        rows = np.ascontiguousarray(rows)
    pixel, item = input.shape[0] * input.shape[1], input.itemsize
    shape = (block.stop - block.start, geometry.output_size[1] // span, *geometry.kernel_size, span * pixel)
    row, column, _, _ = rows.strides
    return as_strided(rows, shape, (sh * row, sw * column, row, column, item))

"""Windows: a convolution as a stack of products with matrices that are windows of the image as stored.

In an image stored as (H, W, C, N) the values that the KW taps of one kernel row see are KW neighbouring
pixels: a matrix (KW*C, N) with one stride, which BLAS reads without a copy. If the KH rows that an output row
sees are copied next to each other,

    rows[p, w, i, c, n] = x[p*s + i*d, w, c, n]                  KH times the image, not KH * KW times

all windows are overlapping views of the copy, (OH, OW, KW*KH*C, N): window (p, q) begins at rows[p, q*s] and
has one stride. With the weight as a matrix (O, KW*KH*C) the convolution is one stacked product,

    output[p, q] = weight @ windows[p, q]                        (O, K) by (K, N): the output as stored

(Cho and Brand, "MEC", ICML 2017.) A stride is a stride of the view. For a dilation, the columns of each
residue modulo the dilation are copied next to each other, so that the taps of a window are neighbours.

The gradient with respect to the weight contracts over a whole output row at once. With x stored as
(H, C, W, N) and the cotangent as (OH, O, OW, N), what tap column j sees of KH image rows is a matrix
(KH*C, OW*N) as stored:

    dweight[:, j] = sum over p of  g[p] @ seen[p, j].T           (O, OW*N) by (OW*N, KH*C)

(For an image of few channels, what all tap columns see is copied into one matrix instead.)

The gradient with respect to the image uses windows of the turned kernel along the height of the cotangent,
and adds up along the width:

    dx[h, q*s + j*d - P] += turned[j] @ [g[p-KH+1, q], ..., g[p, q]]     for p = h + P

All of this is done for a block of rows at a time, so that the copies are in the cache when they are
multiplied.

Source: https://arxiv.org/abs/1706.06873
"""

from collections.abc import Iterator
from math import gcd

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyconv.arrays import Array
from tinyconv.functional.conv.geometry import UNPADDED, Geometry

BLOCK_BYTES = 1 << 20  # copied per block: half of a core's L2 cache, or all of it
LEAST_SAMPLES, MANY_SAMPLES = 4, 16  # a product has a column per sample
SMALL_PRODUCT = 1_000_000  # multiply-adds up to which OpenBLAS does not repack its operands
SMALL_ROW = 1024  # entries of a tap column of the weight
FEW_ROWS = 8  # of a matrix (KH*C, OW*N): OpenBLAS's kernels compute 4 to 16 rows at once


def is_faster(geometry: Geometry) -> bool:
    """Return whether there are enough samples: more where BLAS lacks a small-matrix kernel."""
    (o, c, kh, kw), groups, n = geometry.weight_shape, geometry.groups, geometry.input_shape[0]
    small = o // groups * c * kh * kw * min(n, MANY_SAMPLES) <= SMALL_PRODUCT
    return n >= (LEAST_SAMPLES if small else 2 * MANY_SAMPLES)


def is_faster_input(geometry: Geometry) -> bool:
    """Return whether there are enough samples, as columns add up KH * KW times the image."""
    return geometry.input_shape[0] >= LEAST_SAMPLES


def is_faster_weight(geometry: Geometry) -> bool:
    """Return whether there are enough samples; a larger weight needs more."""
    o, c, kh, _ = geometry.weight_shape
    return geometry.input_shape[0] >= (MANY_SAMPLES // 2 if o * c * kh <= SMALL_ROW else MANY_SAMPLES)


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None) -> Array:
    """Return the output, of arrays that fit the geometry."""
    (n, o, oh, ow), (_, c, kh, kw), groups = geometry.output_shape, geometry.weight_shape, geometry.groups
    image, output = padded(input, geometry), np.empty((oh, ow, o, n), input.dtype)
    taps = weight.reshape(groups, 1, o // groups, c, kh, kw).transpose(0, 1, 2, 5, 4, 3)
    matrix = taps.reshape(groups, 1, o // groups, kw * kh * c)
    by_group = output.reshape(oh, ow, groups, o // groups, n).swapaxes(1, 2)
    for samples in sample_blocks(n, matrix[0].size):
        part = image[..., samples]
        for block in blocks(oh, kh * part[0].nbytes):
            copied = _copied_rows(part, geometry, block)
            for outputs, windows in _windows(copied, geometry):
                np.matmul(matrix, windows, out=by_group[block, :, outputs, :, samples])
            if bias is not None:
                output[block, ..., samples] += bias[:, None]
    return output.transpose(3, 2, 0, 1)


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    o, c, kh, kw = geometry.weight_shape
    image, grads = padded(input, geometry), grad_output.transpose(2, 3, 1, 0)
    run = _add_weight_at_once if _few_channels(geometry) else _add_weight
    by_tap = np.zeros((kw, o, kh, c), input.dtype)
    for samples in sample_blocks(len(input), o // geometry.groups * kh * c * geometry.output_size[1]):
        run(by_tap, geometry, image[..., samples], grads[..., samples])
    return np.ascontiguousarray(by_tap.transpose(1, 3, 2, 0))


def _add_weight(by_tap: Array, geometry: Geometry, image: Array, grads: Array) -> None:
    """Add the gradient of some samples to `by_tap`, (KW, O, KH, C / G): one product for each tap column."""
    (o, c, kh, kw), (sh, sw), (dh, dw) = geometry.weight_shape, geometry.stride, geometry.dilation
    (oh, ow, _, n), groups = grads.shape, geometry.groups
    total = by_tap.reshape(kw, groups, o // groups, kh * c)
    for block in blocks(oh, (sh * image[0].size + grads[0].size) * image.itemsize):
        rows = slice(block.start * sh, (block.stop - 1) * sh + dh * (kh - 1) + 1)
        lines = _lines(image[rows], geometry)  # (dh, rows, G, C / G, sw, W, N), by residues
        g = grads[block].transpose(0, 2, 1, 3).reshape(block.stop - block.start, groups, o // groups, ow * n)
        _, row, group, channel, _, pixel, item = lines.strides
        for p, below, top, down in residues(sh, dh):
            for j, beside, left, across in residues(dw, sw):
                seen = as_strided(
                    lines[below, top:, :, :, beside, left:],
                    (len(g[p]), len(total[j]), groups, ow * n, kh * c),
                    (down * row, across * pixel, group, item, channel),
                )
                total[j] += np.matmul(g[p][:, None], seen).sum(axis=0)


def _few_channels(geometry: Geometry) -> bool:
    """Whether the products per tap column have too few rows: then all are copied, into one product."""
    _, c, kh, _ = geometry.weight_shape
    return geometry.groups == geometry.dilation[0] == 1 and kh * c <= FEW_ROWS


def _add_weight_at_once(by_tap: Array, geometry: Geometry, image: Array, grads: Array) -> None:
    """`_add_weight` for few channels: one product for all tap columns, copied as (H, KW, C, OW, N)."""
    (o, c, kh, kw), (sh, sw), dw = geometry.weight_shape, geometry.stride, geometry.dilation[1]
    (oh, ow, _, n), item = grads.shape, image.itemsize
    for block in blocks(oh, (sh * kw * c + o) * ow * n * item):
        rows = image[block.start * sh : (block.stop - 1) * sh + kh]
        lines = np.empty((len(rows), kw, c, ow, n), image.dtype)
        for j in range(kw):
            lines[:, j] = rows[:, j * dw : j * dw + (ow - 1) * sw + 1 : sw].swapaxes(1, 2)
        g = grads[block].swapaxes(1, 2).reshape(block.stop - block.start, o, ow * n)
        row, _, line, _, item = lines.strides
        seen = as_strided(lines, (len(g), ow * n, kh * kw * c), (sh * row, item, line))
        by_tap += np.matmul(g, seen).sum(axis=0).reshape(o, kh, kw, c).transpose(2, 0, 1, 3)


def conv2d_input(geometry: Geometry, weight: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the image."""
    (n, c, h, w), groups, grads = geometry.input_shape, geometry.groups, grad_output.transpose(2, 3, 1, 0)
    image = np.zeros((h, w, groups, c // groups, n), grad_output.dtype)
    for samples in sample_blocks(n, weight[0].size * geometry.out_channels // groups):
        _add_image(image[..., samples], geometry, weight, grads[..., samples])
    return image.reshape(h, w, c, n).transpose(3, 2, 0, 1)


def _add_image(image: Array, geometry: Geometry, weight: Array, grads: Array) -> None:
    """Add the gradient with respect to some samples to `image`, (H, W, G, C / G, N)."""
    (*_, groups, c, n), kw = image.shape, geometry.kernel_size[1]
    taps = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 4, 2, 3, 1)  # (G, KW, C / G, KH, O / G)
    for pixels, seeing, tap_rows, newest in _meetings(geometry):
        kernel, target, seen = taps[:, :, :, tap_rows], image[pixels], grads[seeing]
        kh = kernel.shape[3]
        turned = kernel[:, :, :, ::-1].reshape(groups, kw * c, kh * kernel.shape[4])
        for block in blocks(len(target), kw * target[:1].nbytes):
            first, last = newest + block.start - kh + 1, newest + block.stop
            parts = np.matmul(turned, _tall_windows(seen, first, last, kh, groups))
            parts = parts.reshape(*parts.shape[:3], kw, c, n)
            for _, j, (_, outputs), (_, columns) in geometry.taps[:kw]:
                target[block, columns] += parts[outputs, :, :, j].swapaxes(0, 1)


def padded(input: Array, geometry: Geometry) -> Array:
    """Return the padded image, (H + padding, W + padding, C, N), C-contiguous; a view if possible."""
    n, c, h, w = input.shape
    if geometry.padding == UNPADDED:
        image = np.ascontiguousarray(input.transpose(2, 3, 1, 0))
        item = image.itemsize  # the strides of axes of length 1 may be anything, and are used below
        return as_strided(image, (h, w, c, n), (w * c * n * item, c * n * item, n * item, item))
    (top, bottom), (left, right) = geometry.padding
    image = np.empty((top + h + bottom, left + w + right, c, n), input.dtype)
    image[:top] = image[top + h :] = 0
    image[:, :left] = image[:, left + w :] = 0
    image[top : top + h, left : left + w] = input.transpose(2, 3, 1, 0)
    return image


def blocks(count: int, nbytes: int) -> Iterator[slice]:
    """Cut `count` rows, of `nbytes` each, into blocks of about BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // max(1, nbytes))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def sample_blocks(count: int, size: int) -> Iterator[slice]:
    """Cut `count` samples into blocks whose products of `size` entries OpenBLAS does not repack."""
    most = SMALL_PRODUCT // max(1, size)
    parts = -(-count // most) if most >= MANY_SAMPLES else 1
    return (slice(part * count // parts, (part + 1) * count // parts) for part in range(parts))


def residues(stride: int, dilation: int) -> Iterator[tuple[slice, int, int, int]]:
    """Yield the outputs along an axis by the residue, modulo the dilation, of the positions they see.

    Each item is the outputs, the residue and, counted in positions of that residue, where the first output
    begins and the distance to the next.
    """
    every = dilation // gcd(stride, dilation)
    for first in range(every):
        start, residue = divmod(first * stride, dilation)
        yield slice(first, None, every), residue, start, stride * every // dilation


def _copied_rows(image: Array, geometry: Geometry, block: slice) -> Array:
    """What the output rows of `block` see of a padded `image`: (rows, G, DW, W / DW, KH, C / G, N)."""
    (_, w, c, n), kh, groups = image.shape, geometry.kernel_size[0], geometry.groups
    (sh, _), (dh, dw) = geometry.stride, geometry.dilation
    (row, pixel, channel, item), rows = image.strides, block.stop - block.start
    shape = (rows, groups, w, kh, c // groups, n)
    strides = (sh * row, channel * (c // groups), pixel, dh * row, channel, item)
    seen = as_strided(image[block.start * sh :], shape, strides)
    if c == groups:  # one channel per group: its taps need not be neighbours, and runs are long
        copied = np.empty((rows, dw, -(-w // dw), kh, groups, 1, n), image.dtype).transpose(
            0, 4, 1, 2, 3, 5, 6
        )
    else:
        copied = np.empty((rows, groups, dw, -(-w // dw), *shape[3:]), image.dtype)
    for residue in range(dw):
        columns = seen[:, :, residue::dw]
        copied[:, :, residue, : columns.shape[2]] = columns
    return copied


def _windows(copied: Array, geometry: Geometry) -> Iterator[tuple[slice, Array]]:
    """All windows of copied rows: outputs along the width, and their windows, (rows, G, outputs, K, N)."""
    rows, groups, _, _, kh, c, n = copied.shape
    (_, sw), (_, dw) = geometry.stride, geometry.dilation
    depth = geometry.kernel_size[1] * kh * c
    row, group, _, line, tap, channel, item = copied.strides
    channel = tap if c == 1 else channel
    for outputs, residue, first, step in residues(sw, dw):
        count = len(range(geometry.output_size[1])[outputs])
        shape, strides = (rows, groups, count, depth, n), (row, group, step * line, channel, item)
        yield outputs, as_strided(copied[:, :, residue, first:], shape, strides)


def _meetings(geometry: Geometry) -> Iterator[tuple[slice, slice, slice, int]]:
    """Which rows h of the image, p of the cotangent and i of the kernel meet: those with h + P = p*s + i*d.

    Rows h of one residue modulo lcm(s, d) meet every (s / gcd)-th row i and every (d / gcd)-th row p; as h
    rises by lcm(s, d), p rises by one of them, and as i rises, p falls.

    Yields:
        The rows h, p and i as slices, and the index among the rows p of the one at which the first row i
        meets the first row h.
    """
    stride, dilation, top = geometry.stride[0], geometry.dilation[0], geometry.padding[0][0]
    common = gcd(stride, dilation)
    every, taps_every, outputs_every = stride * dilation // common, stride // common, dilation // common
    for residue in range(0, every, common):  # of h + P; others meet nothing
        tap = next(i for i in range(taps_every) if (residue - i * dilation) % stride == 0)
        start, output = (residue - top) % every, (residue - tap * dilation) // stride
        newest = output // outputs_every + (start + top) // every
        if tap < geometry.kernel_size[0]:
            rows = slice(output % outputs_every, None, outputs_every)
            yield slice(start, None, every), rows, slice(tap, None, taps_every), newest


def _lines(image: Array, geometry: Geometry) -> Array:
    """A copy of some rows with channels before columns, (DH, rows, G, C / G, SW, columns, N), by residues."""
    (h, w, c, n), groups, sw, dh = image.shape, geometry.groups, geometry.stride[1], geometry.dilation[0]
    lines = np.empty((dh, groups, -(-h // dh), c // groups, sw, -(-w // sw), n), image.dtype).swapaxes(1, 2)
    source = image.reshape(h, w, groups, c // groups, n).transpose(0, 2, 3, 1, 4)
    for i in range(dh):
        for j in range(sw):
            part = source[i::dh, :, :, j::sw]
            lines[i, : part.shape[0], :, :, j, : part.shape[3]] = part
    return lines


def _tall_windows(grads: Array, first: int, last: int, kh: int, groups: int) -> Array:
    """Windows of `kh` rows of `grads`, (rows, OW, O, N), zero outside, from `first` to `last`.

    Returns a view (OW, windows, G, KH * O / G, N) of a copy with columns before rows.
    """
    height, ow, o, n = grads.shape
    tall = np.empty((ow, groups, last - first, o // groups, n), grads.dtype)
    inside = slice(max(first, 0), max(0, min(last, height)))
    above, below = min(max(0, -first), last - first), max(0, inside.stop - first)
    tall[:, :, :above] = tall[:, :, below:] = 0
    rows = grads[inside]
    rows = rows.reshape(len(rows), ow, groups, o // groups, n).transpose(1, 2, 0, 3, 4)
    tall[:, :, above : above + rows.shape[2]] = rows
    item = tall.itemsize
    row = o // groups * n * item
    shape = (ow, last - first - kh + 1, groups, kh * o // groups, n)
    strides = ((last - first) * groups * row, row, (last - first) * row, n * item, item)
    return as_strided(tall, shape, strides)

"""Windows: a convolution as a stack of products with matrices that are windows of the image as stored.

In an image stored as (H, W, C, N) the values that the KW taps of one kernel row see are KW neighbouring
pixels: a matrix (KW*C, N) with one stride, which BLAS reads without a copy. If the KH rows that an output row
sees are copied next to each other,

    rows[p, w, i, c, n] = x[p*s + i - P, w - P, c, n]            KH times the image, not KH * KW times

all windows are overlapping views of the copy, (OH, OW, KW*KH*C, N): window (p, q) begins at rows[p, q*s] and
has one stride. With the weight as a matrix (O, KW*KH*C) the convolution is one stacked product,

    output[p, q] = weight @ windows[p, q]                        (O, K) by (K, N): the output as stored

(Cho and Brand, "MEC", ICML 2017.) A stride is a stride of the view. A 1 x 1 kernel needs no copy.

The gradient with respect to the weight contracts over a whole output row at once. With x stored as
(H, C, W, N) and the cotangent as (OH, O, OW, N), what tap column j sees of KH image rows is a matrix
(KH*C, OW*N) as stored:

    dweight[:, j] = sum over p of  g[p] @ seen[p, j].T           (O, OW*N) by (OW*N, KH*C)

(For an image of few channels, what all tap columns see is copied into one matrix instead, where BLAS does not
have kernels for small matrices.)

The gradient with respect to the image, for stride 1, uses windows of the turned kernel along the height of
the cotangent, and adds up along the width:

    dx[h, q + j - P] += turned[j] @ [g[p-KH+1, q], ..., g[p, q]]     for p = h + P

(For few samples, or one channel per group, it is the convolution with the turned kernel.) All of this is
done for a block of rows at a time, so that the copies are in the cache when they are multiplied, by several
threads.

Dilations, and strides in the gradient with respect to the image, are left to `residues.py`.

Source: https://arxiv.org/abs/1706.06873
"""

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided

from tinyconv.arrays import Array, cut, in_threads, small_kernels
from tinyconv.functional.conv.geometry import Geometry, within

BLOCK_BYTES = 1 << 20  # copied per block: half of a core's L2 cache, or all of it
LEAST_SAMPLES, MANY_SAMPLES = 4, 16  # a product has a column per sample
SMALL_PRODUCT = 1_000_000  # multiply-adds up to which OpenBLAS does not repack its operands
LEAST_ROWS = 8  # of a product
M_PART, K_PART = 16, 72  # entries of a product "A times B transposed", at most
SMALL_ROW = 1024  # entries of a tap column of the weight
FEW_ROWS = 8  # of a matrix (KH*C, OW*N): OpenBLAS's kernels compute 4 to 16 rows at once
# Of sums over positions and samples, which several threads add up: positions and multiply-adds, at least.
PART_POSITIONS, PART_WORK, MOST_PARTS = 1024, 16_000_000, 16


def supports(geometry: Geometry) -> bool:
    """No dilation."""
    return geometry.dilation == (1, 1)


def supports_input(geometry: Geometry) -> bool:
    """No stride, no dilation, and less padding than the kernel's extent."""
    reached = all(max(pads) <= reach for pads, reach in zip(geometry.padding, geometry.reach, strict=True))
    return geometry.stride == geometry.dilation == (1, 1) and reached


def is_faster(geometry: Geometry) -> bool:
    """Return whether there are enough samples: more where BLAS lacks a small-matrix kernel."""
    (o, c, kh, kw), groups, n = geometry.weight_shape, geometry.groups, geometry.input_shape[0]
    small = o // groups * c * kh * kw * min(n, MANY_SAMPLES) <= SMALL_PRODUCT
    return supports(geometry) and n >= (LEAST_SAMPLES if small else 2 * MANY_SAMPLES)


def is_faster_input(geometry: Geometry) -> bool:
    """Return whether there are enough samples, as columns add up KH * KW times the image."""
    return supports_input(geometry) and geometry.input_shape[0] >= LEAST_SAMPLES


def is_faster_weight(geometry: Geometry) -> bool:
    """Return whether there are enough samples; a larger weight needs more."""
    o, c, kh, _ = geometry.weight_shape
    least = MANY_SAMPLES // 2 if o * c * kh <= SMALL_ROW else MANY_SAMPLES
    return supports(geometry) and geometry.input_shape[0] >= least


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write the output, of arrays that fit the geometry, to `out`."""
    (n, o, oh, ow), (_, c, kh, kw), groups = geometry.output_shape, geometry.weight_shape, geometry.groups
    taps = weight.reshape(groups, 1, o // groups, c, kh, kw).transpose(0, 1, 2, 5, 4, 3)
    matrix = taps.reshape(groups, 1, o // groups, kw * kh * c)
    output = out.transpose(2, 3, 1, 0)
    by_group = output.reshape(oh, ow, groups, o // groups, n).swapaxes(1, 2)

    def run(block: slice) -> None:
        windows = _windows(input, geometry, block)
        for channels in small_products(o // groups, matrix.shape[-1] * n):
            np.matmul(matrix[:, :, channels], windows, out=by_group[block, ..., channels, :])
        if bias is not None:
            output[block] += bias[:, None]

    row_bytes = kh * geometry.input_shape[3] * groups * c * n * input.itemsize
    in_threads(run, blocks(slice(0, oh), row_bytes), weight.size * oh * ow * n)


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    (n, o, oh, ow), (_, c, kh, kw) = geometry.output_shape, geometry.weight_shape
    few_channels = geometry.groups == 1 and kh * c <= FEW_ROWS and not small_kernels()
    add, copies = (_add_weight_at_once, kw) if few_channels else (_add_weight, 1)
    row_bytes = (geometry.stride[0] * geometry.input_shape[3] * copies * c * geometry.groups + ow * o) * n
    work = o * c * kh * kw * oh * ow * n
    parts = cut(oh, min(MOST_PARTS, work // PART_WORK, oh * ow * n // PART_POSITIONS))
    by_tap = np.zeros((len(parts), kw, o, kh, c), input.dtype)

    def run(number: int) -> None:
        for block in blocks(parts[number], row_bytes * input.itemsize):
            add(by_tap[number], geometry, input, grad_output, block)

    in_threads(run, range(len(parts)), work)
    total = by_tap[0] if len(parts) == 1 else by_tap.sum(axis=0)
    return np.ascontiguousarray(total.transpose(1, 3, 2, 0))


def _add_weight(by_tap: Array, geometry: Geometry, input: Array, grad_output: Array, block: slice) -> None:
    """Add what some output rows contribute to `by_tap`, (KW, O, KH, C / G): a product for each tap column."""
    (o, c, kh, kw), (sh, sw), groups = geometry.weight_shape, geometry.stride, geometry.groups
    n, _, _, ow = grad_output.shape
    total = by_tap.reshape(kw, groups, o // groups, kh * c)
    lines = _lines(input, geometry, block)  # (rows, G, C / G, sw, columns, N)
    g = grad_output.transpose(2, 1, 3, 0)[block].reshape(-1, 1, groups, o // groups, ow * n)
    row, group, channel, _, pixel, item = lines.strides
    for residue in range(min(sw, kw)):
        taps = total[residue::sw]
        shape, strides = (len(g), len(taps), groups, ow * n, kh * c), (sh * row, pixel, group, item, channel)
        taps += sum_of_products(g, as_strided(lines[:, :, :, residue], shape, strides))


def _add_weight_at_once(
    by_tap: Array, geometry: Geometry, input: Array, grad_output: Array, block: slice
) -> None:
    """`_add_weight` for few channels: one product for all tap columns, copied as (H, KW, C, OW, N)."""
    (o, c, kh, kw), (sh, sw), (n, _, _, ow) = geometry.weight_shape, geometry.stride, grad_output.shape
    rows = rows_seen(input, geometry, block)
    lines = np.empty((len(rows), kw, c, ow, n), rows.dtype)
    for j in range(kw):
        lines[:, j] = rows[:, j : j + (ow - 1) * sw + 1 : sw].swapaxes(1, 2)
    g = grad_output.transpose(2, 1, 3, 0)[block].reshape(-1, o, ow * n)
    row, _, line, _, item = lines.strides
    total = sum_of_products(g, as_strided(lines, (len(g), ow * n, kh * kw * c), (sh * row, item, line)))
    by_tap += total.reshape(o, kh, kw, c).transpose(2, 0, 1, 3)


def conv2d_input(geometry: Geometry, weight: Array, grad_output: Array, out: Array) -> None:
    """Write the gradient with respect to the image to `out`."""
    (n, c, h, w), groups, kw = geometry.input_shape, geometry.groups, geometry.kernel_size[1]
    taps = weight.reshape(groups, -1, *weight.shape[1:]).transpose(0, 4, 2, 3, 1)  # (G, KW, C / G, KH, O / G)
    turned = taps[:, :, :, ::-1].reshape(groups, kw * c // groups, -1)
    image = out.transpose(2, 3, 1, 0)

    def run(block: slice) -> None:
        target = image[block]
        target[...] = 0
        windows = _tall_windows(grad_output, geometry, block)
        parts = np.empty((*windows.shape[:3], turned.shape[1], n), target.dtype)
        for rows in small_products(turned.shape[1], turned.shape[2] * n):
            np.matmul(turned[:, rows], windows, out=parts[..., rows, :])
        parts = parts.reshape(*windows.shape[:3], kw, c // groups, n)
        for _, j, (_, outputs), (_, columns) in geometry.taps[:kw]:
            seen = target[:, columns].reshape(len(target), -1, groups, c // groups, n)
            seen += parts[outputs, :, :, j].swapaxes(0, 1)

    in_threads(run, blocks(slice(0, h), kw * image[:1].nbytes), weight.size * h * w * n)


def rows_seen(input: Array, geometry: Geometry, block: slice) -> Array:
    """Return the rows of the padded image that some output rows see, (rows, W + padding, C, N).

    It is a view if possible.
    """
    image, (h, w), (left, right) = input.transpose(2, 3, 1, 0), input.shape[2:], geometry.padding[1]
    first = block.start * geometry.stride[0] - geometry.padding[0][0]
    count = (block.stop - block.start - 1) * geometry.stride[0] + geometry.kernel_size[0]
    inside, seen = within(first, count, h)
    if inside == slice(0, count) and left == right == 0:
        return image[seen]
    rows = np.empty((count, left + w + right, *image.shape[2:]), image.dtype)
    rows[: inside.start] = rows[inside.stop :] = 0
    rows[:, :left] = rows[:, left + w :] = 0
    rows[inside, left : left + w] = image[seen]
    return rows


def _windows(input: Array, geometry: Geometry, block: slice) -> Array:
    """All windows of some output rows: a view (rows, G, OW, KW * KH * C / G, N)."""
    seen, (kh, kw), (sh, sw) = rows_seen(input, geometry, block), geometry.kernel_size, geometry.stride
    (_, w, c, n), groups, ow = seen.shape, geometry.groups, geometry.output_size[1]
    if kh == kw == 1:
        return seen[::sh, : (ow - 1) * sw + 1 : sw].reshape(-1, ow, groups, c // groups, n).swapaxes(1, 2)
    rows = np.empty((block.stop - block.start, groups, w, kh, c // groups, n), input.dtype)
    row, pixel, channel, item = seen.strides
    rows[...] = as_strided(seen, rows.shape, (sh * row, c // groups * channel, pixel, row, channel, item))
    row, group, pixel, _, channel, item = rows.strides
    shape = len(rows), groups, ow, kw * kh * c // groups, n
    return as_strided(rows, shape, (row, group, sw * pixel, channel, item))


def _tall_windows(grad_output: Array, geometry: Geometry, block: slice) -> Array:
    """What some image rows see of the cotangent along its height: a view (OW, rows, G, KH * O / G, N).

    It is of a copy with columns before rows.
    """
    (n, o, oh, ow), kh, groups = grad_output.shape, geometry.kernel_size[0], geometry.groups
    count = block.stop - block.start + kh - 1
    inside, seen = within(block.start + geometry.padding[0][0] - kh + 1, count, oh)
    grads = grad_output.transpose(3, 2, 1, 0)[:, seen].reshape(ow, -1, groups, o // groups, n).swapaxes(1, 2)
    tall = np.empty((ow, groups, count, o // groups, n), grads.dtype)
    tall[:, :, : inside.start] = tall[:, :, inside.stop :] = 0
    tall[:, :, inside] = grads
    column, group, row, _, _ = tall.strides
    shape = (ow, count - kh + 1, groups, kh * o // groups, n)
    return as_strided(tall, shape, (column, row, group, n * tall.itemsize, tall.itemsize))


def _lines(input: Array, geometry: Geometry, block: slice) -> Array:
    """The image rows that some output rows see, with channels before columns: a copy.

    Columns of one residue modulo the stride are neighbours: (rows, G, C / G, stride, columns, N).
    """
    (n, c, h, w), groups, (sh, sw) = input.shape, geometry.groups, geometry.stride
    (top, _), (left, right) = geometry.padding
    count = (block.stop - block.start - 1) * sh + geometry.kernel_size[0]
    columns = -(-(left + w + right) // sw)
    inside, seen = within(block.start * sh - top, count, h)
    lines = np.empty((groups, count, c // groups, sw, columns, n), input.dtype).swapaxes(0, 1)
    lines[: inside.start] = lines[inside.stop :] = 0
    image = input.transpose(2, 1, 3, 0).reshape(h, groups, c // groups, w, n)[seen]
    for j in range(sw):
        across, pixels = within(j - left, columns, w, sw)
        line = lines[inside, :, :, j]
        line[..., : across.start, :] = line[..., across.stop :, :] = 0
        line[..., across, :] = image[..., pixels, :]
    return lines


def blocks(rows: slice, row_bytes: int) -> list[slice]:
    """Cut `rows`, of `row_bytes` each, into blocks of about BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]


def sum_of_products(g: Array, seen: Array) -> Array:
    """Compute the sum over rows of g @ seen, (rows, ..., M, P) by (rows, ..., P, K): (..., M, K).

    `seen` is transposed, so where BLAS has small kernels the product is computed in parts of at most
    16 x 72 entries.
    """
    (m, terms), k = g.shape[-2:], seen.shape[-1]
    m_part, k_part = (divisor(m, M_PART), divisor(k, K_PART)) if small_kernels() else (m, k)
    spans = small_products(terms, m_part * k_part)
    if (m_part, k_part, len(spans)) == (m, k, 1):
        whole: Array = np.matmul(g, seen).sum(axis=0)
        return whole
    left = g.reshape(*g.shape[:-2], m // m_part, 1, m_part, terms)
    right = np.moveaxis(seen.reshape(*seen.shape[:-1], k // k_part, k_part), -2, -3)[..., None, :, :, :]
    parts = sum(np.matmul(left[..., span], right[..., span, :]).sum(axis=0) for span in spans)
    return np.asarray(parts).swapaxes(-2, -3).reshape(*seen.shape[1:-2], m, k)


@lru_cache
def divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` up to `most`; `number` itself if that is small."""
    largest = max(d for d in range(1, min(number, most) + 1) if number % d == 0)
    return largest if 4 * largest > most else number


def small_products(count: int, size: int) -> list[slice]:
    """Cut `count` rows, of `size` multiply-adds each, so that OpenBLAS does not repack a product's operands.

    Where this would leave a few rows only, they are one product.
    """
    most = SMALL_PRODUCT // max(1, size)
    return cut(count, -(-count // most) if most >= LEAST_ROWS and small_kernels() else 1)

"""Depthwise convolution: each channel's kernel as a band matrix, times rows unfolded along the width.

With a group for each channel, the matrix of a kernel has a single row, (1, KH*KW), which BLAS multiplies
slowly. So let a product make a tile of T rows: unfold the image along the width only, and let the kernel
become T copies of itself among zeros, each shifted by the stride,

    expanded[c, r, j, q] = x[c, r, q*s + j*d - P]
    band[c, a, a*s + i*d, j] = w[c, i, j]
    y[c, t*T + a, q] = sum over r, j of band[c, a, r, j] * expanded[c, t*T*s - P + r, j, q]

The rows of neighbouring tiles overlap, and all products read them from the one `expanded`: each pixel is
copied KW times instead of KH*KW times. The price is a product with zeros.

The gradient by the image has the same form: its row y receives from the rows p of g with p*s + i*d - P = y,
which for tiles of a multiple of s rows is one band again, and g is unfolded the other way round:

    expanded[c, p, j, q*s + j*d - P] = g[c, p, q]

The gradient by the kernel is, for each tap, the dot product of g and the rows of `expanded` that it sees.
"""

from collections.abc import Iterator

from tinyconv.arguments import Pair
from tinyconv.arrays import Array, array_module, batch_last, contiguous_batch_last, empty_batch_last
from tinyconv.functional.conv.unfold import Window

TILE_ROWS = 4  # measured with OpenBLAS: products of fewer rows are too small, those of more mostly zeros
BLOCK_BYTES = 2 << 20  # of `expanded`, which should stay in the cache until it is multiplied

Taps = list[tuple[int, int, int]]  # (a, i, r): the first tile's row a sees row r through the kernel's row i
Columns = list[tuple[slice, slice]]  # for each tap along the width, positions in `expanded` and its source


def conv2d_depthwise(
    input: Array, weight: Array, bias: Array | None, window: Window, groups: int, shape: tuple[int, ...]
) -> Array:
    """`conv2d` with an output of `shape`; the arguments are checked."""
    c, (kh, kw), s, d = input.shape[1], window.kernel, window.stride[0], window.dilation[0]
    height = min(TILE_ROWS, shape[2])
    taps = [(a, i, a * s + i * d - window.padding[0][0]) for a in range(height) for i in range(kh)]
    output = empty_batch_last(shape, input.dtype, array_module(input))
    kernels, source = weight.reshape(c, -1, 1, kh, kw), batch_last(input)[:, :, None]
    columns = column_taps(window, input.shape[3], shape[3])
    multiply(kernels, taps, (height, s * height), source, columns, output, bias)
    return output


def conv2d_input_depthwise(
    input_size: tuple[int, ...], weight: Array, grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_input`; the arguments are checked."""
    c, (kh, kw), s, d = input_size[1], window.kernel, window.stride[0], window.dilation[0]
    height = s * -(-min(TILE_ROWS, input_size[2]) // s)
    reached = [(a, i, a - i * d + window.padding[0][0]) for a in range(height) for i in range(kh)]
    taps = [(a, i, row // s) for a, i, row in reached if row % s == 0]
    columns = [(seen, made) for made, seen in column_taps(window, input_size[3], grad_output.shape[3])]
    image = empty_batch_last(input_size, grad_output.dtype, array_module(grad_output))
    kernels, grads = weight.reshape(c, 1, -1, kh, kw), batch_last(grad_output)
    source = grads.reshape(c, kernels.shape[2], *grads.shape[1:]).swapaxes(1, 2)
    multiply(kernels, taps, (height, height // s), source, columns, image, None)
    return image


def conv2d_weight_depthwise(
    input: Array, weight_size: tuple[int, ...], grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_weight`; the arguments are checked."""
    (n, c, _, width), (kh, kw), s, d = input.shape, window.kernel, window.stride[0], window.dilation[0]
    xp, (oh, ow), top = array_module(input), grad_output.shape[2:], window.padding[0][0]
    rows, columns = range(-top, (oh - 1) * s + (kh - 1) * d + 1 - top), column_taps(window, width, ow)
    grads = contiguous_batch_last(grad_output).reshape(c, weight_size[0] // c, 1, 1, 1, oh * ow * n)
    weight: Array = xp.empty((*grads.shape[:2], kw, kh, 1, 1), input.dtype)
    for block, expanded in expanded_blocks(batch_last(input)[:, :, None], rows, columns, ow, taps_first=True):
        channel, row, _, tap, _, item = expanded.strides
        shape, strides = (len(expanded), 1, kw, kh, oh, ow * n), (channel, 0, tap, row * d, row * s, item)
        seen = xp.lib.stride_tricks.as_strided(expanded, shape, strides)
        xp.matmul(grads[block], seen.reshape(*shape[:4], oh * ow * n, 1), out=weight[block])
    return weight.swapaxes(2, 3).reshape(weight_size)


def column_taps(window: Window, width: int, output_width: int) -> Columns:
    """For each tap along the width, the output positions where it lies inside, and the pixels seen there."""
    return [window.inside(1, j, width, slice(0, output_width)) for j in range(window.kernel[1])]


def multiply(
    kernels: Array, taps: Taps, tile: Pair, source: Array, columns: Columns, output: Array, bias: Array | None
) -> None:
    """Write to `output` the products with `source`, (C, rows, inputs, W, N); `tile` is the step in either."""
    xp, (n, _, height, width), (t, step) = array_module(source), output.shape, tile
    band, reads = band_matrix(kernels, taps, t)
    (c, o, _, _, depth), (whole, rest), length = band.shape, divmod(height, t), width * n
    outputs = batch_last(output).reshape(c, o, height, length)
    rows = range(reads.start, reads.stop + (height - 1) // t * step)
    for block, expanded in expanded_blocks(source, rows, columns, width):
        channel, row, *_, item = expanded.strides
        shape, strides = (len(expanded), 1, -(-height // t), depth, length), (step * row, length * item, item)
        seen = xp.lib.stride_tricks.as_strided(expanded, shape, (channel, 0, *strides))
        made = outputs[block]
        tiles = made[:, :, : whole * t].reshape(len(made), o, whole, t, length)
        xp.matmul(band[block], seen[:, :, :whole], out=tiles)
        if rest:
            xp.matmul(band[block, :, 0, :rest], seen[:, :, whole], out=made[:, :, whole * t :])
        if bias is not None:
            made += bias.reshape(c, o, 1, 1)[block]


def band_matrix(kernels: Array, taps: Taps, height: int) -> tuple[Array, range]:
    """`kernels`, (C, outputs, inputs, KH, KW), as (C, outputs, 1, T, rows * inputs * KW), and those rows."""
    c, o, m, _, kw = kernels.shape
    reads = range(min(row for *_, row in taps), max(row for *_, row in taps) + 1)
    band = array_module(kernels).zeros((c, o, height, len(reads), m, kw), kernels.dtype)
    for a, i, row in taps:
        band[:, :, a, row - reads.start] = kernels[:, :, :, i]
    return band.reshape(c, o, 1, height, len(reads) * m * kw), reads


def expanded_blocks(
    source: Array, rows: range, columns: Columns, width: int, taps_first: bool = False
) -> Iterator[tuple[slice, Array]]:
    """Unfold `rows` of `source` along the width, in a buffer that each block of channels overwrites.

    Yields the channels, and (channels, rows, inputs, KW, width, N), which may lie taps before rows in memory.
    """
    xp, (c, height, m, _, n), kw = array_module(source), source.shape, len(columns)
    deep = min(c, max(1, BLOCK_BYTES // max(1, len(rows) * m * kw * width * n * source.itemsize)))
    if taps_first:
        buffer = xp.zeros((deep, m, kw, len(rows), width, n), source.dtype).transpose(0, 3, 1, 2, 4, 5)
    else:
        buffer = xp.zeros((deep, len(rows), m, kw, width, n), source.dtype)
    start = max(rows.start, 0)
    inside = slice(start, max(start, min(rows.stop, height)))
    filled = buffer[:, inside.start - rows.start : inside.stop - rows.start]
    for channel in range(0, c, deep):
        block = slice(channel, min(channel + deep, c))
        for j, (positions, pixels) in enumerate(columns):
            filled[: block.stop - channel, :, :, j, positions] = source[block, inside, :, pixels]
        yield block, buffer[: block.stop - channel]

"""Stacks: a convolution on a GPU as a few products of stacks of matrices, each of which is one kernel.

In an image stored as (H, W, C, N), what one kernel row sees at output (p, q) is a matrix (KW*C, N) as stored,
and cuBLAS multiplies all of them at once where they are, though they overlap. With the weight of kernel row i
as a matrix (O, KW*C), and g the cotangent,

    output[p, q] = sum over i of  weight[i] @ windows[i, p, q]           (O, KW*C) by (KW*C, N)
    dweight[i]   = sum over p, q of  g[p, q] @ windows[i, p, q].T        (O, N) by (N, KW*C)

The gradient with respect to the image is the convolution of the cotangent with the turned kernel
(`algorithms.py`). For few channels the KH rows that an output row sees are copied next to each other first,
so that there is one product instead of KH small ones (see `windows.py`).

On the CPU the same is done by `windows.py` in blocks that stay in the cache, by several threads.
"""

from collections.abc import Iterator

from tinyconv.arrays import Array, array_module, as_strided, matmul
from tinyconv.functional.conv.geometry import UNPADDED, Geometry

LEAST_TERMS = 96  # KW * C of a product
BLOCK_BYTES = 1 << 28  # of what is copied, or added up, at a time


def conv2d(geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write the output, of arrays that fit the geometry, to `out`."""
    output, by_group = out.transpose(2, 3, 1, 0), _by_group(out, geometry)
    xp, (o, c, kh, kw), height = array_module(input), weight.shape, _rows_together(geometry)
    kernels = xp.ascontiguousarray(weight.reshape(o, c, -1, height, kw).transpose(0, 2, 4, 3, 1))
    matrices = kernels.reshape(geometry.groups, 1, o // geometry.groups, kh // height, kw * height * c)
    for rows, tap, windows in _windows(input, geometry):
        matmul(matrices[..., tap, :], windows, out=by_group[rows], add=tap > 0)
    if bias is not None:
        output += bias[:, None]


def conv2d_weight(geometry: Geometry, input: Array, grad_output: Array) -> Array:
    """Return the gradient with respect to the weight."""
    (o, c, kh, kw), grads = geometry.weight_shape, _by_group(grad_output, geometry)
    weight: Array = array_module(input).empty((o, c, kh, kw), input.dtype)
    height = _rows_together(geometry)
    by_taps = weight.reshape(o, c, -1, height, kw)
    for rows, tap, windows in _windows(input, geometry):
        products = matmul(grads[rows], windows.swapaxes(-1, -2)).sum(axis=(0, 2))
        target, part = by_taps[:, :, tap], products.reshape(o, kw, height, c).transpose(0, 3, 2, 1)
        if rows.start:
            target += part
        else:
            target[...] = part
    return weight


def _by_group(images: Array, geometry: Geometry) -> Array:
    """A view of (N, O, OH, OW) as (OH, G, OW, O / G, N)."""
    n, o, oh, ow = images.shape
    by_group: Array = images.transpose(2, 3, 1, 0).reshape(oh, ow, geometry.groups, o // geometry.groups, n)
    return by_group.swapaxes(1, 2)


def _rows_together(geometry: Geometry) -> int:
    """How many kernel rows are one product: one, or for few channels all."""
    _, c, kh, kw = geometry.weight_shape
    return kh if geometry.groups > 1 or kw * c < LEAST_TERMS else 1


def _windows(input: Array, geometry: Geometry) -> Iterator[tuple[slice, int, Array]]:
    """Some output rows, the number of a product, and what they see.

    That is a view (rows, G, OW, KW * kernel rows * C / G, N).
    """
    image, height, groups = _padded(input, geometry), _rows_together(geometry), geometry.groups
    (o, c, kh, kw), (sh, sw), (oh, ow) = geometry.weight_shape, geometry.stride, geometry.output_size
    _, width, channels, n = image.shape
    item, terms = image.itemsize, kw * height * c
    # From the shape, as the stride of an axis of length 1 may be anything.
    value, pixel, row = n * item, channels * n * item, width * channels * n * item
    step = max(1, BLOCK_BYTES // max(height * row, ow * o * terms * item))
    for start in range(0, oh, step):
        count = min(step, oh - start)
        for tap in range(0, kh, height):
            strides = sh * row, c * value, pixel, row, value, item
            rows = as_strided(image[start * sh + tap :], (count, groups, width, height, c, n), strides)
            line, group, column = strides[:3]
            if height > 1:
                rows = array_module(rows).ascontiguousarray(rows)
                column = height * c * value
                line, group = groups * width * column, width * column
            shape = count, groups, ow, terms, n
            windows = as_strided(rows, shape, (line, group, sw * column, value, item))
            yield slice(start, start + count), tap // height, windows


def _padded(input: Array, geometry: Geometry) -> Array:
    """The padded image as stored, (H, W, C, N): a view if possible."""
    image, ((top, bottom), (left, right)) = input.transpose(2, 3, 1, 0), geometry.padding
    h, w, c, n = image.shape
    if geometry.padding == UNPADDED:
        return image
    padded: Array = array_module(input).zeros((top + h + bottom, left + w + right, c, n), input.dtype)
    padded[top : top + h, left : left + w] = image
    return padded

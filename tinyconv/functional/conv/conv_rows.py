"""The gradient by the image row by row: nothing scattered along the height, and a kernel turned over.

In terms of columns the gradient by the image is W.T @ g, KH * KW entries for each pixel that was read so
often, to be added up. Copy pixels along the width alone, wide[h, c, j, q] = x[c, h, q*s + j*d - P], as tap j
of output column q reads them. Tap i of output row p = (h + P - i) / s reads row h. Seen from h, the rows of g
that count are neighbours, and as p rises i falls:

    gradient of wide[h] = [..., W[i+s].T, W[i].T] @ [..., g[p-1], g[p]]       for i = h + P modulo s

With g in memory as (OH, O, OW, N) those rows are one matrix, (taps * O, OW * N), as they lie: this is one
product a row of the image, none of it with zeros, and what is left to add up are KW copies along the width.

For stride 1 a convolution is itself such a gradient: that of a convolution with the rotated kernel, channels
exchanged (`conv_rotated`). With no more outputs than inputs and a large kernel, that is faster as well.
"""

from tinyconv.arrays import Array, array_module, batch_last, contiguous_batch_last, scratch
from tinyconv.functional.conv.unfold import Window, position_blocks, zeros_batch_last


def conv2d_input_rows(
    input_size: tuple[int, ...], weight: Array, grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_input`; the arguments are checked."""
    n, c, height, width = input_size
    kw, ow = window.kernel[1], grad_output.shape[3]
    image_grad = zeros_batch_last(input_size, like=grad_output)
    image = batch_last(image_grad).reshape(groups, c // groups, height, width, n)
    kernels, grads = _turned(weight, window.stride[0], groups), _stacked(grad_output, groups)
    for rows, _ in position_blocks((height, 1), c * kw * ow * n * image.itemsize, array_module(image)):
        shape = (groups, rows.stop - rows.start, c // groups, kw, ow, n)
        wide = scratch("columns", shape, image.dtype, array_module(image))
        for h in range(rows.start, rows.stop):
            _row_gradient(h, kernels, grads, window, wide[:, h - rows.start])
        for j in range(kw):
            outputs, pixels = window.inside(1, j, width, slice(0, ow))
            seen = image[:, :, rows, pixels]
            seen += wide[:, :, :, j, outputs].swapaxes(1, 2)
    return image_grad


def _row_gradient(h: int, kernels: list[Array], grads: Array, window: Window, out: Array) -> None:
    """The product for row `h` of the image, written to `out`, (groups, C, KW, OW, N)."""
    groups, height, o, columns = grads.shape
    newest, tap = divmod(h + window.padding[0][0], window.stride[0])
    kernel = kernels[tap]
    oldest = newest + 1 - kernel.shape[2] // o
    first, last = max(oldest, 0), min(newest + 1, height)
    if first >= last:
        out[...] = 0
        return
    kernel = kernel[:, :, (first - oldest) * o : (last - oldest) * o]
    rows = grads[:, first:last].reshape(groups, (last - first) * o, columns)
    array_module(grads).matmul(kernel, rows, out=out.reshape(groups, kernel.shape[1], columns))


def _turned(weight: Array, stride: int, groups: int) -> list[Array]:
    """For each h + P modulo `stride` the taps that read it, the last first: (groups, C * KW, taps * O)."""
    _, c, kh, kw = weight.shape
    taps = weight.reshape(groups, -1, c, kh, kw).transpose(0, 2, 4, 3, 1)
    return [taps[:, :, :, r::stride][:, :, :, ::-1].reshape(groups, c * kw, -1) for r in range(stride)]


def _stacked(grad_output: Array, groups: int) -> Array:
    """A copy as (groups, OH, O, OW * N)."""
    grads = contiguous_batch_last(grad_output)
    o, oh, ow, n = grads.shape
    stack = scratch("stack", (groups, oh, o // groups, ow * n), grads.dtype, array_module(grads))
    stack[...] = grads.reshape(groups, o // groups, oh, ow * n).swapaxes(1, 2)
    return stack

"""Which formula for the gradients of a convolution is right where?

Rotate the kernel? Transpose which axes? Why does it fail for a stride? Many formulas pass a test with one
image of one channel, and fail for several, with padding or with a stride. This script prints a short answer,
and then tables that compare the usual formulas.

A convolution of a network does not rotate the kernel. With stride s and padding P it is

    y[n,o,p,q] = sum over c,i,j of x[n, c, p*s+i-P, q*s+j-P] * w[o,c,i,j]        (x is 0 outside the image)

Each product of the sum adds g * w to the gradient of its x, and g * x to that of its w, where g is the
gradient with respect to y. So grad_x is a sum over output channels, and grad_w a sum over the batch:

    grad_x[n,c,a,b] = sum of g[n,o,p,q] * w[o,c,i,j] over all o,p,q,i,j with a = p*s+i-P and b = q*s+j-P
    grad_w[o,c,i,j] = sum over n,p,q of g[n,o,p,q] * x[n, c, p*s+i-P, q*s+j-P]

`F.conv2d_input` and `F.conv2d_weight` compute these two. As convolutions, for a kernel of KH rows:

    grad_x  spread g to the positions of stride 1, with zeros between and, for rows that the stride left
            unread, at the end; rotate w by 180 degrees and swap its in and out channels; convolve with
            padding KH - 1 ("full") and cut P off each side
    grad_w  swap batch and channels of x and of g; convolve x with g as the kernel, with padding P and
            the stride as dilation; keep the first KH rows; swap the first two axes back

Run it: python examples/conv_gradient_formulas.py
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import scipy.signal

import tinyconv.functional as F
from tinyconv import reference
from tinyconv.arrays import Array

Candidate: TypeAlias = Callable[[Array, Array, Array, int, int], Array]
Arguments: TypeAlias = tuple[Array, Array, Array, int, int]

ANSWER = """\
Rotate the kernel?    Only in conv2d(g, ...) for grad_x; conv_transpose2d and SciPy's convolve2d take w as is.
Transpose which axes? For grad_x in and out channels of w; for grad_w batch and channels of x and g, and back.
Why not for a stride? grad_x needs zeros between the values of g, and at the end for rows that were not read;
                      grad_w needs the stride as dilation, and is then cut to the size of the kernel.
Without guessing:     conv2d_input(x.shape, w, g, stride, padding); conv2d_weight(x, w.shape, g, ...)
"""


# Parts of the formulas


def rotated(w: Array) -> Array:
    """Return `w`, rotated by 180 degrees."""
    return w[:, :, ::-1, ::-1]


def swapped(array: Array) -> Array:
    """Return `array` with its first two axes swapped: in and out channels, or batch and channels."""
    return array.swapaxes(0, 1)


def padded(x: Array, padding: int) -> Array:
    """Return `x` with zeros around each image."""
    return np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])


def cropped(x: Array, padding: int) -> Array:
    """Return `x` without the padding of `padded`."""
    return x[:, :, padding : x.shape[2] - padding, padding : x.shape[3] - padding]


def at_stride_one(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Return `grad_output` with zeros at the positions of stride 1 that the stride skips."""
    n, o = grad_output.shape[:2]
    height, width = (x.shape[axis] + 2 * padding - w.shape[axis] + 1 for axis in (2, 3))
    spread = np.zeros((n, o, height, width))
    spread[:, :, ::stride, ::stride] = grad_output
    return spread


# Gradients with respect to x. The table prints a candidate's docstring as the reason.


def grad_x_from_output(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """The output is not its gradient, which comes from the loss."""
    return F.conv2d_input(x.shape, w, F.conv2d(x, w, None, stride, padding), stride, padding)


def grad_x_not_rotated(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Forward reads row p+i, backward row a-i: rotate; stride 1 only."""
    return F.conv2d(grad_output, swapped(w), padding=w.shape[2] - 1 - padding)


def grad_x_rotated(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """It sums over in channels instead of out channels; stride 1 only."""
    return F.conv2d(grad_output, rotated(w), padding=w.shape[2] - 1 - padding)


def grad_x_rotated_swapped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right for stride 1; a stride needs zeros between the values of g."""
    return F.conv2d(grad_output, swapped(rotated(w)), padding=w.shape[2] - 1 - padding)


def grad_x_padding_of_forward(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """It needs padding KH-1-P, which is P if 2P = KH-1; stride 1 only."""
    return F.conv2d(grad_output, swapped(rotated(w)), padding=padding)


def grad_x_zeros_between_only(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Rows at the end that the stride left unread need zeros, too."""
    height, width = ((size - 1) * stride + 1 for size in grad_output.shape[2:])
    spread = at_stride_one(grad_output, x, w, stride, padding)[:, :, :height, :width]
    return F.conv2d(spread, swapped(rotated(w)), padding=w.shape[2] - 1 - padding)


def grad_x_scipy_full(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """One image, one channel, stride 1; "full" includes the padding."""
    full: Array = scipy.signal.convolve2d(grad_output.squeeze(), w.squeeze(), mode="full")
    return full[None, None]


def grad_x_scipy_same(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """One image, one channel, stride 1; right only if 2P = KH-1."""
    same: Array = scipy.signal.convolve2d(grad_output.squeeze(), w.squeeze(), mode="same")
    return same[None, None]


def grad_x_scipy_not_summed(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """= instead of +=: each out channel overwrites the one before."""
    spread, grad = at_stride_one(grad_output, x, w, stride, padding), padded(np.zeros_like(x), padding)
    for n, o, c in np.ndindex(len(x), *w.shape[:2]):
        grad[n, c] = scipy.signal.convolve2d(spread[n, o], w[o, c], mode="full")
    return cropped(grad, padding)


def grad_x_scipy_summed(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: convolve2d rotates w itself, and out channels are summed."""
    spread, grad = at_stride_one(grad_output, x, w, stride, padding), padded(np.zeros_like(x), padding)
    for n, o, c in np.ndindex(len(x), *w.shape[:2]):
        grad[n, c] += scipy.signal.convolve2d(spread[n, o], w[o, c], mode="full")
    return cropped(grad, padding)


def grad_x_transposed_swapped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """conv_transpose2d takes w as it is; swapped, it sums over in channels."""
    unread = tuple((x.shape[axis] + 2 * padding - w.shape[axis]) % stride for axis in (2, 3))
    return F.conv_transpose2d(grad_output, swapped(w), stride=stride, padding=padding, output_padding=unread)


def grad_x_transposed(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Too small by the rows that the stride left unread; right for none."""
    return F.conv_transpose2d(grad_output, w, stride=stride, padding=padding)


def grad_x_transposed_output_padding(
    grad_output: Array, x: Array, w: Array, stride: int, padding: int
) -> Array:
    """Right: output_padding adds the (H + 2P - KH) mod s unread rows."""
    unread = tuple((x.shape[axis] + 2 * padding - w.shape[axis]) % stride for axis in (2, 3))
    return F.conv_transpose2d(grad_output, w, stride=stride, padding=padding, output_padding=unread)


def grad_x_tensorflow_wrong_axes(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """(H, W, C, O) becomes (C, O, H, W), but a weight is (O, C, H, W)."""
    kernels = F.oihw_to_hwio(w)  # as TensorFlow has them
    return F.conv2d_input(x.shape, kernels.transpose(2, 3, 0, 1), grad_output, stride, padding)


def grad_x_tensorflow_views(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: hwio_to_oihw, nhwc_to_nchw; nchw_to_nhwc for the result."""
    kernels, grads = F.oihw_to_hwio(w), F.nchw_to_nhwc(grad_output)  # as TensorFlow has them
    return F.conv2d_input(x.shape, F.hwio_to_oihw(kernels), F.nhwc_to_nchw(grads), stride, padding)


def grad_x_full_convolution(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: w rotated and swapped, "full", then the padding cut off."""
    spread = at_stride_one(grad_output, x, w, stride, padding)
    full = F.conv2d(spread, swapped(rotated(w)), padding=(w.shape[2] - 1, w.shape[3] - 1))
    return cropped(full, padding)


def grad_x_index_formula(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: tap (i, j) of all windows at once, added where it was read."""
    grad = padded(np.zeros_like(x), padding)
    height, width = (size * stride for size in grad_output.shape[2:])
    for i, j in np.ndindex(w.shape[2:]):
        read = grad[:, :, i : i + height : stride, j : j + width : stride]
        read += np.einsum("nopq,oc->ncpq", grad_output, w[:, :, i, j])
    return cropped(grad, padding)


def grad_x_conv2d_input(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: the shape of x is an argument, so nothing has to be guessed."""
    return F.conv2d_input(x.shape, w, grad_output, stride, padding)


# Gradients with respect to w


def grad_w_from_output(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """The output is not its gradient, which comes from the loss."""
    return F.conv2d_weight(x, w.shape, F.conv2d(x, w, None, stride, padding), stride, padding)


def grad_w_scipy_flipped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """convolve2d rotates g; with x flipped, too, the result is rotated."""
    flipped = np.flip(x.squeeze())
    valid: Array = scipy.signal.convolve2d(flipped, grad_output.squeeze(), mode="valid")
    return valid[None, None]


def grad_w_not_swapped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """It sums over channels instead of the batch; equal numbers hide it."""
    return F.conv2d(x, grad_output, padding=padding, dilation=stride)[:, :, : w.shape[2], : w.shape[3]]


def grad_w_not_swapped_back(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """The result is (C, O, KH, KW): swap it back."""
    wide = F.conv2d(swapped(x), swapped(grad_output), padding=padding, dilation=stride)
    return wide[:, :, : w.shape[2], : w.shape[3]]


def grad_w_stride_of_forward(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Neighbours in g are the stride apart in x: it is the dilation here."""
    return swapped(F.conv2d(swapped(x), swapped(grad_output), stride=stride, padding=padding))


def grad_w_without_padding(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """x was read with its padding, and must be again."""
    wide = swapped(F.conv2d(swapped(x), swapped(grad_output), dilation=stride))
    return wide[:, :, : w.shape[2], : w.shape[3]]


def grad_w_not_cut(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Rows that the stride left unread make the result too large."""
    return swapped(F.conv2d(swapped(x), swapped(grad_output), padding=padding, dilation=stride))


def grad_w_scipy_valid(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """One image, one channel, no padding, stride 1."""
    valid: Array = scipy.signal.correlate2d(x.squeeze(), grad_output.squeeze(), mode="valid")
    return valid[None, None]


def grad_w_scipy_convolved(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """convolve2d rotates g, but must not: use correlate2d."""
    spread, grad = at_stride_one(grad_output, x, w, stride, padding), np.zeros_like(w)
    for n, o, c in np.ndindex(len(x), *w.shape[:2]):
        grad[o, c] += scipy.signal.convolve2d(padded(x, padding)[n, c], spread[n, o], mode="valid")
    return grad


def grad_w_scipy_correlated(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: the batch is another axis of correlate, summed by "valid"."""
    spread, image, grad = (
        at_stride_one(grad_output, x, w, stride, padding),
        padded(x, padding),
        np.zeros_like(w),
    )
    for o, c in np.ndindex(w.shape[:2]):
        grad[o, c] = scipy.signal.correlate(image[:, c], spread[:, o], mode="valid", method="direct")[0]
    return grad


def grad_w_tensorflow_reshaped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """reshape does not move axes: it mixes channels and columns."""
    images, grads = F.nchw_to_nhwc(x), F.nchw_to_nhwc(grad_output)  # as TensorFlow has them
    ours = images.reshape(x.shape), grads.reshape(grad_output.shape)
    return F.conv2d_weight(ours[0], w.shape, ours[1], stride, padding)


def grad_w_tensorflow_views(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: nhwc_to_nchw for both, oihw_to_hwio for the result."""
    images, grads = F.nchw_to_nhwc(x), F.nchw_to_nhwc(grad_output)  # as TensorFlow has them
    return F.conv2d_weight(F.nhwc_to_nchw(images), w.shape, F.nhwc_to_nchw(grads), stride, padding)


def grad_w_dilated_convolution(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: batch and channels swapped, dilated, cut, swapped back."""
    wide = F.conv2d(swapped(x), swapped(grad_output), padding=padding, dilation=stride)
    return swapped(wide[:, :, : w.shape[2], : w.shape[3]])


def grad_w_index_formula(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: the windows as a view of x, and the sum of the formula."""
    windows = np.lib.stride_tricks.sliding_window_view(padded(x, padding), w.shape[2:], axis=(2, 3))
    grad: Array = np.einsum("nopq,ncpqij->ocij", grad_output, windows[:, :, ::stride, ::stride])
    return grad


def grad_w_conv2d_weight(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: the shape of w is an argument, so nothing has to be guessed."""
    return F.conv2d_weight(x, w.shape, grad_output, stride, padding)


# The tables

# The formulas as the tables show them: g is grad_output, s the stride, P the padding.
GRAD_X: dict[str, Candidate] = {
    "conv2d_input(x.shape, w, output)": grad_x_from_output,
    "conv2d(g, swap(w))": grad_x_not_rotated,
    "conv2d(g, rotate(w))": grad_x_rotated,
    "conv2d(g, swap(rotate(w)))": grad_x_rotated_swapped,
    "conv2d(g, swap(rotate(w)), padding=P)": grad_x_padding_of_forward,
    "conv2d(zeros between g, ...)": grad_x_zeros_between_only,
    "convolve2d(g, w, 'full')": grad_x_scipy_full,
    "convolve2d(g, w, 'same')": grad_x_scipy_same,
    "grad[n,c] = convolve2d(g[n,o], w[o,c])": grad_x_scipy_not_summed,
    "conv_transpose2d(g, swap(w))": grad_x_transposed_swapped,
    "conv_transpose2d(g, w)": grad_x_transposed,
    "TensorFlow's w.transpose(2, 3, 0, 1)": grad_x_tensorflow_wrong_axes,
    "grad[n,c] += convolve2d(g[n,o], w[o,c])": grad_x_scipy_summed,
    "conv_transpose2d(g, w, output_padding)": grad_x_transposed_output_padding,
    "TensorFlow's arrays as views": grad_x_tensorflow_views,
    "conv2d(zeros between and after g, ...)": grad_x_full_convolution,
    "grad[a,b] += g[p,q] * w[i,j]": grad_x_index_formula,
    "conv2d_input(x.shape, w, g, s, P)": grad_x_conv2d_input,
}
GRAD_W: dict[str, Candidate] = {
    "conv2d_weight(x, w.shape, output)": grad_w_from_output,
    "convolve2d(flip(x), g, 'valid')": grad_w_scipy_flipped,
    "conv2d(x, g, dilation=s)": grad_w_not_swapped,
    "conv2d(swap(x), swap(g), dilation=s)": grad_w_not_swapped_back,
    "swap(conv2d(swap(x), swap(g), stride=s))": grad_w_stride_of_forward,
    "swap(conv2d(..., padding=0))": grad_w_without_padding,
    "swap(conv2d(..., dilation=s)), not cut": grad_w_not_cut,
    "correlate2d(x, g, 'valid')": grad_w_scipy_valid,
    "convolve2d(x, g, 'valid')": grad_w_scipy_convolved,
    "TensorFlow's images.reshape(x.shape)": grad_w_tensorflow_reshaped,
    "correlate(x[:,c], g[:,o], 'valid')": grad_w_scipy_correlated,
    "TensorFlow's arrays as views": grad_w_tensorflow_views,
    "swap(conv2d(swap(x), swap(g), dilation))": grad_w_dilated_convolution,
    "sum of g[p,q] * x[p*s+i-P, q*s+j-P]": grad_w_index_formula,
    "conv2d_weight(x, w.shape, g, s, P)": grad_w_conv2d_weight,
}
SETTINGS = ("batch", "channels", "padding", "stride")
CELLS = list(itertools.product((1, 3), (1, 3), (0, 1), (1, 2)))
WIDTH = 41  # of the formulas in the tables
SHORT = {"yes": "yes", "wrong values": "val", "wrong shape": "shp", "-": "-"}


def arguments(batch: int, channels: int, padding: int, stride: int) -> Arguments:
    """Return a candidate's arguments. Stride 2 leaves one of the 6 rows unread, and none of the 7 columns.

    There are as many in channels as out channels, for which most formulas compute at least wrong values.
    """
    normal = np.random.default_rng(0).standard_normal
    x, w = normal((batch, channels, 6, 7)), normal((channels, channels, 3, 3))
    return normal(F.conv2d(x, w, None, stride, padding).shape), x, w, stride, padding


def truth(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> tuple[Array, Array]:
    """Return the gradients with respect to x and w, product by product in plain loops."""
    pairs = (stride, stride), (padding, padding)
    return reference.conv2d_backward(grad_output, x, w, *pairs)[:2]


def verdict(candidate: Candidate, expected: Array, given: Arguments) -> str:
    """Return one of the keys of `SHORT`; "-" if the shapes within the candidate do not fit."""
    try:
        gradient = candidate(*given)
    except ValueError:
        return "-"
    if gradient.shape != expected.shape:
        return "wrong shape"
    return "yes" if np.allclose(gradient, expected, rtol=1e-10, atol=1e-10) else "wrong values"


def verdicts(candidates: Mapping[str, Candidate]) -> dict[str, list[str]]:
    """Return for each candidate its verdict in each of the `CELLS`."""
    rows: dict[str, list[str]] = {formula: [] for formula in candidates}
    for cell in CELLS:
        given = arguments(*cell)
        grad_x, grad_w = truth(*given)
        for formula, candidate in candidates.items():
            expected = grad_x if candidates is GRAD_X else grad_w
            rows[formula].append(verdict(candidate, expected, given))
    return rows


def print_table(title: str, candidates: Mapping[str, Candidate]) -> None:
    """Print a row for each candidate, and then the reasons."""
    print(f"\n{title}\n")
    for setting, values in zip(SETTINGS, zip(*CELLS, strict=True), strict=True):
        print_row(f"{setting:>{WIDTH - 1}}", [str(value) for value in values])
    print("-" * (WIDTH + 69))
    for formula, row in verdicts(candidates).items():
        print_row(formula, [SHORT[word] for word in row])
    print()
    for formula, candidate in candidates.items():
        print(f"{formula:<{WIDTH}}{candidate.__doc__}")


def print_row(name: str, entries: Sequence[str]) -> None:
    """Print `entries` in groups of four, one for each batch and number of channels."""
    groups = (" ".join(f"{entry:>3}" for entry in entries[i : i + 4]) for i in range(0, len(entries), 4))
    print(f"{name:<{WIDTH}}" + " | ".join(groups))


def main() -> None:
    """Print the answer, and the tables for the gradients with respect to x and w."""
    print(ANSWER)
    print("The gradients of output = conv2d(x, w, stride s, padding P) from g = grad_output, w of 3 x 3 taps")
    print("yes: right, val: wrong values, shp: wrong shape, -: cannot be computed, as shapes do not fit")
    print("swap exchanges the first two axes, rotate turns a kernel by 180 degrees")
    print_table("grad_x", GRAD_X)
    print_table("grad_w", GRAD_W)


if __name__ == "__main__":
    main()

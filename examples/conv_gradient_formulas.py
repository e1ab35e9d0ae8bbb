"""Which formula for the gradients of a convolution is right where?

Flip the kernel? Transpose which axes? Many formulas pass a test with one image of one channel and fail for
several, with padding or with a stride. The tables that this script prints try the usual ones side by side.

A convolution, without flipping anything, is with stride s and padding P

    y[n,o,p,q] = sum over c,i,j of x[n, c, p*s+i-P, q*s+j-P] * w[o,c,i,j]        (x is 0 outside the image)

Each product of the sum sends g * w to its x and g * x to its w, where g is the gradient by y. So
grad_x sums over output channels and grad_w over the batch, and nothing has to be guessed:

    grad_x[n,c,a,b] = sum of g[n,o,p,q] * w[o,c,i,j] over all o,p,q,i,j with a = p*s+i-P and b = q*s+j-P
    grad_w[o,c,i,j] = sum over n,p,q of g[n,o,p,q] * x[n, c, p*s+i-P, q*s+j-P]

`F.conv2d_input` and `F.conv2d_weight` are these two. Written as convolutions, for a kernel of KH rows:

    grad_x  spread g to the positions of stride 1, with zeros between and, for rows that the stride left
            unread, at the end; rotate w by 180 degrees and swap its in and out channels; convolve with
            padding KH - 1 ("full") and cut P off each side
    grad_w  swap batch and channels of x and of g; convolve x with g as the kernel, with padding P and
            the stride as dilation; keep the first KH rows; swap the first two axes back

Run it: python examples/conv_gradient_formulas.py
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import scipy.signal

import tinyconv.functional as F
from tinyconv import reference
from tinyconv.arrays import Array

Candidate: TypeAlias = Callable[[Array, Array, Array, int, int], Array]
Arguments: TypeAlias = tuple[Array, Array, Array, int, int]


# What the formulas are made of


def rotated(w: Array) -> Array:
    """`w`, turned by 180 degrees."""
    return w[:, :, ::-1, ::-1]


def swapped(array: Array) -> Array:
    """`array` with its first two axes exchanged: in and out channels, or batch and channels."""
    return array.swapaxes(0, 1)


def padded(x: Array, padding: int) -> Array:
    """`x` with zeros around each image."""
    return np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])


def cropped(x: Array, padding: int) -> Array:
    """`x` without what `padded` put around it."""
    return x[:, :, padding : x.shape[2] - padding, padding : x.shape[3] - padding]


def at_stride_one(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """`grad_output` among zeros, where a convolution of stride 1 has the positions that the stride skips."""
    n, o = grad_output.shape[:2]
    height, width = (x.shape[axis] + 2 * padding - w.shape[axis] + 1 for axis in (2, 3))
    spread = np.zeros((n, o, height, width))
    spread[:, :, ::stride, ::stride] = grad_output
    return spread


# Gradients by x. A candidate's docstring is the reason that the table prints.


def x_not_rotated(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Forward reads row p+i for row p, backward row a-i for row a: rotated; no stride."""
    return F.conv2d(grad_output, swapped(w), padding=w.shape[2] - 1 - padding)


def x_rotated(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Sums over the in channels of w, where the out channels are wanted; no stride."""
    return F.conv2d(grad_output, rotated(w), padding=w.shape[2] - 1 - padding)


def x_rotated_swapped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right for stride 1; a stride needs zeros between grad_output's values."""
    return F.conv2d(grad_output, swapped(rotated(w)), padding=w.shape[2] - 1 - padding)


def x_padding_of_forward(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Needs padding KH-1-P, which is P only where 2P = KH-1 ("same"); no stride."""
    return F.conv2d(grad_output, swapped(rotated(w)), padding=padding)


def x_zeros_between_only(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Rows at the end that the stride left unread are missing; they want zeros too."""
    height, width = ((size - 1) * stride + 1 for size in grad_output.shape[2:])
    spread = at_stride_one(grad_output, x, w, stride, padding)[:, :, :height, :width]
    return F.conv2d(spread, swapped(rotated(w)), padding=w.shape[2] - 1 - padding)


def x_scipy_full(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """One image of one channel, without stride; "full" has the padding's rows too."""
    full: Array = scipy.signal.convolve2d(grad_output.squeeze(), w.squeeze(), mode="full")
    return full[None, None]


def x_scipy_same(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """One image of one channel, without stride; right only where 2P = KH-1."""
    same: Array = scipy.signal.convolve2d(grad_output.squeeze(), w.squeeze(), mode="same")
    return same[None, None]


def x_scipy_not_summed(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """= in place of +=: each out channel overwrites the one before, the last remains."""
    spread, grad = at_stride_one(grad_output, x, w, stride, padding), padded(np.zeros_like(x), padding)
    for n, o, c in np.ndindex(len(x), *w.shape[:2]):
        grad[n, c] = scipy.signal.convolve2d(spread[n, o], w[o, c], mode="full")
    return cropped(grad, padding)


def x_scipy_summed(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: convolve2d rotates the kernel itself, and the output channels are summed."""
    spread, grad = at_stride_one(grad_output, x, w, stride, padding), padded(np.zeros_like(x), padding)
    for n, o, c in np.ndindex(len(x), *w.shape[:2]):
        grad[n, c] += scipy.signal.convolve2d(spread[n, o], w[o, c], mode="full")
    return cropped(grad, padding)


def x_transposed_swapped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """conv_transpose2d takes w as it is; swapped, it sums over in channels."""
    unread = tuple((x.shape[axis] + 2 * padding - w.shape[axis]) % stride for axis in (2, 3))
    return F.conv_transpose2d(grad_output, swapped(w), stride=stride, padding=padding, output_padding=unread)


def x_transposed(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Too small by the rows that the stride left unread; right where it leaves none."""
    return F.conv_transpose2d(grad_output, w, stride=stride, padding=padding)


def x_transposed_output_padding(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: output_padding gives back the (H + 2P - KH) mod s unread rows."""
    unread = tuple((x.shape[axis] + 2 * padding - w.shape[axis]) % stride for axis in (2, 3))
    return F.conv_transpose2d(grad_output, w, stride=stride, padding=padding, output_padding=unread)


def x_tensorflow_wrong_axes(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """(H, W, C, O) to (C, O, H, W) keeps in before out; ours is (O, C, H, W)."""
    kernels = F.oihw_to_hwio(w)  # as TensorFlow has them
    return F.conv2d_input(x.shape, kernels.transpose(2, 3, 0, 1), grad_output, stride, padding)


def x_tensorflow_views(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: hwio_to_oihw and nhwc_to_nchw go in, nchw_to_nhwc would go out."""
    kernels, grads = F.oihw_to_hwio(w), F.nchw_to_nhwc(grad_output)  # as TensorFlow has them
    return F.conv2d_input(x.shape, F.hwio_to_oihw(kernels), F.nhwc_to_nchw(grads), stride, padding)


def x_full_convolution(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: zeros between and at the end, rotated, swapped, "full", padding cut off."""
    spread = at_stride_one(grad_output, x, w, stride, padding)
    full = F.conv2d(spread, swapped(rotated(w)), padding=(w.shape[2] - 1, w.shape[3] - 1))
    return cropped(full, padding)


def x_index_formula(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: tap (i, j) of all windows at once, added to where it was read."""
    grad = padded(np.zeros_like(x), padding)
    height, width = (size * stride for size in grad_output.shape[2:])
    for i, j in np.ndindex(w.shape[2:]):
        read = grad[:, :, i : i + height : stride, j : j + width : stride]
        read += np.einsum("nopq,oc->ncpq", grad_output, w[:, :, i, j])
    return cropped(grad, padding)


def x_conv2d_input(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: x's shape is an argument, so nothing is left to guess."""
    return F.conv2d_input(x.shape, w, grad_output, stride, padding)


# Gradients by w


def w_not_swapped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Sums over channels, not over the batch; where both are equal, the shape fits."""
    return F.conv2d(x, grad_output, padding=padding, dilation=stride)[:, :, : w.shape[2], : w.shape[3]]


def w_not_swapped_back(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Comes out as (C, O, KH, KW)."""
    wide = F.conv2d(swapped(x), swapped(grad_output), padding=padding, dilation=stride)
    return wide[:, :, : w.shape[2], : w.shape[3]]


def w_stride_of_forward(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Neighbours in grad_output are the stride apart in x: it becomes the dilation."""
    return swapped(F.conv2d(swapped(x), swapped(grad_output), stride=stride, padding=padding))


def w_without_padding(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """x was read with its padding, and has to be again."""
    wide = swapped(F.conv2d(swapped(x), swapped(grad_output), dilation=stride))
    return wide[:, :, : w.shape[2], : w.shape[3]]


def w_not_cut(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Rows that the stride left unread make the result longer than the kernel."""
    return swapped(F.conv2d(swapped(x), swapped(grad_output), padding=padding, dilation=stride))


def w_scipy_valid(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """One image of one channel, without padding and stride."""
    valid: Array = scipy.signal.correlate2d(x.squeeze(), grad_output.squeeze(), mode="valid")
    return valid[None, None]


def w_scipy_convolved(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """convolve2d rotates grad_output; nothing is to be rotated here: correlate2d."""
    spread, grad = at_stride_one(grad_output, x, w, stride, padding), np.zeros_like(w)
    for n, o, c in np.ndindex(len(x), *w.shape[:2]):
        grad[o, c] += scipy.signal.convolve2d(padded(x, padding)[n, c], spread[n, o], mode="valid")
    return grad


def w_scipy_correlated(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: the batch is one more axis of correlate, over which "valid" sums."""
    spread, image, grad = (
        at_stride_one(grad_output, x, w, stride, padding),
        padded(x, padding),
        np.zeros_like(w),
    )
    for o, c in np.ndindex(w.shape[:2]):
        grad[o, c] = scipy.signal.correlate(image[:, c], spread[:, o], mode="valid", method="direct")[0]
    return grad


def w_tensorflow_reshaped(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """reshape does not move axes: with several channels it mixes channels and columns."""
    images, grads = F.nchw_to_nhwc(x), F.nchw_to_nhwc(grad_output)  # as TensorFlow has them
    ours = images.reshape(x.shape), grads.reshape(grad_output.shape)
    return F.conv2d_weight(ours[0], w.shape, ours[1], stride, padding)


def w_tensorflow_views(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: nhwc_to_nchw goes in for both, oihw_to_hwio would go out."""
    images, grads = F.nchw_to_nhwc(x), F.nchw_to_nhwc(grad_output)  # as TensorFlow has them
    return F.conv2d_weight(F.nhwc_to_nchw(images), w.shape, F.nhwc_to_nchw(grads), stride, padding)


def w_dilated_convolution(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: batch and channels swapped, the stride as dilation, cut, swapped back."""
    wide = F.conv2d(swapped(x), swapped(grad_output), padding=padding, dilation=stride)
    return swapped(wide[:, :, : w.shape[2], : w.shape[3]])


def w_index_formula(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: the windows as a view of x, and the sum as it stands in the formula."""
    windows = np.lib.stride_tricks.sliding_window_view(padded(x, padding), w.shape[2:], axis=(2, 3))
    grad: Array = np.einsum("nopq,ncpqij->ocij", grad_output, windows[:, :, ::stride, ::stride])
    return grad


def w_conv2d_weight(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> Array:
    """Right: w's shape is an argument, so nothing is left to guess."""
    return F.conv2d_weight(x, w.shape, grad_output, stride, padding)


# The tables

BY_X: list[Candidate] = [
    x_not_rotated,
    x_rotated,
    x_rotated_swapped,
    x_padding_of_forward,
    x_zeros_between_only,
    x_scipy_full,
    x_scipy_same,
    x_scipy_not_summed,
    x_transposed_swapped,
    x_transposed,
    x_tensorflow_wrong_axes,
    x_scipy_summed,
    x_transposed_output_padding,
    x_tensorflow_views,
    x_full_convolution,
    x_index_formula,
    x_conv2d_input,
]
BY_W: list[Candidate] = [
    w_not_swapped,
    w_not_swapped_back,
    w_stride_of_forward,
    w_without_padding,
    w_not_cut,
    w_scipy_valid,
    w_scipy_convolved,
    w_tensorflow_reshaped,
    w_scipy_correlated,
    w_tensorflow_views,
    w_dilated_convolution,
    w_index_formula,
    w_conv2d_weight,
]
SETTINGS = ("batch", "channels", "padding", "stride")
CELLS = list(itertools.product((1, 3), (1, 3), (0, 1), (1, 2)))
SHORT = {"yes": "yes", "wrong values": "val", "wrong shape": "shp", "-": "-"}


def arguments(batch: int, channels: int, padding: int, stride: int) -> Arguments:
    """What a candidate takes. With stride 2 the 6 rows leave one unread, the 7 columns none.

    As many channels go in as come out, which lets the most formulas through to wrong values.
    """
    normal = np.random.default_rng(0).standard_normal
    x, w = normal((batch, channels, 6, 7)), normal((channels, channels, 3, 3))
    return normal(F.conv2d(x, w, None, stride, padding).shape), x, w, stride, padding


def truth(grad_output: Array, x: Array, w: Array, stride: int, padding: int) -> tuple[Array, Array]:
    """The gradients by x and by w, product by product in plain loops."""
    pairs = (stride, stride), (padding, padding)
    return reference.conv2d_backward(grad_output, x, w, *pairs)[:2]


def verdict(candidate: Candidate, expected: Array, given: Arguments) -> str:
    """One of the keys of `SHORT`; "-" is where what the candidate combines does not fit together."""
    try:
        gradient = candidate(*given)
    except ValueError:
        return "-"
    if gradient.shape != expected.shape:
        return "wrong shape"
    return "yes" if np.allclose(gradient, expected, rtol=1e-10, atol=1e-10) else "wrong values"


def verdicts(candidates: Sequence[Candidate]) -> dict[str, list[str]]:
    """For each candidate's name its verdict in each of the `CELLS`."""
    rows: dict[str, list[str]] = {candidate.__name__: [] for candidate in candidates}
    for cell in CELLS:
        given = arguments(*cell)
        by_x, by_w = truth(*given)
        for candidate in candidates:
            expected = by_x if candidate in BY_X else by_w
            rows[candidate.__name__].append(verdict(candidate, expected, given))
    return rows


def print_table(title: str, candidates: Sequence[Candidate]) -> None:
    """Print a row for each candidate, and then the reasons."""
    print(f"\n{title}\n")
    for setting, values in zip(SETTINGS, zip(*CELLS, strict=True), strict=True):
        print_row(f"{setting:>28}", [str(value) for value in values])
    print("-" * 98)
    for name, row in verdicts(candidates).items():
        print_row(name, [SHORT[word] for word in row])
    print()
    for candidate in candidates:
        print(f"{candidate.__name__:<29}{candidate.__doc__}")


def print_row(name: str, entries: Sequence[str]) -> None:
    """Print `entries` in groups of four, one for each batch and number of channels."""
    groups = (" ".join(f"{entry:>3}" for entry in entries[i : i + 4]) for i in range(0, len(entries), 4))
    print(f"{name:<29}" + " | ".join(groups))


def main() -> None:
    """Print the tables for the gradients by x and by w."""
    print("Which formula gives the gradient of conv2d(x, w, stride, padding), for a kernel of 3 x 3?")
    print("yes: right, val: wrong values, shp: wrong shape, -: cannot be computed, the shapes do not fit")
    print_table("Gradient by x", BY_X)
    print_table("Gradient by w", BY_W)


if __name__ == "__main__":
    main()

"""The gradient by the image as a convolution with the rotated kernel, for stride 1.

Each pixel (a, b) of the gradient by the image is

    dx[n, c, a, b] = sum over o, i, j of g[n, o, a - i*d + P, b - j*d + P] * w[o, c, i, j]

With i' = KH-1-i and j' = KW-1-j, the kernel rotated by half a turn, and P' = d*(K-1) - P it reads g at
a + i'*d - P': a convolution of g with the kernel w[o, c, KH-1-i', KW-1-j'], its channels exchanged, and the
padding P'. It gathers where `conv2d_input` in terms of columns scatters, which is faster where g's
columns are fewer than those of the image and the kernel is small beside the activations. A stride above 1
would need zeros between g's values.
"""

from tinyconv.arrays import Array
from tinyconv.functional.conv.unfold import Window


def rotated(weight: Array, window: Window, groups: int) -> tuple[Array, Window]:
    """The kernel (C, O / groups, KH, KW) and the window of that convolution."""
    o, c_group, kh, kw = weight.shape
    exchanged = weight[:, :, ::-1, ::-1].reshape(groups, o // groups, c_group, kh, kw).swapaxes(1, 2)
    (top, bottom), (left, right) = window.padding
    down, across = window.reaches
    around = ((down - top, down - bottom), (across - left, across - right))
    return exchanged.reshape(groups * c_group, o // groups, kh, kw), window._replace(padding=around)

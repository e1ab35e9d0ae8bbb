"""The gradients of pooling, with other rules for ties, sums and overlapping windows."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinyconv.arguments import pair
from tinyconv.arrays import Array

Pair = tuple[int, int]


def windows_of(image: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
    """The image's windows as a view that can be written to, of shape (..., P, Q, KH, KW)."""
    extent = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    windows = sliding_window_view(image, extent, (-2, -1), writeable=True)
    return windows[..., :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def max_pool(known: Any, rule: str) -> Array:
    """The gradient of a rule: to "all" maxima, "shared", to the "last", or "last written" (= for +=)."""
    _, taps = _padded(known, known.input, -np.inf)
    grad, parts = _padded(known, np.zeros_like(known.input), 0.0)
    top, g = known.output(return_indices=False), known.grad_output
    equal = [tap == top for tap in taps]
    number = np.sum(equal, axis=0)
    seen = np.zeros(top.shape, int)
    for mask, part in zip(equal, parts, strict=True):
        if rule == "last written":
            first = mask & (seen == number - 1)
            part[first] = g[first]
        else:
            part += g * {"all": mask, "shared": mask / number, "last": mask & (seen == 0)}[rule]
        seen += mask
    return _inside(known, grad)


def average_pool(known: Any, write: bool = False) -> Array:
    """The gradient divided by the window's area, added, or with = for += (`write`)."""
    grad, parts = _padded(known, np.zeros_like(known.input), 0.0)
    divided = known.grad_output / (getattr(known, "divisor_override", None) or len(parts))
    for part in parts:
        part[...] = divided if write else part + divided
    return _inside(known, grad)


def _padded(known: Any, image: Array, fill: float) -> tuple[Array, list[Array]]:
    """The padded image, and views of it: each place of the kernel in all windows, the last place first."""
    kernel = pair("kernel_size", known.kernel_size)
    stride = kernel if known.stride is None else pair("stride", known.stride)
    padding = pair("padding", known.padding, minimum=0)
    # A stride more at the end, for the window that ceil_mode adds.
    widths = [(p, p + s) for p, s in zip(padding, stride, strict=True)]
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + widths, constant_values=fill)
    windows = windows_of(padded, kernel, stride, pair("dilation", getattr(known, "dilation", 1)))
    rows, columns = known.grad_output.shape[-2:]
    places = reversed(list(np.ndindex(kernel)))
    return padded, [windows[..., :rows, :columns, i, j] for i, j in places]


def _inside(known: Any, padded: Array) -> Array:
    """What is left of an array in the shape of the padded image without its padding."""
    (top, left), (height, width) = pair("padding", known.padding, minimum=0), known.input.shape[-2:]
    return padded[..., top : top + height, left : left + width]

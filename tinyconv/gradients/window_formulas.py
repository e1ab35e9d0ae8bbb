"""The gradients of pooling, with other rules for ties, sums and overlapping windows."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyconv.arguments import pair
from tinyconv.arrays import Array


class _Windows:
    """The padded image of a pooling, and each tap of all its windows as a view."""

    def __init__(self, known: Any, fill: float) -> None:
        self.kernel = pair("kernel_size", known.kernel_size)
        self.stride = self.kernel if known.stride is None else pair("stride", known.stride)
        self.padding = pair("padding", known.padding, minimum=0)
        self.dilation = pair("dilation", getattr(known, "dilation", 1))
        self.shape, self.positions = known.input.shape, known.grad_output.shape[-2:]
        ends = [
            max(0, (n - 1) * s + d * (k - 1) + 1 - size - p)
            for n, s, d, k, size, p in zip(
                self.positions,
                self.stride,
                self.dilation,
                self.kernel,
                self.shape[-2:],
                self.padding,
                strict=True,
            )
        ]
        widths = [(0, 0)] * (known.input.ndim - 2) + list(zip(self.padding, ends, strict=True))
        self.image = np.pad(known.input, widths, constant_values=fill)

    def taps(self, array: Array) -> Iterator[Array]:
        """The value at each place of the kernel in all windows, the last place first."""
        for place in reversed(list(np.ndindex(self.kernel))):
            index: Any = tuple(
                slice(at * d, at * d + (n - 1) * s + 1, s)
                for at, d, n, s in zip(place, self.dilation, self.positions, self.stride, strict=True)
            )
            yield array[(..., *index)]

    def cut(self, padded: Array) -> Array:
        """What is left of an array in the shape of the padded image without its padding."""
        sizes = zip(self.padding, self.shape[-2:], strict=True)
        index: Any = (..., *(slice(p, p + size) for p, size in sizes))
        inside: Array = padded[index]
        return inside


def max_pool(known: Any, rule: str) -> Array:
    """The gradient of a rule: to "all" maxima, "shared", to the "last", or "last written" (= for +=)."""
    windows = _Windows(known, -np.inf)
    top, g = known.output(return_indices=False), known.grad_output
    grad = np.zeros_like(windows.image)
    equal = [tap == top for tap in windows.taps(windows.image)]  # the last place first
    number = np.sum(equal, axis=0)
    seen = np.zeros(top.shape, int)
    for mask, part in zip(equal, windows.taps(grad), strict=True):
        first = mask & (seen == number - 1)
        if rule == "last written":
            part[first] = g[first]
        else:
            chosen = {"all": mask, "shared": mask / number, "last": mask & (seen == 0)}[rule]
            part += g * chosen
        seen += mask
    return windows.cut(grad)


def average_pool(known: Any, rule: str) -> Array:
    """The gradient divided by the window's area, added, or with = for += ("last written")."""
    windows = _Windows(known, 0.0)
    area = windows.kernel[0] * windows.kernel[1]
    divided = known.grad_output / (getattr(known, "divisor_override", None) or area)
    grad = np.zeros_like(windows.image)
    for part in windows.taps(grad):
        part[...] = divided if rule == "last written" else part + divided
    return windows.cut(grad)

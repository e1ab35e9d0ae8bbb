"""The products that a value of a layer, or a gradient, is the sum of.

A layer is seen as a list of edges. Each joins an element of the input with one of the output, and has an
element of the weight, or the factor 1 in a layer without a weight (where a ReLU's input is above 0, and from
the largest value of a window of max-pooling):

    output[e.output] += e.weight * input[e.input]                   for each edge e
    grad_input[e.input] += e.weight * grad_output[e.output]
    grad_weight[e.weight] += input[e.input] * grad_output[e.output]

So the same list gives the terms of all three.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinyconv.arrays import Array
from tinyconv.functional import max_pool2d
from tinyconv.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU

__all__ = ["Edges", "edges_of"]


@dataclass(frozen=True)
class Edges:
    """Flat indices into output and input of one sample, and into the weight (None if there is none)."""

    output: Array
    input: Array
    weight: Array | None = None

    def only(self, part: str, index: int) -> "Edges":
        """Return the edges at element `index` of "output", "input" or "weight"."""
        chosen = getattr(self, part) == index
        weight = None if self.weight is None else self.weight[chosen]
        return Edges(self.output[chosen], self.input[chosen], weight)


def edges_of(layer: Layer, x: Array) -> Edges:
    """Return the edges of `layer` for the input `x`, (1, ...).

    Raises:
        TypeError: a layer of another kind than LeNet's.
    """
    if isinstance(layer, Conv2d):
        sizes = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        return _convolution(x.shape[1:], layer.out_channels, *sizes)
    if isinstance(layer, Linear):
        output, input = np.indices((layer.out_features, layer.in_features)).reshape(2, -1)
        return Edges(output, input, np.arange(output.size))
    if isinstance(layer, MaxPool2d):
        return _winners(layer, x)
    if isinstance(layer, ReLU):
        positive = np.flatnonzero(x > 0)
        return Edges(positive, positive)
    if isinstance(layer, Flatten):
        return Edges(np.arange(x.size), np.arange(x.size))
    raise TypeError(f"the terms of {layer!r} are not known: it must be one of LeNet's layers")


@lru_cache(8)
def _convolution(
    shape: tuple[int, int, int],
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Edges:
    """Those of a convolution without groups: output (o, p, q), input (c, h, w), weight (o, c, i, j)."""
    sizes = zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    height, width = ((n + 2 * pad - d * (k - 1) - 1) // s + 1 for n, k, s, pad, d in sizes)
    o, p, q, c, i, j = np.indices((out_channels, height, width, shape[0], *kernel)).reshape(6, -1)
    rows = p * stride[0] + i * dilation[0] - padding[0]
    columns = q * stride[1] + j * dilation[1] - padding[1]
    inside = (rows >= 0) & (rows < shape[1]) & (columns >= 0) & (columns < shape[2])
    output = np.ravel_multi_index((o, p, q), (out_channels, height, width))
    weight = np.ravel_multi_index((o, c, i, j), (out_channels, shape[0], *kernel))
    input = (c * shape[1] + rows) * shape[2] + columns
    return Edges(output[inside], input[inside], weight[inside])


def _winners(layer: MaxPool2d, x: Array) -> Edges:
    """Those from the largest value of each window."""
    _, indices = max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, return_indices=True)
    plane = np.arange(x.shape[1])[:, None] * (x.shape[2] * x.shape[3])
    return Edges(np.arange(indices.size), (indices.reshape(x.shape[1], -1) + plane).reshape(-1))

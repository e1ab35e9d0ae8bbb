"""Adaptive max-pooling: the maximum of each of the windows that cover an image."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinyconv.arguments import Pair, check_arrays, check_shape
from tinyconv.arrays import Array, array_module
from tinyconv.functional.pooling.avg_pool import OutputSize, adaptive_output_size, bins
from tinyconv.functional.pooling.geometry import as_image, from_image

__all__ = ["adaptive_max_pool2d", "adaptive_max_pool2d_backward"]


def adaptive_max_pool2d(input: Array, output_size: OutputSize, return_indices: bool = False) -> Any:
    """Compute the maxima of OH x OW windows that cover an image.

    The windows are those of `adaptive_avg_pool2d`.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        output_size: an int, or a pair (OH, OW); None means the input's length.
        return_indices: also return where each maximum was found.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), in the memory format (see `tinyconv.arrays.layout`); with
        `return_indices` a pair of this and an int64 array of the same shape, positions in the H x W plane.
        The first of equal maxima in row order is taken; NaN is larger than any number, and the last is taken.

    Raises:
        ValueError: wrong number of dimensions, no channel or pixel, a negative `output_size`.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool2d.html

    >>> adaptive_max_pool2d(np.arange(9.0).reshape(1, 3, 3), (1, 2))
    array([[[7., 8.]]])
    """
    check_arrays(input=input)
    found = winners(input, output_size)
    output = values_at(input, found)
    return (output, found) if return_indices else output


def adaptive_max_pool2d_backward(
    grad_output: Array, input: Array, output_size: OutputSize, return_indices: bool = False
) -> Array:
    """Add the gradient of each maximum to the position where it was found.

    >>> x = np.array([[[1.0, 9.0, 2.0]]])  # the 9 is the largest of both windows
    >>> adaptive_max_pool2d_backward(np.array([[[5.0, 7.0]]]), x, (1, 2))
    array([[[ 0., 12.,  0.]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    size = adaptive_output_size(input.shape, output_size)
    check_shape("grad_output", grad_output, (*input.shape[:-2], *size), "of the output")
    return added_at(grad_output, winners(input, output_size), input.shape)


def winners(input: Array, output_size: OutputSize) -> Array:
    """Return the int64 position of the maximum of each window, row * W + column."""
    size, xp = adaptive_output_size(input.shape, output_size), array_module(input)
    image, (height, width) = as_image(input), input.shape[-2:]
    places, values = xp.arange(height * width).reshape(height, width), image.shape[2:]
    found = xp.empty((*size, *values), np.int64)
    for place, (rows, columns) in _windows((height, width), size):
        here = places[rows, columns].reshape(-1)
        window = image[rows, columns].reshape(len(here), *values)
        best, bad = window.argmax(axis=0), xp.isnan(window)
        last = len(here) - 1 - bad[::-1].argmax(axis=0)
        found[place] = here[xp.where(bad.any(axis=0), last, best)]
    return from_image(found, input.ndim)


def values_at(input: Array, found: Array) -> Array:
    """Return the values at the positions `found`: the output, or its tangent for a tangent of the input."""
    image, at, (channel, sample) = as_image(input), as_image(found), _grid(as_image(found))
    row, column = array_module(at).divmod(at, input.shape[-1])
    return from_image(image[row, column, channel, sample], input.ndim)


def added_at(grad_output: Array, found: Array, input_shape: tuple[int, ...]) -> Array:
    """Return zeros of `input_shape`, with the gradients added at the positions `found`: the transpose."""
    grads, at = as_image(grad_output), as_image(found)
    (height, width), (c, n) = input_shape[-2:], grads.shape[2:]
    image = array_module(grads).zeros((height * width, c, n), grads.dtype)
    channel, sample = _grid(at)
    for place in np.ndindex(at.shape[:2]):  # one window has each channel and sample once, as `+=` needs
        image[at[place], channel, sample] += grads[place]
    return from_image(image.reshape(height, width, c, n), grad_output.ndim)


def _windows(size: Pair, count: Pair) -> Iterator[tuple[Pair, tuple[slice, slice]]]:
    """Each output position, and the rows and columns of its window."""
    down, across = (bins(length, number) for length, number in zip(size, count, strict=True))
    for p, q in np.ndindex(count):
        yield (p, q), (slice(*down[p]), slice(*across[q]))


def _grid(at: Array) -> tuple[Array, Array]:
    """The number of the channel and of the sample of each value of an image."""
    xp, (c, n) = array_module(at), at.shape[2:]
    return xp.arange(c)[:, None], xp.arange(n)

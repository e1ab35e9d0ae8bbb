"""Pixels from channels, and channels from pixels: each map is the inverse and the transpose of the other."""

import math

from tinyconv.arguments import check_arrays, check_shape, integer
from tinyconv.arrays import Array, formatted

__all__ = ["pixel_shuffle", "pixel_shuffle_backward", "pixel_unshuffle", "pixel_unshuffle_backward"]


def pixel_shuffle(input: Array, upscale_factor: int) -> Array:
    """Put the r * r channels of every pixel into r rows of r pixels, r = `upscale_factor`.

    y[n, c, i, j] = input[n, c*r*r + (i % r)*r + j % r, i // r, j // r]

    Args:
        input: (..., C * r * r, H, W), float32 or float64.
        upscale_factor: r.

    Returns:
        (..., C, H * r, W * r).

    Raises:
        ValueError: fewer than three dimensions, channels that r * r does not divide, r below 1.
        TypeError: `input` is not floating, or r is not an integer.

    Source: Shi et al., https://arxiv.org/abs/1609.05158;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pixel_shuffle.html

    >>> import numpy as np
    >>> pixel_shuffle(np.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1), 2)
    array([[[1., 2.],
            [3., 4.]]])
    """
    check_arrays(input=input)
    c, h, w = shuffled_shape(input.shape, upscale_factor)[-3:]
    r = upscale_factor
    parts = input.reshape(math.prod(input.shape[:-3]), c, r, r, h // r, w // r).transpose(0, 1, 4, 2, 5, 3)
    return formatted(parts.reshape(*input.shape[:-3], c, h, w))


def pixel_shuffle_backward(grad_output: Array, input: Array, upscale_factor: int) -> Array:
    """Put the gradients back: `pixel_unshuffle`.

    >>> import numpy as np
    >>> grad_output = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> pixel_shuffle_backward(grad_output, np.zeros((4, 1, 1)), 2)[:, 0, 0]
    array([1., 2., 3., 4.])
    """
    check_arrays(input=input, grad_output=grad_output)
    check_shape("grad_output", grad_output, shuffled_shape(input.shape, upscale_factor), "of the output")
    return pixel_unshuffle(grad_output, upscale_factor)


def pixel_unshuffle(input: Array, downscale_factor: int) -> Array:
    """Put every r rows of r pixels into r * r channels, r = `downscale_factor`.

    y[n, c*r*r + (i % r)*r + j % r, i // r, j // r] = input[n, c, i, j]

    Args:
        input: (..., C, H * r, W * r), float32 or float64.
        downscale_factor: r.

    Returns:
        (..., C * r * r, H, W).

    Raises:
        ValueError: fewer than three dimensions, a height or width that r does not divide, r below 1.
        TypeError: `input` is not floating, or r is not an integer.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pixel_unshuffle.html

    >>> import numpy as np
    >>> pixel_unshuffle(np.arange(16.0).reshape(1, 4, 4), 2)[:2].tolist()  # even rows: even, odd columns
    [[[0.0, 2.0], [8.0, 10.0]], [[1.0, 3.0], [9.0, 11.0]]]
    """
    check_arrays(input=input)
    c, h, w = unshuffled_shape(input.shape, downscale_factor)[-3:]
    r = downscale_factor
    parts = input.reshape(math.prod(input.shape[:-3]), input.shape[-3], h, r, w, r).transpose(
        0, 1, 3, 5, 2, 4
    )
    return formatted(parts.reshape(*input.shape[:-3], c, h, w))


def pixel_unshuffle_backward(grad_output: Array, input: Array, downscale_factor: int) -> Array:
    """Put the gradients back: `pixel_shuffle`.

    >>> import numpy as np
    >>> pixel_unshuffle_backward(np.arange(4.0).reshape(4, 1, 1), np.zeros((1, 2, 2)), 2)
    array([[[0., 1.],
            [2., 3.]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    check_shape("grad_output", grad_output, unshuffled_shape(input.shape, downscale_factor), "of the output")
    return pixel_shuffle(grad_output, downscale_factor)


def shuffled_shape(shape: tuple[int, ...], upscale_factor: int) -> tuple[int, ...]:
    """Return the shape that `pixel_shuffle` gives an array of `shape`."""
    r = integer("upscale_factor", upscale_factor)
    if len(shape) < 3 or shape[-3] % (r * r):
        raise ValueError(
            f"`input` (of shape {shape}) must have the form (..., C, H, W), with a number of channels "
            f"divisible by the square of `upscale_factor` (={r})"
        )
    return *shape[:-3], shape[-3] // (r * r), shape[-2] * r, shape[-1] * r


def unshuffled_shape(shape: tuple[int, ...], downscale_factor: int) -> tuple[int, ...]:
    """Return the shape that `pixel_unshuffle` gives an array of `shape`."""
    r = integer("downscale_factor", downscale_factor)
    if len(shape) < 3 or shape[-2] % r or shape[-1] % r:
        raise ValueError(
            f"`input` (of shape {shape}) must have the form (..., C, H, W), with a height and a width "
            f"divisible by `downscale_factor` (={r})"
        )
    return *shape[:-3], shape[-3] * r * r, shape[-2] // r, shape[-1] // r

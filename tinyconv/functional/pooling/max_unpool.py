"""Max-unpooling: values put back where a max-pooling found them, and its gradient."""

from collections.abc import Sequence
from typing import Any

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_kinds, check_shape, pair
from tinyconv.arrays import Array
from tinyconv.functional.pooling.geometry import as_image, check_pooled, from_image, pool_options

__all__ = ["max_unpool2d", "max_unpool2d_backward"]


def max_unpool2d(
    input: Array,
    indices: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """Put values where `max_pool2d` found them, and 0 elsewhere.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        indices: what `max_pool2d` returned with `return_indices`: an int64 array of the shape of
            `input`, positions in the output's H x W plane. If one occurs twice, the last value is kept.
        kernel_size, stride, padding: those of the pooling.
        output_size: the output's (H, W) or its whole shape; default
            (H - 1) * stride - 2 * padding + kernel_size, from which it may differ by less than a stride.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), in the memory format (see `tinyconv.arrays.layout`).

    Raises:
        ValueError: shapes that do not fit, an argument or an index out of range.
        TypeError: `input` is not floating, `indices` is not int64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_unpool2d.html

    >>> import numpy as np
    >>> max_unpool2d(np.array([[[7.0]]]), np.array([[[2]]]), kernel_size=2)
    array([[[0., 0.],
            [7., 0.]]])
    """
    xp = check_arrays(input=input)
    size = unpool_size(input.shape, kernel_size, stride, padding, output_size)
    places = _places(xp, indices, input, size)
    image = as_image(input)
    planes = xp.zeros((size[0] * size[1], *image.shape[2:]), input.dtype)
    planes[places] = image
    return from_image(planes.reshape(*size, *image.shape[2:]), input.ndim)


def max_unpool2d_backward(
    grad_output: Array,
    input: Array,
    indices: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """Return the gradients at `indices`.

    >>> import numpy as np
    >>> grad_output = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> max_unpool2d_backward(grad_output, np.array([[[7.0]]]), np.array([[[2]]]), kernel_size=2)
    array([[[3.]]])
    """
    xp = check_arrays(input=input, grad_output=grad_output)
    size = unpool_size(input.shape, kernel_size, stride, padding, output_size)
    check_shape("grad_output", grad_output, (*input.shape[:-2], *size), "of the output")
    places = _places(xp, indices, input, size)
    image = as_image(grad_output)
    planes = image.reshape(size[0] * size[1], *image.shape[2:])
    return from_image(planes[places], input.ndim)


def unpool_size(
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair | None,
    padding: IntOrPair,
    output_size: Sequence[int] | None,
) -> Pair:
    """Return (OH, OW) of an unpooling; raise ValueError where the arguments do not fit."""
    check_pooled(input_size)
    kernel, steps, pads, _ = pool_options(kernel_size, stride, padding)
    height, width = (
        (length - 1) * s - 2 * p + k
        for length, s, p, k in zip(input_size[-2:], steps, pads, kernel, strict=True)
    )
    if output_size is None:
        wanted = (height, width)
    elif len(output_size) in (2, len(input_size)):
        wanted = pair("output_size", tuple(output_size)[-2:])
    else:
        raise ValueError(f"`output_size` (={output_size}) must be (H, W) or the output's whole shape")
    off = (abs(wanted[0] - height), abs(wanted[1] - width))
    if min(wanted) < 1 or (output_size and (off[0] >= steps[0] or off[1] >= steps[1])):
        raise ValueError(
            f"`output_size` (={wanted}) must be at least 1 and differ from {(height, width)} "
            f"by less than `stride` (={steps})"
        )
    return wanted


def _places(xp: Any, indices: Array, input: Array, size: Pair) -> tuple[Any, Any, Any]:
    """The checked `indices`, (H, W, C, N), as an index into planes (OH * OW, C, N)."""
    check_kinds(input=input, indices=indices)
    if indices.dtype != xp.int64:
        raise TypeError(f"`indices` must be of dtype int64, got {indices.dtype}")
    check_shape("indices", indices, input.shape, "of `input`")
    places = as_image(indices)
    wrong = places[(places < 0) | (places >= size[0] * size[1])]
    if wrong.size:
        raise ValueError(f"`indices` has the value {wrong[0]}, outside the {size[0]} x {size[1]} output")
    c, n = places.shape[2:]
    return places, xp.arange(c)[:, None], xp.arange(n)

"""Max-unpooling: values put back where a max-pooling found them, and the gradient of that."""

import math
from collections.abc import Sequence
from typing import Any

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_shape, pair
from tinyconv.arrays import Array, array_module, batch_first, batch_last, contiguous_batch_last
from tinyconv.functional.pooling.max_pool import check_pooled, pool_window

__all__ = [
    "max_unpool2d",
    "max_unpool2d_backward",
]


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
            `input`, positions in the output's H x W plane. Where one occurs twice the last value stays.
        kernel_size, stride, padding: those of the pooling.
        output_size: the output's (H, W) or its whole shape; default
            (H - 1) * stride - 2 * padding + kernel_size, from which it may differ by less than a stride.

    Returns:
        (N, C, OH, OW) or (C, OH, OW), batch last in memory.

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
    if input.ndim == 3:
        geometry = (kernel_size, stride, padding, size)
        single: Array = max_unpool2d(input[None], indices[None], *geometry)[0]
        return single
    n, c = input.shape[:2]
    planes = xp.zeros((c, size[0] * size[1], n), input.dtype)
    planes[_plane_places(xp, indices, input, size)] = contiguous_batch_last(input).reshape(
        c, math.prod(input.shape[2:]), n
    )
    return batch_first(planes.reshape(c, *size, n))


def max_unpool2d_backward(
    grad_output: Array,
    input: Array,
    indices: Array,
    kernel_size: IntOrPair,
    stride: IntOrPair | None = None,
    padding: IntOrPair = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """Gradient of `max_unpool2d` by its input: the gradients at `indices`."""
    xp = check_arrays(grad_output=grad_output, input=input)
    size = unpool_size(input.shape, kernel_size, stride, padding, output_size)
    check_shape("grad_output", grad_output, (*input.shape[:-2], *size), "of the output")
    if input.ndim == 3:
        arrays = (grad_output[None], input[None], indices[None])
        single: Array = max_unpool2d_backward(*arrays, kernel_size, stride, padding, size)[0]
        return single
    n, c, *positions = input.shape
    planes = contiguous_batch_last(grad_output).reshape(c, size[0] * size[1], n)
    found = planes[_plane_places(xp, indices, input, size)]
    return batch_first(found.reshape(c, *positions, n))


def unpool_size(
    input_size: tuple[int, ...],
    kernel_size: IntOrPair,
    stride: IntOrPair | None,
    padding: IntOrPair,
    output_size: Sequence[int] | None,
) -> Pair:
    """(OH, OW) of an unpooling; raises ValueError where the arguments do not fit."""
    check_pooled(input_size)
    window = pool_window(kernel_size, stride, padding, 1)
    height, width = (
        (length - 1) * s - 2 * p + k
        for length, s, (p, _), k in zip(
            input_size[-2:], window.stride, window.padding, window.kernel, strict=True
        )
    )
    if output_size is None:
        wanted = (height, width)
    elif len(output_size) in (2, len(input_size)):
        wanted = pair("output_size", tuple(output_size)[-2:])
    else:
        raise ValueError(f"`output_size` (={output_size}) must be (H, W) or the output's whole shape")
    off = (abs(wanted[0] - height), abs(wanted[1] - width))
    if min(wanted) < 1 or (output_size and (off[0] >= window.stride[0] or off[1] >= window.stride[1])):
        raise ValueError(
            f"`output_size` (={wanted}) must be at least 1 and differ from {(height, width)} "
            f"by less than `stride` (={window.stride})"
        )
    return wanted


def _plane_places(xp: Any, indices: Array, input: Array, size: Pair) -> tuple[Any, Any, Any]:
    """The checked `indices` as an index into planes (C, OH * OW, N)."""
    array_module(indices, input)
    if indices.dtype != xp.int64:
        raise TypeError(f"`indices` must be of dtype int64, got {indices.dtype}")
    check_shape("indices", indices, input.shape, "of `input`")
    n, c = input.shape[:2]
    places = batch_last(indices).reshape(c, math.prod(indices.shape[2:]), n)
    wrong = places[(places < 0) | (places >= size[0] * size[1])]
    if wrong.size:
        raise ValueError(f"`indices` holds {wrong[0]}, which must lie in the {size[0]} x {size[1]} output")
    return xp.arange(c)[:, None, None], places, xp.arange(n)

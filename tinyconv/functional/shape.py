"""Functions that only change an array's shape."""

import math

from tinyconv.arguments import integer
from tinyconv.arrays import Array


def flatten(input: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Make one dimension of the dimensions `start_dim` to `end_dim` (both included).

    Args:
        input: any shape and dtype.
        start_dim, end_dim: dimensions, counted from the end where negative.

    Returns:
        The reshaped array: a view of `input` where its layout allows, as a batch-last one does.

    Raises:
        ValueError: a dimension out of range, or `start_dim` after `end_dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flatten.html

    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5)), start_dim=1).shape
    (2, 60)
    """
    return input.reshape(flatten_shape(input.shape, start_dim, end_dim))


def flatten_backward(grad_output: Array, input: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Gradient of `flatten` by its input: `grad_output` with the shape of `input`."""
    return grad_output.reshape(input.shape)


def flatten_shape(shape: tuple[int, ...], start_dim: int = 0, end_dim: int = -1) -> tuple[int, ...]:
    """The shape that `flatten` gives an array of `shape`."""
    ndim = max(1, len(shape))
    dims = []
    for name, dim in (("start_dim", start_dim), ("end_dim", end_dim)):
        number = integer(name, dim, minimum=-ndim)
        if number >= ndim:
            raise ValueError(f"`{name}` (={dim}) must be less than the {ndim} dimensions of `input`")
        dims.append(number % ndim)
    start, end = dims
    if start > end:
        raise ValueError(f"`start_dim` (={start_dim}) must not come after `end_dim` (={end_dim})")
    return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])

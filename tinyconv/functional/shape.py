"""Functions that only change an array's shape or the order of its dimensions.

The four functions between TensorFlow's layouts and PyTorch's are views: no value is copied, so the backward
of each is its inverse. TensorFlow has images (N, H, W, C) and kernels (H, W, C, O).
"""

import math
from collections.abc import Sequence

from tinyconv.arguments import check_kinds, check_ndim, check_shape, dimension, integers
from tinyconv.arrays import Array, array_module, as_logical, stored

__all__ = [
    "flatten",
    "flatten_backward",
    "hwio_to_oihw",
    "nchw_to_nhwc",
    "nhwc_to_nchw",
    "oihw_to_hwio",
    "unflatten",
    "unflatten_backward",
]


def flatten(input: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Merge the dimensions `start_dim` to `end_dim` (both included) into one.

    Args:
        input: any shape and dtype.
        start_dim, end_dim: dimensions, counted from the end if negative.

    Returns:
        The reshaped array. (N, F) from (N, C, H, W) is stored as (F, N), a copy where `input` is in the
        memory format (see `tinyconv.arrays.layout`); otherwise a view of `input` where its layout allows.

    Raises:
        ValueError: a dimension out of range, or `start_dim` after `end_dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flatten.html

    >>> import numpy as np
    >>> flatten(np.zeros((2, 3, 4, 5)), start_dim=1).shape
    (2, 60)
    """
    check_kinds(input=input)
    return _reshaped(input, flatten_shape(input.shape, start_dim, end_dim))


def flatten_backward(grad_output: Array, input: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Return `grad_output` with the shape of `input`.

    >>> import numpy as np
    >>> flatten_backward(np.array([[1.0, 2.0, 3.0, 4.0]]), np.zeros((1, 2, 2)), start_dim=1)
    array([[[1., 2.],
            [3., 4.]]])
    """
    check_kinds(input=input, grad_output=grad_output)
    check_shape("grad_output", grad_output, flatten_shape(input.shape, start_dim, end_dim), "of the output")
    return _reshaped(grad_output, input.shape)


def flatten_shape(shape: tuple[int, ...], start_dim: int = 0, end_dim: int = -1) -> tuple[int, ...]:
    """Return the shape that `flatten` gives an array of `shape`."""
    start = dimension("start_dim", start_dim, len(shape))
    end = dimension("end_dim", end_dim, len(shape))
    if start > end:
        raise ValueError(f"`start_dim` (={start_dim}) must not come after `end_dim` (={end_dim})")
    return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


def unflatten(input: Array, dim: int, sizes: Sequence[int]) -> Array:
    """Split the dimension `dim` into several.

    Args:
        input: any shape with at least one dimension, any dtype.
        dim: the dimension, counted from the end if negative.
        sizes: lengths of the new dimensions, whose product is that of `dim`; one may be -1.

    Returns:
        The reshaped array. (N, C, H, W) from (N, F) is a copy in the memory format (see
        `tinyconv.arrays.layout`); otherwise a view of `input` where its layout allows.

    Raises:
        ValueError: `dim` out of range, `sizes` that do not fit.
        TypeError: `dim` or `sizes` of another type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unflatten.html

    >>> import numpy as np
    >>> unflatten(np.zeros((2, 60)), 1, (3, 4, -1)).shape
    (2, 3, 4, 5)
    """
    check_kinds(input=input)
    return _reshaped(input, unflatten_shape(input.shape, dim, sizes))


def unflatten_backward(grad_output: Array, input: Array, dim: int, sizes: Sequence[int]) -> Array:
    """Return `grad_output` with the shape of `input`.

    >>> import numpy as np
    >>> unflatten_backward(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.zeros((1, 4)), 1, (2, -1))
    array([[1., 2., 3., 4.]])
    """
    check_kinds(input=input, grad_output=grad_output)
    check_shape("grad_output", grad_output, unflatten_shape(input.shape, dim, sizes), "of the output")
    return _reshaped(grad_output, input.shape)


def unflatten_shape(shape: tuple[int, ...], dim: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that `unflatten` gives an array of `shape`."""
    lengths = integers("sizes", sizes, minimum=-1)
    dim = dimension("dim", dim, len(shape))
    if not shape or not lengths:
        raise ValueError(f"`sizes` (={tuple(sizes)}) must not be empty, and `input` must have a dimension")
    known = math.prod(length for length in lengths if length != -1)
    if lengths.count(-1) == 1 and known and shape[dim] % known == 0:
        lengths[lengths.index(-1)] = shape[dim] // known
    if -1 in lengths or math.prod(lengths) != shape[dim]:
        raise ValueError(
            f"`sizes` (={tuple(sizes)}) must multiply to the length {shape[dim]} of dimension {dim}"
        )
    return (*shape[:dim], *lengths, *shape[dim + 1 :])


def _reshaped(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` with `shape`; between (N, F) and (N, C, ...), which are stored in different orders, by one copy."""
    if x.shape[:1] == shape[:1] and len(shape) == 2 < x.ndim:
        features: Array = array_module(x).ascontiguousarray(x.transpose(*range(1, x.ndim), 0))
        return features.reshape(shape[::-1]).T
    if x.shape[:1] == shape[:1] and x.ndim == 2 < len(shape):
        return as_logical(stored(x.reshape(shape)))
    return x.reshape(shape)


def nhwc_to_nchw(images: Array) -> Array:
    """Return a view of TensorFlow's images, (N, H, W, C), as (N, C, H, W).

    Raises:
        ValueError: another number of dimensions.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn/conv2d

    >>> import numpy as np
    >>> nhwc_to_nchw(np.zeros((8, 28, 30, 3))).shape
    (8, 3, 28, 30)
    """
    check_ndim("images", images, (4,), "(N, H, W, C)")
    return images.transpose(0, 3, 1, 2)


def nchw_to_nhwc(images: Array) -> Array:
    """Return a view of images (N, C, H, W) as TensorFlow's, (N, H, W, C).

    Raises:
        ValueError: another number of dimensions.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn/conv2d

    >>> import numpy as np
    >>> planes = np.array([[[[1, 2]], [[10, 20]], [[100, 200]]]])  # red, green and blue of two pixels
    >>> nchw_to_nhwc(planes).tolist()
    [[[[1, 10, 100], [2, 20, 200]]]]
    """
    check_ndim("images", images, (4,), "(N, C, H, W)")
    return images.transpose(0, 2, 3, 1)


def hwio_to_oihw(kernels: Array) -> Array:
    """Return a view of TensorFlow's kernels, (H, W, C, O), as (O, C, H, W).

    Raises:
        ValueError: another number of dimensions.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn/conv2d

    >>> import numpy as np
    >>> hwio_to_oihw(np.zeros((3, 5, 16, 32))).shape
    (32, 16, 3, 5)
    """
    check_ndim("kernels", kernels, (4,), "(H, W, C, O)")
    return kernels.transpose(3, 2, 0, 1)


def oihw_to_hwio(kernels: Array) -> Array:
    """Return a view of kernels (O, C, H, W) as TensorFlow's, (H, W, C, O).

    Raises:
        ValueError: another number of dimensions.

    Source: https://www.tensorflow.org/api_docs/python/tf/nn/conv2d

    >>> import numpy as np
    >>> oihw_to_hwio(np.zeros((32, 16, 3, 5))).shape
    (3, 5, 16, 32)
    """
    check_ndim("kernels", kernels, (4,), "(O, C, H, W)")
    return kernels.transpose(2, 3, 1, 0)

"""Layer norm: a sample's values, standardised over its last dimensions."""

from collections.abc import Sequence

from tinyconv.arguments import check_arrays, check_like, check_shape, given, integer, number
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.functional.normalization.standardize import (
    Moved,
    norm_backward_jvp,
    norm_jvp,
    standardize,
    standardize_backward,
)

__all__ = ["layer_norm", "layer_norm_backward", "layer_norm_backward_jvp", "layer_norm_jvp"]


@underflow_allowed
def layer_norm(
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise each sample over its last dimensions.

    y = (x - mean) / sqrt(var + eps) * weight + bias, element by element of `normalized_shape`

    Args:
        input: (..., *normalized_shape), float32 or float64.
        normalized_shape: the last dimensions of `input`, at least one.
        weight, bias: arrays of `normalized_shape`, or None for 1 and 0.
        eps: added to the variance.

    Returns:
        An array of the shape and memory layout of `input`.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: dtypes that differ or are not floating; a `normalized_shape` that is not a sequence.

    Source: Ba et al., https://arxiv.org/abs/1607.06450;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]]), (2,), eps=0.0)
    array([[-1.,  1.]])
    """
    check_arrays(weight=weight, input=input, bias=bias)
    axes = _last_axes(input, normalized_shape, weight=weight, bias=bias)
    normalized = standardize(input, axes, number("eps", eps)).normalized
    return _scale_and_shift(normalized, weight, bias)


@underflow_allowed
def layer_norm_backward(
    grad_output: Array,
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Return the gradients with respect to `input`, `weight` and `bias` (None for what is None).

    >>> import numpy as np
    >>> x, grad = np.array([[-1.0, -1.0, 1.0, 1.0]]), np.array([[4.0, 0.0, 0.0, 0.0]])
    >>> layer_norm_backward(grad, x, (4,), eps=0.0)[0]  # grad - mean(grad) - x * mean(grad * x)
    array([[ 2., -2.,  0.,  0.]])
    """
    check_arrays(weight=weight, input=input, grad_output=grad_output, bias=bias)
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    axes = _last_axes(input, normalized_shape, weight=weight, bias=bias)
    saved = standardize(input, axes, number("eps", eps))
    samples = tuple(range(input.ndim - len(axes)))
    grad = grad_output if weight is None else grad_output * weight
    return (
        standardize_backward(grad, *saved),
        None if weight is None else (grad_output * saved.normalized).sum(axis=samples),
        None if bias is None else grad_output.sum(axis=samples),
    )


@underflow_allowed
def layer_norm_jvp(
    input_dot: Array,
    weight_dot: Array | None,
    bias_dot: Array | None,
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Compute the tangent of `layer_norm` for tangents of its arrays; None for a constant one.

    >>> import numpy as np
    >>> x, weight, weight_dot = np.array([[-1.0, -1.0, 1.0, 1.0]]), np.ones(4), np.full(4, 10.0)
    >>> layer_norm_jvp(np.array([[4.0, 0.0, 0.0, 0.0]]), weight_dot, None, x, (4,), weight, eps=0.0)
    array([[ -8., -12.,  10.,  10.]])
    """
    check_like(input, input_dot=input_dot)
    vectors = {"weight": weight, "weight_dot": weight_dot, "bias_dot": bias_dot}
    check_arrays(input=input, **vectors)
    saved = standardize(input, _last_axes(input, normalized_shape, **vectors), eps)
    return norm_jvp(Moved.of(input_dot, saved), weight_dot, bias_dot, saved, weight)


@underflow_allowed
def layer_norm_backward_jvp(
    grad_output_dot: Array,
    input_dot: Array,
    weight_dot: Array | None,
    grad_output: Array,
    input: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Return the tangents of the gradients with respect to input, weight and bias.

    >>> import numpy as np
    >>> x, weight = np.array([[-1.0, -1.0, 1.0, 1.0]]), np.ones(4)
    >>> row = np.array([[4.0, 0.0, 0.0, 0.0]])  # moves the normalised values by [2, -2, 0, 0]
    >>> _, grad_weight_dot, _ = layer_norm_backward_jvp(0 * row, row, None, row, x, (4,), weight, eps=0.0)
    >>> grad_weight_dot  # 4 * 2
    array([8., 0., 0., 0.])
    """
    check_like(input, grad_output_dot=grad_output_dot, input_dot=input_dot, grad_output=grad_output)
    check_arrays(input=input, weight=weight, weight_dot=weight_dot)
    axes = _last_axes(input, normalized_shape, weight=weight, weight_dot=weight_dot)
    saved = standardize(input, axes, eps)
    grad_dot, product_dot = norm_backward_jvp(
        grad_output_dot, Moved.of(input_dot, saved), weight_dot, grad_output, saved, weight
    )
    samples = tuple(range(input.ndim - len(axes)))
    return grad_dot, product_dot.sum(axis=samples), grad_output_dot.sum(axis=samples)


def _scale_and_shift(normalized: Array, weight: Array | None, bias: Array | None) -> Array:
    output = normalized if weight is None else normalized * weight
    return output if bias is None else output + bias


def _last_axes(input: Array, normalized_shape: Sequence[int], **arrays: Array | None) -> tuple[int, ...]:
    """The axes of `normalized_shape` in `input`, checked."""
    if not isinstance(normalized_shape, Sequence) or isinstance(normalized_shape, str):
        raise TypeError(f"`normalized_shape` ({given(normalized_shape)}) must be a sequence of ints")
    shape = tuple(integer("normalized_shape", length, minimum=0) for length in normalized_shape)
    if not shape:
        raise ValueError(f"`normalized_shape` (={normalized_shape!r}) must have at least one dimension")
    if input.shape[-len(shape) :] != shape:
        raise ValueError(f"`input` (of shape {input.shape}) must end in `normalized_shape` (={shape})")
    for name, array in arrays.items():
        if array is not None:
            check_shape(name, array, shape, "of `normalized_shape`")
    return tuple(range(input.ndim - len(shape), input.ndim))

"""The gradients of batch, layer and group norm, with terms left out."""

from typing import Any

import numpy as np

from tinyconv.arrays import Array


def gradient(
    known: Any, mean: bool = True, variance: bool = True, correction: int = 0, axes: Any = None
) -> Array:
    """The gradient with respect to the input, without the term of the mean or of the variance.

    With g = grad_output * weight and the normalized input h it is (g - mean(g) - h * mean(g * h)) /
    deviation.
    """
    shape, axes = _grouped(known) if axes is None else (known.input.shape, axes)
    x, g = known.input.reshape(shape), (known.grad_output * _weight(known)).reshape(shape)
    deviation = np.sqrt(x.var(axis=axes, keepdims=True, ddof=correction) + known.eps)
    h = (x - x.mean(axis=axes, keepdims=True)) / deviation
    found = g.copy()
    if mean:
        found -= g.mean(axis=axes, keepdims=True)
    if variance:
        found -= h * (g * h).mean(axis=axes, keepdims=True)
    return np.reshape(found / deviation, known.input.shape)


def weight_of_raw_input(known: Any) -> Array:
    """The weight's gradient with the input in place of the normalized input."""
    kept = _normalized(known) if known.operator == "layer_norm" else (1,)
    others = tuple(axis for axis in range(known.input.ndim) if axis not in kept)
    return np.asarray((known.grad_output * known.input).sum(axis=others))


def _normalized(known: Any) -> tuple[int, ...]:
    """The axes of layer norm's `normalized_shape`."""
    return tuple(range(known.input.ndim - np.size(known.normalized_shape), known.input.ndim))


def _grouped(known: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape in which the statistics are taken over whole axes, and these axes."""
    shape = known.input.shape
    if known.operator == "layer_norm":
        return shape, _normalized(known)
    if known.operator == "group_norm":
        return (shape[0], known.num_groups, -1), (2,)
    if not known.training and known.running_mean is not None:
        raise ValueError("batch norm has such a gradient where it takes the batch's statistics")
    return shape, (0, *range(2, len(shape)))


def _weight(known: Any) -> Any:
    if known.weight is None or known.operator == "layer_norm":
        return 1.0 if known.weight is None else known.weight
    return known.weight.reshape(1, -1, *[1] * (known.input.ndim - 2))

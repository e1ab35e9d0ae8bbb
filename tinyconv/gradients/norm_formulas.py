"""The gradients of batch, layer and group norm, with terms left out."""

from typing import Any

import numpy as np

from tinyconv.arrays import Array


def gradient(
    known: Any,
    *,
    mean: bool = True,
    variance: bool = True,
    correction: int = 0,
    without_eps: bool = False,
    axes: tuple[int, ...] | None = None,
) -> Array:
    """The gradient with respect to the input, without the term of the mean or of the variance.

    With g = grad_output * weight and the normalized input h it is (g - mean(g) - h * mean(g * h)) /
    deviation.
    """
    shape, axes = _grouped(known) if axes is None else (known.input.shape, axes)
    _training(known)
    x, g = known.input.reshape(shape), (known.grad_output * _weight(known)).reshape(shape)
    eps = 0.0 if without_eps else known.eps
    deviation = np.sqrt(x.var(axis=axes, keepdims=True, ddof=correction) + eps)
    h = (x - x.mean(axis=axes, keepdims=True)) / deviation
    found = g.copy()
    if mean:
        found -= g.mean(axis=axes, keepdims=True)
    if variance:
        found -= h * (g * h).mean(axis=axes, keepdims=True)
    result: Array = (found / deviation).reshape(known.input.shape)
    return result


def weight_of_raw_input(known: Any) -> Array:
    """The weight's gradient with the input in place of the normalized input."""
    return _summed(known, known.input)


def weight_of_uncentered_input(known: Any) -> Array:
    """The weight's gradient with the input divided by its deviation only."""
    _training(known)
    shape, axes = _grouped(known)
    x = known.input.reshape(shape)
    return _summed(
        known, (x / np.sqrt(x.var(axis=axes, keepdims=True) + known.eps)).reshape(known.input.shape)
    )


def _summed(known: Any, factor: Array) -> Array:
    product = known.grad_output * factor
    axes = tuple(a for a in range(product.ndim) if a != 1)
    if known.operator == "layer_norm":
        axes = tuple(range(product.ndim - len(_normalized(known))))
    total: Array = product.sum(axis=axes)
    return total


def _training(known: Any) -> None:
    """Batch norm has such a gradient where it takes the batch's statistics."""
    if known.operator == "batch_norm" and not (known.training or known.running_mean is None):
        raise ValueError


def _normalized(known: Any) -> tuple[int, ...]:
    shape = known.normalized_shape
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _grouped(known: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape in which the statistics are taken over whole axes, and these axes."""
    shape, ndim = known.input.shape, known.input.ndim
    if known.operator == "batch_norm":
        return shape, tuple(a for a in range(ndim) if a != 1)
    if known.operator == "layer_norm":
        return shape, tuple(range(ndim - len(_normalized(known)), ndim))
    return (shape[0], known.num_groups, -1), (2,)


def _weight(known: Any) -> Any:
    if known.weight is None:
        return 1.0
    if known.operator == "layer_norm":
        return known.weight
    return known.weight.reshape(1, -1, *[1] * (known.input.ndim - 2))

"""Clipping of gradients, between backward and the optimiser's step."""

import math

import numpy as np

from tinyconv.arguments import above_zero, number
from tinyconv.arrays import Array, array_module
from tinyconv.layers import Layer


def clip_grad_norm_(
    model: Layer, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Array:
    """Scale the gradients of `model` so that the norm of all of them together is at most `max_norm`.

    total = (sum over all gradients g of |g|^norm_type)^(1 / norm_type), or the largest |g| for
    `norm_type` infinity;  g *= min(1, max_norm / (total + 1e-6))

    Args:
        model: the layer whose `grads` are scaled in place.
        max_norm: at least 0.
        norm_type: above 0; `math.inf` for the largest absolute value.
        error_if_nonfinite: whether a total that is NaN or infinite, which would spoil the gradients or set
            them to 0, is an error. On a GPU this blocks.

    Returns:
        The total norm before scaling, a 0-d array on the device and of the dtype of the gradients.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.
        RuntimeError: see `error_if_nonfinite`; the gradients are not changed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html

    >>> from tinyconv import Linear
    >>> layer = Linear(2, 1)
    >>> layer.grads["weight"][...] = [[3.0, 4.0]]
    >>> clip_grad_norm_(layer, 1.0), layer.grads["weight"].round(6)
    (array(5., dtype=float32), array([[0.6, 0.8]], dtype=float32))
    """
    max_norm = number("max_norm", max_norm, 0.0)
    norm_type = above_zero("norm_type", norm_type)
    grads = [grad for grad in model.grads.values() if grad.size]
    xp = array_module(*grads)
    # An infinite total, and inf * 0: NaN, as in PyTorch.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        norms = [_norm(grad, norm_type) for grad in grads]
        each = xp.empty(len(norms), norms[0].dtype if norms else np.float32)
        for place, norm in enumerate(norms):  # CuPy's `stack` would copy addresses from the host
            each[place] = norm
        total: Array = _norm(each, norm_type) if norms else xp.zeros((), np.float32)
        if error_if_nonfinite and not xp.isfinite(total):
            raise RuntimeError(f"the gradients' norm of order {norm_type:g} is {float(total)}")
        factor = xp.minimum(max_norm / (total + 1e-6), 1)
        for grad in grads:
            grad *= factor
    return total


def clip_grad_value_(model: Layer, clip_value: float) -> None:
    """Clip each value of the gradients of `model` to the range from `-clip_value` to `clip_value`.

    Args:
        model: the layer whose `grads` are clipped in place.
        clip_value: at least 0.

    Raises:
        ValueError, TypeError: a `clip_value` out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html

    >>> from tinyconv import Linear
    >>> layer = Linear(2, 1)
    >>> layer.grads["weight"][...] = [[3.0, -4.0]]
    >>> clip_grad_value_(layer, 0.5)
    >>> layer.grads["weight"]
    array([[ 0.5, -0.5]], dtype=float32)
    """
    clip_value = number("clip_value", clip_value, 0.0)
    for grad in model.grads.values():
        array_module(grad).clip(grad, -clip_value, clip_value, out=grad)


def _norm(x: Array, order: float) -> Array:
    """The norm of all values of `x`, a 0-d array."""
    xp = array_module(x)
    if order == math.inf:
        norm = xp.absolute(x).max()
    elif order == 2:
        norm = xp.sqrt((x * x).sum())
    else:
        norm = (xp.absolute(x) ** order).sum() ** (1 / order)
    norm_0d: Array = xp.asarray(norm)
    return norm_0d

"""Losses that compare with a margin: of distances, or of two or three inputs."""

from tinyconv.arguments import check_kinds, number
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.functional.losses.elementwise import check_elements
from tinyconv.functional.losses.reduction import reduce, reduce_backward

__all__ = ["hinge_embedding_loss", "hinge_embedding_loss_backward"]


@underflow_allowed
def hinge_embedding_loss(input: Array, target: Array, margin: float = 1.0, reduction: str = "mean") -> Array:
    """Compute `input` where `target` is 1, and max(0, margin - input) where it is -1.

    Args:
        input: distances, any shape, float32 or float64.
        target: 1 or -1, of the shape of `input`, and of its dtype or an integer one. For another value both
            terms are added, as in PyTorch.
        margin: the distance from which pairs with the target -1 do not count.
        reduction: "none", "mean" or "sum".

    Returns:
        A 0-d array, or one of the shape of `input` for "none".

    Raises:
        ValueError: shapes that differ (they are not broadcast), an unknown reduction.
        TypeError: dtypes that do not fit, a `margin` that is not a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hinge_embedding_loss.html

    >>> import numpy as np
    >>> hinge_embedding_loss(np.array([0.25, 0.25, 3.0]), np.array([1, -1, -1]), reduction="none")
    array([0.25, 0.75, 0.  ])
    """
    target = signs_like(input, target)
    xp = check_elements(input, target)
    apart = xp.maximum(number("margin", margin) - input, 0)
    return reduce(xp.where(target != 1, apart, 0) + xp.where(target != -1, input, 0), reduction)


@underflow_allowed
def hinge_embedding_loss_backward(
    grad_output: Array, input: Array, target: Array, margin: float = 1.0, reduction: str = "mean"
) -> tuple[Array, None]:
    """Return the gradient for `input`: 1 where `target` is 1, -1 where it is -1 and input <= margin, else 0.

    That for `target` is None.
    """
    target = signs_like(input, target)
    xp = check_elements(input, target)
    grads = reduce_backward(grad_output, input, reduction)
    pushed = (target != 1) & (number("margin", margin) - input >= 0)
    return xp.asarray(xp.where(target != -1, grads, 0) - xp.where(pushed, grads, 0)), None


def signs_like(input: Array, target: Array) -> Array:
    """Return `target`, if it has an integer dtype in the dtype of `input`."""
    check_kinds(input=input, target=target)
    return target.astype(input.dtype) if target.dtype.kind in "iu" else target

"""The reductions of losses, "none", "mean" and "sum", and their gradients."""

from typing import Any

import numpy as np

from tinyconv.arguments import REDUCTIONS, check_arrays, check_shape, one_of
from tinyconv.arrays import Array, array_module, fused


def by_batch(input: Array, reduction: str) -> tuple[str, int | None]:
    """Return how to reduce, and what "batchmean" divides by."""
    is_by_batch = one_of("reduction", reduction, (*REDUCTIONS, "batchmean")) == "batchmean"
    return ("mean", len(input) if input.ndim else 1) if is_by_batch else (reduction, None)


def reduce(losses: Array, reduction: str, total: Any = None) -> Array:
    """Return `losses` ("none"), their "sum", or the sum over `total`, by default their number ("mean")."""
    xp = array_module(losses)
    if one_of("reduction", reduction, REDUCTIONS) == "none":
        return xp.asarray(losses)  # type: ignore[no-any-return]
    summed: Array = xp.asarray(losses.sum())
    if reduction == "sum":
        return summed
    total = losses.size if total is None else total
    if isinstance(total, (int, float)) and total:
        return xp.asarray(summed / total)  # type: ignore[no-any-return]
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0: NaN, as in PyTorch
        return xp.asarray(summed / total)  # type: ignore[no-any-return]


def reduce_backward(grad_output: Array, losses: Array, reduction: str, total: Any = None) -> Array:
    """Return the gradient for each loss, or one 0-d array for all; 0 where `total` is 0."""
    xp = check_arrays(losses=losses, grad_output=grad_output)
    shape = losses.shape if one_of("reduction", reduction, REDUCTIONS) == "none" else ()
    if grad_output.shape != shape:
        check_shape("grad_output", grad_output, shape, f"for `reduction` {reduction!r}")
    if reduction != "mean":
        return grad_output
    total = losses.size if total is None else total
    if isinstance(total, (int, float)):
        return xp.asarray(grad_output / total if total else grad_output * 0)  # type: ignore[no-any-return]
    with np.errstate(divide="ignore", invalid="ignore"):  # quotients by 0 are not used
        return xp.asarray(_divided(grad_output, total))  # type: ignore[no-any-return]


@fused
def _divided(xp: Any, grad_output: Array, total: Any) -> Any:
    return xp.where(total == 0, grad_output * 0, grad_output / total)

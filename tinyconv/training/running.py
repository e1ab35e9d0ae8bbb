"""Loss and accuracy as sums that can be added up over batches and ranks: never a mean of means."""

import math
from typing import Any, NamedTuple

from tinyconv.arrays import Array, array_module, fused
from tinyconv.layers import Loss

# Of what the sums are, in a float64 array on the device: the loss's numerator and denominator, right
# predictions, targets that count (NaN for both if targets are not classes), samples.
NUMERATOR, DENOMINATOR, RIGHT, COUNTED, SAMPLES = range(5)


class Evaluation(NamedTuple):
    """Loss and accuracy over all samples, whatever the batches were.

    With the reduction "mean" (or "batchmean") the loss is the criterion's of all samples at once: the sum of
    the batches' losses, each times its `Loss.denominator`, over the sum of the denominators; NaN if no target
    counts. With "sum" it is the sum of the losses over the number of samples. The accuracy is that of the
    targets that are not ignored; None if there are none, or if the targets are not class indices.

    >>> import numpy as np
    >>> from tinyconv import Linear, MSELoss, optim
    >>> from tinyconv.training import Trainer
    >>> model, x = Linear(1, 1, bias=False), np.array([[1.0], [2.0], [4.0]], np.float32)
    >>> model.weight = [[1.0]]
    >>> trainer = Trainer(model, MSELoss(), optim.SGD(model))
    >>> trainer.evaluate((x, 0 * x), batch_size=2)  # (1 + 4 + 16) / 3, and not the mean of 2.5 and 16
    Evaluation(loss=7.0, accuracy=None)
    """

    loss: float
    accuracy: float | None


def sums_of(criterion: Loss, loss: Array, prediction: Array, targets: Array) -> Array:
    """Return the sums of one batch, of which `loss` is the criterion's, without reading from a GPU."""
    xp = array_module(prediction)
    denominator = criterion.denominator(prediction, targets)
    sums: Array = xp.empty(5)
    sums[NUMERATOR], sums[DENOMINATOR] = loss, denominator
    sums[RIGHT], sums[COUNTED] = _right(prediction, targets, getattr(criterion, "ignore_index", None))
    sums[SAMPLES] = len(targets)
    if criterion.reduction != "sum":  # which is NaN or infinite where no target counts
        sums[NUMERATOR] = _numerator(sums[NUMERATOR], sums[DENOMINATOR])
    return sums


@fused
def _numerator(xp: Any, mean: Array, denominator: Array) -> Any:
    return xp.where(denominator == 0, 0, mean) * denominator


def evaluation(criterion: Loss, sums: Array, nothing: str) -> Evaluation:
    """Return the means; raise ValueError, which begins with `nothing`, if there was no batch."""
    check_reduces(criterion)
    numerator, denominator, right, counted, samples = sums.tolist()
    if not samples:
        raise ValueError(f"{nothing}; it must be an iterable that can be iterated again")
    divisor = denominator if criterion.reduction != "sum" else samples
    return Evaluation(numerator / divisor if divisor else math.nan, right / counted if counted > 0 else None)


def batch_losses(criterion: Loss, sums: Array) -> list[float]:
    """Return the losses of batches, of which `sums` are stacked: what the criterion returns for them."""
    if criterion.reduction == "sum":
        losses: list[float] = sums[:, NUMERATOR].tolist()
        return losses
    return [
        numerator / denominator if denominator else math.nan
        for numerator, denominator in sums[:, : DENOMINATOR + 1].tolist()
    ]


def check_reduces(criterion: Loss) -> None:
    """Raise ValueError for a criterion that does not reduce."""
    if criterion.reduction == "none":
        raise ValueError("`criterion` must have the reduction 'mean' or 'sum', not 'none'")


def _right(prediction: Array, targets: Array, ignored: int | None) -> tuple[Any, Any]:
    """The number of right predictions, and of targets that are not ignored."""
    if not _are_classes(targets, prediction):
        return math.nan, math.nan
    count, right = array_module(prediction).count_nonzero, prediction.argmax(axis=1) == targets
    if ignored is None:
        return count(right), targets.size
    counted = targets != ignored
    return count(right & counted), count(counted)


def _are_classes(targets: Array, prediction: Array) -> bool:
    """Whether targets, by dtype and shape, are indices of classes that the prediction has scores of."""
    if targets.dtype.kind not in "iu" or prediction.ndim < 2 or prediction.shape[1] < 2:
        return False
    return targets.shape == (len(prediction), *prediction.shape[2:])

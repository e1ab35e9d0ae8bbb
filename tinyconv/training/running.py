"""Loss and accuracy, summed over batches: numerators and denominators, never a mean of means."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays import Array, array_module
from tinyconv.layers import Loss


class Evaluation(NamedTuple):
    """Loss and accuracy over all samples, whatever the batches were.

    With the reduction "mean" the loss is the criterion's of all samples at once: the sum of the batches'
    losses, each times its `Loss.denominator`, over the sum of the denominators; NaN if no target counts. With
    "sum" it is the sum of the losses over the number of samples. The accuracy is that of the targets that are
    not ignored; None if there are none, or if the targets are not class indices.
    """

    loss: float
    accuracy: float | None


class Running:
    """Sum up loss and accuracy; on a GPU they stay there until they are read.

    Raises:
        ValueError: a criterion that does not reduce.
    """

    def __init__(self, criterion: Loss) -> None:
        if criterion.reduction == "none":
            raise ValueError("`criterion` must have the reduction 'mean' or 'sum', not 'none'")
        self._loss_is_mean = criterion.reduction == "mean"
        self._ignored: int | None = getattr(criterion, "ignore_index", None)
        self._numerator: Any = 0.0
        self._denominator: Any = 0.0
        self._right: Any = 0  # predictions
        self._counted: Any = 0  # targets that are not ignored
        self.images = 0

    def add(self, loss: Array, denominator: Any, prediction: Array, targets: Array) -> None:
        """Add the reduced `loss` of a batch and its denominator, and count its right predictions."""
        self.images += len(targets)
        loss, denominator = _double(loss), _double(denominator if self._loss_is_mean else len(targets))
        self._numerator += _numerator(loss, denominator) if self._loss_is_mean else loss
        self._denominator += denominator
        if self._right is None or targets.dtype.kind not in "iu":
            self._right = None
            return
        right = prediction.argmax(axis=1) == targets
        if self._ignored is None:
            self._counted += targets.size
        else:
            counted = targets != self._ignored
            right &= counted
            self._counted += array_module(counted).count_nonzero(counted)
        self._right += array_module(right).count_nonzero(right)

    def result(self, where: str) -> Evaluation:
        """Return the means; raise ValueError, which says `where`, if there was no batch."""
        if not self.images:
            raise ValueError(
                f"`data` gave no batch in {where}; it must be an iterable that can be iterated again"
            )
        sums = self.sums()
        numerator, denominator = sums["numerator"], sums["denominator"]
        right, counted = sums["right"], sums["counted"]
        loss = numerator / denominator if denominator else math.nan
        return Evaluation(loss, None if right is None or not counted else right / counted)

    def shown(self) -> dict[str, str]:
        """Return the means in short, for a progress bar."""
        loss, accuracy = self.result("epoch")
        shown = {"loss": f"{loss:.3g}"}
        if accuracy is not None:
            shown["acc"] = f"{accuracy:.1%}"
        return shown

    def sums(self) -> dict[str, Any]:
        """Return what has been added up, for `restore`."""
        return {
            "numerator": float(self._numerator),
            "denominator": float(self._denominator),
            "right": None if self._right is None else int(self._right),
            "counted": int(self._counted),
            "images": self.images,
        }

    def restore(self, sums: Mapping[str, Any]) -> None:
        """Continue from what `sums` returned."""
        self._numerator, self._denominator = sums["numerator"], sums["denominator"]
        self._right, self._counted, self.images = sums["right"], sums["counted"], sums["images"]


def is_number(value: Any) -> bool:
    """Return whether `value`, a number or a 0-d array, can be read without blocking on a GPU."""
    return isinstance(value, (int, float)) or array_module(value) is np


def _double(value: Any) -> Any:
    """A number as a float, on a GPU as a float64 there: sums over many batches need the precision."""
    return float(value) if is_number(value) else value.astype(np.float64)


def _numerator(mean: Any, denominator: Any) -> Any:
    """`mean` times `denominator`, or 0 if no target counts and the mean is NaN."""
    if isinstance(denominator, float):
        return mean * denominator if denominator else 0.0
    return array_module(denominator).where(denominator == 0, 0, mean * denominator)

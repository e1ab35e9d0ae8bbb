"""Loss and accuracy, added up over batches."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tinyconv.arrays import Array


class Evaluation(NamedTuple):
    """Mean loss, and share of right classes (None where the targets are no class indices)."""

    loss: float
    accuracy: float | None


class Running:
    """Loss and accuracy so far; on a GPU they stay there until they are asked for."""

    def __init__(self, reduction: str) -> None:
        self._loss_is_mean = reduction == "mean"
        self._loss: Any = 0.0
        self._right: Any = 0
        self._targets = 0
        self.images = 0

    def add(self, loss: Array, prediction: Array, targets: Array) -> None:
        """Add the reduced `loss` of a batch, and count its right predictions."""
        self.images += len(targets)
        self._loss += loss * (len(targets) if self._loss_is_mean else 1)
        if targets.dtype.kind in "iu" and self._right is not None:
            self._targets += targets.size
            self._right += (prediction.argmax(axis=1) == targets).sum()
        else:
            self._right = None

    def result(self, where: str) -> Evaluation:
        """The means; ValueError, which says `where`, if there was no batch."""
        if not self.images:
            raise ValueError(
                f"`data` gave no batch in {where}; it must be an iterable that can be iterated again"
            )
        accuracy = None if self._right is None else int(self._right) / max(1, self._targets)
        return Evaluation(float(self._loss) / self.images, accuracy)

    def shown(self) -> dict[str, str]:
        """The means as a progress bar shows them, in short."""
        loss, accuracy = self.result("epoch")
        shown = {"loss": f"{loss:.3g}"}
        if accuracy is not None:
            shown["acc"] = f"{accuracy:.1%}"
        return shown

    def sums(self) -> dict[str, float | None]:
        """What has been added up, for `restore`."""
        right = None if self._right is None else int(self._right)
        return {
            "loss": float(self._loss),
            "right": right,
            "targets": self._targets,
            "images": self.images,
        }

    def restore(self, sums: Mapping[str, Any]) -> None:
        """Go on from what `sums` gave."""
        self._loss, self._right = sums["loss"], sums["right"]
        self._targets, self.images = sums["targets"], sums["images"]

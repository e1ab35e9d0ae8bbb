"""The history of a training run: one record per epoch, one loss per step."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: loss and accuracy over all its samples (see `Evaluation`), or None.

    `train_loss` and `train_accuracy` are measured while the parameters change; `seconds` is the time of
    training without validation, but with checkpoints, and in a resumed epoch that of its rest.

    >>> epoch = Epoch(1, 2, 0.1, 0.7, 0.5, 0.6, 0.875, 1.5, 100.0)
    >>> epoch.train_loss, epoch.validation_loss, epoch.validation_accuracy, epoch.merit
    (0.7, 0.6, 0.875, 0.875)
    """

    epoch: int
    steps: int
    lr: float
    train_loss: float
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    images_per_second: float

    @property
    def merit(self) -> float:
        """Return the figure to compare epochs by: validation accuracy, else minus a loss."""
        if self.validation_accuracy is not None:
            return self.validation_accuracy
        loss = self.train_loss if self.validation_loss is None else self.validation_loss
        return -math.inf if math.isnan(loss) else -loss


@dataclass(slots=True, repr=False)
class History:
    """The finished `epochs`, and loss and learning rate of each step, also of unfinished epochs.

    A step is a batch; if none of its targets counts, its loss is NaN.

    >>> History([Epoch(1, 2, 0.1, 0.7, 0.5, 0.6, 0.875, 1.5, 100.0)], [0.8, 0.6])
    History(1 epoch, 2 steps, best validation accuracy 87.5 % in epoch 1)
    """

    epochs: list[Epoch] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    step_lrs: list[float] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = ((len(self.epochs), "epoch"), (len(self.step_losses), "step"))
        parts = [f"{count:,} {what}{'' if count == 1 else 's'}" for count, what in counts]
        if self.epochs:
            parts.append(f"best {_figure(self.best)} in epoch {self.best.epoch}")
        return f"History({', '.join(parts)})"

    @property
    def best(self) -> Epoch:
        """Return the epoch with the highest validation accuracy, else with the lowest loss.

        Raises:
            ValueError: no epoch has been finished.
        """
        if not self.epochs:
            raise ValueError("no epoch has been finished")
        return max(self.epochs, key=lambda epoch: epoch.merit)

    @property
    def epochs_since_best(self) -> int:
        """Return the number of epochs after `best`, or 0."""
        return len(self.epochs) - 1 - self.epochs.index(self.best) if self.epochs else 0


def _figure(epoch: Epoch) -> str:
    """The figure behind `merit`, in words."""
    if epoch.validation_accuracy is not None:
        return f"validation accuracy {100 * epoch.validation_accuracy:.4g} %"
    if epoch.validation_loss is not None:
        return f"validation loss {epoch.validation_loss:.4g}"
    return f"training loss {epoch.train_loss:.4g}"

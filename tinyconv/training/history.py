"""What a training run has seen: one record an epoch, one loss a step."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: means over its images; accuracies are None where targets are no class indices.

    `train_loss` and `train_accuracy` are taken while the parameters change, `seconds` is the time of
    training without validation, checkpoints included; in a resumed epoch that of its rest.
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
        """What makes one epoch better than another: validation accuracy, else a loss, negative."""
        if self.validation_accuracy is not None:
            return self.validation_accuracy
        loss = self.train_loss if self.validation_loss is None else self.validation_loss
        return -math.inf if math.isnan(loss) else -loss


@dataclass(slots=True)
class History:
    """`epochs` that were finished, and the loss of each step, of unfinished epochs too."""

    epochs: list[Epoch] = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)

    @property
    def best(self) -> Epoch:
        """The epoch with the highest validation accuracy, else with the lowest loss.

        Raises:
            ValueError: no epoch has been finished.
        """
        if not self.epochs:
            raise ValueError("no epoch has been finished")
        return max(self.epochs, key=lambda epoch: epoch.merit)

    @property
    def epochs_since_best(self) -> int:
        """Number of epochs after `best`; 0 where there is none."""
        return len(self.epochs) - 1 - self.epochs.index(self.best) if self.epochs else 0

"""What a training run has seen: one record an epoch, one loss a step."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: means over its images; accuracies are None where targets are no class indices.

    `train_loss` and `train_accuracy` are taken while the parameters change, `seconds` is the time of
    training without validation.
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
        return max(self.epochs, key=_merit)


def _merit(epoch: Epoch) -> float:
    if epoch.validation_accuracy is not None:
        return epoch.validation_accuracy
    return -(epoch.train_loss if epoch.validation_loss is None else epoch.validation_loss)

"""The callbacks that a test trains with, by short names."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyconv import Layer
from tinyconv.data import DataLoader
from tinyconv.training import (
    Callback,
    Checkpoints,
    ClipGradNorm,
    ClipGradValue,
    EarlyStopping,
    HistoryLog,
    Run,
    Trainer,
    WeightAverage,
)


class AfterEpoch(Callback):
    """Calls a function after each epoch, with its record."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def on_epoch_end(self, run: Run) -> None:
        self.function(run.history.epochs[-1])


def callbacks(
    model: Layer,
    folder: Path | None = None,
    every: int | None = 1,
    keep: int = 1000,
    *,
    average: float | None = None,
    norm: float | None = None,
    value: float | None = None,
    patience: int | None = None,
    restore_best: bool = False,
    on_epoch: Any = None,
) -> list[Callback]:
    """Those that are asked for."""
    made: list[Callback] = []
    if norm is not None:
        made.append(ClipGradNorm(norm))
    if value is not None:
        made.append(ClipGradValue(value))
    if average is not None:
        made.append(WeightAverage(model, average))
    if patience is not None or restore_best:
        made.append(EarlyStopping(patience, restore_best))
    if folder is not None:
        made += [HistoryLog(folder), Checkpoints(folder, keep, every)]
    if on_epoch is not None:
        made.append(AfterEpoch(on_epoch))
    return made


def average_of(trainer: Trainer) -> WeightAverage | None:
    """The averaged weights of a training."""
    found = [one for one in trainer.run.callbacks if isinstance(one, WeightAverage)]
    return found[0] if found else None


def parts(loader: DataLoader, count: int, skip: int = 0) -> list[Iterator[Any]]:
    """The parts of an epoch that `count` processes have, each with a loader like this one."""
    loaders = [loader, *(copy.deepcopy(loader) for _ in range(count - 1))]
    return [own.part(rank, count, skip) for rank, own in enumerate(loaders)]

"""Trainings that several ranks share, with all that tells their parts apart; also run by mpiexec.

    mpiexec -n 2 python -m mpi4py -m tests.rank_runs FOLDER NAME...

Each rank writes what it has after each training to FOLDER, for the test that compares it with one process.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv as tc
from tests.trainers import callbacks
from tinyconv.arrays import Array
from tinyconv.data import DataLoader
from tinyconv.data.augment import random_affine
from tinyconv.training import Checkpoints, Communicator, MPICommunicator

COUNT = 47


def network(*extra: tc.Layer, dtype: Any = np.float64) -> tc.Sequential:
    return tc.Sequential(
        tc.Conv2d(1, 4, 3, padding=1, dtype=dtype, generator=0),
        tc.BatchNorm2d(4, dtype=dtype),
        tc.ReLU(),
        tc.MaxPool2d(2),
        tc.Sequential(tc.Flatten(), *extra),
        tc.Linear(4 * 16, 3, dtype=dtype, generator=1),
    )


def data(count: int = COUNT) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.random((count, 1, 8, 8)), rng.integers(0, 3, count)


def loader(batch_size: int = 10, **options: Any) -> DataLoader:
    return DataLoader(data(), batch_size, shuffle=True, generator=3, **options)


class Stream:
    """Batches of other sizes, some smaller than the number of ranks."""

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        x, y = data()
        for start, end in ((0, 8), (8, 9), (9, 11), (11, 20), (20, 46)):
            yield x[start:end], y[start:end]


def ignored() -> DataLoader:
    """Targets of which some, and in the second batch all, are ignored."""
    x, y = data()
    y[::3], y[10:20] = -100, -100
    return DataLoader((x, y), 10)


def sorted_by_class() -> DataLoader:
    """Batches in which some parts have one class only."""
    x, y = data()
    y[:20] = np.where(np.arange(20) % 10 < 5, 2, 0)
    return DataLoader((x, y), 10)


def trainer(
    *,
    extra: tuple[tc.Layer, ...] = (),
    criterion: tc.Loss | None = None,
    communicator: Communicator | None = None,
    workers: int = 1,
    accumulate: int = 1,
    folder: Path | None = None,
    **options: Any,
) -> tc.Trainer:
    model = network(*extra)
    optimizer = tc.optim.SGD(model, lr=0.05, momentum=0.9)
    return tc.Trainer(
        model,
        tc.CrossEntropyLoss() if criterion is None else criterion,
        optimizer,
        tc.optim.OneCycleLR(optimizer, 0.05, total_steps=100),
        callbacks=callbacks(model, folder, **options),
        accumulate=accumulate,
        workers=workers,
        communicator=communicator,
        progress=False,
    )


def train(batches: Any, *, validation: Any = None, **options: Any) -> tc.Trainer:
    made = trainer(**options)
    made.fit(batches, 2, validation=validation)
    return made


def resumed(path: Path, **options: Any) -> tc.Trainer:
    made = trainer(**options)
    made.resume(path)
    made.fit(loader(), 2 - len(made.history.epochs))
    return made


def resumes(communicator: Communicator | None = None, workers: int = 1) -> tc.Trainer:
    """A run that goes on in the middle of an epoch: with as many ranks to the bit, then with others."""
    ranks: dict[str, Any] = {"communicator": communicator, "workers": workers}
    ours = communicator or Communicator()
    folder = Path(ours.broadcast(tempfile.mkdtemp()))
    whole = result(train(loader(), average=0.8, folder=folder / "ranks", every=2, **ranks))
    again = result(resumed(Checkpoints(folder / "ranks").paths()[2], average=0.8, **ranks))
    for name, value in whole.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    if ours.rank == 0:
        train(loader(), average=0.8, folder=folder / "alone", every=2)
    ours.barrier()
    return resumed(Checkpoints(folder / "alone").paths()[2], average=0.8, **ranks)


def first_alone(communicator: Communicator | None = None, workers: int = 1) -> tc.Trainer:
    """Batches that only rank 0 has."""
    ours = communicator or Communicator()
    return train([] if ours.rank else list(Stream()), communicator=communicator, workers=workers)


WEIGHT = np.array([1.0, 0.25, 3.0])

# Name -> a training that takes `workers` or `communicator`.
RUNS: dict[str, Callable[..., tc.Trainer]] = {
    "uneven parts": lambda **ranks: train(loader(), validation=data(11), **ranks),
    "data that are shuffled without a seed": lambda **ranks: train(
        loader(), validation=DataLoader(data(11), 4, shuffle=True), **ranks
    ),
    "batches of one": lambda **ranks: train(loader(1, drop_last=True), **ranks),
    "an iterable": lambda **ranks: train(Stream(), validation=Stream(), **ranks),
    "an iterable of the first rank": first_alone,
    "samples": lambda **ranks: train(
        DataLoader(list(zip(*data(), strict=True)), 10, shuffle=True, generator=1), **ranks
    ),
    "augmented": lambda **ranks: train(
        loader(augment=partial(random_affine, degrees=10, translate=1)), **ranks
    ),
    "class weights": lambda **ranks: train(loader(), criterion=tc.CrossEntropyLoss(WEIGHT), **ranks),
    "ignored targets": lambda **ranks: train(ignored(), criterion=tc.CrossEntropyLoss(WEIGHT), **ranks),
    "sums": lambda **ranks: train(
        loader(), criterion=tc.CrossEntropyLoss(reduction="sum", label_smoothing=0.1), norm=1.0, **ranks
    ),
    "sums with a class of weight 0": lambda **ranks: train(
        sorted_by_class(),
        criterion=tc.CrossEntropyLoss(np.array([1.0, 0.5, 0.0]), reduction="sum", label_smoothing=0.1),
        norm=1.0,
        **ranks,
    ),
    "accumulation": lambda **ranks: train(loader(), accumulate=3, **ranks),
    "clipping": lambda **ranks: train(loader(), norm=0.3, value=0.05, **ranks),
    "averages": lambda **ranks: train(loader(), average=0.8, validation=data(11), **ranks),
    "resumed": resumes,
    "stopping": lambda **ranks: train(loader(), patience=1, restore_best=True, validation=data(11), **ranks),
}


def result(trainer: tc.Trainer) -> dict[str, Array]:
    """All that must be equal on all ranks, and up to rounding with one process."""
    epochs = trainer.history.epochs
    figures = [(e.train_loss, e.train_accuracy, e.validation_loss or 0.0, e.lr) for e in epochs]
    arrays = {**trainer.model.state_dict(), **trainer.run.evaluated.state_dict()}
    losses = np.nan_to_num(np.array(trainer.history.step_losses), nan=-1.0)
    return {**arrays, "losses": losses, "figures": np.array(figures, float)}


def main() -> None:
    """Run the trainings that are named, as one of the ranks."""
    sys.modules["tensorboardX"] = None  # type: ignore[assignment]  # its import takes long
    folder, *names = sys.argv[1:]
    communicator = MPICommunicator()
    for name in names:
        trainer = RUNS[name](communicator=communicator)
        arrays: dict[str, Any] = result(trainer)
        np.savez(Path(folder) / f"{name} {communicator.rank}.npz", **arrays)
    communicator.barrier()
    (Path(folder) / f"ended {communicator.rank}").write_text(json.dumps([communicator.size, os.getpid()]))


if __name__ == "__main__":
    main()

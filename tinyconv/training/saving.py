"""When a training run writes checkpoints, and how it continues from one."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyconv.arguments import integer
from tinyconv.arrays import Array
from tinyconv.data.loader import DataLoader
from tinyconv.training.running import Running
from tinyconv.training.snapshot import random_states, restore, set_random_states, snapshot, under

if TYPE_CHECKING:
    from tinyconv.training.checkpoints import Checkpoints
    from tinyconv.training.log import HistoryLog
    from tinyconv.training.trainer import Trainer


class Saving:
    """Save a trainer's run, and resume it.

    A position is where in its data a run is: the "step" of the epoch, the random states at its "begin" and
    "now", the "sums" of losses so far, its first "lr" and its number of "batches". To continue within an
    epoch, the random numbers of its beginning are drawn again, and the first steps are skipped.

    Args:
        trainer: the trainer of the run.
        folder: for checkpoints and history; None to write nothing.
        every: number of batches after which there is a checkpoint within an epoch; None for none.
        keep: how many of the last checkpoints are kept.
    """

    def __init__(
        self, trainer: "Trainer", folder: str | os.PathLike[str] | None, every: int | None, keep: int
    ) -> None:
        if every is not None and folder is None:
            raise ValueError(f"`checkpoint_every` (={every}) needs a `checkpoint_dir`")
        self._trainer, self._folder, self._keep = trainer, folder, integer("keep", keep)
        self._every = math.inf if every is None else integer("checkpoint_every", every)
        self._saved = 0  # the step of the last checkpoint
        self._folders: set[Path] = set()  # folders whose checkpoints belong to this run
        self._resumed: dict[str, Any] | None = None  # a position, until an epoch continues from there
        self._open: tuple[Checkpoints, HistoryLog] | None = None

    @property
    def goes_on(self) -> bool:
        """Return whether the next epoch is one of a resumed run."""
        return self._resumed is not None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the folder to save to, if there is one, for the `with` block."""
        self._saved = steps = len(self._trainer.history.step_losses)
        if self._folder is None:
            yield
            return
        from tinyconv.training.checkpoints import Checkpoints
        from tinyconv.training.log import HistoryLog

        checkpoints, own = Checkpoints(self._folder, self._keep), Path(self._folder).resolve()
        if own not in self._folders and checkpoints.paths():
            raise ValueError(
                f"`checkpoint_dir` (={os.fspath(self._folder)!r}) holds the checkpoints of another run: "
                "resume it, or pass another folder"
            )
        self._folders.add(own)
        with HistoryLog(self._folder, steps) as log:
            self._open = checkpoints, log
            try:
                yield
            finally:
                self._open = None

    def resume(self, path: str | os.PathLike[str] | None) -> None:
        """Load a checkpoint; see `Trainer.resume`."""
        from tinyconv.training.checkpoint import read_checkpoint
        from tinyconv.training.checkpoints import Checkpoints

        path = self._folder if path is None else path
        if path is None:
            raise ValueError("`path` must be given, as `checkpoint_dir` is None")
        if Path(path).is_dir():
            path, arrays, state = Checkpoints(path).latest()
        else:
            arrays, state = read_checkpoint(path)
        try:
            position = _checked(state.get("position"))
            restore(self._trainer, arrays, state)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} does not fit this run: {error}") from error
        self._resumed = position
        self._folders = {Path(path).resolve().parent}

    def begin_epoch(self, batches: Iterable[Any]) -> dict[str, Any]:
        """Return the position in which an epoch begins: a resumed one, or that of its first batch."""
        sizes = {"batches": len(batches) if isinstance(batches, Sized) else None}
        sizes["samples"] = batches.samples if isinstance(batches, DataLoader) else None
        resumed = self._resumed
        if resumed is not None:
            for what, size in sizes.items():
                if resumed[what] != size:
                    raise ValueError(f"`data` has {size} {what}, the resumed run's had {resumed[what]}")
            set_random_states(self._trainer, batches, resumed["begin"])
            self._resumed = None
            if resumed["step"]:
                return resumed
        begin, lr = random_states(self._trainer, batches), self._trainer.optimizer.lr
        return {"step": 0, "begin": begin, "now": begin, "sums": {}, "lr": lr, **sizes}

    def go_on(self, batches: Iterable[Any], position: dict[str, Any], total: Running) -> None:
        """Restore the state of a step within an epoch, after the draws of the epoch's beginning."""
        set_random_states(self._trainer, batches, position["now"])
        total.restore(position["sums"])

    def save_within(
        self, batches: Iterable[Any], position: dict[str, Any], step: int, total: Running
    ) -> None:
        """Save before the next batch of an epoch, if it is time; after the last one `save_epoch` does."""
        if self._open is None or step == 0 or self._trainer.steps - self._saved < self._every:
            return
        self._trainer.check_losses(len(self._trainer.history.epochs) + 1, step)
        now = random_states(self._trainer, batches)
        self._save({**position, "step": step, "now": now, "sums": total.sums()})

    def save_epoch(self, batches: Iterable[Any]) -> None:
        """Save after an epoch, when the next one is about to begin."""
        if self._open is None:
            return
        record = self._trainer.history.epochs[-1]
        self._open[1].write(self._trainer.steps, **asdict(record))
        self._save(self.begin_epoch(batches), record.merit)

    def log_steps(self, losses: Sequence[float], rates: Sequence[float]) -> None:
        """Write the losses that follow those in the trainer's history."""
        if self._open is None:
            return
        history = self._trainer.history
        for number, (loss, lr) in enumerate(zip(losses, rates, strict=True), len(history.step_losses) + 1):
            self._open[1].write(number, epoch=len(history.epochs) + 1, loss=loss, lr=lr)

    def best_weights(self) -> dict[str, Array]:
        """Return the weights that the best checkpoint was evaluated with."""
        if self._open is None:
            raise ValueError(
                "`restore_best` needs a `checkpoint_dir`, as the best epoch was in an earlier `fit`"
            )
        _, arrays, state = self._open[0].best()
        if state["metric"] != self._trainer.history.best.merit:
            raise ValueError("`restore_best`: the checkpoint of the best epoch is gone or cannot be read")
        averages = under("average/module.", arrays)
        return averages or under("model/", arrays)

    def _save(self, position: dict[str, Any], metric: float | None = None) -> None:
        assert self._open is not None
        arrays, state = snapshot(self._trainer)
        self._saved = self._trainer.steps
        self._open[0].save(self._saved, arrays, {**state, "position": position}, metric)


def _checked(position: Any) -> dict[str, Any]:
    """A position from a checkpoint, checked; ValueError if it is not one."""
    kinds: dict[str, Any] = {
        "step": int,
        "begin": dict,
        "now": dict,
        "sums": dict,
        "lr": (int, float),
        "batches": (int, type(None)),
        "samples": (int, type(None)),
    }
    if not isinstance(position, dict):
        raise ValueError("it lacks the position in the data")
    for name, kind in kinds.items():
        if not isinstance(position.get(name, ()), kind):
            raise ValueError(f"its position in the data lacks {name!r}, or has a wrong one")
    return position

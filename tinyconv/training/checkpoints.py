"""A folder of checkpoints: the last few, and the best."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tinyconv.arguments import integer, number
from tinyconv.arrays import Array
from tinyconv.files import remove_unfinished
from tinyconv.training.checkpoint import read_checkpoint, write_checkpoint

_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class Checkpoint(NamedTuple):
    """The content of a checkpoint's file; `state` has "step" and "metric" besides what was saved."""

    path: Path
    arrays: dict[str, Array]
    state: dict[str, Any]


class Checkpoints:
    """Keep the checkpoints of one run, `step-00001234.safetensors` and so on in a folder.

    The folder does not have an index file, so a process that is killed at any moment leaves complete
    checkpoints behind. Only one process at a time may save into it.

    Args:
        folder: created by the first `save`.
        keep: how many of the last checkpoints are kept, in addition to the best one.

    Raises:
        ValueError, TypeError: `keep` is not an integer of at least 1.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, keep=2)
    ...     for step, accuracy in [(10, 0.97), (20, 0.99), (30, 0.98), (40, 0.98)]:
    ...         path = checkpoints.save(step, {"model/weight": np.zeros(3)}, {"epoch": 1}, metric=accuracy)
    ...     steps = [int(path.stem[5:]) for path in checkpoints.paths()]
    ...     steps, checkpoints.latest().state, checkpoints.best().state["step"]
    ([20, 30, 40], {'epoch': 1, 'step': 40, 'metric': 0.98}, 20)
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3) -> None:
        self.folder, self.keep = Path(folder), integer("keep", keep)
        self._merits: dict[Path, float] = {}  # of the files that this object has written or read

    def paths(self) -> list[Path]:
        """Return the checkpoints' files, from the oldest step to the newest."""
        return sorted((p for p in self.folder.glob("step-*") if _NAME.fullmatch(p.name)), key=_step)

    def save(
        self,
        step: int,
        arrays: Mapping[str, Array],
        state: Mapping[str, Any],
        metric: float | None = None,
    ) -> Path:
        """Write a checkpoint; then remove those that need not be kept, and those of later steps.

        (Those of later steps belong to an abandoned run, which was resumed from an older checkpoint.)

        Args:
            step: number of steps that the run has taken.
            arrays, state: as for `write_checkpoint`; "step" and "metric" are added to the state.
            metric: the higher, the better the checkpoint. NaN, or None, is never the best.

        Returns:
            The file.

        Raises:
            ValueError, TypeError: as `write_checkpoint`, or a `step` that is not an integer of at least 0, or
                a `metric` that is not a number.
            OSError: the file cannot be written; the others are not changed.
        """
        metric = None if metric is None else number("metric", metric)
        path = self.folder / f"step-{integer('step', step, minimum=0):08d}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path, arrays, {**state, "step": step, "metric": metric})
        self._merits[path] = _merit_of(metric)
        self._tidy(path)
        return path

    def latest(self) -> Checkpoint:
        """Return the checkpoint of the newest step.

        Raises:
            FileNotFoundError: there are no checkpoints.
            ValueError: it is damaged. The message says how, and names the next older one that is intact.
        """
        *older, newest = self._some_paths()
        try:
            return Checkpoint(newest, *read_checkpoint(newest))
        except (ValueError, OSError) as error:
            offer = next((path for path in reversed(older) if _readable(path)), None)
            advice = f"the next older checkpoint is {offer}: pass it to continue from there"
            raise ValueError(f"{error}; {advice if offer else 'no older one can be read'}") from error

    def best(self) -> Checkpoint:
        """Return the checkpoint with the highest metric, the first if several are equal.

        Raises:
            FileNotFoundError: there are no checkpoints, or none with a metric.
            ValueError: one that might be the best is damaged.
        """
        path = max(self._some_paths(), key=self._merit)
        if self._merit(path) == -math.inf:
            raise FileNotFoundError(f"{self.folder} holds no checkpoint with a metric")
        return Checkpoint(path, *read_checkpoint(path))

    def _some_paths(self) -> list[Path]:
        paths = self.paths()
        if not paths:
            raise FileNotFoundError(f"{self.folder} holds no checkpoint")
        return paths

    def _tidy(self, newest: Path) -> None:
        """Remove checkpoints that need not be kept, and unfinished files of killed processes."""
        until = [path for path in self.paths() if _step(path) <= _step(newest)]
        kept = set(until[-self.keep :])
        best = max(until, key=self._merit_if_readable)
        if self._merit_if_readable(best) > -math.inf:
            kept.add(best)
        for path in set(self.paths()) - kept:
            if _step(path) <= _step(newest) and path not in self._merits:
                continue  # it cannot be read, and might be the best
            path.unlink()
            self._merits.pop(path, None)
        remove_unfinished(self.folder, "step-*.safetensors")

    def _merit(self, path: Path) -> float:
        if path not in self._merits:
            self._merits[path] = _merit_of(read_checkpoint(path)[1].get("metric"))
        return self._merits[path]

    def _merit_if_readable(self, path: Path) -> float:
        try:
            return self._merit(path)
        except (ValueError, OSError):
            return -math.inf


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _merit_of(metric: Any) -> float:
    is_number = isinstance(metric, (int, float)) and not math.isnan(metric)
    return metric if is_number else -math.inf


def _readable(path: Path) -> bool:
    try:
        read_checkpoint(path)
    except (ValueError, OSError):
        return False
    return True

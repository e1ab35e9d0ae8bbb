"""Checkpoints: a run in a file, and a folder with the last few and the best of them.

A checkpoint is a safetensors file, as `weights.py` writes them; one of its tensors is a state in JSON.
"""

import json
import math
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arguments import integer, number
from tinyconv.arrays import Array
from tinyconv.files import remove_unfinished
from tinyconv.training.run import Callback, Run, under
from tinyconv.training.weights import read_arrays, write_arrays

FORMAT = "tinyconv checkpoint"
VERSION = 2
_STATE = "state"  # the tensor whose bytes are JSON; the header would limit its size to 100 MB

_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class Checkpoint(NamedTuple):
    """The content of a checkpoint's file; `state` has "step" and "metric" besides what was saved."""

    path: Path
    arrays: dict[str, Array]
    state: dict[str, Any]


class Checkpoints(Callback):
    """Keep the checkpoints of one run, `step-00001234.safetensors` and so on in a folder.

    As a callback of a Trainer it saves after each epoch and, with `every`, within epochs; `Trainer.resume`
    goes on from there. The folder does not have an index file, so a process that is killed at any moment
    leaves complete checkpoints behind. Only one process at a time may save into it.

    Args:
        folder: created by the first `save`.
        keep: how many of the last checkpoints are kept, in addition to the best one.
        every: number of batches after which there is a checkpoint within an epoch; None for none.

    Raises:
        ValueError, TypeError: `keep` or `every` is not an integer of at least 1. `fit` raises ValueError if
            the folder holds the checkpoints of another run, and if weights to save are NaN or infinite;
            OSError if a checkpoint cannot be written. Earlier ones are not changed.

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

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3, every: int | None = None) -> None:
        self.folder, self.keep = Path(folder), integer("keep", keep)
        self.every = None if every is None else integer("every", every)
        self._merits: dict[Path, float] = {}  # of the files that this object has written or read
        self._saved = 0  # the step of the last checkpoint

    def on_fit_begin(self, run: Run) -> None:
        own = str(self.folder.resolve())
        if own not in run.folders and self.paths():
            raise ValueError(
                f"{self.folder} holds the checkpoints of another run: resume it, or pass another folder"
            )
        run.folders.add(own)
        run.resumable, self._saved = True, run.steps

    def on_batch_begin(self, run: Run) -> None:
        # Not at the beginning of an epoch, where `on_epoch_end` has saved, nor between the batches of a step.
        if self.every and run.step and not run.pending and run.steps - self._saved >= self.every:
            self._save_run(run)

    def on_epoch_end(self, run: Run) -> None:
        self._save_run(run, run.history.epochs[-1].merit)

    def _save_run(self, run: Run, metric: float | None = None) -> None:
        self.save(run.steps, *run.state(), metric)
        self._saved = run.steps

    def best_weights(self, run: Run) -> dict[str, Array]:
        """Return the weights that the best checkpoint was evaluated with.

        Raises:
            ValueError: it is not that of the best epoch of `run`.
        """
        _, arrays, state = self.best()
        if state["metric"] != run.history.best.merit:
            raise ValueError("`restore_best`: the checkpoint of the best epoch is gone or cannot be read")
        for place in range(len(run.shared_callbacks)):
            if averages := under(f"callbacks/{place}/module.", arrays):
                return averages
        return under("model/", arrays)

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


def resume_run(run: Run, path: str | os.PathLike[str] | None = None) -> None:
    """Set `run` to a checkpoint, from which it continues bit for bit; see `Trainer.resume`.

    Random generators are restored in layers (those in attributes, and in lists, tuples and dicts there), in
    `np.random` and `random`, and in the data's attribute `generator`; other iterables must give the same
    batches again. (On a GPU dropout draws different numbers.)

    Raises:
        ValueError: a damaged or foreign file, or one of another model, dtype, optimiser or schedule. If the
            newest checkpoint of a folder is damaged, the message names the next older one.
        OSError: it cannot be read, or does not exist.
    """
    folders = [callback.folder for callback in run.callbacks if isinstance(callback, Checkpoints)]
    if path is None and not folders:
        raise ValueError("`path` must be given, as there are no Checkpoints among the callbacks")
    path = Path(folders[0] if path is None else path)
    if path.is_dir():
        path, arrays, state = Checkpoints(path).latest()
    else:
        arrays, state = read_checkpoint(path)
    try:
        run.restore(arrays, state)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not fit this run: {error}") from error
    run.folders = {str(path.resolve().parent)}


def write_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, Array], state: Mapping[str, Any]
) -> None:
    """Write arrays and a state to one safetensors file.

    The file is written completely or not at all: under another name in the same folder, flushed and renamed.

    Args:
        path: the file.
        arrays: name -> array of real numbers or bools, on any device; "model/0.weight" is a name.
        state: what JSON can represent, with integers of any size and NumPy's numbers and arrays, such as the
            `bit_generator.state` of a numpy.random.Generator. It is read back with lists for tuples and
            arrays, and strings for keys.

    Raises:
        ValueError: an array is NaN or infinite, or has a name that is "state" or looks like a path.
        TypeError: an array of another dtype, or a state that JSON cannot represent.
        OSError: the file cannot be written; an existing file is not changed.
    """
    if _STATE in arrays:
        raise ValueError(f"`arrays` must not have the name {_STATE!r}")
    envelope = {"format": FORMAT, "version": VERSION, "state": dict(state)}
    text = json.dumps(envelope, default=_as_list)
    write_arrays(path, {**arrays, _STATE: np.frombuffer(text.encode(), np.uint8)})


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays, on the CPU, and the state that `write_checkpoint` wrote.

    Raises:
        ValueError: not a checkpoint, a damaged one (even by one byte), or one of another format version;
            values that are NaN or infinite. The message names the file and says what is wrong.
        OSError: the file cannot be read.
    """
    arrays, checked = read_arrays(path)
    try:
        envelope = json.loads(arrays.pop(_STATE).tobytes())
        its_format, version, state = (envelope[key] for key in ("format", "version", "state"))
    except (KeyError, TypeError, ValueError, RecursionError):
        its_format = version = state = None
    if its_format != FORMAT or not checked:
        raise ValueError(f"{path} is a safetensors file, but not a tinyconv checkpoint")
    if version != VERSION:
        raise ValueError(f"{path} has the checkpoint format {version}, but this tinyconv reads {VERSION}")
    if not isinstance(state, dict):
        raise ValueError(f"{path} is a checkpoint whose state is not a JSON object")
    return arrays, state


def _as_list(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(
        f"`state` has {reprlib.repr(value)} (of type {type(value).__name__}), which JSON cannot represent"
    )

"""The history of a run, written while it runs."""

import importlib.util
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from tinyconv.arguments import integer
from tinyconv.files import remove_unfinished, write_whole
from tinyconv.training.run import Callback, Run

Value: TypeAlias = float | str | None


class HistoryLog(Callback):
    """Write one JSON line per record to `history.jsonl`; `pandas.read_json(path, lines=True)` reads it.

    As a callback of a Trainer it writes loss and learning rate of each batch, and each epoch's record. It
    goes before `Checkpoints`: a run that is killed between the two then writes the record again.

    The operating system has each line when `write` returns. If tensorboardX is installed, the numbers are
    also written to TensorBoard's event files in the same folder (`tensorboard --logdir FOLDER`); these are
    complete after `close`.

    Args:
        folder: created by `open`, if it does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = HistoryLog(folder)
    ...     log.open()
    ...     log.write(1, loss=0.5)
    ...     log.write(2, loss=0.25)
    ...     log.open(step=1)
    ...     log.write(2, loss=0.125)
    ...     print(log.path.read_text(), end="")
    {"step": 1, "loss": 0.5}
    {"step": 2, "loss": 0.125}
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "history.jsonl"
        self._board: Any = None
        self._written = 0  # number of steps

    def on_fit_begin(self, run: Run) -> None:
        self._written = run.steps
        self.open(run.steps)

    def on_batch_end(self, run: Run) -> None:
        history = run.history
        for step in range(self._written, len(history.step_losses)):
            self.write(step + 1, epoch=run.epoch, loss=history.step_losses[step], lr=history.step_lrs[step])
        self._written = len(history.step_losses)

    def on_epoch_end(self, run: Run) -> None:
        self.on_batch_end(run)
        self.write(run.steps, **asdict(run.history.epochs[-1]))

    def open(self, step: int = 0) -> None:
        """Begin, or go on after `step`.

        Lines of later steps, which a resumed run will write again, are removed, and so is an incomplete line
        at the end, which a killed process leaves.

        Raises:
            ValueError: a line, other than an incomplete one at the end, that is not a record with a step; the
                message names file and line.
            OSError: the file cannot be read or written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.folder, self.path.name)
        records = self._cut(integer("step", step, minimum=0))
        if importlib.util.find_spec("tensorboardX"):
            # Purged from step 0 on and written again: a killed process's last events may not be in its file.
            tensorboard = importlib.import_module("tensorboardX")
            self._board = tensorboard.SummaryWriter(str(self.folder), purge_step=0)
            for record in records:
                self._show(record)

    def write(self, step: int, **values: Value) -> None:
        """Append a record.

        Args:
            step: number of steps that the run has taken.
            values: numbers, texts or None; NaN and infinity are written as null.

        Raises:
            ValueError, TypeError: another value, a `step` that is not an integer of at least 0.
            OSError: the line cannot be written.
        """
        record: dict[str, Any] = {"step": integer("step", step, minimum=0)}
        record.update({name: _finite_or_none(value) for name, value in values.items()})
        line = json.dumps(record, allow_nan=False) + "\n"
        # Opened for each line: nothing is buffered, and forked processes do not share a file.
        with self.path.open("ab") as file:
            file.write(line.encode())
        if self._board is not None:
            self._show(record)

    def close(self) -> None:
        """Write what TensorBoard's event file still lacks."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _cut(self, step: int) -> list[dict[str, Any]]:
        """The records up to `step`, which are then all that the file has."""
        content = self.path.read_bytes() if self.path.exists() else b""
        *lines, _ = content.split(b"\n")
        records = [self._parsed(line, number) for number, line in enumerate(lines, 1)]
        kept = [line + b"\n" for line, record in zip(lines, records, strict=True) if record["step"] <= step]
        if b"".join(kept) != content:
            write_whole(self.path, b"".join(kept))
        return [record for record in records if record["step"] <= step]

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and type(record.get("step")) is int:
                return record
        except (ValueError, RecursionError):
            pass
        raise ValueError(f"{self.path}, line {number}, is not a JSON object with a step: {line[:60]!r}")

    def _show(self, record: dict[str, Any]) -> None:
        """Send the numbers of a record to TensorBoard."""
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, record["step"])


def _finite_or_none(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value

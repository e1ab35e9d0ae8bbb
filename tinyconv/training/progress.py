"""Progress of training: a bar in a terminal or a notebook, else a line per epoch."""

import sys
import time
import warnings
from threading import RLock

from tqdm import TqdmWarning

from tinyconv.data.loader import DataLoader
from tinyconv.training.history import Epoch
from tinyconv.training.run import Callback, Run
from tinyconv.training.running import SAMPLES, evaluation

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # in a notebook without ipywidgets the bar is text
    from tqdm.auto import tqdm

__all__ = ["LOCK", "Bar", "Progress"]

# How often the bar reads loss and accuracy, which blocks on a GPU.
SHOWN_SECONDS = 0.2
# Short enough for 60 columns; the bar takes the rest of the line.
FORMAT = "{desc} {percentage:3.0f}%|{bar}| {remaining} {rate_noinv_fmt}{postfix}"
FORMAT_OF_UNKNOWN_LENGTH = "{desc}: {n_fmt} images, {rate_noinv_fmt}{postfix}"


class Bar(tqdm):  # type: ignore[type-arg]  # generic only in its stubs
    """A tqdm bar with a lock that other processes do not share.

    tqdm's own lock is shared with forked processes. If one is killed while it holds the lock, all others
    would wait forever.
    """

    def close(self) -> None:
        """Leave the bar on screen, with the elapsed time in place of the remaining time."""
        if not self.disable:
            self.bar_format = (self.bar_format or "").replace("{remaining}", "{elapsed}")
        super().close()


LOCK = RLock()
Bar.set_lock(LOCK)


class Progress(Callback):
    """Show a bar for each epoch, in a terminal or a notebook; elsewhere print a line per epoch to stderr.

    The bar has the remaining time, images per second, loss and accuracy. A Trainer has this callback unless
    its `progress` is False.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._shown = 0.0

    def on_epoch_begin(self, run: Run) -> None:
        if not _is_watched():
            return
        batches = run.batches
        images = batches.samples_per_epoch if isinstance(batches, DataLoader) else None
        self._bar = Bar(
            total=images,
            desc=f"epoch {run.epoch}/{run.last_epoch}",
            bar_format=FORMAT if images else FORMAT_OF_UNKNOWN_LENGTH,
            unit="",
            unit_scale=True,
            file=sys.stdout if _in_notebook() else sys.stderr,  # a notebook's stderr looks like an error
        )
        self._shown = time.perf_counter()

    def on_batch_end(self, run: Run) -> None:
        if self._bar is not None and time.perf_counter() > self._shown + SHOWN_SECONDS:
            self._show(run)

    def on_epoch_end(self, run: Run) -> None:
        if self._bar is not None:
            self._show(run)
            self.close()
        elif not _is_watched():
            _print_line(run.history.epochs[-1], run.last_epoch)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, run: Run) -> None:
        assert self._bar is not None
        sums = run.sums_until_now()
        if sums[SAMPLES]:
            loss, accuracy = evaluation(run.criterion, sums, "")
            shown = {"loss": f"{loss:.3g}"} | ({} if accuracy is None else {"acc": f"{accuracy:.1%}"})
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(int(sums[SAMPLES]) - self._bar.n)
        self._shown = time.perf_counter()


def _print_line(record: Epoch, epochs: int) -> None:
    parts = [_result("loss", record.train_loss, record.train_accuracy)]
    if record.validation_loss is not None:
        parts.append(_result("validation loss", record.validation_loss, record.validation_accuracy))
    parts.append(f"{record.seconds:.1f} s")
    print(f"epoch {record.epoch}/{epochs}: {'; '.join(parts)}", file=sys.stderr, flush=True)


def _result(name: str, loss: float, accuracy: float | None) -> str:
    return f"{name} {loss:.4g}" + ("" if accuracy is None else f", accuracy {accuracy:.2%}")


def _is_watched() -> bool:
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _in_notebook() -> bool:
    return "ipykernel.zmqshell" in sys.modules  # as tqdm finds out

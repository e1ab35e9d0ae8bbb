"""Progress of training: a bar in a terminal or a notebook, else a line per epoch."""

import sys
import warnings
from threading import RLock

from tqdm import TqdmWarning

from tinyconv.training.history import Epoch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # in a notebook without ipywidgets the bar is text
    from tqdm.auto import tqdm

__all__ = ["LOCK", "Bar", "epoch_bar", "epoch_line"]

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


def epoch_bar(images: int | None, epoch: int, epochs: int, progress: bool) -> Bar:
    """Return the bar of one epoch: the remaining time, images per second and what `set_postfix` says.

    Args:
        images: their number, if it is known.
        epoch, epochs: the number of the epoch, and of all epochs.
        progress: whether to show the bar, in a terminal or a notebook.
    """
    return Bar(
        total=images,
        desc=f"epoch {epoch}/{epochs}",
        bar_format=FORMAT if images else FORMAT_OF_UNKNOWN_LENGTH,
        unit="",
        unit_scale=True,
        file=sys.stdout if _in_notebook() else sys.stderr,  # a notebook's stderr looks like an error
        disable=not (progress and _is_watched()),
    )


def epoch_line(record: Epoch, epochs: int) -> None:
    """Print one line about a finished epoch to stderr, unless a bar was shown."""
    if _is_watched():
        return
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

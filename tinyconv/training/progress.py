"""The progress bar of a training."""

from threading import RLock

from tqdm import tqdm

__all__ = ["LOCK", "Bar"]


class Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """tqdm with a lock of this process alone.

    tqdm's own lock is shared with forked processes. One that is killed while it holds it, as a run that is
    killed and resumed may be, would leave all others waiting for ever.
    """


LOCK = RLock()
Bar.set_lock(LOCK)

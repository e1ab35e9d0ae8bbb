"""What training on a GPU needs besides the GPU's arrays."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyconv.arrays import Array, moved


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """CuPy's error, which is not known here, as a MemoryError that says what was too large."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise MemoryError(f"{error}: {what} is too large for the GPU's memory") from error


class Moved:
    """Batches of any iterable, each moved to the device of `xp`."""

    def __init__(self, batches: Iterable[tuple[Array, Array]], xp: Any) -> None:
        self._batches, self._xp = batches, xp

    @property
    def generator(self) -> Any:
        """That of the iterable, if it has one."""
        return getattr(self._batches, "generator", None)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for inputs, targets in self._batches:
            yield moved(inputs, self._xp), moved(targets, self._xp)

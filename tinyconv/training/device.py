"""What training on a GPU needs besides the GPU's arrays."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyconv.arrays import Array, moved
from tinyconv.data.batches import is_pair
from tinyconv.layers import Loss


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


def may_ignore(criterion: Loss, data: Any) -> bool:
    """Whether arrays or a `Batches` have targets that `criterion` ignores: a batch may consist of these.

    Other iterables, whose targets are not known, are assumed to have none.
    """
    targets = data[1] if is_pair(data) else getattr(data, "targets", None)
    index, weight = getattr(criterion, "ignore_index", None), getattr(criterion, "weight", None)
    if index is None or targets is None or targets.dtype.kind not in "iu":
        return False
    return bool((targets == index).any()) or (weight is not None and bool((weight == 0).any()))

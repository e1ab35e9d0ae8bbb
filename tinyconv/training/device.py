"""Helpers for training on a GPU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tinyconv.arrays import Array, moved
from tinyconv.data.loader import DataLoader
from tinyconv.data.pairs import checked, is_pair
from tinyconv.layers import Loss


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn CuPy's error into a MemoryError that says what was too large."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise MemoryError(f"{error}: {what} is too large for the GPU's memory") from error


class Moved:
    """The batches of any iterable, the argument `name`, each checked and moved to the device of `xp`."""

    def __init__(self, name: str, batches: Iterable[tuple[Array, Array]], xp: Any) -> None:
        self._name, self._batches, self._xp = name, batches, xp

    @property
    def generator(self) -> Any:
        """Return the generator of the iterable, or None."""
        return getattr(self._batches, "generator", None)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        empty = True
        for inputs, targets in checked(self._name, self._batches):
            empty = False
            yield moved(inputs, self._xp), moved(targets, self._xp)
        if empty:
            raise ValueError(
                f"`{self._name}` gave no batch; it must be an iterable that can be iterated again"
            )


def may_ignore(criterion: Loss, data: Any) -> bool:
    """Return whether a pair of arrays, or a DataLoader of one, has targets that `criterion` ignores.

    A batch may consist of such targets. For other data, whose targets are not known, it returns False.
    """
    dataset = data.dataset if isinstance(data, DataLoader) else data
    index, weight = getattr(criterion, "ignore_index", None), getattr(criterion, "weight", None)
    if index is None or not is_pair(dataset) or dataset[1].dtype.kind not in "iu":
        return False
    return bool((dataset[1] == index).any()) or (weight is not None and bool((weight == 0).any()))

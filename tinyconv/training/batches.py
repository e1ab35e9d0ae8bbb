"""The batches of a training: any data as an iterable on the model's device, and each rank's part of it."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np

from tinyconv.arguments import Generator
from tinyconv.arrays import Array, moved
from tinyconv.data.loader import DataLoader, iterates_by_parts, part_of
from tinyconv.data.pairs import check_iterable, check_pair, checked, is_pair
from tinyconv.data.streamed import Streamed, fits, iterate
from tinyconv.gpu.errors import out_of_memory
from tinyconv.layers.loss import Loss
from tinyconv.training.communicator import Communicator
from tinyconv.training.generators import set_state, state_of

Batches: TypeAlias = Iterable[tuple[Array, Array]]
Data: TypeAlias = tuple[Array, Array] | Batches


def as_batches(
    name: str, data: Data, batch_size: int, xp: Any, *, shuffle: bool = False, generator: Generator = 0
) -> Batches:
    """Return `data`, the argument `name`, as batches on the device of the module `xp`."""
    if is_pair(data):
        check_pair(f"`{name}`", data)
        data = DataLoader(data, batch_size, shuffle, generator=generator)
    if isinstance(data, DataLoader):
        if not len(data):
            raise ValueError(f"`{name}` must have at least one batch, got {data}")
        if xp is not np and data.augment is None and not fits(data, xp):
            return Streamed(data, xp)
        with out_of_memory("the data set"):
            data.move(xp)
        return data
    check_iterable(name, data)
    iterable: Any = data
    return iterable if xp is np and name == "data" else Moved(name, iterable, xp)


def parts_of(batches: Batches, communicator: Communicator, skip: int = 0) -> Iterator[tuple[Array, Array]]:
    """Return this rank's part of each batch after the first `skip`.

    What a `DataLoader` of arrays draws is drawn by this call, on all ranks alike, from the state of rank 0's
    generator. Other data are read by rank 0 alone, and handed out: if they are random, input and target must
    come from the same read.

    Raises:
        ValueError: a `DataLoader` that is not that of rank 0, such as one of a rank's own samples.
    """
    rank, size = communicator.rank, communicator.size
    if size == 1:
        return iterate(batches, skip)
    loader = batches if iterates_by_parts(batches) and is_pair(batches.dataset) else None
    first = communicator.broadcast(None if loader is None else _seen(loader))
    if first is None:
        return _handed_out(iterate(batches, skip) if rank == 0 else iter(()), communicator)
    if loader is None or (rank and not _equal(_seen(loader), first)):
        raise ValueError(
            f"the data of rank {rank} are not those of rank 0: each must have all data, and takes its part"
        )
    set_state(loader.generator, first["state"])
    return loader.part(rank, size, skip)


def _seen(loader: DataLoader) -> dict[str, Any]:
    """What must be equal on all ranks, as far as it is quickly seen, and the state of the generator."""
    options = loader.samples, loader.batch_size, loader.shuffle, loader.drop_last
    ends = [array[[0, -1]] for array in loader.dataset]
    return {"options": options, "ends": ends, "state": state_of(loader.generator)}


def _equal(own: dict[str, Any], first: dict[str, Any]) -> bool:
    """Whether two ranks have the same data, which other processors may have rounded differently."""
    ends = zip(own["ends"], first["ends"], strict=True)
    same = all(a.shape == b.shape and np.allclose(a, b, equal_nan=True) for a, b in ends)
    return same and own["options"] == first["options"]


def _handed_out(
    batches: Iterator[tuple[Array, Array]], communicator: Communicator
) -> Iterator[tuple[Array, Array]]:
    while True:
        batch = communicator.broadcast(next(batches, None))
        if batch is None:
            return
        inputs, targets = (part_of(array, communicator.rank, communicator.size) for array in batch)
        yield inputs, targets


class Moved:
    """The batches of any iterable, the argument `name`, each checked and moved to the device of `xp`."""

    def __init__(self, name: str, batches: Batches, xp: Any) -> None:
        self._name, self._batches, self._module = name, batches, xp.__name__  # modules cannot be pickled

    @property
    def generator(self) -> Any:
        """Return the generator of the iterable, or None."""
        return getattr(self._batches, "generator", None)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        xp = sys.modules[self._module]
        for inputs, targets in checked(self._name, self._batches):
            yield moved(inputs, xp), moved(targets, xp)


def may_ignore(criterion: Loss, data: Any) -> bool:
    """Return whether a pair of arrays, or a DataLoader of one, has targets that `criterion` ignores.

    A batch may consist of such targets. For other data, whose targets are not known, it returns False.
    """
    dataset = data.dataset if isinstance(data, DataLoader) else data
    index, weight = getattr(criterion, "ignore_index", None), getattr(criterion, "weight", None)
    if index is None or not is_pair(dataset) or dataset[1].dtype.kind not in "iu":
        return False
    return bool((dataset[1] == index).any()) or (weight is not None and bool((weight == 0).any()))

"""Batches of a data set, shuffled again in each epoch."""

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import numpy as np

from tinyconv.arguments import Generator, boolean, integer, number
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, moved
from tinyconv.data.mnist import normalize
from tinyconv.data.pairs import check_pair, described, is_pair
from tinyconv.data.samples import Dataset, check_dataset, collate


class DataLoader:
    """Iterate over a data set in batches (inputs, targets), any number of times.

    Args:
        dataset: a tuple of two arrays of equal length, (inputs, targets); or anything with `__len__` and
            `__getitem__` whose items are samples (input, target), arrays or numbers, which are stacked:
            Python's integers to int64, its floats to float32 (PyTorch: float64). A tuple of two is always a
            pair of arrays, unless both are tuples: then it is a data set of two samples.
        batch_size: number of samples in a batch; the last batch may be smaller.
        shuffle: whether each iteration is in a new random order.
        drop_last: whether to drop a last batch that is smaller.
        generator: a numpy.random.Generator or seed that the orders, and seeds for `augment`, are drawn from.
        transform: applied to the inputs of each batch, e.g. `normalize` to uint8 images, so that only a batch
            of them is floating at a time. If workers share a batch, each may apply it to its own part: it
            should treat each sample separately, without state.
        augment: changes inputs at random, before `transform`, e.g. a `RandomCrop`; several in a `Compose`. It
            is called with one sample at a time, as a batch of one, and a numpy.random.Generator for this
            sample. If it has a method `draw`, it is called with all samples of a batch at once (or none),
            which is faster: `draw(count, generator)` returns an array with a row for each sample of an epoch,
            and the second argument is the rows of these samples. Either way the result depends on
            `generator` and the sample's place in the epoch, not on the size of batches or the number of
            workers. It runs on the CPU, where arrays then stay; only batches are moved to a GPU.

    `transform` and `augment` may write to their arguments, which are copies. Without them, the batches of a
    pair of arrays that is not shuffled are views of it.

    Raises:
        TypeError: `dataset` is neither of these, or an argument has another type.
        ValueError: lengths that differ, or an argument out of range. Iterating raises it for samples whose
            shapes differ; the message has their indices.

    >>> import numpy as np
    >>> [y.tolist() for x, y in DataLoader((np.zeros((5, 1)), np.arange(5)), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    >>> samples = [(np.ones((1, 28, 28), np.float32), 7), (np.zeros((1, 28, 28), np.float32), 3)]
    >>> loader = DataLoader(samples, batch_size=2, shuffle=True, generator=0)
    >>> loader
    DataLoader(2 samples, batch_size=2, shuffle=True)
    >>> [(x.shape, y.dtype) for x, y in loader]
    [((2, 1, 28, 28), dtype('int64'))]
    """

    def __init__(
        self,
        dataset: tuple[Array, Array] | Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        generator: Generator = None,
        transform: Callable[[Array], Array] | None = None,
        augment: Callable[[Array, Any], Array] | None = None,
    ) -> None:
        if is_pair(dataset):
            check_pair("`dataset`", dataset)
        else:
            check_dataset(dataset)
        self.dataset: Any = dataset
        self.batch_size = integer("batch_size", batch_size)
        self.shuffle, self.drop_last = boolean("shuffle", shuffle), boolean("drop_last", drop_last)
        self.generator = as_generator(generator)
        self.transform, self.augment = transform, augment
        self.move(array_module(*dataset) if is_pair(dataset) else None)

    def move(self, xp: Any) -> None:
        """Return batches on the device of the module `xp` from now on (None: where the samples are).

        A pair of arrays is moved there as a whole, unless it is augmented.
        """
        self._module = None if xp is None else xp.__name__  # modules cannot be pickled
        if is_pair(self.dataset):
            home = xp if self.augment is None else np
            inputs, targets = self.dataset
            self.dataset = moved(inputs, home), moved(targets, home)

    @property
    def samples(self) -> int:
        """Return the number of samples in the data set."""
        return len(self.dataset[0] if is_pair(self.dataset) else self.dataset)

    @property
    def samples_per_epoch(self) -> int:
        """Return the number of samples in an iteration."""
        return min(self.samples, len(self) * self.batch_size)

    def __len__(self) -> int:
        """Number of batches."""
        whole, rest = divmod(self.samples, self.batch_size)
        return whole if self.drop_last or not rest else whole + 1

    def __repr__(self) -> str:
        count = self.samples
        dropping = ", drop_last=True" if self.drop_last else ""
        return (
            f"{type(self).__name__}({count:,} sample{'' if count == 1 else 's'}, "
            f"batch_size={self.batch_size}, shuffle={self.shuffle}{dropping})"
        )

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self.part(0, 1)

    def order(self) -> Array:
        """Return the indices of the samples of a new iteration, in order."""
        count = self.samples
        order = self.generator.permutation(count) if self.shuffle else np.arange(count)
        return order[: self.samples_per_epoch]

    @property
    def gathers(self) -> bool:
        """Return whether a batch depends on its indices alone, so that a GPU can gather it."""
        transform = getattr(self.transform, "func", self.transform)  # of a functools.partial
        known = transform is None or transform is normalize
        return is_pair(self.dataset) and self.augment is None and known and iterates_by_parts(self)

    def indices(self, skip: int = 0) -> Iterator[Array]:
        """Return an iteration over the indices of each batch after the first `skip`, on their device."""
        order = moved(self.order(), array_module(self.dataset[0]))
        starts = range(skip * self.batch_size, self.samples_per_epoch, self.batch_size)
        return (order[start : start + self.batch_size] for start in starts)

    def gathered(self, indices: Array) -> tuple[Array, Array]:
        """Return the batch of the samples at `indices`."""
        return self.transformed(*(array[indices] for array in self.dataset))

    def transformed(self, inputs: Array, targets: Array) -> tuple[Array, Array]:
        """Return a batch with `transform` applied to its inputs."""
        return inputs if self.transform is None else self.transform(inputs), targets

    def part(self, rank: int, size: int, skip: int = 0) -> Iterator[tuple[Array, Array]]:
        """Return an iteration over one part of each batch, for process `rank` of `size` that train together.

        The parts are as equal as possible, and in order. A batch of fewer samples than processes is not
        divided: the first process has all of it, and the others nothing (of length 0).

        Args:
            rank, size: number of the process, from 0, and number of processes.
            skip: number of batches that are left out, without being read.

        This call draws all numbers from `generator`, whatever is skipped, so that processes with equal
        generators have the parts of equal batches. In a data set of samples each process reads whole batches.

        >>> import numpy as np
        >>> loader = DataLoader((np.zeros((5, 1)), np.arange(5)), batch_size=3)
        >>> [[y.tolist() for x, y in loader.part(rank, 2)] for rank in range(2)]
        [[[0], [3]], [[1, 2], [4]]]
        """
        skip = integer("skip", skip, minimum=0)
        order: Array | None = None  # slices do
        if not is_pair(self.dataset):
            order = self.order()
        elif self.shuffle:
            order = moved(self.order(), array_module(self.dataset[0]))
        drawn: Any = None if self.augment is None else int(self.generator.integers(1 << 63))
        if draw := getattr(self.augment, "draw", None):
            drawn = draw(self.samples_per_epoch, np.random.default_rng(drawn))
        return self._part(order, drawn, skip, integer("rank", rank, minimum=0), integer("size", size))

    def _part(
        self, order: Array | None, drawn: Any, skip: int, rank: int, size: int
    ) -> Iterator[tuple[Array, Array]]:
        end = self.samples_per_epoch
        for start in range(skip * self.batch_size, end, self.batch_size):
            stop = min(start + self.batch_size, end)
            first, last = _share(stop - start, rank, size)
            inputs, targets = self._read(order, slice(start, stop), slice(start + first, start + last))
            inputs = self._augmented(inputs, drawn, start + first)
            if self._module is not None:
                inputs, targets = (moved(array, sys.modules[self._module]) for array in (inputs, targets))
            yield self.transformed(inputs, targets)

    def _read(self, order: Array | None, batch: slice, part: slice) -> tuple[Array, Array]:
        """The samples at the places `part` of an epoch, which are some of those of `batch`.

        Inputs that `transform` or `augment` may write to are a copy.
        """
        if not is_pair(self.dataset):
            assert order is not None
            samples = collate(self.dataset, order[batch].tolist())
            inputs, targets = (array[part.start - batch.start : part.stop - batch.start] for array in samples)
            return inputs, targets
        inputs, targets = self.dataset
        if order is not None:
            return inputs[order[part]], targets[order[part]]
        if self.transform is None and self.augment is None:
            return inputs[part], targets[part]
        return array_module(inputs).array(inputs[part]), targets[part]

    def _augmented(self, inputs: Array, drawn: Any, place: int) -> Array:
        """`inputs`, the first of which has that `place` in the epoch, augmented by what `part` has drawn."""
        if self.augment is None:
            return inputs
        inputs = moved(inputs, np)
        if hasattr(self.augment, "draw"):
            return self.augment(inputs, drawn[place : place + len(inputs)])
        samples = [
            self.augment(inputs[index : index + 1], np.random.default_rng((drawn, place + index)))
            for index in range(len(inputs))
        ]
        return np.concatenate(samples) if samples else inputs


def iterates_by_parts(batches: Any) -> TypeGuard[DataLoader]:
    """Return whether `batches` iterates as `DataLoader.part` does: a subclass may override iteration."""
    return isinstance(batches, DataLoader) and type(batches).__iter__ is DataLoader.__iter__


def split_off(data: Any, share: float) -> tuple[Any, Any]:
    """Split `data`, a pair of arrays or a `DataLoader` of one, in two.

    The second has the last `share` of its samples. If it is a `DataLoader`, it does not shuffle, augment or
    drop samples.

    Raises:
        TypeError: `data` is neither.
        ValueError: `share` is out of range, or leaves one of the two without samples.
    """
    pair = data.dataset if isinstance(data, DataLoader) else data
    if not is_pair(pair):
        found = "one of samples" if isinstance(data, DataLoader) else described(data)
        raise TypeError(
            f"`validation_split` needs `data` to be a tuple of arrays or a DataLoader of one, got {found}: "
            "split it yourself, and pass `validation`"
        )
    check_pair("`data`", pair)
    inputs, targets = pair
    count = len(inputs) - round(len(inputs) * number("validation_split", share, 0.0, 1.0))
    if not 0 < count < len(inputs):
        raise ValueError(f"`validation_split` (={share}) must leave samples for both of {len(inputs)}")
    first, last = (inputs[:count], targets[:count]), (inputs[count:], targets[count:])
    if not isinstance(data, DataLoader):
        return first, last
    own = copy.copy(data)
    own.dataset = first
    return own, DataLoader(last, data.batch_size, transform=data.transform)


def part_of(batch: Array, rank: int, size: int) -> Array:
    """Return the part of `batch` of process `rank` of `size`, as `DataLoader.part` cuts it."""
    return batch[slice(*_share(len(batch), rank, size))]


def _share(length: int, rank: int, size: int) -> tuple[int, int]:
    """Where the part of process `rank` of `size` begins and ends."""
    if length < size:
        return (0, length) if rank == 0 else (length, length)
    return rank * length // size, (rank + 1) * length // size

"""Batches of a data set, shuffled anew in each epoch."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import numpy as np

from tinyconv.arguments import Generator, integer, number
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, moved


class Batches:
    """Iterable over (inputs, targets) batches of two arrays; it can be iterated again and again.

    Args:
        inputs, targets: arrays of equal length.
        batch_size: the last batch may be smaller.
        shuffle: whether each iteration goes in a new random order.
        generator: a numpy.random.Generator or seed that the orders, and seeds for `augment`, are drawn from.
        transform: applied to the inputs of each batch, e.g. `normalize` to uint8 images, so that
            only a batch of them is ever floating. Where workers share a batch, each applies it to its own
            part: it should look at each sample alone, and keep no state.
        augment: changes inputs at random, before `transform`, e.g. `random_affine`: called with one sample at
            a time, as a batch of one, and a numpy.random.Generator for it alone. So what becomes of a sample
            depends on `generator` and its place in the epoch, not on the size of batches or the number
            of workers. It runs on the CPU, where both arrays then stay; only batches are moved to a GPU.

    Raises:
        ValueError, TypeError: lengths that differ, or an argument out of range.

    >>> import numpy as np
    >>> [y.tolist() for x, y in Batches(np.zeros((5, 1)), np.arange(5), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        inputs: Array,
        targets: Array,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        generator: Generator = None,
        transform: Callable[[Array], Array] | None = None,
        augment: "Callable[[Array, np.random.Generator], Array] | None" = None,
    ) -> None:
        xp = array_module(inputs, targets)
        if len(inputs) != len(targets):
            raise ValueError(
                f"`inputs` (of length {len(inputs)}) must be as long as `targets` (of length {len(targets)})"
            )
        self.inputs, self.targets = inputs, targets
        self.batch_size = integer("batch_size", batch_size)
        self.shuffle = shuffle
        self.generator = as_generator(generator)
        self.transform, self.augment = transform, augment
        self.move(xp)

    def move(self, xp: Any) -> None:
        """Give batches on the device of the module `xp`; both arrays go there unless they are to augment."""
        self._xp, home = xp, xp if self.augment is None else np
        self.inputs, self.targets = moved(self.inputs, home), moved(self.targets, home)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self.parts(1)[0]

    def order(self) -> Array:
        """The samples' numbers in the order of a new iteration."""
        count = len(self.inputs)
        return self.generator.permutation(count) if self.shuffle else np.arange(count)

    def parts(self, count: int, skip: int = 0) -> list[Iterator[tuple[Array, Array]]]:
        """One iteration, for `count` workers: each gets a part of each batch's inputs, and all its targets.

        Batches of fewer samples than workers go whole to the first. The first `skip` batches are left out
        without being made. What is drawn from `generator` is drawn by this call, whatever is left out.
        """
        skip = integer("skip", skip, minimum=0)
        order = moved(self.order(), array_module(self.inputs)) if self.shuffle else None
        seed = 0 if self.augment is None else int(self.generator.integers(1 << 63))
        return [self._part(order, seed, skip, number, count) for number in range(count)]

    def _part(
        self, order: Array | None, seed: int, skip: int, number: int, count: int
    ) -> Iterator[tuple[Array, Array]]:
        for start in range(skip * self.batch_size, len(self.inputs), self.batch_size):
            stop = min(start + self.batch_size, len(self.inputs))
            workers = count if stop - start >= count else 1
            if number >= workers:
                continue
            first, last = _share(stop - start, number, workers)
            part, batch = slice(start + first, start + last), slice(start, stop)
            inputs = self.inputs[part if order is None else order[part]]
            targets = self.targets[batch if order is None else order[batch]]
            inputs = moved(self._augmented(inputs, seed, part.start), self._xp)
            yield inputs if self.transform is None else self.transform(inputs), moved(targets, self._xp)

    def _augmented(self, inputs: Array, seed: int, place: int) -> Array:
        """`inputs`, of which the first has that place in the epoch, each augmented by numbers of its own."""
        if self.augment is None:
            return inputs
        samples = [
            self.augment(inputs[index : index + 1], np.random.default_rng((seed, place + index)))
            for index in range(len(inputs))
        ]
        return np.concatenate(samples)


def iterates_by_parts(batches: Any) -> TypeGuard[Batches]:
    """Whether `batches` gives what `Batches.parts` cuts: a subclass may have an iteration of its own."""
    return isinstance(batches, Batches) and type(batches).__iter__ is Batches.__iter__


def is_pair(data: Any) -> TypeGuard[tuple[Array, Array]]:
    """Whether `data` is a pair of arrays, and not one of batches."""
    return isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple)


def split_off(data: Any, share: float) -> tuple[Any, Any]:
    """`data`, a pair of arrays or a `Batches`, in two: the last `share` of its samples is the second.

    Of a `Batches` the second is not shuffled and not augmented.

    Raises:
        TypeError: `data` is neither.
        ValueError: `share` is out of range, or leaves one of the two without samples.
    """
    if not (is_pair(data) or isinstance(data, Batches)):
        raise TypeError(f"`validation_split` needs arrays or a Batches, got {type(data).__name__}")
    inputs, targets = data if isinstance(data, tuple) else (data.inputs, data.targets)
    count = len(inputs) - round(len(inputs) * number("validation_split", share, 0.0, 1.0))
    if not 0 < count < len(inputs):
        raise ValueError(f"`validation_split` (={share}) must leave samples for both of {len(inputs)}")
    first, last = (inputs[:count], targets[:count]), (inputs[count:], targets[count:])
    if isinstance(data, tuple):
        return first, last
    own = copy.copy(data)
    own.inputs, own.targets = first
    return own, Batches(*last, data.batch_size, transform=data.transform)


def split(batch: Array, count: int) -> list[Array]:
    """`batch` in `count` parts as equal as can be, as `Batches.parts` cuts it."""
    return [batch[slice(*_share(len(batch), number, count))] for number in range(count)]


def _share(length: int, number: int, count: int) -> tuple[int, int]:
    """Where part `number` of `count` begins and ends."""
    return number * length // count, (number + 1) * length // count

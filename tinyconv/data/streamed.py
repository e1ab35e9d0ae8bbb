"""Batches of a data set that is too large for the GPU's memory, moved there chunk by chunk."""

import importlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from tinyconv.arrays import Array, array_module
from tinyconv.data.loader import DataLoader, iterates_by_parts
from tinyconv.data.pairs import checked, is_pair

CHUNK_BYTES = 64 << 20


def fits(batches: DataLoader, xp: Any) -> bool:
    """Return whether half of the free memory of the device of `xp` is enough for `batches.move`."""
    if not is_pair(batches.dataset) or array_module(*batches.dataset) is xp:
        return True
    free, _ = xp.cuda.runtime.memGetInfo()
    return 2 * sum(array.nbytes for array in batches.dataset) <= int(free)


class Streamed:
    """Iterate over the same batches as `batches`, on the device of CuPy's module `xp`.

    Two chunks are stored there: while one is used for training, the other is gathered into pinned memory and
    copied by a separate stream.
    """

    def __init__(self, batches: DataLoader, xp: Any) -> None:
        self._batches, self._xp = batches, xp
        sample = sum(array[:1].nbytes for array in batches.dataset)
        self._length = batches.batch_size * max(1, CHUNK_BYTES // max(1, sample * batches.batch_size))

    @property
    def generator(self) -> np.random.Generator:
        """Return the generator of `batches`."""
        return self._batches.generator

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self.part(0, 1)

    def part(self, rank: int, size: int, skip: int = 0) -> Iterator[tuple[Array, Array]]:
        """Return what `DataLoader.part` does, for the only process on a GPU."""
        return self._chunks(self._batches.order()[skip * self._batches.batch_size :])

    def _chunks(self, order: Array) -> Iterator[tuple[Array, Array]]:
        batches, stream = self._batches, self._xp.cuda.Stream(non_blocking=True)
        chunks = [order[start : start + self._length] for start in range(0, len(order), self._length)]
        slots = [_Slot(batches, min(self._length, len(order)), self._xp) for _ in chunks[:2]]
        for slot, chunk in zip(slots, chunks, strict=False):
            slot.fetch(chunk, stream)
        try:
            for number, chunk in enumerate(chunks):
                slot = slots[number % 2]
                yield from slot.batches(len(chunk), batches)
                if number + 2 < len(chunks):
                    slot.fetch(chunks[number + 2], stream)
        finally:
            stream.synchronize()  # before the slots' memory is reused


class _Slot:
    """Memory for a chunk: on the device, and pinned on the host."""

    def __init__(self, batches: DataLoader, length: int, xp: Any) -> None:
        self._sources = batches.dataset
        pinned = importlib.import_module("cupyx").empty_pinned
        forms = [((length, *array.shape[1:]), array.dtype) for array in self._sources]
        self._host = [pinned(*form) for form in forms]
        self._device = [xp.empty(*form) for form in forms]
        self._copied, self._used, self._xp = xp.cuda.Event(), xp.cuda.Event(), xp
        # Memory from the pool may still be in use by earlier work of the current stream.
        self._used.record(xp.cuda.get_current_stream())

    def fetch(self, chunk: Array, stream: Any) -> None:
        """Gather the samples of `chunk` and have `stream` copy them, once the last ones are used."""
        self._copied.synchronize()
        stream.wait_event(self._used)
        for source, host, device in zip(self._sources, self._host, self._device, strict=True):
            np.take(source, chunk, axis=0, out=host[: len(chunk)], mode="clip")
            device[: len(chunk)].set(host[: len(chunk)], stream=stream)
        self._copied.record(stream)

    def batches(self, length: int, batches: DataLoader) -> Iterator[tuple[Array, Array]]:
        """The batches of the fetched chunk, once it has arrived."""
        current = self._xp.cuda.get_current_stream()
        current.wait_event(self._copied)
        for start in range(0, length, batches.batch_size):
            stop = min(start + batches.batch_size, length)
            yield batches.transformed(*(array[start:stop] for array in self._device))
        self._used.record(current)


def iterate(batches: Iterable[tuple[Array, Array]], skip: int) -> Iterator[tuple[Array, Array]]:
    """Return `batches`, each checked, without the first `skip`, which a `DataLoader` does not read."""
    if isinstance(batches, Streamed) or iterates_by_parts(batches):
        return batches.part(0, 1, skip)
    return islice(checked("data", batches), skip, None)

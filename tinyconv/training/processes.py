"""Ranks on this machine: processes that the training process starts, and that share memory with it.

The others are forked, or spawned where forking is not safe (macOS) or not possible (Windows). To add arrays
up, each rank writes its own to its slot of shared memory, waits for all others, and adds up all slots in
order. There are two sets of slots, used in turn: a rank that is ahead cannot overwrite what another still
reads, as it would have to pass the next wait, too.

Processes and not threads: the arrays of a small network keep NumPy busy for microseconds at a time, and
threads would spend more time passing Python's lock to each other than computing.
"""

import functools
import multiprocessing
import operator
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tinyconv.arguments import integer
from tinyconv.arrays import Array, available_cpus
from tinyconv.training.communicator import Communicator, mpi_is_running

__all__ = ["WorkerError", "processes"]

T = TypeVar("T")
# A part of an array, and for both sets of slots its place in the slot of each rank.
Piece: TypeAlias = tuple[Array, list[list[Array]]]

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
# Polls before sleeping: waking up takes longer than most waits, and a poll about 0.2 us.
POLLS = 2_000
# How often a rank that sleeps looks whether the others are alive.
SECONDS = 0.1
# The size of a slot: larger arrays are added up in several rounds.
LEAST_BYTES, MOST_BYTES = 1 << 16, 1 << 22
ALIGNMENT = 64
MOST_CHARACTERS = 2000  # of an error's message: a pipe that nobody reads must take it


class WorkerError(Exception):
    """Raised when another process failed; the message is that of its error.

    >>> try:
    ...     raise WorkerError("ValueError: `input` (of shape (3, 5)) must have 4 features")
    ... except WorkerError as error:
    ...     print("another process failed:", error)
    another process failed: ValueError: `input` (of shape (3, 5)) must have 4 features
    """


class ProcessCommunicator(Communicator):
    """One of `size` processes of this machine; rank 0 has started the others."""

    def __init__(
        self, rank: int, size: int, memory: Any, arrived: dict[tuple[int, int], Any], pipe: Any
    ) -> None:
        self.rank, self.size = rank, size
        self._memory, self._pipe = memory, pipe
        others = [other for other in range(size) if other != rank]
        self._here = [arrived[rank, other] for other in others]  # semaphores, for which the others wait
        self._there = [arrived[other, rank] for other in others]
        self._turn = 0  # which of the two sets of slots is used
        self._arrays: tuple[Array, ...] = ()  # the last several that were added up, and their pieces
        self._rounds: list[list[Piece]] = []
        self.others: list[Any] = []  # in rank 0: the other processes

    @functools.cached_property
    def _slots(self) -> Array:
        """Both sets of slots, one for each rank, as bytes."""
        return np.frombuffer(self._memory, np.uint8).reshape(2, self.size, -1)

    def allreduce(self, *arrays: Array) -> None:
        if not all(array.flags.forc for array in arrays):
            whole = [array.copy() for array in arrays]
            self.allreduce(*whole)
            for array, total in zip(arrays, whole, strict=True):
                array[...] = total
            return
        for pieces in self._pieces(arrays):
            self._turn ^= 1
            for piece, places in pieces:
                places[self._turn][self.rank][...] = piece
            self.wait()
            for piece, places in pieces:
                first, second, *others = places[self._turn]
                np.add(first, second, out=piece)
                for other in others:
                    piece += other

    def _pieces(self, arrays: tuple[Array, ...]) -> list[list[Piece]]:
        """The pieces of `arrays`, as many at a time as a slot has room for; the gradients' are remembered."""
        if len(arrays) == len(self._arrays) and all(map(operator.is_, arrays, self._arrays)):
            return self._rounds
        rounds = [*_in_rounds([array.ravel("K") for array in arrays], self._slots)]
        if len(arrays) > 1:
            self._arrays, self._rounds = arrays, rounds
        return rounds

    def broadcast(self, value: T) -> T:
        content, received = pickle.dumps(value) if self.rank == 0 else b"", bytearray()
        while True:
            self._turn ^= 1
            slot = self._slots[self._turn, 0]
            length, room, start = slot[:8].view(np.int64), slot[8:], len(received)
            if self.rank == 0:
                part = np.frombuffer(content, np.uint8)[start : start + len(room)]
                length[0], room[: len(part)] = len(content), part
            self.wait()
            received += room[: int(length[0]) - start].tobytes()
            if len(received) == length[0]:
                return value if self.rank == 0 else pickle.loads(received)

    def wait(self) -> None:
        """Wait until all ranks are here, and see what they have written."""
        for here in self._here:
            here.release()
        for there in self._there:
            self._wait_for(there)

    def _wait_for(self, arrived: Any) -> None:
        for _ in range(POLLS):
            if arrived.acquire(False):
                return
        while not arrived.acquire(True, SECONDS):
            self._check_others()

    def _check_others(self) -> None:
        """End with the training process, or raise what another one raised."""
        if self.rank:
            starter = multiprocessing.parent_process()
            if starter is None or not starter.is_alive():
                os._exit(1)
            return
        for process in self.others:
            if not process.is_alive():
                if self._pipe[0].poll():
                    raise WorkerError(self._pipe[0].recv())
                raise WorkerError(f"a worker process ended with exit code {process.exitcode}")

    def serve(self, work: Callable[[Communicator], None]) -> None:
        """Run `work` in a process that rank 0 has started, and tell it what goes wrong."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            work(self)
        except BaseException as error:
            self._pipe[1].send(f"{type(error).__name__}: {error}"[:MOST_CHARACTERS])
            sys.exit(1)


@contextmanager
def processes(size: int, work: Callable[[Communicator], None], nbytes: int) -> Iterator[Communicator]:
    """Yield the communicator of rank 0, while `size - 1` other processes call `work` with theirs.

    All of them end with the `with` block. What is added up at once has about `nbytes` bytes.

    Raises:
        WorkerError: one of them failed.
        OSError: the system does not have the shared memory or the semaphores for them.
        TypeError: `work` cannot be sent to a process, where they are spawned.
        ValueError: this process must not start others.
    """
    _check_may_start(size)
    context: Any = multiprocessing.get_context(START_METHOD)
    try:
        room = min(max(LEAST_BYTES, nbytes + LEAST_BYTES), MOST_BYTES) // ALIGNMENT * ALIGNMENT
        memory = context.RawArray("B", 2 * size * room)
        arrived = {pair: context.Semaphore(0) for pair in permutations(range(size), 2)}
    except OSError as error:
        raise OSError(
            f"`workers` (={size}) needs more shared memory or semaphores than this system gives (on Linux in "
            f"/dev/shm): use fewer ({error})"
        ) from error
    pipe = context.Pipe(duplex=False)
    first, *others = (ProcessCommunicator(rank, size, memory, arrived, pipe) for rank in range(size))
    started = [context.Process(target=other.serve, args=(work,), daemon=True) for other in others]
    try:
        with first.listening():  # Ctrl-C while Python forks would be lost
            for process in started:
                _start(process, size)
                first.others.append(process)
        yield first
        for process in started:
            process.join(SECONDS)
    finally:
        for process in first.others:
            process.kill()
            process.join()
        for end in pipe:
            end.close()


def checked_ranks(communicator: Communicator | None, workers: int) -> tuple[Communicator, int]:
    """Return the communicator and the number of workers of a Trainer, checked.

    Raises:
        ValueError: both are given, or several workers where a process cannot start others.
    """
    if integer("workers", workers) == 1:
        return communicator or Communicator(), 1
    if communicator is not None:
        raise ValueError(
            f"`workers` (={workers}) must be 1 with a `communicator`, of processes that share each batch"
        )
    _check_may_start(workers)
    if workers > available_cpus():
        warnings.warn(
            f"`workers` (={workers}) is more than the {available_cpus()} CPUs that this process may use: the "
            "workers will wait for each other",
            stacklevel=3,
        )
    return Communicator(), workers


def _check_may_start(workers: int) -> None:
    why = None
    if mpi_is_running():
        why = "where MPI runs, as its processes must not be forked: use a `communicator`"
    elif multiprocessing.current_process().daemon:
        why = "in a daemonic process, such as one of a multiprocessing.Pool, which cannot start others"
    if why:
        raise ValueError(f"`workers` (={workers}) must be 1 {why}")


def _start(process: Any, size: int) -> None:
    try:
        with warnings.catch_warnings():
            # Of forking beside other threads, from Python 3.12 on: BLAS has some, and handles a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise TypeError(
            f"`workers` (={size}) must be 1, or model, loss, optimiser, data and callbacks picklable on this "
            f"system, which cannot fork: {error}"
        ) from error


def _in_rounds(arrays: Sequence[Array], slots: Array) -> Iterator[list[Piece]]:
    """Flat arrays in pieces, as many at a time as a slot has room for."""
    pieces: list[Piece] = []
    place = 0
    for array in arrays:
        start = 0
        while start < array.size:
            count = (slots.shape[2] - place) // array.itemsize
            if not count:
                yield pieces
                pieces, place = [], 0
                continue
            piece = array[start : start + count]
            places = slots[:, :, place : place + piece.nbytes].view(piece.dtype)
            pieces.append((piece, [list(each) for each in places]))
            place += -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
            start += piece.size
    yield pieces

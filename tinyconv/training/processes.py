"""Ranks on this machine: processes that the training process starts, and that share memory with it.

The others are forked, or spawned where forking is not safe (macOS) or not possible (Windows). To add arrays
up, each rank writes its own to its slot of shared memory, waits for all others, and adds up all slots in
order. There are two sets of slots, used in turn: a rank that is ahead cannot overwrite what another still
reads, as it would have to pass the next wait, too.

Processes and not threads: the arrays of a small network keep NumPy busy for microseconds at a time, and
threads would spend more time passing Python's lock to each other than computing.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any, TypeVar

import numpy as np

from tinyconv.arguments import integer
from tinyconv.arrays import Array, available_cpus
from tinyconv.training.communicator import Communicator, mpi_is_running

__all__ = ["WorkerError", "processes"]

T = TypeVar("T")

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
    """Raised when another process failed; the message is that of its error."""


class ProcessCommunicator(Communicator):
    """One of `size` processes of this machine; rank 0 has started the others."""

    def __init__(
        self, rank: int, size: int, memory: Any, arrived: dict[tuple[int, int], Any], pipe: Any
    ) -> None:
        self.rank, self.size = rank, size
        self._memory, self._arrived, self._pipe = memory, arrived, pipe
        self._room = len(memory) // (2 * size)
        self._turn = 0
        self.others: list[Any] = []  # in rank 0: the other processes

    def allreduce(self, *arrays: Array) -> None:
        flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays]  # views, as a rule
        for pieces in _rounds(flat, self._room):
            slots = self._slots()
            for place, piece in pieces:
                _at(slots[self.rank], place, piece)[...] = piece
            self.wait()
            for place, piece in pieces:
                np.add(_at(slots[0], place, piece), _at(slots[1], place, piece), out=piece)
                for slot in slots[2:]:
                    piece += _at(slot, place, piece)
        for array, total in zip(arrays, flat, strict=True):
            if not np.may_share_memory(array, total):
                array[...] = total.reshape(array.shape)

    def broadcast(self, value: T) -> T:
        content, received = pickle.dumps(value) if self.rank == 0 else b"", bytearray()
        most = self._room - 8
        while True:
            slot = self._slots()[0]
            length, start = slot[:8].view(np.int64), len(received)
            if self.rank == 0:
                part = np.frombuffer(content, np.uint8)[start : start + most]
                length[0], slot[8 : 8 + len(part)] = len(content), part
            self.wait()
            received += slot[8 : 8 + min(most, int(length[0]) - start)].tobytes()
            if len(received) == length[0]:
                shared: T = value if self.rank == 0 else pickle.loads(received)
                return shared

    def wait(self) -> None:
        """Wait until all ranks are here, and see what they have written."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        for other in others:
            self._arrived[self.rank, other].release()
        for other in others:
            self._wait_for(self._arrived[other, self.rank])

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

    def _slots(self) -> Array:
        """The slots of this turn, one for each rank."""
        self._turn ^= 1
        both = np.frombuffer(self._memory, np.uint8).reshape(2, self.size, self._room)
        slots: Array = both[self._turn]
        return slots


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


def _rounds(arrays: Sequence[Array], room: int) -> Iterator[list[tuple[int, Array]]]:
    """Flat arrays in pieces with their places in a slot, as many at a time as it has `room` for."""
    pieces: list[tuple[int, Array]] = []
    place = 0
    for flat in arrays:
        start = 0
        while start < flat.size:
            count = (room - place) // flat.itemsize
            if not count:
                yield pieces
                pieces, place = [], 0
                continue
            piece = flat[start : start + count]
            pieces.append((place, piece))
            place += -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
            start += piece.size
    yield pieces


def _at(slot: Array, place: int, like: Array) -> Array:
    """The array of the form of `like` at a place in a slot."""
    return slot[place : place + like.nbytes].view(like.dtype)

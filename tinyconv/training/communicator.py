"""Communicators: how the processes of one training, its ranks, add up and hand out what they have.

Each rank runs the same program on its part of each batch. This file has the interface and its implementation
by MPI; `processes.py` has that for processes of one machine.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import numpy as np

from tinyconv.arrays import Array
from tinyconv.layers.divided import dividing

__all__ = ["Communicator", "MPICommunicator", "default_communicator"]

T = TypeVar("T")

# Up to this size each rank gets the arrays of all, which takes one message; above, each adds up a share.
SMALL_BYTES = 1 << 14
# The number of ranks in the environment of each: by MPICH and Intel MPI, by Open MPI.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


class Communicator:
    """Base class of the communicators, and that of one process alone.

    All ranks call the same methods in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        interrupted: whether Ctrl-C has been pressed; a training then ends on all ranks together.

    >>> import numpy as np
    >>> communicator, x = Communicator(), np.ones(3)
    >>> communicator.allreduce(x)
    >>> communicator.rank, communicator.size, x
    (0, 1, array([1., 1., 1.]))
    """

    rank = 0
    size = 1
    interrupted = False

    def allreduce(self, *arrays: Array) -> None:
        """Replace each array by its sum over all ranks, added in their order, so that all get equal bits."""

    def broadcast(self, value: T) -> T:
        """Return rank 0's `value`, which must be picklable; those of the other ranks are ignored."""
        return value

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.allreduce(np.zeros(1))

    def total(self, array: Array) -> Array:
        """Return the sum of `array` over all ranks."""
        total = np.array(array)
        self.allreduce(total)
        return total

    def dividing(self) -> AbstractContextManager[None]:
        """Return a `with` block in which this thread's layers add up over the ranks."""
        return dividing(self.total if self.size > 1 else None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Run a `with` block that all ranks run: if one of them cannot finish it, none goes on."""
        yield

    def agreed(self, error: BaseException) -> BaseException:
        """Return `error`, which all ranks raise at the same place of the block in `together`."""
        return error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note Ctrl-C in place of raising, as only some of the ranks might; raise at the end of the block."""
        raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it may be ignored
        if self.size == 1 or not raises or threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(*_: Any) -> None:
            self.interrupted = True

        self.interrupted = False
        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.interrupted:
            raise KeyboardInterrupt


class MPICommunicator(Communicator):
    """The ranks that `mpiexec` has started, by mpi4py (the extra "mpi").

    In `together`, which `Trainer.fit` uses, an error that only one rank has is printed with its rank, and
    ends all of them; so does an error outside of it if the program is run by `python -m mpi4py`. Ctrl-C is
    noticed by all ranks together.

    Args:
        comm: a communicator of mpi4py; by default a duplicate of COMM_WORLD.

    Raises:
        ImportError: mpi4py, or an MPI library that it can load, is not installed.

    >>> MPICommunicator()
    MPICommunicator(rank=0, size=1)
    """

    def __init__(self, comm: Any = None) -> None:
        from mpi4py import MPI

        self._comm = MPI.COMM_WORLD.Dup() if comm is None else comm
        self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
        self._agreed: BaseException | None = None

    def __repr__(self) -> str:
        return f"MPICommunicator(rank={self.rank}, size={self.size})"

    def allreduce(self, *arrays: Array) -> None:
        for dtype in dict.fromkeys(array.dtype for array in arrays):
            alike = [array for array in arrays if array.dtype == dtype]
            total = self._sum([array.ravel() for array in alike], sum(array.size for array in alike))
            ends = np.cumsum([array.size for array in alike])
            for array, part in zip(alike, np.split(total, ends)[:-1], strict=True):
                array[...] = part.reshape(array.shape)

    def broadcast(self, value: T) -> T:
        shared: T = self._comm.bcast(value)
        return shared

    @contextmanager
    def together(self) -> Iterator[None]:
        with self.listening():
            try:
                yield
            except BaseException as error:
                if self.size > 1 and error is not self._agreed:
                    print(f"rank {self.rank} of {self.size} failed, and ends all:", file=sys.stderr)
                    traceback.print_exception(error)
                    sys.stderr.flush()
                    self._comm.Abort(1)
                raise

    def agreed(self, error: BaseException) -> BaseException:
        self._agreed = error
        return error

    def _sum(self, flat: Sequence[Array], count: int) -> Array:
        """The sum over the ranks of flat arrays, of `count` values, end to end; zeros may follow."""
        size, dtype = self.size, flat[0].dtype
        if count * dtype.itemsize <= SMALL_BYTES:
            each = np.empty((size, count), dtype)
            self._comm.Allgather(np.concatenate(flat), each)
            total: Array = each.sum(axis=0, dtype=dtype)  # row by row
            return total
        total = np.concatenate([*flat, np.zeros(-count % size, dtype)])
        each = np.empty((size, total.size // size), dtype)
        self._comm.Alltoall(total, each)
        self._comm.Allgather(each.sum(axis=0, dtype=dtype), total)
        return total


def default_communicator() -> Communicator:
    """Return an `MPICommunicator` if `mpiexec` has started this process, else one of this process alone.

    So the same program runs alone and on many machines: `mpiexec -n 4 python -m mpi4py train.py`.

    Raises:
        ImportError: `mpiexec` has started this process, but mpi4py is not installed.

    >>> default_communicator().size
    1
    """
    started = any(int(os.environ.get(name, 1)) > 1 for name in SIZES)
    if not started and "mpi4py" not in sys.modules:
        return Communicator()
    try:
        return MPICommunicator()
    except ImportError as error:
        raise ImportError(
            f'mpiexec has started this process, which needs mpi4py: pip install "tinyconv[mpi]" ({error})'
        ) from error


def mpi_is_running() -> bool:
    """Return whether this process has initialised MPI, after which it must not be forked."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()

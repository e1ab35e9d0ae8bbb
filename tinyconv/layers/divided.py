"""A batch that is divided among several processes: how layers add up over all of its parts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from tinyconv.arrays import Array

Allreduce: TypeAlias = Callable[[Array], Array]

_current: ContextVar[Allreduce | None] = ContextVar("allreduce", default=None)


def batch_allreduce() -> Allreduce | None:
    """Return a function that adds an array up over all parts of the batch; None if the batch is whole.

    A layer whose forward or backward needs a sum over the whole batch, as batch norm does, asks in each of
    them. All processes call the function equally often, with arrays of the same shape and dtype, and get the
    same bits.

    >>> batch_allreduce() is None
    True
    """
    return _current.get()


@contextmanager
def dividing(allreduce: Allreduce | None) -> Iterator[None]:
    """Have this thread's layers add up by `allreduce` within the `with` block."""
    token = _current.set(allreduce)
    try:
        yield
    finally:
        _current.reset(token)

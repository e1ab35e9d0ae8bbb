"""One pool of threads: parts of large operations at once.

NumPy releases Python's lock while it computes, so several threads compute at the same time if each call is
long. The parts of an operation depend on shapes only, never on the number of threads, and each writes to an
array of its own: the bits of a result do not depend on how many threads there were.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from tinyconv.arrays.threads import available_cpus, blas_threads, one_blas_thread

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["cut", "in_threads", "one_thread", "thread_count", "BLAS_WORK", "VALUE_WORK"]

BLAS_WORK = 1_000_000  # multiply-adds of a product from which BLAS uses its own threads
LEAST_WORK = 16_000_000  # those that take half a millisecond or more; waking a thread takes 0.05
VALUE_WORK = 16  # multiply-adds that take as long as an operation on one value in memory

Part = TypeVar("Part")

_pool: "ThreadPoolExecutor | None" = None
_alone: ContextVar[bool] = ContextVar("one thread", default=False)


def in_threads(run: Callable[[Part], object], parts: Sequence[Part], work: int) -> None:
    """Call `run` with each of `parts`, from several threads if there are, and it pays off.

    The caller takes parts too. No thread waits for a part while there are others, so that a core that is kept
    busy by another program delays its own part only. Meanwhile BLAS has one thread: its own would spin for a
    while after a product, and take a core from ours, and products of several threads that use them at once
    can be wrong (numpy issue 31618). Context variables, such as those of `numpy.errstate`, have the caller's
    values. An error in a part is raised, after those that have begun have ended.

    Args:
        run: a function of one part. Calls at the same time must not write to the same array.
        parts: they must not depend on the number of threads.
        work: of all parts together, in multiply-adds of a matrix product.
    """
    count = min(thread_count(), len(parts), work // LEAST_WORK + 1) if work >= LEAST_WORK else 1
    with one_blas_thread() if work >= BLAS_WORK else nullcontext():
        if count > 1:
            _at_once(run, parts, count)
        else:
            for part in parts:
                run(part)


def _at_once(run: Callable[[Part], object], parts: Sequence[Part], count: int) -> None:
    """Call `run` with each of `parts`, from `count` threads."""
    waiting = deque(parts)

    def take() -> None:
        try:
            while True:
                try:
                    part = waiting.popleft()
                except IndexError:
                    return
                run(part)
        except BaseException:
            waiting.clear()
            raise

    with one_thread():
        others = [_threads().submit(copy_context().run, take) for _ in range(count - 1)]
        try:
            take()
        finally:
            errors = [other.exception() for other in others if not other.cancel()]  # waits for those that run
    for error in errors:
        if error is not None:
            raise error


def cut(count: int, parts: int) -> list[slice]:
    """Cut `range(count)` into at most `parts` slices of nearly the same length, and at least one."""
    parts = max(1, min(parts, count))
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let `in_threads` use the caller's thread only, in this block and this context (`contextvars`)."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def thread_count() -> int:
    """Return how many threads `in_threads` uses: as many as BLAS may use, and there are CPUs; at least 1.

    BLAS's number is OMP_NUM_THREADS or OPENBLAS_NUM_THREADS when Python starts, or what threadpoolctl has set
    since. `one_blas_thread` does not change it. It is 1 within a part, in `one_thread`, and in each of
    several workers or ranks of a training.

    Example:
        >>> from threadpoolctl import threadpool_limits
        >>> with threadpool_limits(1):
        ...     thread_count()
        1
    """
    return 1 if _alone.get() else max(1, min(blas_threads(), _cpus()))


_cpus = cache(available_cpus)  # as reading quotas takes longer than a small product


def _threads() -> "ThreadPoolExecutor":
    global _pool
    if _pool is None:
        from concurrent.futures import ThreadPoolExecutor

        _pool = ThreadPoolExecutor(max(8, os.cpu_count() or 1), "tinyconv")  # which starts them when needed
    return _pool


def _forked() -> None:
    """In the child, which does not have the threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

"""The threads of BLAS, and how many CPUs there are for them.

The threads of OpenBLAS spin while they wait for each other. If another program keeps one of the CPUs busy,
all of them wait, in every matrix product, for the thread that shares this CPU.
"""

import functools
import math
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["one_blas_thread", "blas_threads", "small_kernels", "available_cpus"]

AVX512 = ("SkylakeX", "Cooperlake", "SapphireRapids")  # as OpenBLAS calls them

# Linux's list of the process's own control groups, and where the groups are mounted.
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

_lock = threading.RLock()
_blocks: dict[object, int] = {}  # open block -> thread that opened it
_limited: dict[str, tuple[Any, int]] = {}  # file -> library that was limited, its number of threads before


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread while any such block is open in this process.

    Blocks may be nested, and open and end in any order and in any threads: the first one sets the limit, and
    the last one that ends restores what was set before. Also a decorator, `@one_blas_thread()`. The library
    is threadpoolctl, which limits OpenBLAS, MKL and BLIS, but not Apple's Accelerate.

    A limit that is set with threadpoolctl around a block is restored after it. One that is set inside takes
    effect; if it is still in effect when the last block ends, it stays, unless it is one thread too. One that
    another Python thread holds stays in effect: threadpoolctl >= 3.8 then ignores the block. Limits of
    several threads that end in another order than that of a stack may leave BLAS with one thread, as those of
    threadpoolctl alone may.

    A forked process inherits the limit, and the blocks of the thread that forked it; if there are none, the
    limit stays until a block of its own ends. A library that is loaded after the first block is not limited.
    MKL, and OpenBLAS built with OpenMP, have a limit per thread: there only the thread that opened the first
    block is limited.

    Example:
        >>> from threadpoolctl import threadpool_info
        >>> with one_blas_thread():
        ...     all(blas["num_threads"] == 1 for blas in threadpool_info() if blas["user_api"] == "blas")
        True
    """
    block = object()
    with _lock:
        if not _blocks:
            _limit()
        _blocks[block] = threading.get_ident()
    try:
        yield
    finally:
        with _lock:
            _blocks.pop(block, None)
            if not _blocks:
                _restore()


def blas_threads() -> int:
    """Return how many threads BLAS may use when no `one_blas_thread` limits it.

    Where threadpoolctl does not know the library (Apple's Accelerate), this is `sys.maxsize`.
    """
    counts = []
    for library in _libraries():
        count, (_, before) = library.num_threads, _limited.get(library.filepath, (library, 1))
        if count is not None:
            counts.append(before if count == 1 else count)
    return min(counts, default=sys.maxsize)


@functools.cache
def small_kernels() -> bool:
    """Return whether BLAS has kernels for small matrices, which do not copy (repack) their operands first.

    OpenBLAS has them on AVX-512 cores, for products of at most a million multiply-adds. The result of a
    product "A times B transposed" must also have at most 1200 entries.
    """
    return any(getattr(library, "architecture", None) in AVX512 for library in _libraries())


@functools.cache  # as looking for them takes longer than a small product
def _libraries() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


def _limit() -> None:
    for library in _libraries():
        if library.num_threads not in (None, 1):
            _limited[library.filepath] = library, library.num_threads
            _set(library, 1)


def _restore() -> None:
    for library, count in _limited.values():
        if library.num_threads == 1:  # and not what the user has set in between
            _set(library, count)
    _limited.clear()


def _set(library: Any, count: int) -> None:
    library.set_num_threads(count)
    # From now on threadpoolctl >= 3.8 would let only this thread set OpenBLAS's number of threads.
    getattr(library, "clear_controlling_thread", lambda: None)()


def _forked() -> None:
    """In the child, which has only the thread that forked it."""
    for block in [block for block, thread in _blocks.items() if thread != threading.get_ident()]:
        del _blocks[block]
    _lock.release()


if hasattr(os, "register_at_fork"):  # so that no process is forked while another thread changes the above
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forked)


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    This is the number of CPUs in its affinity mask (`os.sched_getaffinity`; where the system does not have
    it, `os.cpu_count`), or the quota of its control group or of one above it, as containers have it, if this
    is less. A quota of a CPU and a half counts as 2. The quotas are `cpu.max` of version 2 of Linux's control
    groups, and `cpu.cfs_quota_us` and `cpu.cfs_period_us` of version 1, which `os.process_cpu_count` of
    Python 3.13 does not read. A file that cannot be read, or has another form, sets no limit.

    Example:
        >>> 1 <= available_cpus() <= os.cpu_count()
        True
    """
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([mask, *_quotas()])))


def _quotas() -> Iterator[float]:
    """The quotas of this process's groups and of those above them, in CPUs; infinity where there is none."""
    with suppress(OSError):
        for line in os.fsdecode(_OWN_GROUPS.read_bytes()).splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            group = Path(path.lstrip("/"))
            for own in (group, *group.parents):
                if not controllers:  # version 2
                    yield _quota(_GROUPS / own, "cpu.max")
                elif "cpu" in controllers.split(","):
                    yield _quota(_GROUPS / "cpu" / own, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _quota(folder: Path, *files: str) -> float:
    try:
        quota, period = " ".join((folder / file).read_text() for file in files).split()
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ArithmeticError):  # "max" is a ValueError
        return math.inf
    return cpus if cpus > 0 else math.inf

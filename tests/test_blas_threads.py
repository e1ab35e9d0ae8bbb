"""BLAS is limited to one thread inside of blocks, and the CPUs of this process are counted."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from tinyconv.arrays import available_cpus, one_blas_thread, threads

BEFORE = 3  # threads of BLAS outside of the blocks


@pytest.fixture
def blas() -> Iterator[Any]:
    """NumPy's BLAS, which has BEFORE threads."""
    controllers = ThreadpoolController().select(internal_api="openblas").lib_controllers
    pools = [found for found in controllers if found.threading_layer == "pthreads"]
    if not pools:
        pytest.skip("BLAS must be an OpenBLAS with threads of its own")
    counts = [found.num_threads for found in pools]
    for found in pools:
        set_threads(found, BEFORE)
    yield pools[0]
    for found, count in zip(pools, counts, strict=True):
        set_threads(found, count)


def set_threads(blas: Any, count: int) -> None:
    blas.set_num_threads(count)
    getattr(blas, "clear_controlling_thread", lambda: None)()


class Other:
    """A thread that stays alive, and runs what it is given."""

    def __enter__(self) -> "Other":
        self._work: Callable[[], object] | None = None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._work = None
        self._go.release()
        self._thread.join()

    def run(self, work: Callable[[], object]) -> None:
        self._work = work
        self._go.release()
        assert self._done.acquire(timeout=60)

    def _serve(self) -> None:
        while self._go.acquire() and self._work is not None:
            self._work()
            self._done.release()


def in_child(work: Callable[[], list[int]]) -> list[int]:
    """What `work` returns in a forked process, which is killed if it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            os.write(write, bytes(work()))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = list(pipe.read())
    os.waitpid(child, 0)
    return found


# Blocks


def test_a_block_has_one_thread_and_restores_what_was_before(blas: Any) -> None:
    with one_blas_thread():
        assert blas.num_threads == 1
        with one_blas_thread():
            assert blas.num_threads == 1
        assert blas.num_threads == 1
    assert blas.num_threads == BEFORE


def test_it_is_a_decorator_too(blas: Any) -> None:
    @one_blas_thread()
    def countdown(calls: int) -> list[int]:
        return [blas.num_threads, *(countdown(calls - 1) if calls else [])]

    assert countdown(2) == [1, 1, 1]
    assert countdown(0) == [1]
    assert blas.num_threads == BEFORE


def test_it_restores_after_an_error(blas: Any) -> None:
    with pytest.raises(ZeroDivisionError), one_blas_thread(), one_blas_thread():
        raise ZeroDivisionError
    assert blas.num_threads == BEFORE
    with one_blas_thread():
        assert blas.num_threads == 1
    assert blas.num_threads == BEFORE


def test_blocks_end_in_any_order(blas: Any) -> None:
    first, second, third = one_blas_thread(), one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas.num_threads == 1
    third.__enter__()
    second.__exit__(None, None, None)
    assert blas.num_threads == 1
    third.__exit__(None, None, None)
    assert blas.num_threads == BEFORE


@pytest.mark.parametrize("first_in_main", [True, False])
def test_the_last_of_several_threads_restores(blas: Any, first_in_main: bool) -> None:
    ours, others = one_blas_thread(), one_blas_thread()
    with Other() as other:

        def run(own: bool, work: Callable[[], object]) -> None:
            work() if own else other.run(work)

        run(first_in_main, ours.__enter__)
        run(not first_in_main, others.__enter__)
        run(first_in_main, lambda: ours.__exit__(None, None, None))
        assert blas.num_threads == 1
        run(not first_in_main, lambda: others.__exit__(None, None, None))
        assert blas.num_threads == BEFORE


def test_many_threads_at_once(blas: Any) -> None:
    counts: set[int] = set()

    def work(depth: int) -> None:
        for _ in range(200):
            with one_blas_thread():
                counts.add(blas.num_threads)
                if depth:
                    with one_blas_thread():
                        counts.add(blas.num_threads)

    running = [threading.Thread(target=work, args=(number % 2,)) for number in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert counts == {1}
    assert blas.num_threads == BEFORE


# The user's own limits


def test_a_limit_around_a_block_is_restored(blas: Any) -> None:
    with threadpool_limits(2, user_api="blas"):
        with one_blas_thread():
            assert blas.num_threads == 1
        assert blas.num_threads == 2
    assert blas.num_threads == BEFORE


def test_a_limit_inside_a_block_takes_effect(blas: Any) -> None:
    with one_blas_thread():
        with threadpool_limits(2, user_api="blas"):
            assert blas.num_threads == 2
            with one_blas_thread():  # the limit inside is the later one
                assert blas.num_threads == 2
        assert blas.num_threads == 1
    assert blas.num_threads == BEFORE


def test_a_limit_that_is_set_inside_for_good_stays(blas: Any) -> None:
    with one_blas_thread():
        set_threads(blas, 2)
    assert blas.num_threads == 2
    with one_blas_thread():
        assert blas.num_threads == 1
    assert blas.num_threads == 2


def test_a_limit_of_another_thread_is_restored_to(blas: Any) -> None:
    limit: list[Any] = []
    with Other() as other:
        other.run(lambda: limit.append(threadpool_limits(2, user_api="blas").__enter__()))
        with one_blas_thread():
            assert blas.num_threads in (1, 2)  # threadpoolctl >= 3.8 ignores the block
        assert blas.num_threads == 2
        other.run(lambda: limit[0].__exit__(None, None, None))
    assert blas.num_threads == BEFORE


def test_other_thread_pools_are_left_alone() -> None:
    torch = pytest.importorskip("torch", reason="its pool of threads is OpenMP's")
    before = torch.get_num_threads()
    try:
        with one_blas_thread():
            assert torch.get_num_threads() == before
            torch.set_num_threads(before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


# Forks

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
# Python >= 3.12 warns where a process has threads.
allowed = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@forks
@allowed
def test_a_fork_inside_blocks_ends_them_in_both_processes(blas: Any) -> None:
    def work() -> list[int]:
        found = [blas.num_threads]
        inner.__exit__(None, None, None)
        found.append(blas.num_threads)
        outer.__exit__(None, None, None)
        found.append(blas.num_threads)
        x = np.ones((300, 300), np.float32)
        with one_blas_thread():
            found += [blas.num_threads, int((x @ x)[0, 0] == 300)]
        return [*found, blas.num_threads, int((x @ x)[0, 0] == 300)]

    outer, inner = one_blas_thread(), one_blas_thread()
    outer.__enter__()
    inner.__enter__()
    assert in_child(work) == [1, 1, BEFORE, 1, 1, BEFORE, 1]
    assert blas.num_threads == 1
    inner.__exit__(None, None, None)
    assert blas.num_threads == 1
    outer.__exit__(None, None, None)
    assert blas.num_threads == BEFORE


@forks
@allowed
def test_a_child_does_not_wait_for_blocks_of_threads_that_it_does_not_have(blas: Any) -> None:
    def work() -> list[int]:
        found = [blas.num_threads]
        with one_blas_thread():
            found.append(blas.num_threads)
        return [*found, blas.num_threads]

    others = one_blas_thread()
    with Other() as other:
        other.run(others.__enter__)
        assert in_child(work) == [1, 1, BEFORE]
        with one_blas_thread():
            assert in_child(work) == [1, 1, 1]  # of this thread's block it does
        assert blas.num_threads == 1
        other.run(lambda: others.__exit__(None, None, None))
    assert blas.num_threads == BEFORE


@forks
@allowed
def test_forks_while_another_thread_opens_and_ends_blocks(blas: Any) -> None:
    def work() -> list[int]:
        with one_blas_thread():
            inside = blas.num_threads
        return [inside, blas.num_threads]

    def busy() -> None:
        while not stop.is_set():
            with one_blas_thread():
                pass

    stop = threading.Event()
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            assert in_child(work) == [1, BEFORE]
    finally:
        stop.set()
        thread.join()
    assert blas.num_threads == BEFORE


# CPUs


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Writes the files of a system with eight CPUs in the affinity mask."""

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    monkeypatch.setattr(threads, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(threads, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(10, 18)), raising=False)
    return write


V1 = "12:pids:/\n5:cpuacct,cpu:/docker/a:b\n3:cpuset:/other\n0::/unified\n"
V2 = "0::/user.slice/job\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"own": "", "groups/cpu.max": "100000 100000\n"}, 8),  # of no group of this process
        ({"own": V2, "groups/cpu.max": "max 100000\n"}, 8),
        ({"own": V2, "groups/user.slice/job/cpu.max": "300000 100000\n"}, 3),
        ({"own": V2, "groups/user.slice/job/cpu.max": "150000 100000\n"}, 2),
        ({"own": V2, "groups/user.slice/job/cpu.max": "1000 100000\n"}, 1),
        ({"own": V2, "groups/user.slice/job/cpu.max": "6400000 100000\n"}, 8),
        ({"own": V2, "groups/user.slice/cpu.max": "200000 50000\n"}, 4),
        ({"own": V2, "groups/cpu.max": "500000 100000\n"}, 5),
        (
            {
                "own": V2,
                "groups/user.slice/job/cpu.max": "600000 100000\n",
                "groups/user.slice/cpu.max": "200000 100000\n",
                "groups/cpu.max": "max 100000\n",
            },
            2,
        ),
        ({"own": "0::/\n", "groups/cpu.max": "200000 100000\n"}, 2),  # a container with its own namespace
        ({"own": "0::/../job\n", "groups/cpu.max": "200000 100000\n"}, 2),
        ({"own": V2, "groups/user.slice/other/cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_quotas_of_version_2(
    system: Callable[[dict[str, str]], None], files: dict[str, str], cpus: int
) -> None:
    system(files)
    assert available_cpus() == cpus


@pytest.mark.parametrize(
    ("folder", "quota", "period", "cpus"),
    [
        ("cpu/docker/a:b", "250000", "100000", 3),
        ("cpu/docker", "250000", "50000", 5),
        ("cpu", "100000", "100000", 1),  # a container that sees the host's path
        ("cpu", "-1", "100000", 8),
        ("cpu/other", "100000", "100000", 8),
        ("cpuset/docker/a:b", "100000", "100000", 8),
        ("cpu/unified", "100000", "100000", 8),
    ],
)
def test_quotas_of_version_1(
    system: Callable[[dict[str, str]], None], folder: str, quota: str, period: str, cpus: int
) -> None:
    place = f"groups/{folder}"
    system({"own": V1, f"{place}/cpu.cfs_quota_us": quota, f"{place}/cpu.cfs_period_us": period})
    assert available_cpus() == cpus


@pytest.mark.parametrize(
    "text",
    ["", "\n", "100000", "a b", "100000 0", "0 100000", "1 2 3", "\0", "9" * 400 + " 1", "9" * 5000 + " 1"],
)
def test_odd_quotas_set_no_limit(system: Callable[[dict[str, str]], None], text: str) -> None:
    system({"own": V2, "groups/user.slice/job/cpu.max": text, "groups/cpu.max": "300000 100000"})
    assert available_cpus() == 3


@pytest.mark.parametrize(
    "text", ["\n", "no colons", "1:2", ":::", "x:cpu", "0::/a\0b", "0::/" + 300 * "long"]
)
def test_odd_lists_of_groups_set_no_limit(system: Callable[[dict[str, str]], None], text: str) -> None:
    system({"own": f"{text}\n{V2}", "groups/user.slice/job/cpu.max": "300000 100000"})
    assert available_cpus() == 3


def test_lists_and_quotas_that_are_not_text(system: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    system({"groups/user.slice/job/cpu.max": "300000 100000"})
    (tmp_path / "own").write_bytes(b"0::/\xff\xfe\n" + V2.encode())
    (tmp_path / "groups" / "cpu.max").write_bytes(b"\xff\xfe")
    assert available_cpus() == 3


def test_a_folder_in_the_place_of_a_file(system: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    system({"own": V2, "groups/user.slice/job/cpu.max/file": ""})
    assert available_cpus() == 8
    (tmp_path / "own").unlink()
    (tmp_path / "own").mkdir()
    assert available_cpus() == 8


def test_without_a_mask_the_system_s_cpus_count(
    system: Callable[[dict[str, str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cpus() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1

"""Interleaved timing: every peer has its own process, and they take turns round by round.

The machine's speed may drift; a round of one peer directly follows a round of the other, so that their ratio
is reliable. The first round of each is a warm-up and not counted. Other effects:

- The threads of OpenBLAS and OpenMP keep spinning when their work is done, which takes a core from the next
  peer: PyTorch's first calls after a round of NumPy take two to three times as long, and NumPy's first after
  PyTorch's up to twice. So a waiting peer is stopped, with all its threads and children (SIGSTOP to its
  process group).
- After a stop, threads sleep and caches are cold. A round of short calls is therefore `seconds_a_call`: the
  median of many calls, without the first ones. The best of a few calls would vary from run to run.
- If others use the machine, two threads on two cores wait for each other at every barrier, and a call may
  take ten times as long. The others' use is printed with the results; if it is more than a few percent,
  measure again.
"""

import json
import multiprocessing
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import date
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from threadpoolctl import threadpool_info

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = ("numpy", "scipy", "torch", "jax", "dezero")
WARM_UP_SECONDS, LEAST_SECONDS, LEAST_CALLS = 0.1, 0.2, 3

Seconds: TypeAlias = dict[str, list[float]]
Setup: TypeAlias = Callable[..., Callable[..., Any]]


class UnavailableError(Exception):
    """Raised by a peer's setup if the peer cannot run on this machine."""


class Peers:
    """A context manager of processes, one per peer, of which one runs at a time.

    Args:
        peers: for each name a function, importable from a module, and its arguments. It sets the peer up, and
            returns a function that runs one round and returns its seconds, or what else is compared. If it
            raises ImportError or UnavailableError, a line is printed and the peer is left out.
        threads: number of threads of BLAS and OpenMP in each, and of cores that each may use.

    Attributes:
        disturbance: fraction of the cores that other processes used during the last `rounds`; None if
            unknown.
    """

    def __init__(self, peers: Mapping[str, tuple[Setup, dict[str, Any]]], threads: int) -> None:
        self.disturbance: float | None = None
        self._peers, self._threads = peers, threads
        self._running: dict[str, tuple[int, Connection]] = {}
        self._processes: list[Any] = []

    def __enter__(self) -> Self:
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self._threads)))
        try:
            for name, (setup, options) in self._peers.items():
                self._start(name, setup, options)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, name: str, setup: Setup, options: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._threads, setup, options))
        process.start()
        there.close()
        self._processes.append(process)
        try:
            missing = here.recv()
        except EOFError:  # the process was killed, or failed with an error that it has printed
            process.join()
            missing = f"its process ended with exit code {process.exitcode}"
        if missing:
            print(f"{name}: left out, {missing}")
        elif process.pid is not None:
            os.killpg(process.pid, signal.SIGSTOP)
            self._running[name] = process.pid, here

    def _end(self) -> None:
        for group, pipe in self._running.values():
            pipe.close()
            with suppress(ProcessLookupError):  # it ended with an error
                os.killpg(group, signal.SIGCONT)
        for process in self._processes:
            process.join()

    def rounds(self, count: int, *arguments: object) -> dict[str, list[Any]]:
        """Return the results of `count` rounds of each peer, in turns; `arguments` go to every round."""
        seconds: dict[str, list[Any]] = {name: [] for name in self._running}
        groups = {group for group, _ in self._running.values()}
        start, others = time.perf_counter(), _seconds_of_others(groups)
        for number in range(count + 1):
            for name, (group, pipe) in self._running.items():
                os.killpg(group, signal.SIGCONT)
                pipe.send(arguments)
                took = pipe.recv()
                os.killpg(group, signal.SIGSTOP)
                if number:
                    seconds[name].append(took)
        if others is not None:
            spent = (time.perf_counter() - start) * (os.cpu_count() or 1)
            busy = (_seconds_of_others(groups) or 0.0) - others
            self.disturbance = min(1.0, max(0.0, busy / spent))
        return seconds


def _serve(pipe: Connection, threads: int, setup: Setup, options: dict[str, Any]) -> None:
    """Run a peer's process: set up, then a round for each message until the pipe is closed."""
    os.setpgid(0, 0)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        run_round = setup(**options)
    except (ImportError, UnavailableError) as error:
        pipe.send(str(error))
        return
    pipe.send("")
    with suppress(EOFError, OSError):  # the other end was closed
        while True:
            arguments = pipe.recv()
            pipe.send(run_round(*arguments))


def _seconds_of_others(groups: Collection[int]) -> float | None:
    """Processor time since the system's start of all processes but those in `groups` and their children."""
    try:
        user, nice, system, _, _, *interrupts_and_stolen = Path("/proc/stat").read_text().split()[1:9]
    except OSError:
        return None
    ticks = sum(map(int, (user, nice, system, *interrupts_and_stolen)))
    stats: dict[int, list[str]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            stats[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
    for pid, fields in stats.items():
        while pid in stats and int(stats[pid][2]) not in groups:
            pid = int(stats[pid][1])
        if pid in stats:
            ticks -= sum(map(int, fields[11:15]))  # user and system, its own and its children's
    return ticks / os.sysconf("SC_CLK_TCK")


def seconds_a_call(call: Callable[[], object]) -> float:
    """Return the median over calls for at least LEAST_SECONDS, after WARM_UP_SECONDS of calls."""
    warm = time.perf_counter() + WARM_UP_SECONDS
    while True:
        call()
        if time.perf_counter() > warm:
            break
    times: list[float] = []
    enough = time.perf_counter() + LEAST_SECONDS
    while len(times) < LEAST_CALLS or time.perf_counter() < enough:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def fastest(seconds: Seconds, prefix: str) -> str:
    """Return the peer with the least median among those whose names begin with `prefix`."""
    names = [name for name in seconds if name.startswith(prefix)]
    return min(names, key=lambda name: statistics.median(seconds[name]))


def ratios(seconds: Seconds, baseline: str) -> Seconds:
    """Return how many times as fast as `baseline` each peer is, round by round."""
    return {
        name: [b / t for t, b in zip(took, seconds[baseline], strict=True)] for name, took in seconds.items()
    }


def table(title: str, seconds: Seconds, images: int, baseline: str) -> str:
    """Return a table of medians and quartiles of the seconds for `images`, and of ratios to `baseline`."""
    lines = [f"{title:30}{'ms':>8}{'quartiles':>20}{'images/s':>11}   speed against {baseline}"]
    for name, ratio in ratios(seconds, baseline).items():
        low, median, high = (1e3 * value for value in _quartiles(seconds[name]))
        r_low, r_median, r_high = _quartiles(ratio)
        lines.append(
            f"{name:30}{median:8.2f}{f'{low:.2f} to {high:.2f}':>20}{1e3 * images / median:11,.0f}"
            f"   {r_median:.2f} ({r_low:.2f} to {r_high:.2f})"
        )
    return "\n".join(lines)


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values


def disturbance_line(peers: Peers) -> str:
    """Return a line about the other processes' use of the cores."""
    share = peers.disturbance
    return "" if share is None else f"other processes used {share:.0%} of the cores"


def machine() -> str:
    """Return the hardware and versions that the results depend on, in one line."""
    import_module("numpy")  # loads its BLAS, which is queried
    kernels = {library["architecture"] for library in threadpool_info() if "architecture" in library}
    facts = [
        f"{os.cpu_count()} cores of {_processor()}",
        f"OpenBLAS kernels for {', '.join(sorted(kernels))}",
    ]
    facts.append(f"Python {platform.python_version()}")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            facts.append(f"{name} {version(name)}")
    return ", ".join([*facts, date.today().isoformat()])


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.machine()


def write_json(path: Path, results: object) -> None:
    """Write `results` as JSON, with the machine's facts."""
    path.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")


def bar_chart(path: Path, rows: Mapping[str, Seconds], images: Mapping[str, int]) -> None:
    """Draw the median images/s of each peer in each row, with a panel per row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(rows), squeeze=False, layout="constrained")
    figure.set_size_inches(4.5 * len(rows), 3.5)
    for panel, (title, seconds) in zip(panels[0], rows.items(), strict=True):
        speeds = [images[title] / statistics.median(took) for took in seconds.values()]
        bars = panel.barh(list(seconds), speeds)
        panel.bar_label(bars, [f"{speed:,.0f}" for speed in speeds], padding=3)
        panel.invert_yaxis()
        panel.margins(x=0.3)
        panel.set(title=title, xlabel="images/s")
    figure.savefig(path)

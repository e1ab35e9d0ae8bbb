"""Training over several ranks: speed, where a step's time goes, and what more ranks would give.

    python benchmarks/ranks.py                       (needs the extras "benchmarks" and "mpi", and mpiexec)
    python benchmarks/ranks.py --model lenet --batch-size 128 --rounds 11
    python benchmarks/ranks.py --computed --rounds 3

The first table is measured, in interleaved rounds of an epoch: one rank, two ranks by `workers` and by MPI
(`mpiexec -n 2`), and PyTorch with as many threads; each peer may use as many cores as it has ranks or
threads. The first STEPS_LEFT_OUT steps of a round do not count. A step's time is the mean over the ranks of

- computing: what is not in a collective;
- waiting: for the other ranks, in a collective. `workers` are timed from where a rank has written its arrays
  to where all have (`wait`); by MPI a barrier before each collective is timed, which is not there otherwise
  and costs some microseconds;
- adding: the rest of the collectives, which is copying, sending and adding up.

The second table (`--computed`) is not measured: what 8, 64 and 1,024 ranks would give over a network, with
one rank per machine. A step of P ranks takes

    T = C(part) + sum over the collectives of (M(n) + N(n))

- C(part): measured here, the computing of two MPI ranks that have such a part of a batch each. Waiting for
  the slowest rank is left out, so the result is an upper bound.
- M(n): copying and Python, measured here: `MPICommunicator.allreduce` of n bytes on one rank alone, and up to
  16 KiB the sum of P rows of n bytes.
- N(n): sending by the two algorithms of `MPICommunicator._sum`, with latency a and bandwidth B in bytes/s:

      up to 16 KiB, Allgather by recursive doubling:   log2(P) a + (P - 1) n / B
      above, Alltoall of shares in P - 1 messages,
      then Allgather by recursive doubling:            (P - 1) a + log2(P) a + 2 (P - 1) / P n / B

- the collectives: all gradients (float32); the loss's sums and the flag for Ctrl-C (80 bytes); for each batch
  norm of c channels 2 c + 1 numbers forward and 2 c backward (float64).

Assumed: a = 2 us, usual for a cluster's network (two ranks over shared memory take about as long, measured
here: the last line); nothing is sent while a rank computes; the network carries at once what all ranks send.
Ideal is P times one rank alone with 128 images.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import RawArray
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import Peers, Setup, UnavailableError, disturbance_line, machine
from networks import LR, MOMENTUM
from train_speed import step_peer, training_data

import tinyconv as tc
from tinyconv.arrays import Array
from tinyconv.data import DataLoader, normalize
from tinyconv.training import communicator as communicators
from tinyconv.training import processes
from tinyconv.training.communicator import Communicator
from tinyconv.training.run import Callback, Run

MODELS = {"lenet": tc.models.lenet5, "cnn": tc.models.mnist_cnn}
BATCH_SIZES = {"lenet": (32, 128, 512), "cnn": (64,)}
IMAGES = {"lenet": 20_000, "cnn": 2_000}  # per round
RANKS = 2
STEPS_LEFT_OUT = 5

PARTS = {8: 1024, 64: 128, 1024: 8}  # number of ranks: each one's part of STRONG_BATCH
STRONG_BATCH, WEAK_PART = 8192, 128
LATENCY_SECONDS, GBITS = 2e-6, (10, 100)
SUMS_BYTES = 80  # of the loss, and the flag for Ctrl-C


MEASURED = """\
| network, batch | | images/s | times one | step, ms | computing | waiting | adding |
|---|---|---|---|---|---|---|---|"""

COMPUTED = """\
| computed, not measured | ranks | images a rank | computing, ms \
| collectives, ms, 10 Gbit/s | images/s | of ideal \
| collectives, ms, 100 Gbit/s | images/s | of ideal |
|---|---|---|---|---|---|---|---|---|---|"""


class Step(NamedTuple):
    """Seconds of a step: all of it, and what of it a rank spent in collectives."""

    total: float
    waiting: float = 0.0
    adding: float = 0.0


class Clock:
    """Seconds in collectives since the beginning, of this process."""

    inside = waiting = 0.0


class TimedProcesses(processes.ProcessCommunicator):
    """One of `workers`, timed."""

    def allreduce(self, *arrays: Array) -> None:
        """Add up, timed."""
        start = time.perf_counter()
        super().allreduce(*arrays)
        Clock.inside += time.perf_counter() - start

    def wait(self) -> None:
        """Wait, timed."""
        start = time.perf_counter()
        super().wait()
        Clock.waiting += time.perf_counter() - start


class TimedMPI(communicators.MPICommunicator):
    """A rank of MPI, timed."""

    def allreduce(self, *arrays: Array) -> None:
        """Add up, timed."""
        start = time.perf_counter()
        self._comm.Barrier()
        Clock.waiting += time.perf_counter() - start
        super().allreduce(*arrays)
        Clock.inside += time.perf_counter() - start


class StepTimes(Callback):
    """On each rank: the mean seconds of a step of the last epoch, without the first steps.

    Args:
        steps: number of steps in an epoch.
        processes: number of ranks that share this object's memory.
    """

    every_rank = True

    def __init__(self, steps: int, processes: int) -> None:
        self.steps = steps
        self._left_out = min(STEPS_LEFT_OUT, steps // 3)
        self._shared = RawArray("d", 3 * processes)

    def on_batch_end(self, run: Run) -> None:
        """Take the time after the first steps, and after the last."""
        if run.step not in (self._left_out, self.steps):
            return
        now = np.array([time.perf_counter(), Clock.waiting, Clock.inside])
        if run.step == self._left_out:
            self._begin = now
        else:
            total, waiting, inside = (now - self._begin) / (self.steps - self._left_out)
            rows = self._rows()
            rows[run.communicator.rank % len(rows)] = total, waiting, inside - waiting

    def mean(self) -> Step:
        """Return the mean over the ranks that share memory."""
        return Step(*self._rows().mean(axis=0).tolist())

    def _rows(self) -> Array:
        return np.frombuffer(self._shared).reshape(-1, 3)


def use_cores(count: int) -> None:
    """Limit this process, and those that it starts, to some cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def tinyconv_peer(
    model: str, batch_size: int, images: int, workers: int = 1, communicator: Communicator | None = None
) -> Callable[[], Step]:
    """Set tinyconv up over one rank or several workers, or as one rank of a communicator."""
    if communicator is None:
        use_cores(workers)
    processes.ProcessCommunicator = TimedProcesses  # type: ignore[misc]
    network = MODELS[model](generator=0)
    batches = DataLoader(
        training_data(batch_size, images), batch_size, shuffle=True, generator=0, transform=normalize
    )
    times = StepTimes(len(batches), workers)
    trainer = tc.Trainer(
        network,
        tc.CrossEntropyLoss(),
        tc.optim.SGD(network, lr=LR, momentum=MOMENTUM),
        callbacks=[times],
        workers=workers,
        communicator=communicator,
        progress=False,
    )

    def run_round() -> Step:
        trainer.fit(batches)
        return times.mean()

    return run_round


def pytorch_peer(model: str, batch_size: int, images: int, threads: int, variant: str) -> Callable[[], Step]:
    """Set PyTorch up."""
    use_cores(threads)
    run_epoch = step_peer("PyTorch", model, batch_size, images, threads=threads, variant=variant)
    return lambda: Step(run_epoch())


def mpi_peer(model: str, batch_size: int, images: int) -> Callable[[], Step]:
    """Start the ranks by mpiexec; between rounds each waits for a message, and not for MPI, which polls."""
    pipes = started([f"--model={model}", f"--batch-size={batch_size}", f"--images={images}"])

    def run_round() -> Step:
        for pipe in pipes:
            pipe.send("go")
        return Step(*np.mean([pipe.recv() for pipe in pipes], axis=0).tolist())

    return run_round


def started(options: Sequence[str]) -> list[Connection]:
    """Start this program as RANKS ranks; return a pipe to each, which does a round for each message."""
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder) / "ranks")
        program = [sys.executable, "-m", "mpi4py", __file__, f"--child={address}", *options]
        with Listener(address) as listener:
            try:
                subprocess.Popen(["mpiexec", "-n", str(RANKS), *program], stdin=subprocess.DEVNULL)
            except OSError as error:
                raise UnavailableError(f"it needs mpiexec and mpi4py: {error}") from error
            return [listener.accept() for _ in range(RANKS)]


def serve(address: str, run_round: Callable[[], object]) -> None:
    """Run a rank: a round for each message until the pipe is closed."""
    with Client(address) as pipe, suppress(EOFError, OSError):
        while True:
            pipe.recv()
            pipe.send(run_round())


def measure(model: str, batch_size: int, rounds: int) -> None:
    """Measure one network and batch size, and print the rows."""
    options = options_of(model, batch_size)
    peers: dict[str, tuple[Setup, dict[str, Any]]] = {
        "1 rank": (tinyconv_peer, options),
        f"{RANKS} workers": (tinyconv_peer, options | {"workers": RANKS}),
        f"{RANKS} by MPI": (mpi_peer, options),
    }
    for threads in (1, RANKS):
        for variant in ("eager", "channels_last"):
            name = f"PyTorch {variant}, {threads} thread{'s' * (threads > 1)}"
            peers[name] = pytorch_peer, options | {"threads": threads, "variant": variant}
    with Peers(peers, RANKS) as running:
        steps: dict[str, list[Step]] = running.rounds(rounds)
    for name, own in steps.items():
        one = f"{name.partition(',')[0]}, 1 thread" if name.startswith("PyTorch") else "1 rank"
        print(row(f"{model}, {batch_size}", name, own, steps[one], batch_size), flush=True)
    print(disturbance_line(running), file=sys.stderr, flush=True)


def options_of(model: str, batch_size: int) -> dict[str, Any]:
    """Return a peer's options, with images for at least three steps."""
    return {"model": model, "batch_size": batch_size, "images": max(IMAGES[model], 3 * batch_size)}


def row(title: str, name: str, steps: Sequence[Step], one: Sequence[Step], images: int) -> str:
    """Return a line of the first table: medians over the rounds."""
    total, waiting, adding = (statistics.median(values) for values in zip(*steps, strict=True))
    gain = statistics.median(b.total / a.total for a, b in zip(steps, one, strict=True))
    times = (total, total - waiting - adding, waiting, adding) if waiting else (total,)
    cells = [title, name, f"{images / total:,.0f}", f"{gain:.2f}", *(f"{1e3 * t:.2f}" for t in times)]
    return f"| {' | '.join([*cells, '', '', ''][:8])} |"


def compute(model: str, rounds: int) -> None:
    """Measure what the second table needs of one network, and print its rows."""
    parts = sorted({*PARTS.values(), WEAK_PART})
    peers: dict[str, tuple[Setup, dict[str, Any]]] = {"1": (tinyconv_peer, options_of(model, WEAK_PART))}
    peers |= {str(RANKS * part): (mpi_peer, options_of(model, RANKS * part)) for part in parts}
    with Peers(peers, RANKS) as running:
        steps: dict[str, list[Step]] = running.rounds(rounds)
    print(disturbance_line(running), file=sys.stderr, flush=True)
    one = WEAK_PART / statistics.median(step.total for step in steps["1"])
    for kind, sizes in (("weak", dict.fromkeys(PARTS, WEAK_PART)), ("strong", PARTS)):
        for ranks, part in sizes.items():
            own = steps[str(RANKS * part)]
            computing = statistics.median(step.total - step.waiting - step.adding for step in own)
            copying = sum(copying_seconds(n, ranks) for n in collectives(model))
            cells = [f"{model}, {kind}", f"{ranks:,}", f"{part:,}", f"{1e3 * computing:.2f}"]
            for gbits in GBITS:
                sending = sum(network_seconds(n, ranks, gbits * 1e9 / 8) for n in collectives(model))
                speed = ranks * part / (computing + copying + sending)
                cells += [f"{1e3 * (copying + sending):.2f}", f"{speed:,.0f}", f"{speed / (ranks * one):.0%}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def collectives(model: str) -> list[int]:
    """Return the number of bytes of each collective of a step."""
    network = MODELS[model]()
    gradients = sum(grad.nbytes for grad in network.grads.values())
    channels = [layer.num_features for layer in network.modules() if isinstance(layer, tc.BatchNorm2d)]
    return [gradients, SUMS_BYTES, *(8 * number for c in channels for number in (2 * c + 1, 2 * c))]


def copying_seconds(nbytes: int, ranks: int) -> float:
    """Return M(n) of the docstring, measured on one rank alone."""
    from mpi4py import MPI

    alone, array = communicators.MPICommunicator(MPI.COMM_SELF), np.zeros(nbytes // 4, np.float32)
    seconds = median_seconds(lambda: alone.allreduce(array))
    if nbytes <= communicators.SMALL_BYTES:
        of_all = np.zeros((ranks, nbytes // 8))
        seconds += median_seconds(lambda: of_all.sum(axis=0))
    return seconds


def latency() -> float:
    """Return the seconds of an Allgather of a few numbers, of a rank of MPI."""
    from mpi4py import MPI

    own, each = np.zeros(6), np.zeros((RANKS, 6))
    return median_seconds(lambda: MPI.COMM_WORLD.Allgather(own, each), 1000)


def median_seconds(call: Callable[[], object], calls: int = 50) -> float:
    """Return the median of some calls, without the first ones."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[10:])


def network_seconds(nbytes: int, ranks: int, bandwidth: float) -> float:
    """Return N(n) of the docstring."""
    gather = math.log2(ranks) * LATENCY_SECONDS
    if nbytes <= communicators.SMALL_BYTES:
        return gather + (ranks - 1) * nbytes / bandwidth
    return (ranks - 1) * LATENCY_SECONDS + gather + 2 * (ranks - 1) / ranks * nbytes / bandwidth


def main() -> None:
    """Print the requested table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=tuple(BATCH_SIZES), help="only this one")
    parser.add_argument("--batch-size", type=int, help="only this one")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds that count (default 7)")
    parser.add_argument("--computed", action="store_true", help="the second table in place of the first")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        communicator, options = TimedMPI(), (args.model, args.batch_size, args.images)
        serve(args.child, tinyconv_peer(*options, communicator=communicator) if args.model else latency)
        return
    print(COMPUTED if args.computed else MEASURED)
    for model in [args.model] if args.model else BATCH_SIZES:
        if args.computed:
            compute(model, args.rounds)
            continue
        for batch_size in [args.batch_size] if args.batch_size else BATCH_SIZES[model]:
            measure(model, batch_size, args.rounds)
    if args.computed:
        pipes = started([])
        for pipe in pipes:
            pipe.send("go")
        seconds = max(pipe.recv() for pipe in pipes)
        print(f"\nan Allgather of two ranks here takes {1e6 * seconds:.1f} us")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()

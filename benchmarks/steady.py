"""How much of its speed a training keeps while another program uses a core, compared with PyTorch.

    python benchmarks/steady.py
    taskset -c 0,1 python benchmarks/steady.py --rounds 9      (on two cores of more)

LeNet-5 at batch 64, AdamW: the smallest script of docs/training.md, and the same in PyTorch. The peers:

- tinyconv as the script has it, with BLAS held to one thread by the environment, and with two workers;
- PyTorch eager with as many threads as it takes by itself, and with one.

Each run is a process of its own, which trains for some seconds after a warm-up: alone, then beside a loop
that does nothing, and so through the peers, round by round. Threads that wait for each other may take minutes
where a core is busy; a run that exceeds its time limit is ended, and its speed is less than what is printed.
The machine must be idle otherwise.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

from harness import THREAD_VARIABLES, machine
from networks import pytorch_network

ROOT = Path(__file__).parent.parent
BATCH_SIZE, LR = 64, 0.001
WARM_UP, EPOCH = 10 * BATCH_SIZE, 100 * BATCH_SIZE  # images

Fit: TypeAlias = Callable[[int], object]  # trains an epoch of so many images


class Speed(NamedTuple):
    """Images per second; not `reached` if the time limit ended the run before its first epoch did."""

    images: float
    reached: bool = True


def tinyconv_fit(workers: int = 1) -> Fit:
    """Return tinyconv's training."""
    import tinyconv as tc

    mnist = tc.data.load_mnist(ROOT / "examples" / "data" / "mnist")
    images, labels = tc.data.normalize(mnist.train_images), mnist.train_labels
    model = tc.models.lenet5(generator=0)
    trainer = tc.Trainer(model, tc.CrossEntropyLoss(), tc.optim.AdamW(model, lr=LR), workers=workers)
    return lambda count: trainer.fit(
        (images[:count], labels[:count]), epochs=1, batch_size=BATCH_SIZE, generator=0
    )


def pytorch_fit(threads: int | None = None) -> Fit:
    """Return PyTorch's training."""
    import torch

    import tinyconv as tc

    if threads:
        torch.set_num_threads(threads)
    mnist = tc.data.load_mnist(ROOT / "examples" / "data" / "mnist")
    images = torch.from_numpy(tc.data.normalize(mnist.train_images).copy())
    labels = torch.from_numpy(mnist.train_labels.astype("int64"))
    network, criterion = pytorch_network("lenet"), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)

    def fit(count: int) -> None:
        for chosen in torch.randperm(count).reshape(-1, BATCH_SIZE):
            optimizer.zero_grad()
            loss = criterion(network(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            loss.item()

    return fit


PEERS: dict[str, tuple[Callable[[], Fit], dict[str, str]]] = {
    "tinyconv": (tinyconv_fit, {}),
    "tinyconv, OPENBLAS_NUM_THREADS=1": (tinyconv_fit, {"OPENBLAS_NUM_THREADS": "1"}),
    "tinyconv, workers=2": (partial(tinyconv_fit, workers=2), {}),
    "PyTorch eager": (pytorch_fit, {}),
    "PyTorch eager, one thread": (partial(pytorch_fit, threads=1), {}),
}


def train(peer: str, seconds: float) -> None:
    """Train for `seconds`, and print the time and the number of images before and after each epoch."""
    fit = PEERS[peer][0]()
    done, end = 0, 0.0
    print(time.time(), done, flush=True)
    while not done or time.time() < end:
        fit(count := EPOCH if done else WARM_UP)
        end = end or time.time() + seconds
        done += count
        print(time.time(), done, flush=True)


def run(peer: str, seconds: float, limit: float) -> Speed:
    """Train in another process, which is ended after `limit` seconds."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    process = subprocess.Popen(
        [sys.executable, __file__, f"--seconds={seconds}", "--child", peer],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | PEERS[peer][1],
        start_new_session=True,  # its workers are ended with it
    )
    try:
        printed, errors = process.communicate(timeout=limit)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        printed, errors = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    ended, lines = time.time(), [line.split() for line in printed.splitlines()]
    if not lines or process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{peer} did not run in {limit:g} s: {errors}")
    times, done = [float(line[0]) for line in lines], [int(line[1]) for line in lines]
    if len(lines) > 2:
        return Speed((done[-1] - done[1]) / (times[-1] - times[1]))
    return Speed((EPOCH if done[-1] else WARM_UP) / (ended - times[-1]), reached=False)


@contextmanager
def busy_loop() -> Iterator[None]:
    """Keep a core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def row(peer: str, alone: list[Speed], busy: list[Speed]) -> str:
    """Return a line of the table: medians over the rounds, and the least and greatest share."""
    shares = [beside.images / before.images for before, beside in zip(alone, busy, strict=True)]
    less = "" if all(speed.reached for speed in busy) else "< "
    return (
        f"| {peer} | {_median(alone)} | {_median(busy)} "
        f"| {less}{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}) |"
    )


def _median(speeds: list[Speed]) -> str:
    less = "" if all(speed.reached for speed in speeds) else "< "
    return f"{less}{statistics.median(speed.images for speed in speeds):,.0f}"


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of training per run (default 3)")
    parser.add_argument("--limit", type=float, default=60, help="seconds that a run may take (default 60)")
    parser.add_argument("--child", choices=tuple(PEERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child, args.seconds)
        return
    peers = [peer for peer in PEERS if find_spec("torch") or not peer.startswith("PyTorch")]
    alone: dict[str, list[Speed]] = {peer: [] for peer in peers}
    busy: dict[str, list[Speed]] = {peer: [] for peer in peers}
    for _ in range(args.rounds):
        for peer in peers:
            alone[peer].append(run(peer, args.seconds, args.limit))
            with busy_loop():
                busy[peer].append(run(peer, args.seconds, args.limit))
    print("| LeNet-5, batch 64 | images/s alone | beside a busy loop | share kept (least to most) |")
    print("|---|---|---|---|")
    for peer in peers:
        print(row(peer, alone[peer], busy[peer]))
    print(machine())


if __name__ == "__main__":
    main()

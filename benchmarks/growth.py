"""Growth of time and memory: LeNet on more images, a convolution on more channels, images and taps.

    python benchmarks/growth.py

LeNet is trained for one epoch on each number of images in a separate process, alternately; the memory is the
peak of the whole process. Everything runs on one thread.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from harness import THREAD_VARIABLES, Peers, machine, seconds_a_call

from tinyconv.arrays import Array, empty_stored

SIZE, CHANNELS, BATCH = 28, 32, 16
FACTORS = (1, 2, 4, 8)
KERNELS = (3, 5, 7)


def peak_mb() -> float:
    """Return the peak of this process's memory so far."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def train(count: int) -> list[float]:
    """Train on `count` random images; return seconds, MB of data and peak MB."""
    import tinyconv as tc
    from tinyconv.data import DataLoader, normalize

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count)
    model = tc.models.lenet5(generator=0)
    trainer = tc.Trainer(model, tc.CrossEntropyLoss(), tc.optim.SGD(model, lr=0.01), progress=False)
    start = time.perf_counter()
    trainer.fit(DataLoader((images, labels), 128, shuffle=True, generator=0, transform=normalize))
    seconds = time.perf_counter() - start
    return [seconds, (images.nbytes + labels.nbytes) / (1 << 20), peak_mb()]


def convolution(batch: int, channels: int, kernel: int) -> tuple[int, Callable[[], object]]:
    """Return the bytes of image, output and their gradients, and a call of forward and both gradients."""
    import tinyconv.functional as F

    def ones(*shape: int) -> Array:
        array = empty_stored(shape, np.float32)
        array[...] = 1
        return array

    x, w = ones(batch, channels, SIZE, SIZE), np.ones((CHANNELS, channels, kernel, kernel), np.float32)
    grad_output = ones(batch, CHANNELS, SIZE, SIZE)

    def passes() -> object:
        y = F.conv2d(x, w, padding=kernel // 2)
        return y, F.conv2d_backward(grad_output, x, w, padding=kernel // 2)

    return 2 * (x.nbytes + grad_output.nbytes), passes


def growth_peer() -> Callable[[int, int], float]:
    """Set tinyconv up."""

    def run_round(batch: int, channels: int) -> float:
        return seconds_a_call(convolution(batch, channels, kernel=3)[1])

    return run_round


def convolution_memory(kernel: int, batch: int) -> list[float]:
    """Return the MB of activations and gradients, and the rise of the peak in MB by both passes."""
    before = peak_mb()
    activations, passes = convolution(batch, CHANNELS, kernel)
    passes()
    return [activations / (1 << 20), peak_mb() - before]


def child(*arguments: object) -> list[float]:
    """Return what a function of this file returns in a new process."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
    printed: list[float] = json.loads(subprocess.check_output(command, env=environment))
    return printed


def show_images(images: int, rounds: int) -> None:
    """Train on a number of images and on ten times as many."""
    counts = (images, 10 * images)
    runs: dict[int, list[list[float]]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            runs[count].append(child("train", count))
    few, many = ([statistics.median(column) for column in zip(*runs[count], strict=True)] for count in counts)
    for count, (seconds, data, peak) in zip(counts, (few, many), strict=True):
        print(f"{count:>9,} images: {seconds:7.2f} s, {data:6.1f} MB of data, peak {peak:6.1f} MB")
    print(f"ten times the images: {many[0] / few[0]:.2f} times as long, ", end="")
    print(f"{many[2] - few[2]:.1f} MB more, of which {many[1] - few[1]:.1f} MB are data")


def show_convolutions(rounds: int) -> None:
    """Print the time against batch and channels, and the memory against taps."""
    print(f"3x3 convolution to {CHANNELS} channels, {SIZE}^2, forward and both gradients (ms by factor)")
    with Peers({"tinyconv": (growth_peer, {})}, threads=1) as peers:
        for what, batches, channels in (("batch", FACTORS, (1,) * 4), ("channels", (1,) * 4, FACTORS)):
            grown = []
            for factor, n, c in zip(FACTORS, batches, channels, strict=True):
                took = statistics.median(peers.rounds(rounds, n * BATCH, c * CHANNELS)["tinyconv"])
                grown.append(f"{factor}: {1e3 * took:.2f} ms ({1e3 * took / factor:.2f})")
            print(f"  {what} times {', '.join(grown)}")
    for kernel in KERNELS:
        for batch in (256, 512):
            activations, rise = child("memory", kernel, batch)
            columns = activations / 4 * kernel * kernel
            print(
                f"  {kernel}x{kernel}, batch {batch}: activations and gradients {activations:.0f} MB, peak "
                f"{rise:.0f} MB ({rise / activations:.2f} times); columns would be {columns:.0f} MB"
            )


def main() -> None:
    """Print all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=12_000, help="the smaller number (default 12,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        functions: dict[str, Callable[..., list[float]]] = {"train": train, "memory": convolution_memory}
        print(json.dumps(functions[args.child[0]](*map(int, args.child[1:]))))
        return
    show_images(args.images, args.rounds)
    show_convolutions(args.rounds)
    print(machine())


if __name__ == "__main__":
    main()

"""How time and memory grow: LeNet on ten times the images.

    python benchmarks/growth.py

Each number of images is trained on for one epoch in a process of its own, alternately; the memory is
the peak of the whole process.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np


def train(count: int) -> None:
    """Train on `count` random images; print seconds, MB of data and peak MB as JSON."""
    import tinyconv as tc
    from tinyconv.data import Batches, normalize

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count)
    model = tc.models.lenet5(generator=0)
    trainer = tc.Trainer(model, tc.CrossEntropyLoss(), tc.optim.SGD(model, lr=0.01), progress=False)
    start = time.perf_counter()
    trainer.fit(Batches(images, labels, 128, shuffle=True, generator=0, transform=normalize))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )
    print(json.dumps([seconds, (images.nbytes + labels.nbytes) / (1 << 20), peak]))


def main() -> None:
    """Run both sizes in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=12_000, help="the smaller number (default 12,000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child)
        return
    counts = (args.images, 10 * args.images)
    runs: dict[int, list[list[float]]] = {count: [] for count in counts}
    for _ in range(args.rounds):
        for count in counts:
            command = [sys.executable, __file__, "--child", str(count)]
            runs[count].append(json.loads(subprocess.check_output(command)))
    medians = {
        count: [statistics.median(column) for column in zip(*runs[count], strict=True)] for count in counts
    }
    for count, (seconds, data, peak) in medians.items():
        print(f"{count:>9,} images: {seconds:7.2f} s, {data:6.1f} MB of data, peak {peak:6.1f} MB")
    (few, many) = (medians[count] for count in counts)
    print(f"ten times the images: {many[0] / few[0]:.2f} times as long, ", end="")
    print(f"{many[2] - few[2]:.1f} MB more, of which {many[1] - few[1]:.1f} MB are data")


if __name__ == "__main__":
    main()

"""Seconds from the process's start to 99 % test accuracy on MNIST.

    python benchmarks/time_to_accuracy.py

LeNet-5 with a one-cycle schedule that ends after a few epochs, in a new process per seed, with a worker per
core. The time is from before Python starts until the end of the evaluation that reached the accuracy.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import machine

ROOT = Path(__file__).parent.parent


def train(seed: int, epochs: int, batch_size: int, lr: float, workers: int, start: float) -> None:
    """Train, and print the seconds since `start` and the accuracy, after the last epochs."""
    import tinyconv as tc
    from tinyconv.data import DataLoader, load_mnist, normalize

    data = load_mnist(ROOT / "examples" / "data" / "mnist")
    model = tc.models.lenet5(generator=seed)
    training = data.train_images, data.train_labels
    batches = DataLoader(training, batch_size, shuffle=True, generator=seed, transform=normalize)
    test = DataLoader((data.test_images, data.test_labels), 256, transform=normalize)
    optimizer = tc.optim.AdamW(model, lr=lr, weight_decay=0.1)
    schedule = tc.optim.OneCycleLR(optimizer, lr, total_steps=epochs * len(batches))
    trainer = tc.Trainer(model, tc.CrossEntropyLoss(), optimizer, schedule, workers=workers, progress=False)
    trainer.fit(batches, epochs)
    accuracy = trainer.evaluate(test).accuracy
    print(time.time() - start, accuracy)


def main() -> None:
    """Run the seeds in turn and print the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        seed, start = int(args.child[0]), float(args.child[1])
        train(seed, args.epochs, args.batch_size, args.lr, args.workers, start)
        return
    runs = []
    for seed in range(args.seeds):
        options = [
            f"--{name.replace('_', '-')}={getattr(args, name)}" for name in ("epochs", "batch_size", "lr")
        ]
        command = [sys.executable, __file__, *options, f"--workers={args.workers}"]
        printed = subprocess.check_output([*command, "--child", str(seed), str(time.time())], text=True)
        seconds, accuracy = map(float, printed.split())
        runs.append((seconds, accuracy))
        print(f"seed {seed}: {accuracy:.2%} after {seconds:.1f} s", flush=True)
    seconds, accuracy = (statistics.median(column) for column in zip(*runs, strict=True))
    reached = sum(accuracy >= 0.99 for _, accuracy in runs)
    print(f"median {accuracy:.2%} after {seconds:.1f} s; {reached} of {len(runs)} reached 99 %")
    print(machine())


if __name__ == "__main__":
    main()

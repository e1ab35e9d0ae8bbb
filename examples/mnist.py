"""Train LeNet-5 (or a larger CNN) on MNIST, and say how many test digits it reads.

    python examples/mnist.py                 LeNet-5, 5 epochs of AdamW with a one-cycle schedule
    python examples/mnist.py --model cnn     two 3x3 convolutions, 5 epochs of SGD
    python examples/mnist.py --model cnn --augment    15 epochs of shifted and rotated images
    python examples/mnist.py --device cuda   on a GPU, with CuPy (pip install ".[gpu]")
    python examples/mnist.py --checkpoint-dir runs/a    written to as it goes; after a crash,
    python examples/mnist.py --resume runs/a            ends with the same bits as without it

The weights go to OUT/MODEL.safetensors and, where matplotlib is installed, a picture of the run to
OUT/MODEL.png. Ctrl-C ends the training early and keeps what has been learnt.

Each step of `train` is a short function in tinyconv/recipes.py, which `python -m tinyconv train` takes too.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from tinyconv.commands.errors import exit_code
from tinyconv.data import load_mnist
from tinyconv.recipes import (
    add_options,
    fit,
    make_batches,
    make_trainer,
    report,
    with_all_options,
)


def train(args: argparse.Namespace) -> None:
    """Load the data, make the trainer, train, report."""
    args = with_all_options(args)  # with --resume those that the run began with
    data = load_mnist(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)  # draws the parameters, then each epoch's order
    loader, test = make_batches(args, data, rng)  # 64 shuffled images at a time
    trainer = make_trainer(args, len(loader), rng)  # model, loss, optimiser and learning-rate schedule
    seconds = fit(args, trainer, loader, test)  # forward, loss, backward and step for every batch
    report(args, trainer, data, seconds)  # accuracy, weights, picture


def main() -> None:
    """Run the example; wrong arguments and files end it with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Train a network on MNIST in pure NumPy.")
    add_options(parser, data=Path(__file__).parent / "data" / "mnist")
    sys.exit(exit_code(Path(__file__).name, partial(train, parser.parse_args())))


if __name__ == "__main__":
    main()

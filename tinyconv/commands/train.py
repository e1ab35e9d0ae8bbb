"""python -m tinyconv train: what examples/mnist.py does, on MNIST from wherever it is found."""

import argparse
from typing import Any

import numpy as np

from tinyconv import recipes
from tinyconv.data import load_mnist


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("train", help="train a network on MNIST")
    recipes.add_options(parser)
    parser.set_defaults(run=_run, program=parser.prog)


def _run(args: argparse.Namespace) -> None:
    args = recipes.with_all_options(args)
    data = load_mnist(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    batches, test = recipes.make_batches(args, data, rng)
    trainer = recipes.make_trainer(args, len(batches), rng)
    seconds = recipes.fit(args, trainer, batches, test)
    recipes.report(args, trainer, data, seconds)

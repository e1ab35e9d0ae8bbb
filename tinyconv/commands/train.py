"""python -m tinyconv train: a network on MNIST, with checkpoints, weights and a picture of the run."""

import argparse
from typing import Any

import numpy as np

from tinyconv import recipes
from tinyconv.commands.errors import INTERRUPTED


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("train", help="train a network on MNIST")
    recipes.add_options(parser)
    parser.set_defaults(run=_run, program=parser.prog)


def _run(args: argparse.Namespace) -> int:
    args = recipes.with_all_options(args)
    data = recipes.load_data(args.data)
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    batches, test = recipes.make_batches(args, data, rng)
    trainer = recipes.make_trainer(args, len(batches), rng)
    seconds = recipes.fit(args, trainer, batches, test)
    if not trainer.history.epochs:
        return INTERRUPTED
    recipes.report(args, trainer, data, seconds)
    return 0

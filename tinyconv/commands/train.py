"""python -m tinyconv train: a network on MNIST, with checkpoints, weights and a picture of the run."""

import argparse
import contextlib
import os
from pathlib import Path

import numpy as np

from tinyconv import recipes
from tinyconv.commands.errors import INTERRUPTED
from tinyconv.training import default_communicator

HELP = "train a network on MNIST"
add_options = recipes.add_options


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code. Of several ranks, only the first prints."""
    args.communicator = default_communicator()
    if args.communicator.rank == 0:
        return _train(args)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        return _train(args)


def _train(args: argparse.Namespace) -> int:
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

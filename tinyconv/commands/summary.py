"""python -m tinyconv summary: the layers of a network, with shapes and sizes."""

import argparse
from typing import Any

from tinyconv.recipes import INPUT_SHAPE, MODELS, add_model_option


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("summary", help="print a network's table of layers")
    add_model_option(parser)
    parser.set_defaults(run=_run, program=parser.prog)


def _run(args: argparse.Namespace) -> None:
    print(MODELS[args.model]().summary(INPUT_SHAPE))

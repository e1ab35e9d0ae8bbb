"""python -m tinyconv summary: the layers of a network, with shapes and sizes."""

import argparse

from tinyconv.recipes import INPUT_SHAPE, MODELS, add_model_option

HELP = "print a network's table of layers"
add_options = add_model_option


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    print(MODELS[args.model]().summary(INPUT_SHAPE))

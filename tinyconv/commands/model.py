"""The model that --model and --weights name."""

import argparse
from pathlib import Path

from tinyconv.layers import Sequential
from tinyconv.models import lenet5
from tinyconv.recipes import MODELS, add_model_option
from tinyconv.training import load_weights


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model and --weights."""
    add_model_option(parser)
    weights = "safetensors file (default: those that lenet comes with)"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)


def trained_model(args: argparse.Namespace) -> Sequential:
    """The model that `args` name, with its weights.

    Raises:
        ValueError: no weights for the cnn; a file that does not hold weights of this model.
        OSError: the file cannot be read.
    """
    if args.weights is None and args.model == "lenet":
        return lenet5(pretrained=True)
    if args.weights is None:
        raise ValueError(f"--model {args.model} needs --weights: only lenet comes with some")
    model = MODELS[args.model]()
    load_weights(model, args.weights)
    return model

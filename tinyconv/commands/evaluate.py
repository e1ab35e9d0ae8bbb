"""python -m tinyconv evaluate: loss and accuracy on the test images, and the errors class by class."""

import argparse

import numpy as np

from tinyconv.arrays import Array
from tinyconv.data import normalize
from tinyconv.layers import CrossEntropyLoss
from tinyconv.recipes import add_data_option, add_trained_model_options, load_data, trained_model

HELP = "loss, accuracy and errors on MNIST's test images"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_trained_model_options(parser)
    add_data_option(parser)


def run(args: argparse.Namespace) -> None:
    """Print loss, accuracy and the table of errors."""
    model = trained_model(args)
    data = load_data(args.data)
    logits, labels = model.predict(normalize(data.test_images)), data.test_labels
    loss = float(CrossEntropyLoss()(logits, labels))
    found = logits.argmax(axis=1)
    print(f"test loss {loss:.4f}, accuracy {(found == labels).mean():.2%} of {len(labels):,} images")
    print("class  images  wrong   share  most often taken for")
    for number in range(logits.shape[1]):
        print(_row(number, found[labels == number]))


def _row(number: int, found: Array) -> str:
    """What the images of class `number` were found to be."""
    wrong = found[found != number]
    row = f"{number:5}  {len(found):6,}  {len(wrong):5,}  {len(wrong) / max(len(found), 1):6.2%}"
    if not len(wrong):
        return row
    counts = np.bincount(wrong)
    return f"{row}  {counts.argmax()} ({counts.max():,})"

"""python -m tinyconv predict: the digits in pictures, with their probabilities."""

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.commands.errors import exit_code
from tinyconv.data import normalize
from tinyconv.data.digits import find_largest
from tinyconv.functional import softmax
from tinyconv.layers import Sequential
from tinyconv.optional import optional
from tinyconv.recipes import add_trained_model_options, trained_model

HELP = "read the digits in pictures"
BAR = 40  # characters of a probability of 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    images = "PNG, JPEG or what Pillow reads"
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help=images)
    add_trained_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print a block for each image; one that cannot be read does not keep the others from it."""
    predict = partial(_predict, args.program, trained_model(args))
    return max([exit_code(args.program, partial(predict, path)) for path in args.images])


def _predict(program: str, model: Sequential, path: Path) -> None:
    pixels = read_image(path)
    try:
        image, digits = find_largest(pixels)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if digits > 1:
        print(f"{program}: warning: {path} shows {digits} digits; the largest is read", file=sys.stderr)
    probabilities = softmax(model.predict(normalize(image[None])), 1)[0]
    print(f"{path}: {probabilities.argmax()}")
    for digit, probability in enumerate(probabilities):
        print(f"  {digit}  {probability:6.1%}  {'#' * round(BAR * float(probability))}".rstrip())


def read_image(path: Path) -> Array:
    """The pixels of an image file, upright as its EXIF data say, as `find_largest` takes them.

    Raises:
        ImportError: Pillow is not installed.
        OSError: the file cannot be read.
        ValueError: no image, a damaged one, or one of more pixels than Pillow takes for harmless.
    """
    optional("PIL", "reading images needs Pillow: pip install 'tinyconv[images]'")
    from PIL import Image, ImageOps, UnidentifiedImageError

    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                return _pixels(ImageOps.exif_transpose(image))
        except UnidentifiedImageError as error:
            raise ValueError(f"{path} is not an image that Pillow knows") from error
        except Exception as error:  # whatever a decoder stumbles over in a foreign file
            raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _pixels(image: Any) -> Array:
    """(H, W, 4) uint8, or (H, W) floating up to 1 where Pillow's image has more than 8 bits."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        return values / max(1.0, float(values.max()))
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))

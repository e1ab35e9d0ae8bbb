"""Weights in safetensors files, with the names that PyTorch uses."""

import os

import numpy as np

from tinyconv.arrays import moved
from tinyconv.layers import Layer


def save_weights(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write the parameters and buffers of `model` to a safetensors file.

    The file appears whole or not at all: it is written beside `path`, flushed to disk and renamed.

    Raises:
        OSError: the file cannot be written; a file that was there before stays as it was.
    """
    from pathlib import Path

    from safetensors.numpy import save

    from tinyconv.files import write_whole

    state = {name: moved(array, np) for name, array in model.state_dict().items()}
    write_whole(Path(path), save(state))


def load_weights(model: Layer, path: str | os.PathLike[str]) -> None:
    """Read the parameters and buffers of `model` from a safetensors file.

    Raises:
        ValueError: no safetensors file, or names and shapes that are not those of the model; the
            message names the file, and the model is left as it was.
        OSError: the file cannot be read.
    """
    from pathlib import Path

    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = Path(path).read_bytes()
    try:
        model.load_state_dict(load(content))
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold the weights of this model: {error}") from error

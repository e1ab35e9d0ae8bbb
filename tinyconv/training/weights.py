"""Arrays in safetensors files, written completely or not at all, and refused if damaged.

Each file that is written here has in its header the SHA-256 of all its bytes, computed with zeros in place of
the checksum itself. Reading checks it, and that all numbers are finite. Nothing is ever unpickled, and names
are never used as paths.
"""

import os
from collections.abc import Mapping

import numpy as np

from tinyconv.arrays import Array, moved
from tinyconv.layers import Layer

_NO_DIGEST = "0" * 64


def save_weights(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write the parameters and buffers of `model` to a safetensors file, with the names that PyTorch uses.

    The file is written completely or not at all: under another name in the same folder, flushed and renamed.

    Raises:
        ValueError: a parameter or buffer is NaN or infinite, or has a name that looks like a path.
        OSError: the file cannot be written; an existing file is not changed.

    >>> import tempfile
    >>> from safetensors.numpy import load_file
    >>> from tinyconv import BatchNorm2d, Conv2d, Sequential
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(Sequential(Conv2d(1, 2, 3), BatchNorm2d(2)), f"{folder}/model.safetensors")
    ...     arrays = load_file(f"{folder}/model.safetensors")
    >>> sorted(arrays)
    ['0.bias', '0.weight', '1.bias', '1.num_batches_tracked', '1.running_mean', '1.running_var', '1.weight']
    """
    model.check_whole()
    write_arrays(path, model.state_dict())


def load_weights(model: Layer, path: str | os.PathLike[str]) -> None:
    """Read the parameters and buffers of `model` from a safetensors file, of `save_weights` or of PyTorch.

    Raises:
        ValueError: not a safetensors file, a damaged one, names and shapes that are not those of the model,
            or values that are NaN or infinite; the message names the file, and the model is not changed.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> from tinyconv import Linear
    >>> trained, model = Linear(3, 2, generator=0), Linear(3, 2, generator=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights(trained, f"{folder}/model.safetensors")
    ...     load_weights(model, f"{folder}/model.safetensors")
    >>> bool((model.weight == trained.weight).all())
    True
    """
    arrays, _ = read_arrays(path)
    try:
        model.load_state_dict(arrays)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold the weights of this model: {error}") from error


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays, on any device, to one file; see `save_weights`."""
    from pathlib import Path

    from safetensors import SafetensorError
    from safetensors.numpy import save

    from tinyconv.files import write_whole

    # In C order, as safetensors writes an array's memory as it is.
    tensors = {name: np.asarray(moved(array, np), order="C") for name, array in arrays.items()}
    try:
        _check_tensors(tensors)
        content = save(tensors, {"sha256": _NO_DIGEST})
    except ValueError as error:
        raise ValueError(f"{path} was not written: {error}") from error
    except SafetensorError as error:
        raise TypeError(f"{path} was not written: {error}") from error
    digest = _checksum(content, _NO_DIGEST)
    write_whole(Path(path), content.replace(_entry(_NO_DIGEST), _entry(digest), 1))


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Array], bool]:
    """Return the arrays of a safetensors file, and whether it has a checksum; see `load_weights`."""
    from pathlib import Path

    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = Path(path).read_bytes()
    try:
        tensors = load(content)
        digest = _metadata(content).get("sha256")
        if digest is not None and _checksum(content, digest) != digest:
            raise ValueError("it is damaged, as its checksum is not that of its content")
        _check_tensors(tensors)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path} cannot be read: NumPy does not have the dtype {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return tensors, digest is not None


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata in the header of a safetensors file that the library has validated."""
    import json

    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    return json.loads(header).get("__metadata__") or {}


def _checksum(content: bytes, digest: str) -> str:
    """SHA-256 of a file's content with zeros in place of `digest`, the checksum in its header."""
    import hashlib

    return hashlib.sha256(content.replace(_entry(digest), _entry(_NO_DIGEST), 1)).hexdigest()


def _entry(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _check_tensors(tensors: Mapping[str, Array]) -> None:
    """Refuse names that look like paths out of a folder, and values that are NaN or infinite."""
    for name, tensor in tensors.items():
        steps_aside = any(part in ("", ".", "..") for part in name.split("/"))
        if steps_aside or "\\" in name or not name.isprintable():
            raise ValueError(f"the name {name!r} of a tensor must not look like a path out of a folder")
        if tensor.dtype.kind in "fc" and not np.isfinite(tensor).all():
            raise ValueError(f"the tensor {name!r} has values that are NaN or infinite")

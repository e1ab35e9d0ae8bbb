"""Reading cases and suites back, and a kernel's tensors from raw, .npy and .npz files."""

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arguments import instance, number, one_of
from tinyconv.arrays import Array
from tinyconv.vectors.operators import OPERATORS
from tinyconv.vectors.write import COMPUTED, Case

# What NumPy raises for a damaged file.
DAMAGED = (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, tokenize.TokenError)


class Found(NamedTuple):
    """A kernel's tensor: the bytes of a raw file, or an array."""

    path: Path
    content: bytes | Array


def read_case(folder: Path) -> Case:
    """The case in `folder`.

    Raises:
        ValueError: vectors.json does not describe the files beside it.
        OSError: a file cannot be read.
    """
    path = folder / "vectors.json"
    description = _description(path, "tinyconv test vectors")
    if description.get("version") != 1:
        raise ValueError(f"{path} has the version {description.get('version')}, and not 1")
    arrays = {}
    try:
        one_of("operator", description["operator"], tuple(OPERATORS))
        instance("attributes", description["attributes"], dict)
        for tensor in description["tensors"]:
            if tensor["role"] in COMPUTED:
                number("rtol", tensor["rtol"], 0.0)
                number("atol", tensor["atol"], 0.0)
            raw = (folder / tensor["file"]).read_bytes()
            dtype = np.dtype(tensor["dtype"]).newbyteorder("<")
            arrays[tensor["name"]] = np.frombuffer(raw, dtype).reshape(tensor["shape"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not describe the files beside it: {error}") from None
    return Case(description, arrays)


def read_suite(folder: Path) -> list[str]:
    """Paths of the cases of the suite in `folder`.

    Raises:
        ValueError: suite.json is damaged, or a file does not have its checksum.
        OSError: a file cannot be read.
    """
    suite = _description(folder / "suite.json", "tinyconv conformance suite")
    try:
        cases = [(instance("path", case["path"], str), dict(case["sha256"])) for case in suite["cases"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / 'suite.json'} does not describe its cases: {error}") from None
    for path, digests in cases:
        for name, digest in digests.items():
            file = folder / path / name
            if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                raise ValueError(f"{file} has changed since the suite was written: write the suite again")
    return [path for path, _ in cases]


def _description(path: Path, kind: str) -> dict[str, Any]:
    """What the JSON file holds, which must be of that format."""
    try:
        description = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(description, dict) or description.get("format") != kind:
        raise ValueError(f"{path} does not hold {kind}")
    return description


def find(mine: Path, name: str) -> Found | None:
    """The tensor `name` in the folder or .npz file `mine`, or None.

    Raises:
        ValueError: two files have it, or one of them holds no array of numbers.
        OSError: a file cannot be read.
    """
    if mine.is_file():
        return _in_npz(mine, name)
    if not mine.is_dir():
        return None
    found = [archived for path in sorted(mine.glob("*.npz")) if (archived := _in_npz(path, name))]
    if (path := mine / f"{name}.npy").exists():
        found.append(Found(path, _numbers(path, _loaded(path, np.ndarray))))
    if (path := mine / f"{name}.bin").exists():
        found.append(Found(path, path.read_bytes()))
    if len(found) > 1:
        paths = " and ".join(str(one.path) for one in found)
        raise ValueError(f"{paths} both have the tensor {name}: keep one of them")
    return found[0] if found else None


def _in_npz(path: Path, name: str) -> Found | None:
    with _loaded(path, np.lib.npyio.NpzFile) as archive:
        if name not in archive:
            return None
        try:
            return Found(path, _numbers(path, archive[name]))
        except DAMAGED as error:
            raise ValueError(f"{path}: {name} cannot be read: {error}") from None


def _loaded(path: Path, kind: type[Any]) -> Any:
    """What NumPy loads from the file, which must be of that kind: an array or an archive."""
    wanted = "an .npy file" if kind is np.ndarray else "an .npz file"
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read as {wanted}: {error}") from None
    if not isinstance(loaded, kind):
        raise ValueError(f"{path} is not {wanted}")
    return loaded


def _numbers(path: Path, array: Array) -> Array:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds {array.dtype} values, which are not real numbers")
    return array

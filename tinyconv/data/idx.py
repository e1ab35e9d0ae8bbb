"""IDX files: arrays with a short header, the format of MNIST and similar data sets."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from tinyconv.arrays import Array

_GZIP = b"\x1f\x8b"
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read an IDX file, which may be compressed by gzip.

    Args:
        path: the file, e.g. train-images-idx3-ubyte.gz or train-images-idx3-ubyte.

    Returns:
        A new array with the shape and (native) dtype of the header.

    Raises:
        ValueError: a gzip file that is damaged or truncated; not IDX; more or fewer bytes than the header
            says. The message names the file.
        OSError: the file cannot be read.

    Source: http://yann.lecun.com/exdb/mnist/ describes the format.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.idx")
    ...     path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))  # uint8, 1-d, of 3
    ...     read_idx(path)
    11
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as raw, _unzipped(raw) as file:
            dtype, shape = _read_header(path, file)
            size = math.prod(shape) * dtype.itemsize
            body = bytearray()  # grows with the file, not with the size in its header
            while len(body) <= size and (chunk := file.read(1 << 20)):
                body += chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from error
    if len(body) != size:
        found = "more" if len(body) > size else f"only {len(body):,}"
        raise ValueError(f"{path} must hold {size:,} bytes after its IDX header, but holds {found}")
    return np.frombuffer(body, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


def _unzipped(file: BinaryIO) -> BinaryIO:
    """`file`, or its uncompressed content if it begins as a gzip file."""
    start = file.read(len(_GZIP))
    file.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if start == _GZIP else file


def _read_header(path: Path, file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if not magic:
        raise ValueError(f"{path} is not an IDX file: it is empty")
    zeros, kind, ndim = struct.unpack(">HBB", magic.ljust(4, b"\0"))
    if len(magic) == 4 and (zeros or kind not in _DTYPES or not ndim):
        raise ValueError(f"{path} is not an IDX file: it starts with the bytes {magic.hex(' ')}")
    sizes = file.read(4 * ndim)
    if len(magic + sizes) < 4 + 4 * ndim:
        raise ValueError(f"{path} is not an IDX file: its header is cut short")
    return np.dtype(_DTYPES[kind]), struct.unpack(f">{ndim}I", sizes)

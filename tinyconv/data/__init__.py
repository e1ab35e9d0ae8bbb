"""Data: MNIST and other IDX files, normalisation, shuffled batches."""

from typing import TYPE_CHECKING, Any

from tinyconv.data.batches import Batches

if TYPE_CHECKING:
    from tinyconv.data.idx import read_idx
    from tinyconv.data.mnist import MNIST, load_mnist, normalize

__all__ = ["MNIST", "Batches", "load_mnist", "normalize", "read_idx"]


def __getattr__(name: str) -> Any:
    """What reads files is imported when it is first asked for, as that takes a quarter of the time."""
    if name not in __all__:
        raise AttributeError(f"module 'tinyconv.data' has no attribute {name!r}")
    from tinyconv.data import idx, mnist

    return getattr(idx if name == "read_idx" else mnist, name)

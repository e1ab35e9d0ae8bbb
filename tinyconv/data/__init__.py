"""Data: MNIST and other IDX files, normalisation, shuffled batches."""

from tinyconv.data.batches import Batches
from tinyconv.data.idx import read_idx
from tinyconv.data.mnist import MNIST, load_mnist, normalize

__all__ = ["MNIST", "Batches", "load_mnist", "normalize", "read_idx"]

"""Data sets of single samples, stacked into batches."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tinyconv.arrays import Array, array_module, is_array
from tinyconv.data.pairs import check_not_two_arrays, described


class Dataset(Protocol):
    """Anything with a length whose items 0, 1, … are samples (input, target), as in PyTorch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def check_dataset(dataset: Any) -> None:
    """Check that `dataset` may be a data set of samples.

    Raises:
        TypeError: it is an array alone, a list of two arrays, a dict, or lacks __len__ or __getitem__.
    """
    check_not_two_arrays("dataset", dataset)
    is_indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if is_array(dataset) or isinstance(dataset, Mapping) or not is_indexed:
        raise TypeError(
            "`dataset` must be a tuple of arrays (inputs, targets), or have __len__ and __getitem__ and give "
            f"samples (input, target), got {described(dataset)}"
        )


def collate(dataset: Dataset, indices: Sequence[int]) -> tuple[Array, Array]:
    """Return the samples of `dataset` at `indices` as a batch: two new, writable arrays.

    Arrays are stacked. Python's integers become int64, its floats float32 and its bools bool.

    Raises:
        TypeError: a sample that is not a pair, or not of arrays and numbers.
        ValueError: arrays whose shapes differ. The message has the index of the sample.
    """
    samples = [dataset[index] for index in indices]
    for index, sample in zip(indices, samples, strict=True):
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise TypeError(
                f"sample {index} of `dataset` must be a pair (input, target), got {described(sample)}"
            )
    inputs, targets = zip(*samples, strict=True)
    return _stacked("input", inputs, indices), _stacked("target", targets, indices)


def _stacked(what: str, values: Sequence[Any], indices: Sequence[int]) -> Array:
    kinds = set(map(type, values))
    if kinds <= {bool, int, float}:
        return np.array(values, np.float32 if float in kinds else np.int64 if int in kinds else np.bool_)
    arrays = [np.asarray(value) if isinstance(value, (int, float, np.generic)) else value for value in values]
    for index, array in zip(indices, arrays, strict=True):
        if not is_array(array):
            raise TypeError(
                f"the {what} of sample {index} of `dataset` must be an array or a number, "
                f"got {described(array)}: use np.asarray"
            )
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"the {what} of sample {index} of `dataset` (of shape {array.shape}) must have the shape "
                f"{arrays[0].shape} of sample {indices[0]}'s, as they are stacked into a batch"
            )
    stacked: Array = array_module(*arrays).stack(arrays)
    return stacked

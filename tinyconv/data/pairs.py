"""Checks of data, which is a pair of arrays or an iterable of such pairs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from tinyconv.arrays import Array, is_array, refusal


def is_pair(data: Any) -> TypeGuard[tuple[Array, Array]]:
    """Return whether `data` is meant as a pair of arrays: a tuple of two that are not both tuples."""
    return isinstance(data, tuple) and len(data) == 2 and not all(isinstance(one, tuple) for one in data)


def check_pair(what: str, pair: Any) -> None:
    """Check that `pair`, which errors call `what`, is (inputs, targets), two arrays of equal length.

    Raises:
        TypeError: it is not a tuple or a list, or not of arrays.
        ValueError: it is not one of two, the lengths differ, or an array is 0-d.
    """
    is_sequence = isinstance(pair, (tuple, list))
    if not is_sequence or len(pair) != 2:
        error = ValueError if is_sequence else TypeError
        raise error(f"{what} must be a pair of arrays (inputs, targets), got {described(pair)}")
    for name, array in (("inputs", pair[0]), ("targets", pair[1])):
        if wrong := refusal(name, array):
            raise TypeError(f"{what}: `{name}` {wrong}")
        if array.ndim == 0:
            raise ValueError(f"{what}: `{name}` (of shape ()) must have a dimension for the samples")
    inputs, targets = pair
    if len(inputs) != len(targets):
        raise ValueError(
            f"{what}: `inputs` (of length {len(inputs)}) must be as long as "
            f"`targets` (of length {len(targets)})"
        )


def check_iterable(name: str, data: Any) -> None:
    """Check that `data`, the argument `name`, may be an iterable of batches.

    Raises:
        TypeError: it is an array alone, a list of two arrays, a dict, or is not iterable.
    """
    check_not_two_arrays(name, data)
    if is_array(data) or isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise TypeError(
            f"`{name}` must be a tuple of arrays (inputs, targets), a DataLoader or an iterable of batches "
            f"(inputs, targets), got {described(data)}; a data set of single samples needs a DataLoader"
        )


def check_not_two_arrays(name: str, data: Any) -> None:
    """Refuse a list of two arrays, which could be a pair or two batches or samples."""
    if isinstance(data, list) and len(data) == 2 and all(map(is_array, data)):
        raise TypeError(f"`{name}` must not be a list of two arrays: pass a tuple (x, y)")


def checked(name: str, batches: Iterable[Any]) -> Iterator[tuple[Array, Array]]:
    """Yield the batches of the argument `name`, each checked to be a pair of arrays with samples.

    Raises:
        TypeError, ValueError: as `check_pair`, with the number of the batch; a batch without samples.
    """
    for number, batch in enumerate(batches, 1):
        what = f"batch {number} of `{name}`"
        check_pair(what, batch)
        if not len(batch[0]):
            raise ValueError(f"{what} must have at least one sample")
        yield batch


def described(value: Any) -> str:
    """Return `value` in a few words, for an error."""
    if is_array(value):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of length {len(value)}"
    return "None" if value is None else f"an object of type {type(value).__name__}"

"""Errors of a GPU in words."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def out_of_memory(what: str) -> Iterator[None]:
    """Turn CuPy's error into a MemoryError that says what was too large."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise MemoryError(f"{error}: {what} is too large for the GPU's memory") from error

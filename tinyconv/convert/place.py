"""Errors that say which layer of a nested model they come from."""

from collections.abc import Iterator
from contextlib import contextmanager

from tinyconv.layers.layer import ERRORS


@contextmanager
def named_in_errors(place: str, layer: object) -> Iterator[None]:
    """Put the layer's place in the model ("3.1", "" for the model itself) and its type before an error."""
    try:
        yield
    except ERRORS as error:
        kind = next(k for k in ERRORS if isinstance(error, k))
        where = f"layer {place!r} ({type(layer).__name__})" if place else type(layer).__name__
        raise kind(f"{where}: {error}") from error


def inside(place: str, name: str) -> str:
    """Return the place of the child `name` of the layer at `place`."""
    return f"{place}.{name}" if place else name

"""Places of layers in a nested model."""


def inside(place: str, name: str) -> str:
    """Return the place of the child `name` of the layer at `place`."""
    return f"{place}.{name}" if place else name

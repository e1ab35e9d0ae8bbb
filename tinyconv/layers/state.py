"""The arrays of a layer: parameters and buffers, how they are assigned and how they are named."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tinyconv.arguments import check_arrays
from tinyconv.arrays import Array, array_module, moved, owner


class Marked(NamedTuple):
    """An array that the layer registers to whose attribute it is assigned."""

    array: Array
    is_parameter: bool


def Parameter(value: Array) -> Any:  # noqa: N802  # PyTorch's name
    """Mark an array as a parameter, which is trained: `self.weight = Parameter(array)` in a layer.

    The layer then has a copy of it in C order as `self.weight` and in `params["weight"]`, and a gradient of
    zeros in `grads["weight"]`.

    Args:
        value: the first value, float32 or float64.

    Raises:
        TypeError: `value` is not an array of one of these dtypes.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Parameter.html

    >>> from tinyconv import Layer
    >>> layer = Layer()
    >>> layer.scale = Parameter(np.ones(3))
    >>> layer.scale *= 2
    >>> layer.params, layer.grads
    ({'scale': array([2., 2., 2.])}, {'scale': array([0., 0., 0.])})
    """
    check_arrays(value=value)
    return Marked(array_module(value).array(value, order="C"), is_parameter=True)


def Buffer(value: Array) -> Any:  # noqa: N802  # PyTorch's name
    """Mark an array as a buffer, which is saved and not trained: `self.mean = Buffer(array)` in a layer.

    The layer then has a copy of it in C order as `self.mean` and in `buffers["mean"]`.

    Args:
        value: the first value, of any dtype.

    Raises:
        TypeError: `value` is not an array.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Buffer.html

    >>> from tinyconv import Layer
    >>> layer = Layer()
    >>> layer.count = Buffer(np.zeros((), np.int64))
    >>> layer.count += 1
    >>> layer.state_dict()
    {'count': array(1)}
    """
    return Marked(array_module(value).array(value, order="C"), is_parameter=False)


class Arrays(dict[str, Array]):
    """The arrays of a layer and of the layers in it, by name.

    Assigning to a name copies values into the array of that name. Names come and go with the attributes of
    the layers only, so whatever else would change them is refused.
    """

    def __setitem__(self, name: str, value: Array) -> None:
        own = self.get(name)
        if own is None:
            raise KeyError(
                f"there is no array {name!r} here; assign a Parameter to an attribute of its layer"
            )
        copy_into(name, own, value)

    def update(self, *args: Any, **arrays: Array) -> None:
        """Assign each of some arrays."""
        for name, value in dict(*args, **arrays).items():
            self[name] = value

    def _refuse(self, *args: Any, **keywords: Any) -> NoReturn:
        raise TypeError("names are added and removed by assigning to the attributes of a layer")

    __delitem__ = clear = pop = popitem = setdefault = __ior__ = _refuse


def copy_into(name: str, own: Array, value: Any) -> None:
    """Copy `value` into the array `own`, which is called `name` in errors, with the dtype of `own`.

    Raises:
        ValueError: `value` has another shape.
        TypeError: `value` cannot be cast to that dtype.
    """
    if value is not own:
        own[...] = moved(fitting(name, own, value), array_module(own))


def fitting(name: str, own: Array, value: Any) -> Array:
    """`value`, an array of any kind, on the CPU, after checking that it can take the place of `own`."""
    array = moved(value, np) if owner(value) == "cupy" else np.asarray(value)
    if array.shape != own.shape:
        raise ValueError(f"`{name}` (of shape {array.shape}) must have the shape {own.shape}")
    if not np.can_cast(array.dtype, own.dtype, "same_kind"):
        raise TypeError(f"`{name}` (of dtype {array.dtype}) cannot be cast to {own.dtype}")
    return array


def load(own: Mapping[str, Array], state_dict: Mapping[str, Any]) -> None:
    """Copy the values of `state_dict` into the arrays `own`, all of them or none.

    Raises:
        ValueError, TypeError: as `Layer.load_state_dict`.
    """
    missing = [name for name in own if name not in state_dict]
    unknown = [name for name in state_dict if name not in own]
    if missing or unknown:
        raise ValueError(f"`state_dict` lacks {_some(missing)} and holds unknown {_some(unknown)}")
    values = {name: fitting(f"state_dict[{name!r}]", own[name], state_dict[name]) for name in own}
    for name, value in values.items():
        own[name][...] = moved(value, array_module(own[name]))


def _some(names: Iterable[Any], most: int = 8) -> str:
    """A list of names, which may be long, for an error."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{listed[:most]}{more}"

"""Attributes of a layer: what an assignment registers, copies or refuses, and arrays by name.

A layer stores its parameters, buffers and children in three dicts, and nowhere else: `layer.weight` is looked
up there.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tinyconv.arguments import check_arrays, check_kinds, given
from tinyconv.arrays import Array, array_module, moved, owner
from tinyconv.layers.cache import ForwardCache

__all__ = ["Buffer", "Parameter"]


class Marked(NamedTuple):
    """An array that a layer registers when it is assigned to an attribute."""

    array: Array
    is_parameter: bool


def Parameter(value: Array) -> Any:  # noqa: N802  # PyTorch's name
    """Mark an array as a parameter, which is trained: `self.weight = Parameter(array)` in a layer.

    The layer then has a copy in C order as `self.weight` and in `params["weight"]`, and a gradient of zeros
    in `grads["weight"]`.

    Args:
        value: the initial value, float32 or float64.

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
    """Mark an array as a buffer, which is saved but not trained: `self.mean = Buffer(array)` in a layer.

    The layer then has a copy in C order as `self.mean` and in `buffers["mean"]`.

    Args:
        value: the initial value, of any dtype.

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
    return Marked(check_kinds(value=value).array(value, order="C"), is_parameter=False)


class Arrays(dict[str, Array]):
    """The arrays of a layer and of the layers in it, by name.

    Assigning to a name copies values into the array of that name. Names are added and removed only by
    assigning to the attributes of the layers; other changes are refused.
    """

    def __setitem__(self, name: str, value: Array) -> None:
        own = self.get(name)
        if own is None:
            raise KeyError(
                f"{name!r} is not the name of an array here; assign a Parameter to an attribute of its layer"
            )
        copy_into(name, own, value)

    def update(self, *args: Any, **arrays: Array) -> None:
        """Assign each of some arrays."""
        for name, value in dict(*args, **arrays).items():
            self[name] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy is a dict of its own

    def _refuse(self, *args: Any, **keywords: Any) -> NoReturn:
        raise TypeError("names are added and removed by assigning to the attributes of a layer")

    __delitem__ = clear = pop = popitem = setdefault = __ior__ = _refuse


class Unwanted(Arrays):
    """Replace a layer's gradients in a pass that does not need them.

    It has no names, so that this package's layers compute no gradients; a layer that adds without checking
    adds to zeros.
    """

    def __init__(self, params: dict[str, Array]) -> None:
        super().__init__()
        self._like = params

    def __missing__(self, name: str) -> Array:
        zeros: Array = array_module(self._like[name]).zeros_like(self._like[name])
        return zeros

    def __setitem__(self, name: str, value: Array) -> None:
        pass


def copy_into(name: str, own: Array, value: Any) -> None:
    """Copy `value` into the array `own`, which is called `name` in errors, with the dtype of `own`.

    Raises:
        ValueError: `value` has another shape.
        TypeError: `value` cannot be cast to that dtype.
    """
    if value is not own:
        own[...] = moved(fitting(name, own, value), array_module(own))


def fitting(name: str, own: Array, value: Any) -> Array:
    """Return `value`, an array of any kind, on the CPU, checked to be able to replace `own`."""
    if isinstance(value, np.ndarray):
        check_kinds(**{name: value})  # a masked array, say
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
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"`state_dict` ({given(state_dict)}) must map names to arrays")
    missing = [name for name in own if name not in state_dict]
    unknown = [name for name in state_dict if name not in own]
    if missing or unknown:
        raise ValueError(f"`state_dict` lacks {_some(missing)} and has unknown {_some(unknown)}")
    values = {name: fitting(f"state_dict[{name!r}]", own[name], state_dict[name]) for name in own}
    for name, value in values.items():
        own[name][...] = moved(value, array_module(own[name]))


def _some(names: Iterable[Any], most: int = 8) -> str:
    """A list of names, which may be long, for an error."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{listed[:most]}{more}"


# Assignment

_HOMES = ("_params", "_buffers", "_children")
_KINDS = (*_HOMES, "_own_grads", "_own_grads_dot")


def assign(layer: Any, name: str, value: Any, is_layer: bool) -> bool:
    """Register or copy `value`, which is assigned to `layer.name`; return False for an ordinary attribute.

    Raises:
        RuntimeError, TypeError, ValueError: see `Layer`.
    """
    own = vars(layer)
    if is_layer or isinstance(value, Marked):
        if "_children" not in own:
            raise RuntimeError(
                f"call super().__init__() in {type(layer).__name__}.__init__ before assigning `{name}`"
            )
        _register(layer, name, value, is_layer)
        return True
    home = next((home for home in _HOMES if name in own.get(home, ())), None)
    if home is None:
        _refuse_lost(layer, name, value)
        return False
    if value is None:
        return not remove(layer, name)  # None is assigned as to an ordinary attribute
    if home == "_children":
        raise TypeError(
            f"`{name}` is a layer, which only a Layer or None can replace, not a {type(value).__name__}"
        )
    copy_into(name, own[home][name], value)
    return True


def found(layer: Any, name: str) -> Any:
    """Return the layer, parameter or buffer `name`.

    Raises:
        AttributeError: it does not exist.
    """
    own = vars(layer)
    for home in _HOMES:
        if name in own.get(home, ()):
            return own[home][name]
    cure = "" if "_children" in own else "; its __init__ must call super().__init__()"
    raise AttributeError(f"{type(layer).__name__} does not have the attribute {name!r}{cure}")


def remove(layer: Any, name: str) -> bool:
    """Remove `name` from what is registered; return whether it was there."""
    gone = [vars(layer)[kind].pop(name, None) is not None for kind in _KINDS]
    layer._changes += any(gone)
    return any(gone)


def check_shared(layer: Any) -> None:
    """Check that the layers which are shared are in the model, too."""
    present = {id(one) for one in layer.modules()}
    for place, one in layer.named_modules():
        shared = vars(one).get("_shared")
        if shared is not None and id(shared) not in present and shared.arrays():
            raise ValueError(f"layer {place!r} shares a {type(shared).__name__} that is not in the model")


def check_whole(layer: Any) -> None:
    """See `Layer.check_whole`."""
    layers: dict[int, str] = {}
    arrays: dict[int, str] = {}
    for place, one in layer.named_modules():
        if id(one) in layers:
            raise ValueError(f"one layer object is in two places, {layers[id(one)]!r} and {place!r}")
        layers[id(one)] = place
        for name, array in (*one._params.items(), *one._buffers.items()):
            name = f"{place}.{name}" if place else name
            if id(array) in arrays:
                raise ValueError(f"one array has two names, {arrays[id(array)]!r} and {name!r}")
            arrays[id(array)] = name
    for one in layer.modules():
        for name, value in vars(one).items():
            if name in _KINDS:
                continue
            _refuse_lost(layer, name, value)
            if id(value) in arrays:
                raise ValueError(
                    f"`{name}` of {type(one).__name__} is the array {arrays[id(value)]!r}, which may become "
                    "another one: get it from its layer"
                )


def _register(layer: Any, name: str, value: Any, is_layer: bool) -> None:
    if hasattr(type(layer), name) or not name or "." in name:
        raise ValueError(f"`{name}` cannot be the name of a layer or an array, as the class uses it")
    home = "_children" if is_layer else "_params" if value.is_parameter else "_buffers"
    if is_layer:
        _check_new(layer, name, value)
    for kind in _KINDS:
        if kind != home:  # where a new one replaces the old
            vars(layer)[kind].pop(name, None)
    vars(layer).pop(name, None)
    vars(layer)[home][name] = value if is_layer else value.array
    if home == "_params":
        layer._own_grads[name] = array_module(value.array).zeros_like(value.array)
    layer._changes += 1


def _check_new(layer: Any, name: str, child: Any) -> None:
    """Refuse a layer object that would be in two places, apart from the child that it replaces."""
    there = {id(one) for one in layer.modules()}
    if name in layer._children:
        there -= {id(one) for one in layer._children[name].modules()}
    if any(id(one) in there for one in child.modules()):
        raise ValueError(f"`{name}` (a {type(child).__name__}) is, or has, a layer that is here already")


def _refuse_lost(layer: Any, name: str, value: Any) -> None:
    """Refuse layers and parameters in containers, where nothing would train or save them."""
    if not isinstance(value, _CONTAINERS):
        return
    there = {id(one) for one in layer.modules()}
    for _, one in contents(name, value, _CONTAINERS):
        is_layer = isinstance(one, ForwardCache) and hasattr(one, "modules")
        if isinstance(one, Marked) or (is_layer and id(one) not in there):
            what = "layers" if is_layer else "a Parameter or Buffer"
            raise TypeError(
                f"`{name}` (a {type(value).__name__}) has {what}, which would not be trained or saved: use a "
                "Sequential, or assign each to an attribute of its own"
            )


_CONTAINERS = (list, tuple, set, frozenset, deque, Mapping)


def contents(
    name: str, value: Any, containers: tuple[type, ...], around: tuple[int, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Iterate over what is in nested `containers` by place, "name[0]['key']"; else over `value` itself.

    Keys of mappings come before their values. `around` has the ids of the containers around `value`, which
    may contain themselves.
    """
    if isinstance(value, Marked) or not isinstance(value, containers):
        yield name, value
    elif id(value) not in around:
        around = (*around, id(value))
        inner: Any = value
        is_mapping = isinstance(value, Mapping)
        for key, item in inner.items() if is_mapping else enumerate(inner):
            if is_mapping:
                yield from contents(name, key, containers, around)
            yield from contents(f"{name}[{key!r}]", item, containers, around)

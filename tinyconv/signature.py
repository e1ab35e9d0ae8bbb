"""The arguments of a layer, a loss or an optimiser, read from its attributes."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

# Arguments that only the constructor needs, and that are not stored.
_PASSING = ("dtype", "generator")


def _constructor(kind: type) -> Mapping[str, inspect.Parameter]:
    """Name -> parameter of the constructor of `kind`, except `dtype`, `generator` and *args."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(kind).parameters.items()
    return MappingProxyType({n: p for n, p in parameters if n not in _PASSING and p.kind not in variable})


constructor: Callable[[type], Mapping[str, inspect.Parameter]] = functools.cache(_constructor)


def arguments(made: object) -> dict[str, Any]:
    """Return name -> value of the arguments that would create an object like `made`.

    They are read from the attributes of the same names; arguments without such an attribute are left out.
    If the argument says whether something exists (`bias=True`), the attribute may be the thing itself.

    >>> from tinyconv import Linear
    >>> arguments(Linear(3, 4, bias=False))
    {'in_features': 3, 'out_features': 4, 'bias': False}
    """
    found = {}
    for name, parameter in constructor(type(made)).items():
        if hasattr(made, name):
            value = getattr(made, name)
            is_flag = isinstance(parameter.default, bool) and not isinstance(value, bool)
            found[name] = value is not None if is_flag else value
    return found


def shown_arguments(made: object, *, always: str = "", never: str = "") -> str:
    """Return the arguments of `made` for its repr: those without a default, or different from it.

    Numbers have six digits, and arrays are shown by their shape. Layers, which a repr shows as children, and
    parameters, which change, are left out.

    Args:
        made: an object whose constructor's arguments are attributes.
        always: the name of an argument that is always shown, and by name.
        never: the name of an argument that is never shown.
    """
    parameters, shown = constructor(type(made)), []
    for name, value in arguments(made).items():
        default = parameters[name].default
        is_required = default is inspect.Parameter.empty
        if name == never or hasattr(value, "children") or name in getattr(made, "_params", ()):
            continue
        if name == always or not (is_required or _equals(value, default)):
            shown.append(f"{name}={short(value)}")
        elif is_required:
            shown.append(short(value))
    return ", ".join(shown)


def short(value: Any) -> str:
    """Return `value` for a repr: six digits of a number, the shape of an array, else the type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{'x'.join(map(str, value.shape)) or 1} values>"
    if isinstance(value, (tuple, list)) and len(value) < 8:
        return f"({', '.join(map(short, value))}{',' * (len(value) == 1)})"
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, (bool, int, str)) or hasattr(type(value), "step"):
        return reprlib.repr(value) if isinstance(value, str) else repr(value)  # that of an optimiser is short
    return f"<{type(value).__name__}>"  # the address in its own repr differs in each process


def _equals(value: Any, default: Any) -> bool:
    """Whether `value` is `default`, or its normal form: (1, 1) for 1."""
    if value is default or default is None or hasattr(value, "dtype"):
        return value is default
    return bool(value == default or (isinstance(value, tuple) and value == (default,) * len(value)))

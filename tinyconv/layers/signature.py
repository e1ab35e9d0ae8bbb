"""The arguments that a layer or a loss was made with, as its attributes tell them."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

# Arguments that only the constructor needs, and that are not kept.
_PASSING = ("dtype", "generator")


def _constructor(kind: type) -> Mapping[str, inspect.Parameter]:
    """Name -> parameter of the constructor of `kind`, but for `dtype`, `generator` and *args."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(kind).parameters.items()
    return MappingProxyType({n: p for n, p in parameters if n not in _PASSING and p.kind not in variable})


constructor: Callable[[type], Mapping[str, inspect.Parameter]] = functools.cache(_constructor)


def arguments(made: object) -> dict[str, Any]:
    """Return name -> value of the arguments that would make an object like `made`.

    They are read from the attributes of the same names; arguments without such an attribute are left out.
    Where the argument says whether there is something (`bias=True`), the attribute may be that something.

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


def shown_arguments(made: object) -> str:
    """The arguments of `made` for its repr: those without a default, and others where they differ from it.

    Arrays and layers are left out.
    """
    parameters, shown = constructor(type(made)), []
    for name, value in arguments(made).items():
        default = parameters[name].default
        if hasattr(value, "dtype") or hasattr(value, "children"):
            continue
        if default is inspect.Parameter.empty:
            shown.append(f"{value!r}")
        elif not _equals(value, default):
            shown.append(f"{name}={value!r}")
    return ", ".join(shown)


def _equals(value: Any, default: Any) -> bool:
    """Whether `value` is `default`, or its normal form: (1, 1) for 1."""
    return bool(value == default or (isinstance(value, tuple) and value == (default,) * len(value)))

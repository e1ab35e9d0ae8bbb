"""Packages that only some functions need."""

from importlib import import_module
from typing import Any


def optional(name: str, message: str) -> Any:
    """Return the module `name`; where it is not installed, `message` says what to install.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(message) from error

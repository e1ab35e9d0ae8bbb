"""Hypothesis; where it is not installed, names with which the same modules import and its tests skip."""

from functools import wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

__all__ = ["HealthCheck", "assume", "event", "given", "settings", "st"]

if TYPE_CHECKING or find_spec("hypothesis"):
    from hypothesis import HealthCheck, assume, event, given, settings
    from hypothesis import strategies as st
else:
    from unittest.mock import MagicMock

    HealthCheck = assume = event = st = MagicMock()  # a strategy is built when its module is imported

    reason = "hypothesis draws the cases, and is not installed"

    def given(*strategies, **named):
        def skipping(test):
            return pytest.mark.skip(reason=reason)(wraps(test)(lambda *_, **__: pytest.skip(reason)))

        return skipping

    def settings(*profile, **options):
        return lambda test: test

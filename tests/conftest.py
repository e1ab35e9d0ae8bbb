"""Fixtures of several files, and a table of how many of PyTorch's own samples agreed, after the tests.

For the table see test_pytorch_samples.py; "rounding" counts those of the passed that differ by more than the
tolerance, but only by rounding.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tinyconv.vectors import write_suite

COLUMNS = ("float64", "float32", "error inputs")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: "pytest.TempPathFactory") -> Path:
    """The folder of the conformance suite, as it is written."""
    folder = tmp_path_factory.mktemp("suite")
    write_suite(folder)
    return folder


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], ModuleType]]:
    """Imports a script from a folder by its name, and forgets it and what it imports from there."""
    folders = set()

    def import_from(folder: Path, name: str) -> ModuleType:
        folders.add(folder)
        monkeypatch.syspath_prepend(str(folder))
        return import_module(name)

    yield import_from
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent in folders:
            del sys.modules[name]


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for count in _counts(terminalreporter):
        operators = tables.setdefault(count["table"], {})
        operators.setdefault(count["operator"], {})[count["column"]] = count
    for title, operators in sorted(tables.items(), reverse=True):
        terminalreporter.write_sep("-", f"PyTorch's own samples: {title}")
        titles = "".join(f"{title:>13}" for title in (*COLUMNS, "rounding"))
        terminalreporter.write_line(f"{'passed of listed':<48}{titles}  skipped")
        for operator, counts in sorted(operators.items()):
            terminalreporter.write_line(_row(operator, counts))
        terminalreporter.write_line(_row("total", _totals(operators)))


def _counts(terminalreporter: "pytest.TerminalReporter") -> Iterator[dict[str, Any]]:
    """What the runner recorded with its tests."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                yield from (value for key, value in report.user_properties if key == "pytorch samples")


def _row(operator: str, counts: Mapping[str, Any]) -> str:
    cells = [f"{counts[c]['passed']}/{counts[c]['listed']}" if c in counts else "-" for c in COLUMNS]
    skipped: Counter[str] = sum((Counter(count["skipped"]) for count in counts.values()), Counter())
    rounding = sum(count["rounding"] for count in counts.values())
    reasons = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
    numbers = "".join(f"{cell:>13}" for cell in (*cells, rounding or "-"))
    return f"{operator:<48}{numbers}  {reasons}".rstrip()


def _totals(operators: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    for counts in operators.values():
        for column, count in counts.items():
            total = totals.setdefault(column, {"passed": 0, "listed": 0, "rounding": 0, "skipped": Counter()})
            for key in ("passed", "listed", "rounding"):
                total[key] += count[key]
            total["skipped"] += Counter(count["skipped"])
    return totals

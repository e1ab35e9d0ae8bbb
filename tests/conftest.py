"""After the tests, a table of how many of PyTorch's own samples agreed (see test_pytorch_samples.py)."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

COLUMNS = ("float64", "float32", "error inputs")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for count in _counts(terminalreporter):
        operators = tables.setdefault(count["table"], {})
        operators.setdefault(count["operator"], {})[count["column"]] = count
    for title, operators in sorted(tables.items(), reverse=True):
        terminalreporter.write_sep("-", f"PyTorch's own samples: {title}")
        terminalreporter.write_line(
            f"{'passed of listed':<48}" + "".join(f"{c:>13}" for c in COLUMNS) + "  skipped"
        )
        for operator, counts in sorted(operators.items()):
            terminalreporter.write_line(_row(operator, counts))
        terminalreporter.write_line(_row("total", _totals(operators)))


def _counts(terminalreporter: pytest.TerminalReporter) -> Iterator[dict[str, Any]]:
    """What the runner recorded with its tests."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                yield from (value for key, value in report.user_properties if key == "pytorch samples")


def _row(operator: str, counts: Mapping[str, Any]) -> str:
    cells = [f"{counts[c]['passed']}/{counts[c]['listed']}" if c in counts else "-" for c in COLUMNS]
    skipped: Counter[str] = sum((Counter(count["skipped"]) for count in counts.values()), Counter())
    reasons = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
    return f"{operator:<48}" + "".join(f"{cell:>13}" for cell in cells) + f"  {reasons}".rstrip()


def _totals(operators: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    for counts in operators.values():
        for column, count in counts.items():
            total = totals.setdefault(column, {"passed": 0, "listed": 0, "skipped": Counter()})
            total["passed"] += count["passed"]
            total["listed"] += count["listed"]
            total["skipped"] += Counter(count["skipped"])
    return totals

"""What pytest leaves out where an optional package is not installed."""

from importlib.util import find_spec

import pytest

NEEDS = {
    "flask": "tinyconv/web/server.py",
    "matplotlib": "tinyconv/plots/shown.py",
    "torch": "tinyconv/convert/torch_modules.py",
}
collect_ignore = [path for package, path in NEEDS.items() if not find_spec(package)]

# The beginnings of the names of examples that need a package.
EXAMPLES = {
    "matplotlib": [f"tinyconv.plots.{name}." for name in ("grids", "network", "training", "unfold")],
    "onnx": ["tinyconv.convert.onnx_file."],
    "torch": ["tinyconv.convert.pytorch."],
}
MPI = "tinyconv.training.communicator.MPICommunicator"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the examples that need a package that is not installed."""
    skipped = {
        name: f"needs {package}"
        for package, names in EXAMPLES.items()
        if not find_spec(package)
        for name in names
    }
    skipped[MPI] = "a process in which MPI runs must not be forked; tests/test_mpi.py runs it"
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            for name, reason in skipped.items():
                if item.name.startswith(name):
                    item.add_marker(pytest.mark.skip(reason=reason))

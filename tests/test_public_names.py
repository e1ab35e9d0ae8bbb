"""What a reader sees of the package: its names, and the signatures that `help` shows."""

import doctest
import inspect
import pydoc
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.arrays
from tests.test_examples import run


def functions_and_methods() -> Iterator[tuple[str, Any]]:
    for name, value in vars(tc.functional).items():
        if callable(value):
            yield f"functional.{name}", value
    for name in vars(tc)["__all__"]:
        value = getattr(tc, name)
        if inspect.isclass(value):
            for method, function in inspect.getmembers(value, inspect.isfunction):
                yield f"{name}.{method}", function
        elif inspect.isfunction(value):
            yield name, value


def test_signatures_call_an_array_by_its_name() -> None:
    named = 0
    for name, function in functions_and_methods():
        signature = str(inspect.signature(function))
        assert "ndarray" not in signature, name
        assert "devices.Array" not in signature, name
        named += "Array" in signature
    assert named > 300
    assert "conv2d(input: Array, weight: Array, bias: Array | None = None," in pydoc.plain(
        pydoc.render_doc(tc.functional.conv2d)
    )
    assert str(inspect.signature(tc.functional.relu_backward)).endswith("-> Array")
    assert "-> tuple[Array, " in str(inspect.signature(tc.functional.max_pool2d_saved))
    assert str(inspect.signature(tc.Conv2d.forward)) == "(self, x: Array) -> Array"


def test_the_annotations_are_still_those_of_arrays() -> None:
    annotation: Any = typing.get_type_hints(tc.functional.conv2d)["input"]
    assert annotation is vars(tinyconv.arrays)["Array"]
    assert isinstance(np.zeros(2), annotation)
    assert issubclass(np.memmap, annotation)
    for value in (2.0, [2.0], np.float32(2), None):
        assert not isinstance(value, annotation)


MODULES = (
    "convert",
    "data",
    "functional",
    "init",
    "models",
    "optim",
    "plots",
    "reference",
    "gradients",
    "layers",
    "testing",
    "training",
    "vectors",
)


def functions_and_classes() -> Iterator[tuple[str, Any]]:
    """All that is public, but the plain loops of `reference`, which are examples themselves."""
    for module in ("tinyconv", *(f"tinyconv.{name}" for name in MODULES if name != "reference")):
        home = import_module(module)
        listed = vars(home).get("__all__")
        for name in dir(home) if listed is None else listed:
            value = getattr(home, name)
            is_own = listed is not None or getattr(value, "__module__", "").startswith(module)
            if is_own and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{module}.{name}", value


def test_every_public_function_and_class_has_an_example_that_runs() -> None:
    names = {f"{value.__module__}.{value.__qualname__}": name for name, value in functions_and_classes()}
    assert len(names) > 300
    tests = [
        test
        for home in {value.__module__ for _, value in functions_and_classes()}
        for test in doctest.DocTestFinder().find(import_module(home))
    ]
    run = {test.name for test in tests if any(doctest.SKIP not in one.options for one in test.examples)}
    assert not sorted(name for full, name in names.items() if full not in run)


def test_submodules_are_loaded_when_they_are_first_used() -> None:
    later = tuple(
        name
        for name in MODULES
        if name not in ("functional", "gradients", "init", "layers", "models", "optim")
    )
    code = f"""
import sys
import tinyconv as tc
for name in {later!r}:
    assert f"tinyconv.{{name}}" not in sys.modules, name
for name in {MODULES!r}:
    assert getattr(tc, name) is sys.modules[f"tinyconv.{{name}}"], name
assert "matplotlib" not in sys.modules and "tqdm" not in sys.modules
"""
    run("-c", code)


def test_dir_lists_the_public_submodules_and_f_is_functional() -> None:
    assert {*MODULES, "F"} <= {*dir(tc)} & {*vars(tc)["__all__"]}
    assert tc.F is tc.functional
    assert tc.plots.draw(tc.ReLU(), (1, 2)).startswith("<svg")


def test_dir_leaves_out_what_is_private() -> None:
    names = run("-c", "import tinyconv as tc; tc.plots, tc.vectors; print(*dir(tc))").split()
    assert {"__version__", "__doc__", *vars(tc)["__all__"]} <= {*names}
    assert not {"arguments", "arrays", "files", "gpu", "import_module", "recipes", "TYPE_CHECKING"} & {*names}


@pytest.mark.parametrize("name", ["commands", "recipes", "nothing"])
def test_other_names_are_refused(name: str) -> None:
    shown = run("-c", f"import tinyconv as tc; tc.{name}", code=1)
    assert f"module 'tinyconv' has no attribute '{name}'" in shown

"""examples/kernel: a convolution in C, right and with five mistakes, and what is said of each."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_examples import ENVIRONMENT, ROOT

EXAMPLE = Path(__file__).parent.parent / "examples" / "kernel"
# Mistake -> the tensors that differ, and the names that diagnose gives it.
NAMED = {
    1: {"output": "kernel rotated"},
    2: {"grad_input": "channels not swapped"},
    3: {"output": "padding off by one"},
    4: {"grad_weight": "scaled", "grad_bias": "scaled"},
    5: {"grad_input": "stride ignored"},
}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import check

    yield check
    sys.modules.pop("check")


def compiler(check: ModuleType) -> str:
    cc: str | None = check.compiler()
    if cc is None:
        pytest.skip("the example needs a C compiler: $CC, cc, gcc or clang")
    return cc


@pytest.mark.parametrize("attributes", ["ATTRIBUTES", "GROUPED"])
def test_the_right_kernel_agrees(check: ModuleType, attributes: str, tmp_path: Path) -> None:
    program = check.compiled(compiler(check), tmp_path)
    case = tmp_path / "case"
    check.write_vectors("conv2d", getattr(check, attributes), check.INPUT_SHAPE, case)
    found = check.judged(program, case, tmp_path / "mine")
    assert found.names("agrees") == ["output", "grad_input", "grad_weight", "grad_bias"]


@pytest.mark.parametrize("mistake", NAMED)
def test_each_mistake_is_named(check: ModuleType, mistake: int, tmp_path: Path) -> None:
    assert set(check.MISTAKES) == set(NAMED)
    program = check.compiled(compiler(check), tmp_path, mistake)
    case = tmp_path / "case"
    check.write_vectors("conv2d", check.ATTRIBUTES, check.INPUT_SHAPE, case)
    found = check.judged(program, case, tmp_path / "mine")
    wrong = [verdict for verdict in found.verdicts if verdict.status == "differs"]
    assert {verdict.name: verdict.mistakes[0].name for verdict in wrong} == NAMED[mistake]
    if mistake == 4:
        assert all("5 is the batch size" in verdict.sentence for verdict in wrong)


def test_the_right_kernel_passes_the_suites_cases(check: ModuleType, tmp_path: Path) -> None:
    from tinyconv.vectors import write_suite

    program = check.compiled(compiler(check), tmp_path)
    write_suite(tmp_path / "suite")
    for name in ("plain", "pointwise", "rectangular", "stride", "padding_large", "dilation"):
        found = check.judged(program, tmp_path / "suite" / "conv2d" / name, tmp_path / name)
        assert found.names("agrees") == [verdict.name for verdict in found.verdicts], name


def test_the_script_prints_all_of_it(check: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    compiler(check)
    assert check.main() == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"^mistake \d: ", said, re.M)) == 5
    assert said.count(": agrees") == 8
    assert said.count(": differs") == 6


def test_without_a_compiler_the_script_says_so(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert check.main() == 2
    assert "no C compiler" in capsys.readouterr().err


def test_the_commands_of_the_readme_print_what_it_says(check: ModuleType, tmp_path: Path) -> None:
    compiler(check)
    if os.name == "nt" or shutil.which("bash") is None:
        pytest.skip("the commands are for a POSIX shell")
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", readme, re.M | re.S)
    write_case, build_and_run, compare, shown = blocks[1:5]
    script = f'python() {{ {sys.executable} "$@"; }}\n{write_case}{build_and_run}{compare}'
    script = script.replace("cc ", f"{compiler(check)} ").replace("examples/", f"{ROOT}/examples/")
    done = subprocess.run(
        ["bash", "-ec", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr  # that of compare, where one tensor differs
    for text in (done.stdout, shown):  # the words around it are those of diagnose
        said = " ".join(text.split())
        assert "1,380 of 1,800 values" in said
        assert "stride (1, 1) in place of (2, 3)" in said
    assert shown.splitlines()[-1] == done.stdout.splitlines()[-1] == "3 of 4 tensors agree, 1 differs"

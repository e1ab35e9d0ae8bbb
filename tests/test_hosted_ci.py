"""The hosted CI runs .ci/run and README's test command, and pre-commit the checks of .ci/run."""

from typing import Any

import pytest

from tests.test_examples import ROOT
from tests.test_readme import code_blocks

yaml: Any = pytest.importorskip("yaml", reason="it reads the two files")


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = loaded(".github/workflows/ci.yml")["jobs"]
    return found


def test_the_jobs_run_ci_run_and_the_readmes_tests() -> None:
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs().items()}
    (tests,) = (
        line for block in code_blocks(ROOT / "README.md", "sh") for line in lines(block) if "pytest" in line
    )
    assert commands == {"everything": ["bash .ci/run"], "tests": [tests]}


def test_the_oldest_python_of_the_jobs_is_the_oldest_that_setup_allows() -> None:
    oldest = jobs()["tests"]["strategy"]["matrix"]["python"][0]
    assert f"python_requires = >={oldest}" in lines((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert jobs()["everything"]["steps"][1]["with"]["python-version"] == oldest


def test_pre_commit_runs_the_checks_that_ci_run_ends_with() -> None:
    hooks = [hook["entry"] for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    checks = lines((ROOT / ".ci" / "run").read_text(encoding="utf-8"))[-3:]
    assert {hook.replace(" --fix", "") for hook in hooks} == {
        check.replace(" --check", "").removesuffix(" .") for check in checks
    }

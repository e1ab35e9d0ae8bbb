"""README.md and docs/: their Python runs, their links lead somewhere, their picture can be made again.

.ci/run builds the site of docs/; what is tested here needs no Sphinx.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv
from tests.test_examples import DATA, ENVIRONMENT, ROOT, run
from tests.test_public_names import MODULES

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "RESULTS.md"]


def code_blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def name(page: Path) -> str:
    return page.relative_to(ROOT).with_suffix("").as_posix()


BLOCKS = [(page, block) for page in PAGES for block in code_blocks(page)]
CELLS = {
    page: "".join(re.sub("^:.*\n", "", cell, flags=re.MULTILINE) for cell in code_blocks(page, "{code-cell}"))
    for page in PAGES
}
TRAINING = next(block for block in code_blocks(DOCS / "training.md") if "trainer.fit" in block)
LAYER = next(block for _, block in BLOCKS if "class ReLU" in block)


def test_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{name(page)}-{number}")
        for number, (page, block) in enumerate(BLOCKS)
        if block != TRAINING
    ],
)
def test_the_python_of_the_pages_runs(block: str) -> None:
    run("-c", block)


@pytest.mark.parametrize("page", [page for page, code in CELLS.items() if code], ids=name)
def test_the_cells_of_the_pages_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "plots" in CELLS[page]:
        pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    monkeypatch.setitem(
        ENVIRONMENT, "PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'examples'}"
    )  # as conf.py does
    monkeypatch.setitem(ENVIRONMENT, "TINYCONV_DATA", str(DATA))
    run("-c", CELLS[page])


def test_the_training_script_is_short_and_runs() -> None:
    assert len(TRAINING.strip().splitlines()) < 15
    small = TRAINING.replace("mnist.train_images", "mnist.train_images[:2000]").replace(
        "mnist.train_labels", "mnist.train_labels[:2000]"
    )
    assert small != TRAINING
    accuracy = float(run("-c", small).split()[0])  # before the epoch's line, which goes to stderr
    assert accuracy > 0.5


def test_the_readmes_diagnosis_is_what_its_code_prints() -> None:
    code = next(block for block in code_blocks(ROOT / "README.md") if "tc.diagnose" in block)
    assert code_blocks(ROOT / "README.md", "text") == [run("-c", code)]


@pytest.mark.parametrize(
    "operator", ["relu", "sigmoid", "tanh", "gelu", "softplus", "silu", "elu", "leaky_relu"]
)
def test_the_readmes_layer_is_a_pattern_for_every_activation(operator: str) -> None:
    code, count = re.subn(r"\brelu(?=\(|_backward\()", operator, LAYER)
    assert count == 2
    found: dict[str, Any] = {}
    exec(code, found)
    x = np.random.default_rng(1).normal(size=(4, 5)) * 2
    np.testing.assert_array_equal(found["ReLU"]().forward(x), getattr(tinyconv.functional, operator)(x))
    assert tinyconv.gradcheck(found["ReLU"](), x) == (20, ())


def test_the_readme_has_the_two_commands() -> None:
    commands = [line for block in code_blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    assert [re.sub("^python -m pip install .* && ", "", line) for line in commands] == [
        "python examples/mnist.py",
        "python -m pytest",
    ]


# Links


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), link


def pages_from(page: Path) -> set[Path]:
    """The pages that a page links or lists."""
    links = re.findall(r"\]\(([\w./]+)\.md", page.read_text(encoding="utf-8"))
    listed = [line for block in code_blocks(page, "{toctree}") for line in block.splitlines()]
    found = (page.parent / f"{path}.md" for path in (*links, *listed) if not path.startswith(":"))
    return {path.resolve() for path in found} & {*PAGES}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    new = {ROOT / "README.md"}
    while new:
        reached |= new
        new = {found for page in new for found in pages_from(page)} - reached
    assert reached == {*PAGES}


@pytest.mark.parametrize("page", sorted((DOCS / "questions").glob("*.md")), ids=name)
def test_the_first_page_has_each_question_with_its_answer_of_five_lines(page: Path) -> None:
    found = re.search(r"^# (.*?)\n\n(- .*?)\n\n", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    question, answer = found.groups()
    assert len(re.findall("^- ", answer, re.MULTILINE)) == 5
    assert f"### {question}\n\n{answer}\n\n" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_the_reference_has_every_public_name() -> None:
    modules = ["tinyconv", *(f"tinyconv.{module}" for module in MODULES)]
    code = f"""
import runpy
from importlib import import_module

conf = runpy.run_path("docs/conf.py")
shown = {{
    getattr(import_module(module), name)
    for _, _, module, homes in conf["REFERENCE"]
    for names in conf["families"](module, homes).values()
    for name in names
}}
assert len(shown) > 400
for module in {modules!r}:
    for name, value in conf["public_names"](module):
        assert value in shown, (module, name)
"""
    run("-c", code)


def test_the_reference_has_every_command() -> None:
    commands = {path.stem for path in (ROOT / "tinyconv" / "commands").glob("*.py")} - {"__init__", "errors"}
    shown = re.findall(r'^show_help\("(\w+)"\)$', CELLS[DOCS / "reference" / "commands.md"], re.MULTILINE)
    assert {*shown} == commands


def test_files_and_modules_that_the_pages_name_exist() -> None:
    for page in LINKING[:-2]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tinyconv|examples|benchmarks|tests|docs)/[\w./]*)`", text):
            assert (ROOT / name).exists(), (page.name, name)
        for script in re.findall(r"python ((?:examples|benchmarks)/\w+\.py)", text):
            assert (ROOT / script).exists(), (page.name, script)


# The picture


def texts(svg: str) -> list[str]:
    """All that is written in a picture of matplotlib's, which draws letters as paths, after a comment."""
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.DOTALL)]


def test_the_picture_of_a_convolution_is_what_its_command_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    again = tmp_path / "convolution.svg"
    run(str(ROOT / "examples" / "unfold_view.py"), "--out", str(again))
    committed = (ROOT / "docs" / "convolution.svg").read_text(encoding="utf-8")
    assert texts(again.read_text(encoding="utf-8")) == texts(committed)
    assert "Gradient with respect to weight" in texts(committed)
    assert "docs/convolution.svg" in (ROOT / "examples" / "unfold_view.py").read_text(encoding="utf-8")


def test_the_picture_is_small_wide_enough_to_read_and_has_a_ground_of_its_own() -> None:
    svg = (ROOT / "docs" / "convolution.svg").read_text(encoding="utf-8")
    assert len(svg) < 100_000
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    width, height = float(size[1]), float(size[2])
    smallest = 8.5 * 800 / width  # the numbers' height in pixels, shown 800 wide
    assert smallest > 10
    assert height < width
    ground = re.search(r'<g id="patch_1">\s*<path d="M 0 ([\d.]+)[^"]*" style="fill: #ffffff"', svg)
    assert ground is not None
    assert float(ground[1]) == pytest.approx(height, abs=1)

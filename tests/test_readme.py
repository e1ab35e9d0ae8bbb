"""README.md and docs/: their Python runs, their links lead somewhere, their picture can be made again."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv
from tests.test_examples import ROOT, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "RESULTS.md"]


def code_blocks(page: Path, language: str = "python") -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


BLOCKS = [(page, block) for page in PAGES for block in code_blocks(page)]
TRAINING = next(block for _, block in BLOCKS if "trainer.fit" in block)
LAYER = next(block for _, block in BLOCKS if "class ReLU" in block)


def test_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{page.stem}-{number}")
        for number, (page, block) in enumerate(BLOCKS)
        if block != TRAINING
    ],
)
def test_the_python_of_the_pages_runs(block: str) -> None:
    run("-c", block)


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


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.stem)
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


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = re.findall(r"\]\((docs/[\w.]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {ROOT / link for link in linked} == {*PAGES} - {ROOT / "README.md"}


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

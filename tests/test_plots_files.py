"""Pictures in files of every kind, whole or not at all, and as a notebook shows them."""

import copy
import io
import pickle
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tinyconv import plots
from tinyconv.training import Epoch, History

HISTORY = History([Epoch(1, 3, 0.1, 1.0, 0.5, 0.9, 0.6, 1.0, 1.0)], [2.0, 1.0, 0.5])


def image() -> Any:
    return np.random.default_rng(0).standard_normal((1, 6, 6)).astype(np.float32)


def classifier() -> tc.Sequential:
    return tc.Sequential(tc.Conv2d(1, 2, 3, generator=0), tc.Flatten(), tc.Linear(32, 3, generator=0))


FIGURES: dict[str, Callable[..., Any]] = {
    "activations": lambda path=None: plots.activations(classifier(), image(), path),
    "filters": lambda path=None: plots.filters(classifier(), path),
    "image_grid": lambda path=None: plots.image_grid(np.eye(4)[None], 1, path),
    "learning_curves": lambda path=None: plots.learning_curves(HISTORY, path),
    "saliency": lambda path=None: plots.saliency(classifier(), image(), path=path),
    "scatter": lambda path=None: plots.scatter(np.eye(2), np.arange(2), path),
    "training_report": lambda path=None: plots.training_report(
        HISTORY, np.ones((2, 3, 3)), np.array([0, 1]), np.eye(2)[::-1], path
    ),
    "unfold_view": lambda path=None: plots.unfold_view(
        np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), path=path
    ),
}


def draw(path: Any = None, **options: Any) -> Any:
    return plots.draw(classifier(), (1, 1, 6, 6), path, **options)


@pytest.fixture
def _matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")


def check_png(content: bytes) -> None:
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(content), format="png")
    assert min(pixels.shape[:2]) > 30
    assert len(np.unique(pixels)) > 1


def test_every_plot_function_is_tried_here() -> None:
    assert {*FIGURES, "draw"} == {*plots.__all__}


# Files


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize("name", FIGURES)
def test_the_ending_of_the_path_says_the_format(name: str, tmp_path: Path) -> None:
    begins = {"a.png": b"\x89PNG", "b.PDF": b"%PDF", "c.svg": b"<?xml", "d.tar.jpg": b"\xff\xd8"}
    for file, first in begins.items():
        FIGURES[name](tmp_path / file)
        FIGURES[name](str(tmp_path / file))
        assert (tmp_path / file).read_bytes().startswith(first)
    check_png((tmp_path / "a.png").read_bytes())
    assert ET.parse(tmp_path / "c.svg").getroot().tag.endswith("}svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(begins)


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("file", ["curve.txt", "curve", ".png", "png"])
def test_an_unknown_ending_is_refused_with_those_that_work(name: str, file: str, tmp_path: Path) -> None:
    message = rf"^`path` \(='.*{re.escape(file)}'\) must end in one of .*\.pdf, .*\.png, .*\.svg"
    with pytest.raises(ValueError, match=message):
        FIGURES[name](tmp_path / file)
    assert not [*tmp_path.iterdir()]


def test_a_drawing_is_written_as_the_ending_says(tmp_path: Path) -> None:
    for file, first in {"net.svg": "<svg", "net.dot": "digraph", "NET.SVG": "<svg"}.items():
        drawing = draw(tmp_path / file)
        assert (tmp_path / file).read_text(encoding="utf-8") == drawing
        assert drawing.startswith(first)
    assert draw(tmp_path / "net.dot", format="dot") == draw(format="dot")
    assert draw() == draw(format="svg") != draw(format="dot")


def test_a_drawing_in_a_file_has_its_characters(tmp_path: Path) -> None:
    plots.draw(tc.Sequential({"é名": tc.ReLU()}), (1, 2), tmp_path / "net.svg")
    texts = [element.text for element in ET.parse(tmp_path / "net.svg").iter()]
    assert "é名: ReLU" in texts


@pytest.mark.parametrize("file", ["net.png", "net", "dot"])
def test_a_drawing_with_another_ending_is_refused(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^`path` \(='.*{file}'\) must end in one of \.dot, \.svg$"):
        draw(tmp_path / file)
    with pytest.raises(
        ValueError, match=r"^`format` \(='dot'\) must be 'svg', as `path` \(='net.svg'\) ends$"
    ):
        draw("net.svg", format="dot")
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize("write", [draw, FIGURES["scatter"]], ids=["draw", "scatter"])
def test_a_failed_write_leaves_the_old_file(
    write: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    path = tmp_path / "picture.svg"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write(path)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.svg"]
    assert path.read_text() == "old"


# Notebooks


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_shows_itself(name: str) -> None:
    check_png(FIGURES[name]()._repr_png_())


@pytest.mark.usefixtures("_matplotlib")
def test_a_figure_is_matplotlibs_and_can_be_pickled() -> None:
    from matplotlib.figure import Figure

    figure = plots.learning_curves(HISTORY)
    assert isinstance(figure, Figure)
    check_png(pickle.loads(pickle.dumps(figure))._repr_png_())


def test_a_drawing_is_text_that_shows_itself() -> None:
    for drawing in (draw(), draw(format="dot")):
        assert isinstance(drawing, str)
        copies: list[Any] = [drawing, copy.deepcopy(drawing), pickle.loads(pickle.dumps(drawing))]
        for same in copies:
            assert same == drawing
            assert same._repr_svg_() == draw()
    assert ET.fromstring(draw()._repr_svg_()).tag.endswith("}svg")


@pytest.mark.usefixtures("_matplotlib")
def test_ipython_shows_both() -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="needs IPython")
    shown, _ = formatters.DisplayFormatter().format(FIGURES["scatter"]())
    check_png(shown["image/png"])
    shown, _ = formatters.DisplayFormatter().format(draw(format="dot"))
    assert shown["image/svg+xml"].startswith("<svg")


# Curves


def epochs(count: int, steps: int, **values: Any) -> list[Epoch]:
    usual: dict[str, Any] = {
        "steps": steps,
        "lr": 0.1,
        "train_loss": 1.5,
        "train_accuracy": 0.5,
        "validation_loss": 1.25,
        "validation_accuracy": 0.625,
        "seconds": 1.0,
        "images_per_second": 1.0,
    }
    return [
        Epoch(epoch=i + 1, **{k: v[i] if isinstance(v, list) else v for k, v in (usual | values).items()})
        for i in range(count)
    ]


def curves(history: History) -> dict[str, dict[str, Any]]:
    """Of each panel, by its title: the lines with a label."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    figure = plots.learning_curves(history)
    figure._repr_png_()
    return {
        axes.get_title(): {
            str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")
        }
        for axes in figure.axes
    }


def points(line: Any) -> list[list[float]]:
    return np.asarray(line.get_xydata()).tolist()  # type: ignore[no-any-return]


def test_curves_of_an_ordinary_run_show_each_epoch_where_it_was() -> None:
    panels = curves(History(epochs(2, 3, train_loss=[4.0, 2.0]), [5.0, 4.0, 3.0, 2.5, 2.0, 1.5]))
    assert list(panels) == ["Loss", "Accuracy"]
    losses = panels["Loss"]
    assert list(losses) == ["training (steps)", "training (epochs)", "validation"]
    assert points(losses["training (steps)"])[-1] == [6, 1.5]
    assert points(losses["training (epochs)"]) == [[2, 4.0], [5, 2.0]]
    assert points(losses["validation"]) == [[3, 1.25], [6, 1.25]]
    assert losses["validation"].axes.get_yscale() == "log"
    accuracies = panels["Accuracy"]
    assert points(accuracies["training"]) == [[1, 50], [2, 50]]
    assert points(accuracies["validation"]) == [[1, 62.5], [2, 62.5]]


def test_many_steps_are_smoothed() -> None:
    losses = [3.0, 1.0] * 200
    line = curves(History([], losses))["Loss"]["training (4 steps)"]
    assert points(line)[:2] == [[2.5, 2.0], [3.5, 2.0]]
    assert len(points(line)) == 397
    pale = line.axes.lines[0]
    assert pale.get_alpha() < 0.5
    assert points(pale)[0] == [1, 3.0]


def test_the_unfinished_epoch_is_drawn() -> None:
    losses = curves(History(epochs(1, 2), [3.0, 2.0, 1.0]))["Loss"]
    assert points(losses["training (steps)"])[-1] == [3, 1.0]
    assert points(losses["training (epochs)"]) == [[1.5, 1.5]]


def test_what_there_is_not_is_left_out() -> None:
    plain = curves(
        History(epochs(2, 1, train_accuracy=None, validation_accuracy=None, validation_loss=None), [1.0, 2.0])
    )
    assert {title: list(lines) for title, lines in plain.items()} == {
        "Loss": ["training (steps)", "training (epochs)"]
    }
    assert curves(History()) == {"Loss": {}}
    some = curves(History(epochs(2, 1, validation_loss=[None, 3.0], train_accuracy=None), [1.0, 2.0]))
    assert points(some["Loss"]["validation"])[1] == [2, 3.0]
    assert list(some["Accuracy"]) == ["validation"]


def test_the_learning_rate_is_drawn_where_it_changes() -> None:
    panels = curves(History(epochs(3, 1, lr=[0.1, 0.1, 0.01]), [1.0, 1.0, 1.0]))
    assert list(panels) == ["Loss", "Accuracy", "Learning rate"]
    (line,) = plots.learning_curves(History(epochs(2, 1, lr=[0.5, 0.25]), [])).axes[-1].lines
    assert points(line) == [[1, 0.5], [2, 0.25]]


def test_losses_that_are_not_finite_are_counted_and_left_out() -> None:
    losses = [1.0] * 300
    losses[100] = np.nan
    losses[299] = np.inf
    panels = curves(History(epochs(1, 300, train_loss=np.nan), losses))
    assert next(iter(panels)) == "Loss, 2 of 300 steps not finite"
    lines = panels["Loss, 2 of 300 steps not finite"]
    assert list(lines) == ["training (3 steps)", "validation"]
    np.testing.assert_array_equal(lines["training (3 steps)"].get_ydata(), 1)
    assert curves(History([], [np.nan] * 3)) == {"Loss, 3 of 3 steps not finite": {}}


@pytest.mark.parametrize(
    ("losses", "scale"), [([1.0, -1.0], "linear"), ([0.0, 0.0], "linear"), ([1.0, 0.0], "log")]
)
def test_the_scale_is_logarithmic_where_it_can_be(losses: list[float], scale: str) -> None:
    assert curves(History([], losses))["Loss"]["training (steps)"].axes.get_yscale() == scale


@pytest.mark.parametrize("losses", [[2.30, 2.31], [1e-8, 1.0], [0.3, 0.1]], ids=str)
def test_the_losses_axis_has_plain_numbers(losses: list[float]) -> None:
    axes = curves(History([], losses))["Loss"]["training (steps)"].axes
    low, high = axes.get_ylim()
    labels = [
        label.get_text()
        for label, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
        if low <= at <= high
    ]
    assert 2 <= len(labels) <= 12
    assert all(float(label.replace("\N{MINUS SIGN}", "-")) > 0 for label in labels)


@pytest.mark.parametrize("width", [7.0, 16.0])
def test_nothing_is_cut_off_or_overlaps(width: float) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    rates = [0.1 / 2**i for i in range(12)]
    losses = np.geomspace(2.3, 0.01, 12 * 40).tolist()
    figure: Any = plots.learning_curves(History(epochs(12, 40, lr=rates), losses))
    figure.set_size_inches(width, 4)
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for left, right in pairwise(boxes):
        assert left.x1 <= right.x0
    for box in boxes:
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1

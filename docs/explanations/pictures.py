"""Drawings of small arrays, for the pages of this folder."""

from collections.abc import Callable, Iterable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib_inline.backend_inline import set_matplotlib_formats

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8a8a"
PALE = {BLUE: "#cfe5f2", ORANGE: "#fbe3c4", GREEN: "#cdebe1", GREY: "#e9e9e9"}
COLORS = [BLUE, ORANGE, GREEN, GREY]
CELL = 0.3  # inches

set_matplotlib_formats("svg")
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9, "figure.facecolor": "white"})


def row_of_grids(*columns: int, rows: int = 3, lines: int = 1) -> tuple[Figure, Any]:
    """Return a figure with axes for grids of so many columns side by side, in some lines."""
    width, height = sum(columns) + 1.2 * len(columns), lines * (rows + 1.5)
    figure, axes = plt.subplots(
        lines,
        len(columns),
        figsize=(CELL * width, CELL * height),
        width_ratios=columns,
        layout="constrained",
        squeeze=False,
    )
    return figure, axes if lines > 1 else axes[0]


def grid(
    axes: Axes,
    values: Any,
    title: str = "",
    fill: Callable[[int, int], str | None] = lambda i, j: None,
    frames: Iterable[tuple[int, int, int, int, str]] = (),
    fontsize: float = 8.5,
    size: tuple[int, int] | None = None,
) -> None:
    """Draw the numbers or words of a matrix in cells of equal size.

    `fill(i, j)` is one of the colors above, or None; a frame is (row, column, rows, columns, color). There is
    place for `size`, rows and columns, by default those of the matrix.
    """
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            color = fill(i, j)
            ground = PALE[color] if color else "white"
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=ground, edgecolor=GREY, linewidth=0.8))
            text = value if isinstance(value, str) else f"{value:g}"
            axes.text(j + 0.5, i + 0.52, text, ha="center", va="center", fontsize=fontsize)
    for i, j, height, width, color in frames:
        axes.add_patch(Rectangle((j, i), width, height, fill=False, edgecolor=color, linewidth=2.2, zorder=3))
    rows, columns = size or (len(values), len(values[0]))
    axes.set(xlim=(-0.1, columns + 0.1), ylim=(rows + 0.1, -0.1), aspect="equal", anchor="NW")
    axes.set_title(title, loc="left")
    axes.set_axis_off()

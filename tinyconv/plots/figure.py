"""What all pictures share: a figure to draw on, and its file."""

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str] | None


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> "Figure":
    """A figure of a size in inches, which needs no screen.

    Raises:
        ImportError: there is no matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError("pictures need matplotlib: pip install 'tinyconv[plots]'") from error
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def saved(figure: "Figure", path: Path) -> "Figure":
    """`figure`, written to `path` if there is one: a PNG, where the ending says no other format."""
    if path is not None:
        figure.savefig(path, dpi=110, bbox_inches="tight")
    return figure

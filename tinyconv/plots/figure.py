"""Helpers of all pictures: a figure to draw on, and its file."""

import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from tinyconv.files import write_whole
from tinyconv.optional import optional

if TYPE_CHECKING:
    from tinyconv.plots.shown import Figure

Path = str | os.PathLike[str] | None


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> "Figure":
    """Return a figure of a size in inches, which does not need a screen.

    Raises:
        ImportError: matplotlib is not installed.
    """
    optional("matplotlib", "pictures need matplotlib: pip install 'tinyconv[plots]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from tinyconv.plots.shown import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def saved(figure: "Figure", path: Path) -> "Figure":
    """Return `figure`; write it to `path`, if there is one, completely or not at all.

    Raises:
        ValueError: matplotlib does not have a format for the ending of `path`.
        OSError: the file cannot be written.
    """
    if path is not None:
        format = format_of(path, figure.canvas.get_supported_filetypes())
        write_whole(pathlib.Path(path), figure.content(format))
    return figure


def format_of(path: str | os.PathLike[str], formats: Iterable[str]) -> str:
    """Return the ending of `path`, without the dot and in lower case.

    Raises:
        ValueError: it is none of `formats`.
    """
    ending = pathlib.PurePath(path).suffix.lower().removeprefix(".")
    if ending not in formats:
        endings = ", ".join(f".{format}" for format in sorted(formats))
        raise ValueError(f"`path` (={os.fspath(path)!r}) must end in one of {endings}")
    return ending

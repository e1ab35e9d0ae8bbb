"""Pictures of many samples at once: a grid of images, a scatter of points; they need matplotlib."""

from typing import TYPE_CHECKING

import numpy as np

from tinyconv.arguments import integer
from tinyconv.arrays import Array
from tinyconv.plots.figure import Path, new_figure, saved

if TYPE_CHECKING:
    from tinyconv.plots.shown import Figure


def image_grid(images: Array, columns: int, path: Path = None) -> "Figure":
    """Draw images of one channel row by row, with lines between them.

    Black is the smallest value of all images, white the largest.

    Args:
        images: (N, H, W) or (N, 1, H, W).
        columns: number of images in a row; the last row may have fewer.
        path: the picture's file, if any; its ending is the format, one of matplotlib's.

    Raises:
        ValueError: `images` has another shape or is empty; `columns` is less than 1; an
            unknown ending of `path`.
        TypeError: `columns` is not an integer.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    Example: `image_grid(mnist.test_images[:40], 10, "digits.png")`

    >>> figure = image_grid(np.zeros((6, 28, 28)), columns=3)  # two rows, of 0.6 inches each
    >>> figure.get_size_inches().round(2).tolist()
    [1.8, 1.2]
    """
    pixels = _without_channel(images)
    columns = integer("columns", columns)
    count, height, width = pixels.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + 1, width + 1), np.nan)  # NaN: nothing is drawn there
    cells[:count, :height, :width] = pixels
    table = cells.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    figure = new_figure(0.6 * columns, 0.6 * rows * height / width, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(table.reshape(rows * (height + 1), -1)[:-1, :-1], cmap="gray", interpolation="nearest")
    axes.set_axis_off()
    return saved(figure, path)


def scatter(points: Array, labels: Array, path: Path = None) -> "Figure":
    """Draw points of the plane, with a colour for each label.

    Args:
        points: (N, 2).
        labels: (N,), each of which the picture's legend shows once; the colours repeat after ten.
        path: the picture's file, if any; its ending is the format, one of matplotlib's.

    Raises:
        ValueError: shapes other than these; an unknown ending of `path`.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    Example: `scatter(encoder.predict(images), labels, "codes.png")`

    >>> figure = scatter(np.zeros((4, 2)), np.array([7, 1, 7, 1]))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['1', '7']
    """
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"`points` (of shape {points.shape}) must have the form (N, 2)")
    if labels.shape != points.shape[:1]:
        raise ValueError(f"`labels` (of shape {labels.shape}) must have the shape {points.shape[:1]}")
    figure = new_figure(8, 7)
    axes = figure.subplots()
    for i, label in enumerate(np.unique(labels)):
        own = points[labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=5, alpha=0.6, linewidths=0, color=f"C{i}", label=str(label))
    if len(points):
        axes.legend(markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    return saved(figure, path)


def _without_channel(images: Array) -> Array:
    """`images` as (N, H, W)."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] != 1) or not images.size:
        raise ValueError(f"`images` (of shape {images.shape}) must have the form (N, H, W) or (N, 1, H, W)")
    return images if images.ndim == 3 else images[:, 0]

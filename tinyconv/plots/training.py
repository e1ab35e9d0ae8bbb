"""Pictures of a training run; they need matplotlib (`pip install tinyconv[plots]`)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.functional import log_softmax
from tinyconv.plots.figure import Path, new_figure, saved
from tinyconv.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tinyconv.plots.shown import Figure


ACCURACIES = {"training": "train_accuracy", "validation": "validation_accuracy"}  # fields by their label


def learning_curves(history: History, path: Path = None) -> "Figure":
    """Draw the losses of a training run, the accuracies if there are any, the learning rate if it changes.

    The loss of each step is drawn in a pale colour, and as a running mean over a hundredth of the steps; the
    mean of each epoch is drawn at its middle, and the validation loss at its end. The axis of the losses is
    logarithmic, unless one of them is negative. Losses that are not finite are left out, and the title has
    the number of these steps.

    Args:
        history: that of a training run, finished or not: what `Trainer.fit` returns, or `trainer.history`.
        path: the picture's file, if any; its ending is the format, one of matplotlib's.

    Returns:
        The figure, which a notebook shows.

    Raises:
        ValueError: matplotlib does not have a format for the ending of `path`.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    Example: `learning_curves(trainer.fit(data, epochs=5), "curves.png")`

    >>> import tempfile
    >>> from tinyconv.training import Epoch
    >>> history = History([Epoch(1, 2, 0.1, 0.7, 0.5, 0.6, 0.875, 1.5, 100.0)], [0.8, 0.6])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     figure = learning_curves(history, f"{folder}/curves.png")
    >>> [axes.get_title() for axes in figure.axes]
    ['Loss', 'Accuracy']
    """
    panels: list[Callable[[Axes, History], None]] = [_draw_losses]
    if any(np.isfinite(_by_epoch(history, field)).any() for field in ACCURACIES.values()):
        panels.append(_draw_accuracies)
    if len({epoch.lr for epoch in history.epochs}) > 1:
        panels.append(_draw_learning_rate)
    figure = new_figure(4.8 * len(panels), 4)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, history)
    return saved(figure, path)


def training_report(
    history: History,
    images: Array,
    labels: Array,
    logits: Array,
    path: Path = None,
    count: int = 16,
) -> "Figure":
    """Draw loss and accuracy curves, the confusion matrix, and the most confident wrong predictions.

    Args:
        history: that of the training run.
        images: test images, (N, H, W).
        labels: their classes, (N,).
        logits: the model's output for them, (N, C).
        path: the picture's file, if any; its ending is the format, one of matplotlib's.
        count: the largest number of wrong images to show.

    Returns:
        The figure, which a notebook shows.

    Raises:
        ValueError: matplotlib does not have a format for the ending of `path`.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    >>> from tinyconv.training import Epoch
    >>> history = History([Epoch(1, 2, 0.1, 0.7, 0.5, 0.6, 0.875, 1.5, 100.0)], [0.8, 0.6])
    >>> images, labels, logits = np.zeros((2, 28, 28)), np.array([0, 1]), np.array([[1.0, 0.0], [3.0, 0.0]])
    >>> figure = training_report(history, images, labels, logits)
    >>> [axes.get_title() for axes in figure.axes]
    ['Loss', 'Accuracy', 'Confusion matrix', '0 (95%), is 1']
    """
    figure = new_figure(13, 8.5)
    top, bottom = figure.subfigures(2, height_ratios=(1, 1.15), squeeze=False)[:, 0]
    loss_axes, accuracy_axes = top.subplots(1, 2)
    _draw_losses(loss_axes, history)
    _draw_accuracies(accuracy_axes, history)
    left, right = bottom.subfigures(1, 2, width_ratios=(1, 1.15), squeeze=False)[0]
    _draw_confusion(left.subplots(), labels, logits)
    _draw_wrong(right, images, labels, logits, count)
    return saved(figure, path)


def _draw_losses(axes: "Axes", history: History) -> None:
    steps = _finite(history.step_losses)
    if np.isfinite(steps).any():
        _draw_steps(axes, steps)
    lengths = _by_epoch(history, "steps")
    ends = lengths.cumsum()
    training, validation = _by_epoch(history, "train_loss"), _by_epoch(history, "validation_loss")
    _draw_points(axes, ends - (lengths - 1) / 2, training, "training (epochs)")
    _draw_points(axes, ends, validation, "validation")
    losses = np.concatenate((steps, training, validation))
    broken = np.isnan(steps).sum()
    count = f", {broken:,} of {steps.size:,} steps not finite" if broken else ""
    axes.set(xlabel="step", ylabel="loss", title=f"Loss{count}")
    if (losses > 0).any() and not (losses < 0).any():
        _make_logarithmic(axes, losses[losses > 0])
    _finish(axes)


def _draw_steps(axes: "Axes", losses: Array) -> None:
    """Draw the loss of each step, and with many steps also their running mean."""
    numbers = 1 + np.arange(losses.size)
    window = losses.size // 100
    if window < 2:
        axes.plot(numbers, losses, ".-", color="C0", markersize=3, linewidth=0.8, label="training (steps)")
        return
    axes.plot(numbers, losses, color="C0", alpha=0.25, linewidth=0.6)
    finite, ones = np.isfinite(losses), np.ones(window)
    sums = np.convolve(np.where(finite, losses, 0), ones, "valid")
    counts = np.convolve(finite, ones, "valid")
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    middles = (window + 1) / 2 + np.arange(means.size)
    axes.plot(middles, means, color="C0", label=f"training ({window} steps)")


def _draw_accuracies(axes: "Axes", history: History) -> None:
    for label, field in ACCURACIES.items():
        _draw_points(axes, _by_epoch(history, "epoch"), 100 * _by_epoch(history, field), label)
    axes.set(xlabel="epoch", ylabel="accuracy in %", title="Accuracy")
    _finish(axes)


def _draw_learning_rate(axes: "Axes", history: History) -> None:
    _draw_points(axes, _by_epoch(history, "epoch"), _by_epoch(history, "lr"), "")
    axes.set(xlabel="start of epoch", ylabel="learning rate", title="Learning rate")
    _finish(axes)


def _by_epoch(history: History, field: str) -> Array:
    """The field of each epoch, with NaN for what is None or not finite."""
    return _finite([getattr(epoch, field) for epoch in history.epochs])


def _finite(values: Sequence[float | None]) -> Array:
    """`values` as an array, with NaN for what is None or not finite."""
    array = np.array(values, float)
    return np.where(np.isfinite(array), array, np.nan)


def _draw_points(axes: "Axes", x: Any, y: Array, label: str) -> None:
    """Draw a value for each epoch that has one."""
    color = "C1" if label == "validation" else "navy"
    if np.isfinite(y).any():
        axes.plot(x, y, "o-", color=color, markersize=4, label=label)


def _make_logarithmic(axes: "Axes", values: Array) -> None:
    """Make the vertical axis, for `values`, logarithmic, with plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    few_decades = values.max() < 1e4 * values.min()
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(axes: "Axes") -> None:
    """Add the grid, the legend, and ticks at whole steps or epochs."""
    axes.locator_params("x", integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, handlelength=1.5)


def _draw_confusion(axes: "Axes", labels: Array, logits: Array) -> None:
    classes = logits.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    wrong = counts - np.diag(np.diag(counts))
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, 1.6 * wrong.max()))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            weight = "bold" if row == column else "normal"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, weight=weight)
    ticks = range(classes)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix", xticks=ticks, yticks=ticks)


def _draw_wrong(figure: Any, images: Array, labels: Array, logits: Array, count: int) -> None:
    predicted = logits.argmax(axis=1)
    confidence = np.exp(log_softmax(logits, 1).max(axis=1))
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    said = f"{len(wrong):,} of {len(labels):,} wrong; the most confident ones"
    figure.suptitle(said if len(wrong) else "None wrong")
    side = max(1, int(np.ceil(np.sqrt(len(worst)))))
    for axes, index in zip(figure.subplots(side, side, squeeze=False).flat, worst, strict=False):
        axes.imshow(images[index], cmap="gray_r")
        axes.set_title(f"{predicted[index]} ({confidence[index]:.0%}), is {labels[index]}", fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()

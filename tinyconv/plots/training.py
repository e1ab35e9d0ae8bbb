"""A picture of a training run; it needs matplotlib (`pip install tinyconv[plots]`)."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.functional import log_softmax
from tinyconv.plots.figure import new_figure, saved
from tinyconv.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def training_report(
    history: History,
    images: Array,
    labels: Array,
    logits: Array,
    path: str | os.PathLike[str],
    count: int = 16,
) -> None:
    """Draw one picture: loss and accuracy curves, confusion matrix, the most confidently wrong images.

    Args:
        history: of the training.
        images: test images, (N, H, W).
        labels: their classes, (N,).
        logits: what the model says of them, (N, C).
        path: the picture's file; its ending says the format.
        count: how many wrong images are shown at most.

    Raises:
        ImportError: there is no matplotlib.
    """
    figure = new_figure(13, 8.5)
    top, bottom = figure.subfigures(2, height_ratios=(1, 1.15), squeeze=False)[:, 0]
    loss_axes, accuracy_axes = top.subplots(1, 2)
    _draw_losses(loss_axes, history)
    _draw_accuracies(accuracy_axes, history)
    left, right = bottom.subfigures(1, 2, width_ratios=(1, 1.15), squeeze=False)[0]
    _draw_confusion(left.subplots(), labels, logits)
    _draw_wrong(right, images, labels, logits, count)
    saved(figure, path)


def _draw_losses(axes: "Axes", history: History) -> None:
    losses = np.array(history.step_losses)
    if losses.size:
        window = max(1, losses.size // 100)
        kernel = np.full(window, 1 / window)
        axes.plot(losses, color="C0", alpha=0.2, linewidth=0.6)
        smooth = np.convolve(losses, kernel, mode="valid")
        axes.plot(np.arange(smooth.size) + window // 2, smooth, color="C0", label="training, each step")
    tested = [epoch.validation_loss for epoch in history.epochs]
    if tested and None not in tested:
        ends = np.cumsum([epoch.steps for epoch in history.epochs])
        axes.plot(ends, np.array(tested, float), "o-", color="C1", label="test")
    axes.set(xlabel="step", ylabel="loss", title="Loss", yscale="log")
    if losses.size:
        axes.legend()


def _draw_accuracies(axes: "Axes", history: History) -> None:
    numbers = [epoch.epoch for epoch in history.epochs]
    for label, key in (("training", "train_accuracy"), ("test", "validation_accuracy")):
        values = [getattr(epoch, key) for epoch in history.epochs]
        if values and None not in values:
            axes.plot(numbers, [100 * value for value in values], "o-", label=label)
            axes.legend()
    axes.set(xlabel="epoch", ylabel="accuracy in %", title="Accuracy", xticks=numbers)
    axes.grid(alpha=0.3)


def _draw_confusion(axes: "Axes", labels: Array, logits: Array) -> None:
    classes = logits.shape[1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    wrong = counts - np.diag(np.diag(counts))
    axes.imshow(wrong, cmap="Oranges", vmin=0, vmax=max(1, 1.6 * wrong.max()))
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            weight = "bold" if row == column else "normal"
            axes.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, weight=weight
            )
    ticks = range(classes)
    axes.set(xlabel="predicted", ylabel="true", title="Confusion matrix", xticks=ticks, yticks=ticks)


def _draw_wrong(figure: Any, images: Array, labels: Array, logits: Array, count: int) -> None:
    predicted = logits.argmax(axis=1)
    confidence = np.exp(log_softmax(logits, 1).max(axis=1))
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    title = (
        f"{len(wrong):,} of {len(labels):,} wrong; the most confident ones" if len(wrong) else "None wrong"
    )
    figure.suptitle(title)
    side = max(1, int(np.ceil(np.sqrt(len(worst)))))
    for axes, index in zip(figure.subplots(side, side, squeeze=False).flat, worst, strict=False):
        axes.imshow(images[index], cmap="gray_r")
        axes.set_title(f"{predicted[index]} ({confidence[index]:.0%}), is {labels[index]}", fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()

"""Pictures of kernels, feature maps and gradients; they need matplotlib (`pip install tinyconv[plots]`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv.arguments import check_arrays, given, instance, integer
from tinyconv.arrays import Array
from tinyconv.functional import softmax
from tinyconv.layers import Conv2d, Layer, Sequential
from tinyconv.layers.branches import Branches
from tinyconv.layers.cache import Pass
from tinyconv.layers.layer import named_in_errors
from tinyconv.plots.figure import Path, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tinyconv.plots.shown import Figure

MOST = 16  # kernels or feature maps beside or under one another


def filters(layer_or_model: Layer, path: Path = None) -> "Figure":
    """Draw the kernels of a convolution as images: red above 0, blue below 0, on one scale.

    A kernel of one input channel is one image, and one of three input channels a colour image, where grey is
    0. Otherwise there is a row for each output channel and a column for each input channel (of its group). At
    most 16 rows and columns are drawn; the title has their total number. Values that are not finite are
    black, and the title has their number.

    Args:
        layer_or_model: a Conv2d, or a model, of which the first Conv2d is drawn.
        path: the picture's file, if any; its ending is the format, one of matplotlib's.

    Raises:
        TypeError: `layer_or_model` is not a Layer.
        ValueError: it does not have a Conv2d; an unknown ending of `path`.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    >>> print(filters(Conv2d(1, 4, 3, generator=0)).axes[0].get_title())
    Conv2d, weight (4, 1, 3, 3)
    4 kernels, row by row
    """
    modules = instance("layer_or_model", layer_or_model, Layer).named_modules()
    found = [(name, layer) for name, layer in modules if isinstance(layer, Conv2d)]
    if not found:
        raise ValueError(f"`layer_or_model` ({given(layer_or_model)}) must be a Conv2d or have one")
    name, layer = found[0]
    weight = layer.params["weight"]
    figure = new_figure(7.5, 7.5)
    axes = figure.subplots()
    drawn = _draw_pictures(axes, weight) if weight.shape[1] in (1, 3) else _draw_planes(axes, weight)
    broken = weight.size - int(np.isfinite(weight).sum())
    not_finite = f", {broken} of {weight.size} values not finite" if broken else ""
    axes.set_title(f"{_label(name, layer)}, weight {weight.shape}{not_finite}\n{drawn}", fontsize=10)
    return saved(figure, path)


def _draw_pictures(axes: "Axes", weight: Array) -> str:
    """One image per kernel; return what is drawn."""
    kernels = weight[: MOST * MOST]
    columns = int(np.ceil(np.sqrt(len(kernels))))
    largest = _largest(weight)
    if weight.shape[1] == 3:
        pixels = kernels.transpose(0, 2, 3, 1)
        broken = ~np.isfinite(pixels).all(axis=3, keepdims=True)
        _tiles(axes, np.where(broken, 0, 0.5 + pixels / (2 * largest)), columns)
    else:
        _with_scale(axes, _tiles(axes, kernels[:, 0], columns, **_around_zero(largest)))
    return f"{_some(len(kernels), len(weight), 'kernel')}, row by row"


def _draw_planes(axes: "Axes", weight: Array) -> str:
    """A row per output channel, a column per input channel; return what is drawn."""
    planes = weight[:MOST, :MOST]
    rows, columns = planes.shape[:2]
    image = _tiles(axes, planes.reshape(-1, *planes.shape[2:]), columns, **_around_zero(_largest(weight)))
    _with_scale(axes, image)
    height = planes.shape[2] / planes.shape[3]
    axes.set_axis_on()
    axes.set(xlabel="input channel", ylabel="output channel")
    axes.set_xticks(np.arange(columns) + 0.5, [str(i) for i in range(columns)])
    axes.set_yticks((np.arange(rows) + 0.5) * height, [str(i) for i in range(rows)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    outputs = _some(rows, weight.shape[0], "output channel")
    return f"{outputs}, {_some(columns, weight.shape[1], 'input channel')}"


def activations(model: Layer, image: Array, path: Path = None) -> "Figure":
    """Draw the feature maps of each layer for one image: a row for each layer, in order.

    The layers run in evaluation mode and keep nothing; the model is not changed. At most 16 channels of a
    layer are drawn, each row on its own scale of values, which its title has.

    Args:
        model: a Sequential, Residual, Concat or Gate (also nested), whose layers are drawn, or another layer.
        image: (C, H, W) or (1, C, H, W).
        path: the picture's file, if any; its ending is the format, one of matplotlib's.

    Raises:
        TypeError: `model` is not a Layer; `image` is not of the model's dtype.
        ValueError: `image` has another shape; no layer's output has the form (N, C, H, W); an unknown ending
            of `path`.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    >>> from tinyconv import ReLU
    >>> figure = activations(Sequential(ReLU()), np.array([[[-1.0, 2.0]]]))
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['image, (1, 1, 1, 2): 1 channel, -1 to 2', '0: ReLU, (1, 1, 1, 2): 1 channel, 0 to 2']
    """
    instance("model", model, Layer)
    batch = _batch_of_one(image)
    found: list[tuple[str, Array]] = []
    _run(model, "", batch, found)
    rows = [(label, output[0]) for label, output in found if output.ndim == 4 and output.size]
    if not rows:
        raise ValueError(
            f"`model` ({given(model)}) must have a layer with an output of the form (N, C, H, W)"
        )
    rows = [("image", batch[0]), *rows]
    figure = new_figure(13, 1.25 * len(rows))
    for axes, (label, maps) in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        drawn = _some(len(maps[:MOST]), len(maps), "channel")
        span = f"{maps.min():.3g} to {maps.max():.3g}"
        low, high = _finite_span(maps)
        _tiles(axes, maps[:MOST], MOST, vmin=low, vmax=high, cmap="viridis")
        axes.set_title(f"{label}, {(1, *maps.shape)}: {drawn}, {span}", loc="left", fontsize=9)
        axes.set_anchor("W")
    return saved(figure, path)


def _run(layer: Layer, path: str, x: Array, found: list[tuple[str, Array]]) -> Array:
    """The output of `layer` for `x`; add labels and outputs of it and of the layers in it to `found`."""
    prefix = f"{path}." if path else ""
    if isinstance(layer, Sequential):  # its forward may run a max-pooling before a ReLU
        for name, child in layer.children.items():
            with named_in_errors(name, child):
                x = _run(child, prefix + name, x, found)
        return x
    if isinstance(layer, Branches):
        branches = layer.branches()
        outputs = [x if one is None else _run(one, prefix + name, x, found) for name, one in branches]
        output: Array = layer.join(outputs)[0]
    else:
        output = layer.predict(x)
    found.append((_label(path, layer), output))
    return output


def saliency(model: Layer, image: Array, target_class: int | None = None, path: Path = None) -> "Figure":
    """Draw how much the logit of a class depends on each pixel of an image: |d logit / d image|.

    The picture shows the image, the absolute gradient (for a colour image the largest of the channels), and
    one over the other. The model runs in evaluation mode, and is not changed.

    Args:
        model: computes logits (1, classes) of the image.
        image: (C, H, W) or (1, C, H, W).
        target_class: the class whose logit is differentiated; None for that of the largest logit.
        path: the picture's file, if any; its ending is the format, one of matplotlib's.

    Raises:
        TypeError: `model` is not a Layer; `image` is not of the model's dtype.
        ValueError: `image` has another shape, the output is not (1, classes), `target_class` is out of range;
            an unknown ending of `path`.
        FloatingPointError: the gradient is not finite.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.

    Source: Simonyan et al., https://arxiv.org/abs/1312.6034

    >>> from tinyconv import Flatten, Linear
    >>> model = Sequential(Flatten(), Linear(4, 3, dtype=np.float64, generator=0))
    >>> figure = saliency(model, np.ones((1, 2, 2)), target_class=2)
    >>> [axes.get_title() for axes in figure.axes[1:3]]
    ['|d logit 2 / d image|', 'both']
    """
    instance("model", model, Layer)
    batch = _batch_of_one(image)
    with Pass(keeps=True, evaluates=True):
        logits = model.forward(batch)
        target = _target(logits, target_class)
        cotangent = np.zeros_like(logits)
        cotangent[0, target] = 1
        heat = np.abs(model.backward(cotangent)[0]).max(axis=0)
    if not np.isfinite(heat).all():
        raise FloatingPointError(f"the gradient of logit {target} with respect to `image` is not finite")
    predicted = int(logits[0].argmax())
    title = f"image {image.shape}, read as {predicted} ({softmax(logits, 1)[0, predicted]:.0%})"
    figure = _draw_saliency(batch[0], heat, title, f"|d logit {target} / d image|")
    return saved(figure, path)


def _draw_saliency(image: Array, heat: Array, image_title: str, heat_title: str) -> "Figure":
    figure = new_figure(11, 4)
    left, middle, right = figure.subplots(1, 3)
    picture = _picture(image)
    left.imshow(picture, cmap="gray")
    figure.colorbar(middle.imshow(heat, cmap="inferno", vmin=0), ax=middle, shrink=0.8)
    right.imshow(picture / 2, cmap="gray", vmin=0, vmax=1)  # darker, so that the gradient stands out
    right.imshow(heat, cmap="inferno", vmin=0, alpha=heat / (heat.max() or 1))
    for axes, title in ((left, image_title), (middle, heat_title), (right, "both")):
        axes.set_title(title)
        axes.set_axis_off()
    return figure


def _target(logits: Array, target_class: int | None) -> int:
    """`target_class`, checked, or the class of the largest logit."""
    if logits.ndim != 2 or not logits.size:
        raise ValueError(f"`model` must return (1, classes) for one image, not {logits.shape}")
    if target_class is None:
        return int(logits[0].argmax())
    target = integer("target_class", target_class, minimum=0)
    if target >= logits.shape[1]:
        raise ValueError(f"`target_class` (={target}) must be less than the {logits.shape[1]} classes")
    return target


def _picture(image: Array) -> Array:
    """`image`, (C, H, W), for imshow: three channels in colour, else their mean; between 0 and 1."""
    picture = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
    low, high = picture.min(), picture.max()
    scaled: Array = (picture - low) / ((high - low) or 1)
    return scaled


# Shared helpers


def _batch_of_one(image: Array) -> Array:
    check_arrays(image=image)
    if image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != 1) or not image.size:
        raise ValueError(f"`image` (of shape {image.shape}) must have the form (C, H, W) or (1, C, H, W)")
    return image if image.ndim == 4 else image[None]


def _label(path: str, layer: Layer) -> str:
    return f"{path}: {type(layer).__name__}" if path else type(layer).__name__


def _some(drawn: int, total: int, what: str) -> str:
    plural = what if total == 1 else f"{what}s"
    return f"{total} {plural}" if drawn == total else f"the first {drawn} of {total} {plural}"


def _largest(weight: Array) -> float:
    return max(map(abs, _finite_span(weight))) or 1.0


def _finite_span(array: Array) -> tuple[float, float]:
    """The smallest and the largest finite value."""
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _around_zero(largest: float) -> dict[str, Any]:
    from matplotlib import colormaps

    return {"cmap": colormaps["RdBu_r"].with_extremes(bad="black"), "vmin": -largest, "vmax": largest}


def _tiles(axes: "Axes", tiles: Sequence[Array] | Array, columns: int, **options: Any) -> Any:
    """Draw images of one size row by row, each one unit wide; return one of them."""
    height = tiles[0].shape[0] / tiles[0].shape[1]
    rows = -(-len(tiles) // columns)
    for i, tile in enumerate(tiles):
        x, y = i % columns, i // columns * height
        extent = (x + 0.03, x + 0.97, y + height - 0.03, y + 0.03)
        drawn = axes.imshow(tile, extent=extent, interpolation="nearest", **options)
    axes.set(xlim=(0, columns), ylim=(rows * height, 0))
    axes.set_axis_off()
    return drawn


def _with_scale(axes: "Axes", image: Any) -> None:
    axes.figure.colorbar(image, ax=axes, shrink=0.6)

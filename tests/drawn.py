"""Drawn configurations of every deterministic layer and of every loss, which PyTorch takes as well."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tests.hypothesis_or_skip import st
from tinyconv.arrays import Array

Shape: TypeAlias = tuple[int, ...]
Options: TypeAlias = dict[str, Any]


class DrawnLayer(NamedTuple):
    """What a layer is made with, here and in PyTorch, and the shape of its input."""

    name: str
    args: tuple[Any, ...]
    options: Options
    shape: Shape


class DrawnLoss(NamedTuple):
    """What a loss is made with, and what it compares."""

    name: str
    options: Options
    prediction: Array
    target: Array


# Parts of configurations


def whole(draw: st.DrawFn, least: int, most: int) -> int:
    return draw(st.integers(least, most))


def one_of(draw: st.DrawFn, *values: Any) -> Any:
    return draw(st.sampled_from(values))


def pair(draw: st.DrawFn, least: int, most: int) -> tuple[int, int]:
    return whole(draw, least, most), whole(draw, least, most)


def dims(draw: st.DrawFn, least: int, most: int) -> Shape:
    """As many lengths, each of 1 to 4."""
    return tuple(draw(st.lists(st.integers(1, 4), min_size=least, max_size=most)))


def batch(draw: st.DrawFn) -> Shape:
    """A batch, or none: one sample alone."""
    return dims(draw, 0, 1)


def image(draw: st.DrawFn, channels: int) -> Shape:
    return *batch(draw), channels, *pair(draw, 5, 8)


def channels(draw: st.DrawFn) -> tuple[int, int, int]:
    """Those of the input and of the output, and the groups."""
    groups = whole(draw, 1, 3)
    return groups * whole(draw, 1, 3), groups * whole(draw, 1, 3), groups


# Layers: the arguments and options, and the shape of the input

Configuration: TypeAlias = tuple[tuple[Any, ...], Options, Shape]


def conv(draw: st.DrawFn, spatial: int) -> Configuration:
    c, o, groups = channels(draw)

    def each(least: int, most: int) -> Shape:
        return tuple(whole(draw, least, most) for _ in range(spatial))

    stride = each(1, 3)
    padding = "same" if max(stride) == 1 and draw(st.booleans()) else each(0, 2)
    mode = one_of(draw, "zeros", "reflect", "replicate", "circular")
    args = (c, o, each(1, 3), stride, padding, each(1, 2), groups, draw(st.booleans()), mode)
    return args, {}, (*batch(draw), c, *each(5, 8))


def conv_transpose2d(draw: st.DrawFn) -> Configuration:
    c, o, groups = channels(draw)
    stride, dilation = pair(draw, 1, 4), pair(draw, 1, 3)
    more = tuple(whole(draw, 0, max(steps) - 1) for steps in zip(stride, dilation, strict=True))
    bias = draw(st.booleans())
    args = (c, o, pair(draw, 1, 3), stride, pair(draw, 0, 2), more, groups, bias, dilation)
    return args, {}, image(draw, c)


def conv_transpose1d(draw: st.DrawFn) -> Configuration:
    (c, o, kernel, stride, padding, more, groups, bias, dilation), _, shape = conv_transpose2d(draw)
    rows = (size[1:] for size in (kernel, stride, padding, more))
    return (c, o, *rows, groups, bias, dilation[1:]), {}, (*shape[:-2], shape[-1])


def linear(draw: st.DrawFn) -> Configuration:
    c, o = pair(draw, 1, 4)
    return (c, o, draw(st.booleans())), {}, (*dims(draw, 0, 2), c)


def pool(draw: st.DrawFn) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride, and a padding of half the kernel at most."""
    kernel = pair(draw, 1, 3)
    return kernel, pair(draw, 1, 3), tuple(whole(draw, 0, k // 2) for k in kernel)


def max_pool2d(draw: st.DrawFn) -> Configuration:
    args = (*pool(draw), pair(draw, 1, 2), False, draw(st.booleans()))
    return args, {}, image(draw, whole(draw, 1, 3))


def max_pool1d(draw: st.DrawFn) -> Configuration:
    args, _, shape = max_pool2d(draw)
    return (*(size[1:] for size in args[:4]), *args[4:]), {}, (*shape[:-2], shape[-1])


def avg_pool1d(draw: st.DrawFn) -> Configuration:
    (*sizes, ceil_mode, counted, _), _, shape = avg_pool2d(draw)
    return (*(size[1:] for size in sizes), ceil_mode, counted), {}, (*shape[:-2], shape[-1])


def avg_pool2d(draw: st.DrawFn) -> Configuration:
    args = (*pool(draw), draw(st.booleans()), draw(st.booleans()), one_of(draw, None, 3, -2))
    return args, {}, image(draw, whole(draw, 1, 3))


def adaptive_avg_pool2d(draw: st.DrawFn) -> Configuration:
    size = one_of(draw, None, *range(1, 10)), one_of(draw, None, *range(1, 10))
    return (size,), {}, image(draw, whole(draw, 1, 3))


def eps(draw: st.DrawFn) -> float:
    return float(one_of(draw, 1e-5, 1e-3, 0.1, 2.0))


def batch_norm(draw: st.DrawFn, spatial: int) -> Configuration:
    c = whole(draw, 1, 4)
    args = (c, eps(draw), one_of(draw, 0.1, 0.7, None), draw(st.booleans()), draw(st.booleans()))
    inside = dims(draw, 0, 1) if spatial == 1 else pair(draw, 1, 4)
    return args, {}, (whole(draw, 2, 4), c, *inside)


def layer_norm(draw: st.DrawFn) -> Configuration:
    normalized = dims(draw, 1, 3)
    args = (normalized, eps(draw), draw(st.booleans()), draw(st.booleans()))
    return args, {}, (*dims(draw, 0, 2), *normalized)


def group_norm(draw: st.DrawFn) -> Configuration:
    c, _, groups = channels(draw)
    return (groups, c, eps(draw), draw(st.booleans())), {}, (whole(draw, 1, 3), c, *pair(draw, 2, 4))


def instance_norm2d(draw: st.DrawFn) -> Configuration:
    options = (eps(draw), one_of(draw, 0.1, 0.7, None), draw(st.booleans()), draw(st.booleans()))
    shape = image(draw, whole(draw, 1, 4))
    return (shape[-3], *options), {}, shape


def pixel_shuffle(draw: st.DrawFn) -> Configuration:
    r, (*leading, c, h, w) = whole(draw, 1, 3), image(draw, whole(draw, 1, 3))
    return (r,), {}, (*leading, c * r * r, h, w)


def pixel_unshuffle(draw: st.DrawFn) -> Configuration:
    r, (*leading, h, w) = whole(draw, 1, 3), image(draw, whole(draw, 1, 3))
    return (r,), {}, (*leading, h * r, w * r)


def elementwise(draw: st.DrawFn, **options: tuple[Any, ...]) -> Configuration:
    """An activation, each of whose options is one of the values."""
    return (), {name: one_of(draw, *values) for name, values in options.items()}, dims(draw, 1, 4)


def softmax(draw: st.DrawFn) -> Configuration:
    shape = dims(draw, 1, 4)
    return (whole(draw, -len(shape), len(shape) - 1),), {}, shape


def padding2d(draw: st.DrawFn, *values: float) -> Configuration:
    padding = one_of(draw, 1, 2, None) or (*pair(draw, -2, 3), *pair(draw, -2, 3))
    return (padding, *values), {}, image(draw, whole(draw, 1, 3))


def unfold(draw: st.DrawFn) -> Configuration:
    args = (pair(draw, 1, 3), pair(draw, 1, 2), pair(draw, 0, 2), pair(draw, 1, 3))
    return args, {}, image(draw, whole(draw, 1, 3))


def fold(draw: st.DrawFn) -> Configuration:
    (kernel, dilation, padding, stride), _, (*leading, c, height, width) = unfold(draw)
    axes = zip((height, width), kernel, dilation, padding, stride, strict=True)
    positions = prod((h + 2 * p - d * (k - 1) - 1) // s + 1 for h, k, d, p, s in axes)
    args = ((height, width), kernel, dilation, padding, stride)
    return args, {}, (*leading, c * prod(kernel), positions)


def upsample(draw: st.DrawFn) -> Configuration:
    size = tuple(whole(draw, 3, 5) for _ in range(whole(draw, 1, 3)))
    # None of them rounds to twice the input: there PyTorch's gradient is not that of its output.
    factors = tuple(one_of(draw, 1.0, 2.0, 0.5, 1.5, 0.7, 1 / 3, 2.6) for _ in size)
    wanted = {"size": tuple(whole(draw, 1, 8) for _ in size)}
    options = one_of(draw, wanted, {"scale_factor": factors})
    linear = {3: "linear", 4: "bilinear", 5: "trilinear"}[len(size) + 2]
    options["mode"] = one_of(draw, "nearest", "nearest-exact", linear)
    options["align_corners"] = one_of(draw, None, False, True) if options["mode"] == linear else None
    return (), options, (*pair(draw, 1, 3), *size)


def flatten(draw: st.DrawFn) -> Configuration:
    shape = dims(draw, 1, 4)
    start = whole(draw, 0, len(shape) - 1)
    end = whole(draw, start, len(shape) - 1)
    return (start, one_of(draw, end, end - len(shape))), {}, shape


def unflatten(draw: st.DrawFn) -> Configuration:
    before, sizes, after = dims(draw, 0, 2), dims(draw, 1, 3), dims(draw, 0, 2)
    shape = (*before, prod(sizes), *after)
    dim = one_of(draw, len(before), -1 - len(after))
    return (dim, one_of(draw, sizes, (*sizes[:-1], -1))), {}, shape


LAYERS: dict[str, Callable[[st.DrawFn], Configuration]] = {
    "Conv1d": partial(conv, spatial=1),
    "Conv2d": partial(conv, spatial=2),
    "ConvTranspose2d": conv_transpose2d,
    "ConvTranspose1d": conv_transpose1d,
    "Linear": linear,
    "MaxPool2d": max_pool2d,
    "AvgPool2d": avg_pool2d,
    "MaxPool1d": max_pool1d,
    "AvgPool1d": avg_pool1d,
    "AdaptiveAvgPool2d": adaptive_avg_pool2d,
    "AdaptiveMaxPool2d": adaptive_avg_pool2d,
    "BatchNorm1d": partial(batch_norm, spatial=1),
    "BatchNorm2d": partial(batch_norm, spatial=2),
    "LayerNorm": layer_norm,
    "GroupNorm": group_norm,
    "InstanceNorm2d": instance_norm2d,
    "PixelShuffle": pixel_shuffle,
    "PixelUnshuffle": pixel_unshuffle,
    "ReLU": elementwise,
    "LeakyReLU": partial(elementwise, negative_slope=(0.01, 0.5, 0.0)),
    "ELU": partial(elementwise, alpha=(0.3, 1.0, 2.0)),
    "GELU": partial(elementwise, approximate=("none", "tanh")),
    "Sigmoid": elementwise,
    "Tanh": elementwise,
    "Identity": elementwise,
    "SiLU": elementwise,
    "Softplus": partial(elementwise, beta=(0.5, 1.0, 3.0), threshold=(20.0, 1.0, 0.0)),
    "ReLU6": elementwise,
    "Hardtanh": partial(elementwise, min_val=(-0.5, -1.0), max_val=(0.25, 1.0)),
    "Hardsigmoid": elementwise,
    "Hardswish": elementwise,
    "SELU": elementwise,
    "Mish": elementwise,
    "PReLU": partial(elementwise, init=(0.25, -0.5)),
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "ZeroPad2d": padding2d,
    "ConstantPad2d": lambda draw: padding2d(draw, one_of(draw, 0.0, -1.5)),
    "ReflectionPad2d": padding2d,
    "ReplicationPad2d": padding2d,
    "CircularPad2d": padding2d,
    "Unfold": unfold,
    "Fold": fold,
    "Upsample": upsample,
    "Flatten": flatten,
    "Unflatten": unflatten,
}


@st.composite
def layers(draw: st.DrawFn, name: str) -> DrawnLayer:
    return DrawnLayer(name, *LAYERS[name](draw))


# Losses: the options, the prediction and the target

Comparison: TypeAlias = tuple[Options, Array, Array]


def numbers(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(whole(draw, 0, 1000))


def differences(draw: st.DrawFn, **options: tuple[Any, ...]) -> Comparison:
    shape, rng = dims(draw, 1, 3), numbers(draw)
    chosen = {name: one_of(draw, *values) for name, values in options.items()}
    return chosen, rng.standard_normal(shape), rng.standard_normal(shape)


def signs(draw: st.DrawFn) -> Comparison:
    options, prediction, target = differences(draw, margin=(-0.3, 1.0))
    return options, prediction, np.sign(target)


def binary(draw: st.DrawFn, *weights: str) -> Comparison:
    """Probabilities; the weights have the prediction's shape, or broadcast to it."""
    shape, rng = dims(draw, 1, 3), numbers(draw)
    shapes = [None, shape, shape[-1:], (1,) * len(shape)]
    drawn = {name: one_of(draw, *shapes) for name in weights}
    options = {name: size and rng.uniform(0.5, 2, size) for name, size in drawn.items()}
    target = one_of(draw, rng.uniform(0, 1, shape), rng.integers(0, 2, shape).astype(np.float64))
    return options, rng.uniform(0.05, 0.95, shape), target


def logits(draw: st.DrawFn) -> Comparison:
    options, probabilities, target = binary(draw, "weight", "pos_weight")
    return options, np.log(probabilities / (1 - probabilities)), target


def classes(draw: st.DrawFn, **more: tuple[Any, ...]) -> Comparison:
    """(C,), (N, C) or (N, C, ...) values, and the class of each."""
    c, samples, rng = whole(draw, 1, 4), batch(draw), numbers(draw)
    inside = dims(draw, 0, 2) if samples else ()
    options = {name: one_of(draw, *values) for name, values in more.items()}
    options |= {
        "weight": one_of(draw, None, rng.uniform(0.5, 2, c)),
        "ignore_index": one_of(draw, -100, 0, c - 1),
    }
    target = np.asarray(rng.integers(0, c, (*samples, *inside)))
    return options, rng.standard_normal((*samples, c, *inside)), target


def cross_entropy(draw: st.DrawFn) -> Comparison:
    options, prediction, target = classes(draw, label_smoothing=(0.0, 0.1, 0.6))
    if draw(st.booleans()):
        del options["ignore_index"]  # which is for classes
        target = numbers(draw).dirichlet(np.ones(4), prediction.shape)[..., 0]
    return options, prediction, target


LOSSES: dict[str, Callable[[st.DrawFn], Comparison]] = {
    "MSELoss": differences,
    "L1Loss": differences,
    "SmoothL1Loss": partial(differences, beta=(0.0, 0.4, 1.0)),
    "HuberLoss": partial(differences, delta=(0.2, 0.4, 1.0)),
    "KLDivLoss": partial(differences, log_target=(True,)),
    "HingeEmbeddingLoss": signs,
    "BCELoss": lambda draw: binary(draw, "weight"),
    "BCEWithLogitsLoss": logits,
    "NLLLoss": classes,
    "CrossEntropyLoss": cross_entropy,
}


@st.composite
def losses(draw: st.DrawFn, name: str) -> DrawnLoss:
    options, prediction, target = LOSSES[name](draw)
    return DrawnLoss(name, {**options, "reduction": one_of(draw, "none", "mean", "sum")}, prediction, target)

"""The ONNX form of each layer, in evaluation mode: one function for each kind.

form(graph, layer, x, shape) adds the nodes that compute the layer at the value named `x`, of `shape`, and
returns the name of the output. The first dimension of `shape` is the batch, whose length a form must not use;
all other lengths are fixed, so what depends on them (positions, divisors) is a constant.

Where an operator of ONNX differs from PyTorch's, or runtimes differ among themselves (ceil_mode, divisors of
an average over padding, nearest neighbours, paddings by reflection), the form uses operators without such
differences: Pad with a constant, Gather, a product.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

import tinyconv.functional as F
import tinyconv.layers as layers
from tinyconv.arrays import Array
from tinyconv.convert.onnx_graph import Graph
from tinyconv.functional.conv.geometry import Geometry, window_geometry
from tinyconv.functional.interpolate import interpolate_taps
from tinyconv.functional.one_row import with_row
from tinyconv.functional.pooling.avg_pool import bins
from tinyconv.functional.pooling.geometry import pool_geometry
from tinyconv.layers import Layer
from tinyconv.layers.norm import BatchNorm
from tinyconv.layers.pad import Pad2d

Shape: TypeAlias = tuple[int, ...]
Form: TypeAlias = Callable[[Graph, Any, str, Shape], str]

# Convolutions and linear maps


def _conv(graph: Graph, layer: layers.Conv1d | layers.Conv2d, x: str, shape: Shape) -> str:
    pads: Sequence[int] = layer.pads
    if layer.padding_mode != "zeros":
        x = _extended(graph, x, shape, pads, layer.padding_mode)
        pads = [0] * len(pads)
    options = _convolution(layer, [*pads[-2::-2], *pads[::-2]])
    return graph.node("Conv", x, *_weights(graph, layer), **options)


def _conv_transpose(graph: Graph, layer: layers.ConvTranspose2d, x: str, shape: Shape) -> str:
    more, strides = layer.output_padding, layer.stride
    if any(m >= stride for m, stride in zip(more, strides, strict=True)):
        raise ValueError(f"`output_padding` (={more}) must be less than `stride` (={strides}) in ONNX")
    options = {**_convolution(layer, [*layer.padding, *layer.padding]), "output_padding": more}
    return graph.node("ConvTranspose", x, *_weights(graph, layer), **options)


def _convolution(layer: Any, pads: list[int]) -> dict[str, Any]:
    return {
        "kernel_shape": layer.kernel_size,
        "strides": layer.stride,
        "pads": pads,
        "dilations": layer.dilation,
        "group": layer.groups,
    }


def _linear(graph: Graph, layer: layers.Linear, x: str, shape: Shape) -> str:
    weight, *bias = _weights(graph, layer)
    if len(shape) == 2:
        return graph.node("Gemm", x, weight, *bias, transB=1)
    x = graph.node("MatMul", x, graph.node("Transpose", weight, perm=[1, 0]))
    return graph.node("Add", x, *bias) if bias else x


def _weights(graph: Graph, layer: Layer) -> list[str]:
    return [graph.state(layer, name) for name in ("weight", "bias") if name in layer.params]


# Pooling


def _max_pool(graph: Graph, layer: layers.MaxPool2d, x: str, shape: Shape) -> str:
    if layer.return_indices:
        raise ValueError("`return_indices` (=True) returns two outputs, but export_onnx supports one")
    geometry = pool_geometry(shape, *layer._window)
    x = _padded(graph, x, shape, _reach_of_pool(geometry), -math.inf)
    options = {"kernel_shape": geometry.kernel_size, "strides": geometry.stride}
    return graph.node("MaxPool", x, dilations=geometry.dilation, **options)


def _avg_pool(graph: Graph, layer: layers.AvgPool2d, x: str, shape: Shape) -> str:
    """The mean over all taps of a window, times their number, over PyTorch's divisor."""
    window = layer.kernel_size, layer.stride, layer.padding
    geometry = pool_geometry(shape, *window, 1, layer.ceil_mode)
    pads = _reach_of_pool(geometry)
    x = _padded(graph, x, shape, pads, 0.0)
    # onnxruntime 1.20 merges a preceding Pad into the operator, in which padding must still count.
    options = {"kernel_shape": geometry.kernel_size, "strides": geometry.stride, "count_include_pad": 1}
    x = graph.node("AveragePool", x, **options)
    ones = np.ones((1, 1, *shape[2:]))
    mean = F.avg_pool2d(F.pad(ones, pads), geometry.kernel_size, geometry.stride)
    counted = layer.ceil_mode, layer.count_include_pad, layer.divisor_override
    ratio = F.avg_pool2d(ones, *window, *counted) / mean
    return x if np.allclose(ratio, 1, 1e-12) else graph.node("Mul", x, graph.constant(ratio))


def _reach_of_pool(geometry: Geometry) -> tuple[int, int, int, int]:
    """The padding (left, right, top, bottom) that the windows cover, with what ceil_mode adds."""
    pads: list[int] = []
    for axis in (1, 0):
        before = geometry.padding[axis][0]
        last = (geometry.output_size[axis] - 1) * geometry.stride[axis] + geometry.reach[axis] - before
        pads += before, max(last + 1 - geometry.input_shape[2 + axis], 0)
    return pads[0], pads[1], pads[2], pads[3]


def _adaptive_avg_pool(graph: Graph, layer: layers.AdaptiveAvgPool2d, x: str, shape: Shape) -> str:
    """The mean over a rectangle is one over rows and one over columns: a product from both sides."""
    oh, ow = layer.output_shape(shape)[2:]
    rows, columns = (np.eye(length)[None, None] for length in shape[2:])
    down = F.adaptive_avg_pool2d(rows, (oh, None))[0, 0]
    across = F.adaptive_avg_pool2d(columns, (ow, None))[0, 0]
    return graph.node("MatMul", graph.node("MatMul", graph.constant(down), x), graph.constant(across.T))


def _of_sequences(graph: Graph, layer: layers.MaxPool1d | layers.AvgPool1d, x: str, shape: Shape) -> str:
    """The form of the layer of images, for the sequence as an image of height 1."""
    x = graph.node("Unsqueeze", x, graph.integers(2))
    image = (*shape[:2], 1, shape[2])
    if isinstance(layer, layers.MaxPool1d):
        x = _max_pool(graph, layer, x, image)
    else:
        options = with_row({name: getattr(layer, name) for name in layer._names})
        x = _avg_pool(graph, layers.AvgPool2d(**options), x, image)
    return graph.node("Squeeze", x, graph.integers(2))


def _adaptive_max_pool(graph: Graph, layer: layers.AdaptiveMaxPool2d, x: str, shape: Shape) -> str:
    """The maximum over the positions of each window, along one axis and then the other.

    Windows that are shorter than the longest read their last position again.
    """
    if layer.return_indices:
        raise ValueError("`return_indices` (=True) returns two outputs, but export_onnx supports one")
    for axis, count in enumerate(layer.output_shape(shape)[2:], 2):
        windows = bins(shape[axis], count)
        longest = max(stop - start for start, stop in windows)
        positions = [[min(start + i, stop - 1) for i in range(longest)] for start, stop in windows]
        read = _gathered(graph, x, np.asarray(positions), axis)
        x = graph.node("ReduceMax", read, graph.integers(axis + 1), keepdims=0)
    return x


# Normalisation


def _batch_norm(graph: Graph, layer: BatchNorm, x: str, shape: Shape) -> str:
    if "running_mean" not in layer.buffers:
        x = _standardized(graph, x, [0, *range(2, len(shape))], layer.eps)
        return _scaled(graph, layer, x, len(shape))
    scale, shift = (
        graph.state(layer, name) if name in layer.params else graph.constant(np.full(shape[1], default))
        for name, default in (("weight", 1), ("bias", 0))
    )
    statistics = graph.state(layer, "running_mean"), graph.state(layer, "running_var")
    return graph.node("BatchNormalization", x, scale, shift, *statistics, epsilon=layer.eps)


def _layer_norm(graph: Graph, layer: layers.LayerNorm, x: str, shape: Shape) -> str:
    weights = _weights(graph, layer) or [graph.constant(np.ones(layer.normalized_shape))]
    axis = -len(layer.normalized_shape)
    return graph.node("LayerNormalization", x, *weights, axis=axis, epsilon=layer.eps)


def _group_norm(graph: Graph, layer: layers.GroupNorm, x: str, shape: Shape) -> str:
    groups = graph.node("Reshape", x, graph.integers(0, layer.num_groups, -1))
    x = _reshaped(graph, _standardized(graph, groups, [2], layer.eps), shape)
    return _scaled(graph, layer, x, len(shape))


def _instance_norm(graph: Graph, layer: layers.InstanceNorm2d, x: str, shape: Shape) -> str:
    if "running_mean" in layer.buffers:
        return _batch_norm(graph, layer, x, shape)
    return _scaled(graph, layer, _standardized(graph, x, [2, 3], layer.eps), len(shape))


def _standardized(graph: Graph, x: str, axes: list[int], eps: float) -> str:
    """x minus its mean over `axes`, over its standard deviation."""
    over = graph.integers(*axes)
    x = graph.node("Sub", x, graph.node("ReduceMean", x, over))
    variance = graph.node("ReduceMean", graph.node("Mul", x, x), over)
    deviation = graph.node("Sqrt", graph.node("Add", variance, graph.constant(eps)))
    return graph.node("Div", x, deviation)


def _scaled(graph: Graph, layer: Layer, x: str, ndim: int) -> str:
    """x times the weight of its channel, plus the bias of its channel."""
    for name, op_type in (("weight", "Mul"), ("bias", "Add")):
        if name in layer.params:
            column = graph.integers(-1, *[1] * (ndim - 2))
            x = graph.node(op_type, x, graph.node("Reshape", graph.state(layer, name), column))
    return x


# Activations


def _elementwise(op_type: str, **names: str) -> Form:
    """The form of a layer that one operator computes, whose attributes are the options under other names."""

    def form(graph: Graph, layer: Any, x: str, shape: Shape) -> str:
        return graph.node(op_type, x, **{theirs: getattr(layer, ours) for theirs, ours in names.items()})

    return form


def _silu(graph: Graph, layer: layers.SiLU, x: str, shape: Shape) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


def _softplus(graph: Graph, layer: layers.Softplus, x: str, shape: Shape) -> str:
    beta, threshold = (graph.constant(value) for value in (layer.beta, layer.threshold))
    scaled = graph.node("Mul", x, beta)
    bent = graph.node("Div", graph.node("Softplus", scaled), beta)
    return graph.node("Where", graph.node("Greater", scaled, threshold), x, bent)


def _clip(graph: Graph, layer: layers.Hardtanh | layers.ReLU6, x: str, shape: Shape) -> str:
    ends = (0.0, 6.0) if isinstance(layer, layers.ReLU6) else (layer.min_val, layer.max_val)
    return graph.node("Clip", x, *map(graph.constant, ends))


def _mish(graph: Graph, layer: layers.Mish, x: str, shape: Shape) -> str:
    return graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x)))


def _prelu(graph: Graph, layer: layers.PReLU, x: str, shape: Shape) -> str:
    column = graph.integers(-1, *[1] * max(0, len(shape) - 2))
    return graph.node("PRelu", x, graph.node("Reshape", graph.state(layer, "weight"), column))


def _gelu(graph: Graph, layer: layers.GELU, x: str, shape: Shape) -> str:
    """x / 2 (1 + erf(x / sqrt 2)), or x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    if layer.approximate == "none":
        curve = graph.node("Erf", graph.node("Mul", x, graph.constant(math.sqrt(0.5))))
    else:
        square = graph.node("Mul", graph.node("Mul", x, x), graph.constant(0.044715))
        bent = graph.node("Mul", x, graph.node("Add", square, graph.constant(1.0)))
        curve = graph.node("Tanh", graph.node("Mul", bent, graph.constant(math.sqrt(2 / math.pi))))
    half = graph.node("Mul", x, graph.constant(0.5))
    return graph.node("Mul", half, graph.node("Add", curve, graph.constant(1.0)))


# Shapes, paddings and windows


def _dropout(graph: Graph, layer: Layer, x: str, shape: Shape) -> str:
    return x


def _reshape(graph: Graph, layer: layers.Flatten | layers.Unflatten, x: str, shape: Shape) -> str:
    return _reshaped(graph, x, layer.output_shape(shape))


def _reshaped(graph: Graph, x: str, shape: Shape) -> str:
    return graph.node("Reshape", x, graph.integers(0, *shape[1:]))  # 0: the length of the batch


def _pad(graph: Graph, layer: Pad2d, x: str, shape: Shape) -> str:
    if layer.mode == "constant":
        return _padded(graph, x, shape, layer.padding, layer.value or 0.0)
    return _extended(graph, x, shape, layer.padding, layer.mode)


def _padded(graph: Graph, x: str, shape: Shape, pads: Sequence[int], value: float) -> str:
    """x with `value` around the last dimensions; `pads` as those of `functional.pad`."""
    if not any(pads):
        return x
    still = [0] * (len(shape) - len(pads) // 2)
    around = graph.integers(*still, *pads[-2::-2], *still, *pads[::-2])
    return graph.node("Pad", x, around, graph.constant(value))


def _extended(graph: Graph, x: str, shape: Shape, pads: Sequence[int], mode: str) -> str:
    """x with its own values around the last dimensions; `pads` as those of `functional.pad`."""
    for i in range(len(pads) // 2):
        axis, around = len(shape) - 1 - i, pads[2 * i : 2 * i + 2]
        positions = F.pad(np.arange(float(shape[axis])).reshape(1, 1, -1), around, mode)
        x = _gathered(graph, x, positions.ravel(), axis)
    return x


def _upsample(graph: Graph, layer: layers.Upsample, x: str, shape: Shape) -> str:
    options = layer.size, layer.scale_factor, layer.mode, layer.align_corners
    for axis, taps in enumerate(interpolate_taps(shape, *options), 2):
        read = [_gathered(graph, x, np.asarray(positions), axis) for positions, _ in taps]
        for i, (_, weights) in enumerate(taps):
            if weights is not None:
                row = np.reshape(weights, (-1, *[1] * (len(shape) - axis - 1)))
                read[i] = graph.node("Mul", read[i], graph.constant(row))
        x = read[0] if len(read) == 1 else graph.node("Add", *read)
    return x


def _shuffle(graph: Graph, layer: layers.PixelShuffle, x: str, shape: Shape) -> str:
    return graph.node("DepthToSpace", x, blocksize=layer.upscale_factor, mode="CRD")


def _unshuffle(graph: Graph, layer: layers.PixelUnshuffle, x: str, shape: Shape) -> str:
    (c, h, w), r = shape[1:], layer.downscale_factor
    parts = graph.node("Reshape", x, graph.integers(0, c, h // r, r, w // r, r))
    parts = graph.node("Transpose", parts, perm=[0, 1, 3, 5, 2, 4])
    return _reshaped(graph, parts, layer.output_shape(shape))


def _unfold(graph: Graph, layer: layers.Unfold, x: str, shape: Shape) -> str:
    (top, left), stride, dilation = layer.padding, layer.stride, layer.dilation
    geometry = window_geometry(shape, layer.kernel_size, stride, layer.padding, dilation)
    x = _padded(graph, x, shape, (left, left, top, top), 0.0)
    for i, axis in ((0, 2), (1, 4)):  # one dimension becomes two
        taps = np.arange(layer.kernel_size[i])[:, None] * dilation[i]
        x = _gathered(graph, x, taps + np.arange(geometry.output_size[i]) * stride[i], axis)
    x = graph.node("Transpose", x, perm=[0, 1, 2, 4, 3, 5])
    return _reshaped(graph, x, layer.output_shape(shape))


def _fold(graph: Graph, layer: layers.Fold, x: str, shape: Shape) -> str:
    sizes = graph.integers(*layer.output_size), graph.integers(*layer.kernel_size)
    pads = [*layer.padding, *layer.padding]
    return graph.node("Col2Im", x, *sizes, strides=layer.stride, dilations=layer.dilation, pads=pads)


def _gathered(graph: Graph, x: str, positions: Array, axis: int) -> str:
    return graph.node("Gather", x, graph.constant(positions, np.int64), axis=axis)


FORMS: dict[type[Layer], Form] = {
    layers.Conv1d: _conv,
    layers.Conv2d: _conv,
    layers.ConvTranspose2d: _conv_transpose,
    layers.ConvTranspose1d: _conv_transpose,
    layers.Linear: _linear,
    layers.MaxPool2d: _max_pool,
    layers.AvgPool2d: _avg_pool,
    layers.MaxPool1d: _of_sequences,
    layers.AvgPool1d: _of_sequences,
    layers.AdaptiveAvgPool2d: _adaptive_avg_pool,
    layers.AdaptiveMaxPool2d: _adaptive_max_pool,
    layers.BatchNorm1d: _batch_norm,
    layers.BatchNorm2d: _batch_norm,
    layers.LayerNorm: _layer_norm,
    layers.GroupNorm: _group_norm,
    layers.InstanceNorm2d: _instance_norm,
    layers.ReLU: _elementwise("Relu"),
    layers.LeakyReLU: _elementwise("LeakyRelu", alpha="negative_slope"),
    layers.ELU: _elementwise("Elu", alpha="alpha"),
    layers.GELU: _gelu,
    layers.Sigmoid: _elementwise("Sigmoid"),
    layers.Tanh: _elementwise("Tanh"),
    layers.SiLU: _silu,
    layers.Softplus: _softplus,
    layers.ReLU6: _clip,
    layers.Hardtanh: _clip,
    layers.Hardsigmoid: lambda graph, layer, x, shape: graph.node("HardSigmoid", x, alpha=1 / 6),
    layers.Hardswish: _elementwise("HardSwish"),
    layers.SELU: _elementwise("Selu"),
    layers.Mish: _mish,
    layers.PReLU: _prelu,
    layers.Softmax: _elementwise("Softmax", axis="dim"),
    layers.LogSoftmax: _elementwise("LogSoftmax", axis="dim"),
    layers.ZeroPad2d: _pad,
    layers.ConstantPad2d: _pad,
    layers.ReflectionPad2d: _pad,
    layers.ReplicationPad2d: _pad,
    layers.CircularPad2d: _pad,
    layers.Dropout: _dropout,
    layers.Identity: _dropout,
    layers.Dropout2d: _dropout,
    layers.Flatten: _reshape,
    layers.Unflatten: _reshape,
    layers.Unfold: _unfold,
    layers.Fold: _fold,
    layers.Upsample: _upsample,
    layers.PixelShuffle: _shuffle,
    layers.PixelUnshuffle: _unshuffle,
}

# The number of dimensions of the input, for layers that also take one sample without a batch.
NDIMS: dict[type[Layer], int] = {
    **dict.fromkeys(
        (layers.Conv1d, layers.ConvTranspose1d, layers.Fold, layers.MaxPool1d, layers.AvgPool1d), 3
    ),
    **dict.fromkeys((layers.Conv2d, layers.ConvTranspose2d, layers.Unfold), 4),
    **dict.fromkeys(
        (layers.MaxPool2d, layers.AvgPool2d, layers.AdaptiveAvgPool2d, layers.AdaptiveMaxPool2d), 4
    ),
    **dict.fromkeys((layers.InstanceNorm2d, layers.PixelShuffle, layers.PixelUnshuffle), 4),
    **{kind: 4 for kind, form in FORMS.items() if form is _pad},
}

"""Models as ONNX files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tinyconv.arguments import instance, integer
from tinyconv.convert.onnx_graph import INPUT, Graph
from tinyconv.convert.onnx_layers import FORMS, NDIMS
from tinyconv.convert.place import inside
from tinyconv.files import write_whole
from tinyconv.layers import Concat, Gate, Layer, Residual, Sequential, Shared
from tinyconv.layers.layer import named_in_errors
from tinyconv.optional import optional

JOINS: dict[type[Layer], str] = {Residual: "Add", Gate: "Mul", Concat: "Concat"}
Shape: TypeAlias = tuple[int, ...]


def export_onnx(model: Layer, input_shape: Sequence[int], path: str | os.PathLike[str]) -> None:
    """Write what `model.predict` computes to an ONNX file (opset 18).

    The graph has one input, "input", and one output, "output". The length of their first dimension, the
    batch, is dynamic, and the others are fixed. Parameters and buffers have their names in
    `model.state_dict()`, and all values have the dtype of the model (in float64, onnxruntime computes only
    some of the operators, and not convolutions).

    Args:
        model: any layer or Sequential; containers may be nested. Dropout is left out, and batch
            norm uses the running statistics, whatever the mode is.
        input_shape: shape of an input, with the batch, as in `model.summary`: (1, 1, 28, 28). The batch
            may have any length here.
        path: the file, which is written completely or not at all, and replaces an existing one.

    Raises:
        ImportError: the package onnx is not installed.
        TypeError: `model` is not a Layer, or has a layer without an ONNX form here: a gradient layer,
            MaxUnpool2d, a subclass. The message names its place. Parameters of different dtypes.
        ValueError: an `input_shape` that does not fit, or a layer that moves or changes the batch dimension,
            or has options that ONNX does not have.
        OSError: the file cannot be written.

    Source: https://onnx.ai/onnx/operators/

    >>> import tempfile
    >>> import onnx
    >>> from tinyconv import Flatten, Linear, ReLU
    >>> model = Sequential(Flatten(), Linear(4, 3), ReLU())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model, (1, 1, 2, 2), f"{folder}/model.onnx")
    ...     graph = onnx.load(f"{folder}/model.onnx").graph
    >>> [node.op_type for node in graph.node], graph.input[0].name, graph.output[0].name
    (['Reshape', 'Gemm', 'Relu'], 'input', 'output')
    """
    instance("model", model, Layer)
    shape = tuple(integer("input_shape", length) for length in input_shape)
    if not shape:
        raise ValueError("`input_shape` (=()) must have a first dimension, the batch")
    onnx = optional("onnx", "export_onnx needs the package onnx: pip install tinyconv[onnx]")
    graph = Graph(onnx, _dtype(model), {id(one): place for place, one in model.named_modules()})
    output, output_shape = _add(graph, model, "", INPUT, shape)
    write_whole(Path(path), graph.model(output, shape, output_shape))


def _dtype(model: Layer) -> "np.dtype[Any]":
    """The dtype of all floating parameters and buffers; float32 if there are none."""
    arrays = (*model.params.values(), *model.buffers.values())
    dtypes = {array.dtype for array in arrays if array.dtype.kind == "f"}
    if len(dtypes) > 1:
        names = sorted(str(dtype) for dtype in dtypes)
        raise TypeError(f"`model` must have parameters of one dtype, not of {' and '.join(names)}")
    return np.dtype(dtypes.pop() if dtypes else np.float32)


def _add(graph: Graph, layer: Layer, place: str, x: str, shape: Shape) -> tuple[str, Shape]:
    """Add the nodes of a layer at `x`, of `shape`; return the output's name and shape."""
    if type(layer) is Sequential:
        for name, child in layer.children.items():
            x, shape = _add(graph, child, inside(place, name), x, shape)
        return x, shape
    if type(layer) is Shared:  # whose layer's constants have the names in its own place
        return _add(graph, layer.layer, graph.places.get(id(layer.layer), place), x, shape)
    if type(layer) in JOINS:
        return _add_branches(graph, layer, place, x, shape)
    with named_in_errors(place, layer):
        if type(layer) not in FORMS:
            raise TypeError("export_onnx does not have an ONNX form of this kind of layer")
        output_shape = _shape_after(layer, shape)
        graph.place = place
        return FORMS[type(layer)](graph, layer, x, shape), output_shape


def _add_branches(graph: Graph, layer: Any, place: str, x: str, shape: Shape) -> tuple[str, Shape]:
    ends = [
        x if child is None else _add(graph, child, inside(place, name), x, shape)[0]
        for name, child in layer.branches()
    ]
    with named_in_errors(place, layer):
        output_shape = _shape_after(layer, shape)
    graph.place = place
    options = {"axis": layer.dim % len(output_shape)} if type(layer) is Concat else {}
    return graph.node(JOINS[type(layer)], *ends, **options), output_shape


def _shape_after(layer: Layer, shape: Shape) -> Shape:
    """The output's shape, after checking that the batch is the first dimension before and after."""
    ndim = NDIMS.get(type(layer), len(shape))
    if len(shape) != ndim:
        raise ValueError(f"the input (of shape {shape}) must have {ndim} dimensions, the batch among them")
    after = layer.output_shape(shape)
    try:
        after_more = layer.output_shape((shape[0] + 1, *shape[1:]))
    except ValueError:
        after_more = ()
    if after[:1] != shape[:1] or after_more != (shape[0] + 1, *after[1:]):
        raise ValueError("must take a batch of any length, and keep it as the first dimension")
    return after

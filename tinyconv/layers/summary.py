"""Shapes of the layers in a network: by a dry run if a layer lacks a rule, and as a table."""

import copy
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arrays import array_module
from tinyconv.layers.cache import Pass

Shape: TypeAlias = tuple[int, ...]


class Step(NamedTuple):
    """One call of a child in a forward."""

    name: str
    layer: Any
    input_shape: Shape
    output_shape: Shape


def dry_run(layer: Any, input_shape: Shape) -> tuple[Shape, list[Step]]:
    """Return the shape of the output, and the calls of children, of a copy of `layer` for an input of zeros.

    Raises:
        ValueError: the output is not one array, or what the layer itself raises.
    """
    trial, steps = copy.deepcopy(layer), list[Step]()
    for name, child in trial.children.items():
        vars(child)["forward"] = _recorded(name, layer.children[name], child.forward, steps)
    floating = (array for array in trial.parameters() if array.dtype.kind == "f")
    like = next(floating, np.empty((), np.float32))
    with Pass(keeps=False, evaluates=True):
        output = trial.forward(array_module(like).zeros(tuple(input_shape), like.dtype))
    if not hasattr(output, "shape"):
        raise ValueError(f"{type(layer).__name__} returns a {type(output).__name__}, not one array")
    return tuple(output.shape), steps


def _recorded(name: str, layer: Any, forward: Any, steps: list[Step]) -> Any:
    def recording(*inputs: Any) -> Any:
        output = forward(*inputs)
        steps.append(Step(name, layer, np.shape(inputs[0]), np.shape(output)))
        return output

    return recording


def summary_table(layer: Any, input_shape: Shape) -> str:
    """Return a table of the layers; see `Layer.summary`."""
    steps = layer.steps(input_shape) or [Step("", layer, input_shape, layer.output_shape(input_shape))]
    rows: list[tuple[str, ...]] = [("", "layer", "output shape", "parameters", "multiply-adds")]
    for step in steps:
        sizes = _size(step.layer), step.layer.multiply_adds(step.input_shape)
        rows.append((step.name, type(step.layer).__name__, str(step.output_shape), *map(_grouped, sizes)))
    rows.append(("", "total", "", *map(_grouped, (_size(layer), layer.multiply_adds(input_shape)))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:{'<' if i < 3 else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _size(layer: Any) -> int:
    return sum(array.size for array in layer.parameters())


def _grouped(number: int) -> str:
    return f"{number:,}"

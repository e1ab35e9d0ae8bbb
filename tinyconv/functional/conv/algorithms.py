"""The table of the algorithms: which file computes which of the three maps, and when.

Each map has its own list. The first algorithm that supports a convolution, and is faster for it than those
after it, is chosen. The rules depend on shapes only, so that equal shapes are computed alike everywhere. They
were measured with OpenBLAS, on one and two threads, with its kernels for AVX2 and for AVX-512.

"residues" means several convolutions without a dilation (or without a stride, for the gradient with
respect to the image), for each of which the table is asked again.

On a GPU "stacks" runs, and for few samples, or what it does not support, "columns".
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import one_of
from tinyconv.arrays import Array, array_module, in_threads, underflow_allowed
from tinyconv.functional.conv import columns, depthwise, stacks, windows, winograd
from tinyconv.functional.conv.geometry import CACHED, Geometry
from tinyconv.functional.conv.residues import Part, undilated, unstrided

Rule: TypeAlias = Callable[[Geometry], bool]
PART_WORK = 1_500_000  # multiply-adds of a part, at least
LEAST_SAMPLES_ON_GPU = 16  # a product of `stacks` has a column per sample


class Algorithm(NamedTuple):
    """A way to compute one of the maps: when it can be used, and when it is faster than those after it.

    It writes outputs and images to an array that it is given, and returns the weight's gradient.
    """

    supports: Rule
    is_faster: Rule
    run: Callable[..., Any]


def always(geometry: Geometry) -> bool:
    """Every convolution."""
    return True


def has_residues(geometry: Geometry) -> bool:
    """A dilation."""
    return geometry.dilation != (1, 1)


def has_residues_input(geometry: Geometry) -> bool:
    """A stride, a dilation, or padding beyond the kernel's extent."""
    return not windows.supports_input(geometry)


def residues_are_faster(geometry: Geometry) -> bool:
    """Return whether there are enough samples, and the parts are not too small."""
    return has_residues(geometry) and _is_large(geometry, math.prod(geometry.dilation))


def residues_are_faster_input(geometry: Geometry) -> bool:
    """The same for the gradient with respect to the image."""
    count = math.prod(geometry.dilation) * math.prod(geometry.stride)
    return has_residues_input(geometry) and _is_large(geometry, count)


def _is_large(geometry: Geometry, parts: int) -> bool:
    (n, _, oh, ow), size = geometry.output_shape, math.prod(geometry.weight_shape)
    large = size * n * oh * ow >= PART_WORK * parts
    return n >= windows.LEAST_SAMPLES and (large or _is_single(geometry))


def _is_single(geometry: Geometry) -> bool:
    """Whether there is one input channel per group: columns are very slow then."""
    return geometry.weight_shape[1] == 1 < geometry.groups


def is_faster_turned(geometry: Geometry) -> bool:
    """Return whether there are few samples and no large weight to turn, or one channel per group."""
    few = geometry.input_shape[0] < windows.LEAST_SAMPLES and columns.taps_first(geometry)
    return windows.supports_input(geometry) and (few or _is_single(geometry))


def conv2d_of_residues(
    geometry: Geometry, input: Array, weight: Array, bias: Array | None, out: Array, name: str | None = None
) -> None:
    """Write the output, part by part, each by the algorithm `name`."""
    for part in parts("output", geometry):
        run = pick("output", part.geometry, name, np)
        run(part.geometry, input[part.pixels], weight, bias, out[part.outputs])


def conv2d_input_of_residues(
    geometry: Geometry, weight: Array, grad_output: Array, out: Array, name: str | None = None
) -> None:
    """Write the gradient with respect to the image, part by part."""
    out[...] = 0  # some pixels may be in no part
    for part in parts("input", geometry):
        run = pick("input", part.geometry, name, np)
        run(part.geometry, weight[part.taps], grad_output[part.outputs], out[part.pixels])


def conv2d_weight_of_residues(
    geometry: Geometry, input: Array, grad_output: Array, name: str | None = None
) -> Array:
    """Return the gradient with respect to the weight, the sum of those of the parts."""
    each = parts("weight", geometry)
    by_part = np.empty((len(each), *geometry.weight_shape), input.dtype)

    def run(number: int) -> None:
        plain, outputs, pixels, _ = each[number]
        own_run = pick("weight", plain, name, np)
        by_part[number] = own_run(plain, input[pixels], grad_output[outputs])

    in_threads(run, range(len(each)), by_part[0].size * grad_output[:, 0].size)
    total: Array = by_part.sum(axis=0)
    return total


def parts(wanted: str, geometry: Geometry) -> list[Part]:
    """Return the convolutions that `geometry` consists of, for one of the maps (see `residues.py`)."""
    if wanted != "input":
        return undilated(geometry)
    found = undilated(geometry) if has_residues(geometry) else unstrided(geometry)
    return [part for part in found if 0 not in part.geometry.input_shape[2:]]


def conv2d_input_turned(geometry: Geometry, weight: Array, grad_output: Array, out: Array) -> None:
    """Convolve the cotangent with the turned kernel, for stride 1 (see `Geometry.turned`)."""
    turned = geometry.turned
    run = pick("output", turned, None, array_module(grad_output))
    run(turned, grad_output, geometry.turned_weight(weight), None, out)


OUTPUT = {
    "residues": Algorithm(has_residues, residues_are_faster, conv2d_of_residues),
    "depthwise": Algorithm(depthwise.supports, depthwise.supports, depthwise.conv2d),
    "winograd": Algorithm(winograd.supports, winograd.is_faster, winograd.conv2d),
    "windows": Algorithm(windows.supports, windows.is_faster, windows.conv2d),
    "columns": Algorithm(always, always, columns.conv2d),
}
INPUT = {
    "residues": Algorithm(has_residues_input, residues_are_faster_input, conv2d_input_of_residues),
    "winograd": Algorithm(winograd.supports_input, winograd.is_faster_input, winograd.conv2d_input),
    "turned": Algorithm(windows.supports_input, is_faster_turned, conv2d_input_turned),
    "windows": Algorithm(windows.supports_input, windows.is_faster_input, windows.conv2d_input),
    "columns": Algorithm(always, always, columns.conv2d_input),
}
WEIGHT = {
    "residues": Algorithm(has_residues, residues_are_faster, conv2d_weight_of_residues),
    "depthwise": Algorithm(depthwise.supports, depthwise.supports, depthwise.conv2d_weight),
    "winograd": Algorithm(winograd.supports, winograd.is_faster, winograd.conv2d_weight),
    "windows": Algorithm(windows.supports, windows.is_faster_weight, windows.conv2d_weight),
    "columns": Algorithm(always, always, columns.conv2d_weight),
}
GPU = {
    "output": Algorithm(windows.supports, windows.supports, stacks.conv2d),
    "input": Algorithm(windows.supports_input, windows.supports_input, conv2d_input_turned),
    "weight": Algorithm(windows.supports, windows.supports, stacks.conv2d_weight),
}
TABLE = {
    wanted: {name: each._replace(run=underflow_allowed(each.run)) for name, each in algorithms.items()}
    for wanted, algorithms in (("output", OUTPUT), ("input", INPUT), ("weight", WEIGHT))
}
NAMES = ("columns", "windows", "winograd")  # those that compute all three maps


@lru_cache(CACHED)
def pick(wanted: str, geometry: Geometry, name: str | None, xp: Any) -> Callable[..., Any]:
    """Return what computes the map `wanted` by the algorithm `name`, or else by the first that is faster."""
    table = TABLE[wanted]
    if name is not None:
        one_of("algorithm", name, tuple(table))
    if not geometry.input_shape[0]:
        return table["columns"].run
    if name is None and xp is not np:
        first = GPU[wanted]
        many = geometry.input_shape[0] >= LEAST_SAMPLES_ON_GPU
        return (first if many and first.supports(geometry) else table["columns"]).run
    if name is None:
        return next(algorithm.run for algorithm in table.values() if algorithm.is_faster(geometry))
    algorithm = table[name]
    if xp is not np and name != "columns":
        raise ValueError(f"`algorithm` (={name!r}) must be 'columns' on a GPU, or left out")
    if algorithm.supports(geometry):
        return algorithm.run
    if not supports_parts(wanted, geometry, name):
        rule = str(algorithm.supports.__doc__).lower()  # a noun phrase, to be read here
        raise ValueError(f"`algorithm` (={name!r}) needs {rule} It does not support {geometry}")
    return partial(table["residues"].run, name=name)


def supports_parts(wanted: str, geometry: Geometry, name: str) -> bool:
    """Return whether the algorithm `name` supports all parts of a geometry that has some."""
    table = TABLE[wanted]
    return table["residues"].supports(geometry) and all(
        table[name].supports(part.geometry) or supports_parts(wanted, part.geometry, name)
        for part in parts(wanted, geometry)
    )

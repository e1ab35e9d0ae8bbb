"""The table of the algorithms: which file computes which of the three maps, and when.

Each map has its own list. The first algorithm that supports a convolution, and is faster for it than those
after it, is chosen. The rules depend on shapes only, so that equal shapes are computed alike everywhere. They
were measured with OpenBLAS, on one and two threads, with its kernels for AVX2 and for AVX-512.

On a GPU "columns" runs, as it launches the fewest kernels: as_strided views would be copied there.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import one_of
from tinyconv.arrays import Array, array_module, underflow_allowed
from tinyconv.functional.conv import columns, depthwise, windows, winograd
from tinyconv.functional.conv.geometry import CACHED, Geometry

Rule: TypeAlias = Callable[[Geometry], bool]


class Algorithm(NamedTuple):
    """A way to compute one of the maps: when it can be used, and when it is faster than those after it."""

    supports: Rule
    is_faster: Rule
    run: Callable[..., Array]


def always(geometry: Geometry) -> bool:
    """Every convolution."""
    return True


def supports_turned(geometry: Geometry) -> bool:
    """No stride, and less padding than the kernel's extent."""
    within = all(max(pads) <= reach for pads, reach in zip(geometry.padding, geometry.reach, strict=True))
    return geometry.stride == (1, 1) and within


def is_faster_turned(geometry: Geometry) -> bool:
    """Return whether there are few samples, or one channel per group."""
    few = geometry.input_shape[0] < windows.LEAST_SAMPLES
    return supports_turned(geometry) and (few or geometry.weight_shape[1] == 1 < geometry.groups)


def conv2d_input_turned(geometry: Geometry, weight: Array, grad_output: Array) -> Array:
    """Convolve the cotangent with the turned kernel, for stride 1 (see `Geometry.turned`)."""
    turned = geometry.turned
    run = pick("output", turned, None, array_module(grad_output))
    return run(turned, grad_output, geometry.turned_weight(weight), None)


OUTPUT = {
    "depthwise": Algorithm(depthwise.supports, depthwise.is_faster, depthwise.conv2d),
    "winograd": Algorithm(winograd.supports, winograd.is_faster, winograd.conv2d),
    "windows": Algorithm(always, windows.is_faster, windows.conv2d),
    "columns": Algorithm(always, always, columns.conv2d),
}
INPUT = {
    "winograd": Algorithm(winograd.supports_input, winograd.is_faster_input, winograd.conv2d_input),
    "turned": Algorithm(supports_turned, is_faster_turned, conv2d_input_turned),
    "windows": Algorithm(always, windows.is_faster_input, windows.conv2d_input),
    "columns": Algorithm(always, always, columns.conv2d_input),
}
WEIGHT = {
    "depthwise": Algorithm(depthwise.supports, depthwise.is_faster, depthwise.conv2d_weight),
    "winograd": Algorithm(winograd.supports, winograd.is_faster, winograd.conv2d_weight),
    "windows": Algorithm(always, windows.is_faster_weight, windows.conv2d_weight),
    "columns": Algorithm(always, always, columns.conv2d_weight),
}
TABLE = {
    wanted: {name: each._replace(run=underflow_allowed(each.run)) for name, each in algorithms.items()}
    for wanted, algorithms in (("output", OUTPUT), ("input", INPUT), ("weight", WEIGHT))
}
NAMES = ("columns", "windows", "winograd")  # those that compute all three maps


@lru_cache(CACHED)
def pick(wanted: str, geometry: Geometry, name: str | None, xp: Any) -> Callable[..., Array]:
    """Return what computes the map `wanted` by the algorithm `name`, or else by the first that is faster."""
    table = TABLE[wanted]
    if name is None and xp is not np:
        first = table.get("turned", table["columns"])
        return (first if first.supports(geometry) else table["columns"]).run
    if name is None:
        return next(algorithm.run for algorithm in table.values() if algorithm.is_faster(geometry))
    algorithm = table[one_of("algorithm", name, tuple(table))]
    if xp is not np and name != "columns":
        raise ValueError(f"`algorithm` (={name!r}) must be 'columns' on a GPU, or left out")
    if not algorithm.supports(geometry):
        rule = str(algorithm.supports.__doc__).lower()  # a noun phrase, to be read here
        raise ValueError(f"`algorithm` (={name!r}) needs {rule} It does not support {geometry}")
    return algorithm.run

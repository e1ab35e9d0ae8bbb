"""Which algorithm computes a convolution: for each, the shapes that it serves, and those for which it pays.

The rules know shapes only, so that equal shapes are computed alike everywhere. What pays was measured with
OpenBLAS, on one and two threads, with its kernels for AVX2 and for AVX-512.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import one_of
from tinyconv.arrays import Array
from tinyconv.functional.conv.conv_tiled import TILE
from tinyconv.functional.conv.depthwise import TILE_ROWS
from tinyconv.functional.conv.unfold import Window
from tinyconv.functional.conv.winograd import TILE as WINOGRAD_TILE
from tinyconv.functional.conv.winograd import grid


class Shapes(NamedTuple):
    """What a rule looks at: (O, C / groups, KH, KW), the window, the groups, (N, O, OH, OW)."""

    weight_size: tuple[int, ...]
    window: Window
    groups: int
    output_size: tuple[int, ...]


Rule: TypeAlias = Callable[[Shapes], bool]


class Algorithm(NamedTuple):
    """A way to compute one of the maps: when it can be used, and when it is faster than those after it."""

    serves: Rule
    pays: Rule
    run: Callable[..., Array]


def pick(table: dict[str, Algorithm], name: str | None, shapes: Shapes, xp: Any) -> Callable[..., Array]:
    """What runs the algorithm `name` of a table, or without a name the first that pays.

    On a GPU that is the one of fewest kernels: columns in one piece, which nothing is scattered back from.
    """
    if name is None and xp is not np:
        first = table.get("rotated", table["columns"])
        return (first if first.serves(shapes) else table["columns"]).run
    if name is None:
        return next(algorithm.run for algorithm in table.values() if algorithm.pays(shapes))
    algorithm = table[one_of("algorithm", name, tuple(table))]
    if not algorithm.serves(shapes):
        rule = str(algorithm.serves.__doc__).lower()
        raise ValueError(f"`algorithm` (={name!r}) needs {rule} It does not serve {shapes}")
    return algorithm.run


def always(shapes: Shapes) -> bool:
    """The rule of the algorithm that serves every shape, after all others."""
    return True


def serves_depthwise(shapes: Shapes) -> bool:
    """One input channel a group."""
    return shapes.groups > 1 and shapes.weight_size[1] == 1


def pays_depthwise(shapes: Shapes) -> bool:
    """Few outputs a channel, and bands of which less than five sixths are zeros."""
    window = shapes.window
    rows = (TILE_ROWS - 1) * window.stride[0] + window.reaches[0] + 1
    few = shapes.weight_size[0] <= 4 * shapes.groups
    return serves_depthwise(shapes) and few and 6 * window.kernel[0] >= rows


def serves_winograd(shapes: Shapes) -> bool:
    """A 3x3 kernel, one group, no stride, no dilation, at most 2 rows and columns of padding."""
    window = shapes.window
    plain = shapes.groups == 1 and window.kernel == (3, 3) and window.stride == window.dilation == (1, 1)
    return plain and max(map(max, window.padding)) <= 2


def pays_winograd(shapes: Shapes) -> bool:
    """Channels to spread the transforms over, full tiles, tiles to spread the kernel's transform over.

    And a row of tiles that takes no more than some 16 MB, transformed.
    """
    if not serves_winograd(shapes):
        return False
    (o, c, *_), (n, _, height, width) = shapes.weight_size, shapes.output_size
    down, across = grid(shapes.output_size)
    filled = height * width / (WINOGRAD_TILE**2 * down * across)
    channels, tiles = min(c, o), down * across * n
    enough = channels * filled >= 28 and tiles >= max(c, o) and tiles * channels >= 32768
    return enough and filled >= 3 / 4 and 36 * max(c, o) * across * n <= 1 << 22


def pays_winograd_input(shapes: Shapes) -> bool:
    """As for the convolution that gives the gradient by the image, where "rows" is not as fast."""
    o, c, *kernel = shapes.weight_size
    n, _, *outputs = shapes.output_size
    size = [out + 2 - sum(pads) for out, pads in zip(outputs, shapes.window.padding, strict=True)]
    turned = shapes._replace(weight_size=(c, o, *kernel), output_size=(n, c, *size))
    return min(o, c) >= 96 and pays_winograd(turned)


def serves_tiled(shapes: Shapes) -> bool:
    """One group, no stride, no dilation, an output height that is a multiple of 4."""
    window = shapes.window
    whole = shapes.output_size[2] % TILE == 0
    return shapes.groups == 1 and window.stride == window.dilation == (1, 1) and whole


def pays_tiled(shapes: Shapes) -> bool:
    """LeNet's first convolution (6 outputs, 25 taps), but not its second (16, 150), nor for a few images."""
    (o, c, kh, _), positions = shapes.weight_size, prod(shapes.output_size) // shapes.weight_size[0]
    few = o <= 4 or (o <= 8 and shapes.window.rows(c) <= 50)
    return serves_tiled(shapes) and kh > 1 and few and positions >= 16384


def serves_rotated(shapes: Shapes) -> bool:
    """No stride, and no more padding than the kernel reaches over."""
    window = shapes.window
    within = all(max(pads) <= reach for pads, reach in zip(window.padding, window.reaches, strict=True))
    return window.stride == (1, 1) and within


def pays_rotated(shapes: Shapes) -> bool:
    """Fewer columns of the cotangent than of the image (where "rows" does not serve, no more of them)."""
    outputs, inputs = shapes.weight_size[0], shapes.weight_size[1] * shapes.groups
    fewer = outputs < inputs or (outputs == inputs and not serves_rows(shapes))
    return serves_rotated(shapes) and fewer and _turning_pays(shapes)


def serves_rows(shapes: Shapes) -> bool:
    """No dilation of the height."""
    return shapes.window.dilation[0] == 1


def pays_rows(shapes: Shapes) -> bool:
    """Columns of some size, a row's product that is not too narrow, and enough to turn the kernel for."""
    (_, c, kh, kw), (n, _, _, ow) = shapes.weight_size, shapes.output_size
    large = c * kh * kw >= 48 and ow * n >= 48
    return serves_rows(shapes) and kh > 1 and large and _turning_pays(shapes)


def serves_rows_forward(shapes: Shapes) -> bool:
    """No stride, no dilation of the height, and no more padding than the kernel reaches over."""
    return serves_rows(shapes) and serves_rotated(shapes)


def pays_rows_forward(shapes: Shapes) -> bool:
    """No more outputs than inputs, a large kernel or half as many outputs, and long rows."""
    (o, c, kh, kw), (n, _, _, ow) = shapes.weight_size, shapes.output_size
    fewer = o <= c * shapes.groups and (kh * kw >= 25 or 2 * o <= c * shapes.groups)
    large = kh > 1 and o // shapes.groups * kw >= 48 and ow * n >= 256
    return serves_rows_forward(shapes) and fewer and large


def _turning_pays(shapes: Shapes) -> bool:
    """Whether there are more columns, N*OH*OW, than rows of the kernel that is copied out, O."""
    o, (n, _, oh, ow) = shapes.weight_size[0], shapes.output_size
    return o <= n * oh * ow

"""Padding of images as layers: ZeroPad2d, ConstantPad2d, ReflectionPad2d, ReplicationPad2d, CircularPad2d."""

from collections.abc import Sequence
from typing import TypeAlias

import tinyconv.functional as F
from tinyconv.arguments import check_kinds, given, integer, number
from tinyconv.arrays import Array
from tinyconv.functional.pad import pad_shape
from tinyconv.layers.function import LinearMap

__all__ = ["CircularPad2d", "ConstantPad2d", "ReflectionPad2d", "ReplicationPad2d", "ZeroPad2d"]

Padding: TypeAlias = int | Sequence[int]


class Pad2d(LinearMap, function=F.pad, options=("padding", "mode")):
    """Base class of the paddings of (N, C, H, W) or (C, H, W) images; see `functional.pad`."""

    mode = "constant"
    value: float | None = None

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        sides = padding if isinstance(padding, Sequence) else (padding,) * 4
        if len(sides) != 4 or isinstance(sides, str):
            raise ValueError(f"`padding` ({given(padding)}) must be an int or (left, right, top, bottom)")
        self.padding = tuple(integer("padding", side, minimum=-(1 << 62)) for side in sides)

    def forward(self, x: Array) -> Array:
        check_kinds(input=x)
        self.output_shape(x.shape)
        return self.save(F.pad(x, self.padding, self.mode, self.value), x)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(input_shape) not in (3, 4):
            raise ValueError(
                f"`input` (of shape {tuple(input_shape)}) must have the form (N, C, H, W) or (C, H, W)"
            )
        return pad_shape(tuple(input_shape), self.padding, self.mode)


class ConstantPad2d(Pad2d):
    """Put `value` around images.

    Args:
        padding: an int for all sides, or (left, right, top, bottom); negative ones remove pixels.
        value: the value of the padding.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad2d.html

    >>> import numpy as np
    >>> ConstantPad2d((2, -1, 0, 0), 9.0)(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[9., 9., 1., 2.]]])
    """

    value: float

    def __init__(self, padding: Padding, value: float) -> None:
        super().__init__(padding)
        self.value = number("value", value)


class ZeroPad2d(Pad2d):
    """Put zeros around images.

    Args:
        padding: an int for all sides, or (left, right, top, bottom); negative ones remove pixels.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad2d.html

    >>> import numpy as np
    >>> ZeroPad2d((1, 1, 1, 0))(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[0., 0., 0., 0., 0.],
            [0., 1., 2., 3., 0.]]])
    """


class ReflectionPad2d(Pad2d):
    """Put the image's reflection around images, without repeating the border.

    Args:
        padding: an int for all sides, or (left, right, top, bottom); less than the image's size.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad2d.html

    >>> import numpy as np
    >>> ReflectionPad2d((2, 1, 0, 0))(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[3., 2., 1., 2., 3., 2.]]])
    """

    mode = "reflect"


class ReplicationPad2d(Pad2d):
    """Put the nearest pixel around images.

    Args:
        padding: an int for all sides, or (left, right, top, bottom).

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad2d.html

    >>> import numpy as np
    >>> ReplicationPad2d((2, 1, 0, 0))(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[1., 1., 1., 2., 3., 3.]]])
    """

    mode = "replicate"


class CircularPad2d(Pad2d):
    """Put the pixels of the opposite side around images.

    Args:
        padding: an int for all sides, or (left, right, top, bottom); at most the image's size.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad2d.html

    >>> import numpy as np
    >>> CircularPad2d((1, 1, 0, 0))(np.array([[[1.0, 2.0, 3.0]]]))
    array([[[3., 1., 2., 3., 1.]]])
    """

    mode = "circular"

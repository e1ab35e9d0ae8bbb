"""The geometry of a sliding window: which output sees which pixels.

A window of KH x KW taps moves over an image. At output position (p, q) its tap (i, j) sees the pixel

    p * stride[0] + i * dilation[0] - padding[0][0],   q * stride[1] + j * dilation[1] - padding[1][0]

and zero (for max-pooling -inf) outside the image. Convolutions, pooling, unfold and fold all move such a
window; they differ in what they compute from what it sees. Geometries are checked once and cached: a second
call with equal arguments costs one look-up.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple, TypeAlias

from tinyconv.arguments import IntOrPair, Pair, integer, one_of, pair
from tinyconv.arrays import Array

Pads: TypeAlias = tuple[Pair, Pair]
Shape: TypeAlias = tuple[int, ...]
UNPADDED: Pads = ((0, 0), (0, 0))
CACHED = 4096


class Tap(NamedTuple):
    """One tap (i, j) of the window: the outputs for which it is inside the image, and what it sees then.

    `outputs` and `pixels` are slices of (OH, OW) and (H, W), of equal lengths.
    """

    i: int
    j: int
    outputs: tuple[slice, slice]
    pixels: tuple[slice, slice]


@dataclass(frozen=True, eq=False)  # compared by identity, as equal ones are the same object
class Geometry:
    """A window over images of `input_shape`, (N, C, H, W); pairs are for height and width.

    `padding` is ((top, bottom), (left, right)). Output channel o sees the input channels of its group; a
    window that handles each channel separately, as in pooling, has as many groups as channels.
    """

    input_shape: Shape
    out_channels: int
    kernel_size: Pair
    stride: Pair
    padding: Pads
    dilation: Pair
    groups: int
    output_size: Pair

    @cached_property
    def output_shape(self) -> Shape:
        """Return (N, O, OH, OW)."""
        return self.input_shape[0], self.out_channels, *self.output_size

    @cached_property
    def weight_shape(self) -> Shape:
        """Return (O, C / groups, KH, KW)."""
        return self.out_channels, self.input_shape[1] // self.groups, *self.kernel_size

    @cached_property
    def reach(self) -> Pair:
        """Return the distance from the first tap to the last, down and across."""
        (kh, kw), (dh, dw) = self.kernel_size, self.dilation
        return dh * (kh - 1), dw * (kw - 1)

    @cached_property
    def taps(self) -> tuple[Tap, ...]:
        """Return all taps in row order."""
        down = [self.inside(0, i) for i in range(self.kernel_size[0])]
        across = [self.inside(1, j) for j in range(self.kernel_size[1])]
        return tuple(
            Tap(i, j, (out_rows, out_cols), (rows, cols))
            for i, (out_rows, rows) in enumerate(down)
            for j, (out_cols, cols) in enumerate(across)
        )

    @cached_property
    def turned(self) -> "Geometry":
        """Return, for stride 1, the convolution of the cotangent that gives the image's gradient.

        Its kernel is rotated by 180 degrees, with input and output channels exchanged (`turned_weight`).
        """
        before = [reach - before for reach, (before, _) in zip(self.reach, self.padding, strict=True)]
        lengths = zip(self.input_shape[2:], self.reach, before, self.output_size, strict=True)
        after = [size + reach - above - length for size, reach, above, length in lengths]
        return Geometry(
            self.output_shape,
            self.input_shape[1],
            self.kernel_size,
            self.stride,
            ((before[0], after[0]), (before[1], after[1])),
            self.dilation,
            self.groups,
            (self.input_shape[2], self.input_shape[3]),
        )

    def turned_weight(self, weight: Array) -> Array:
        """Return the kernel of `turned`, (C, O / groups, KH, KW): rotated, channels exchanged."""
        o, c, kh, kw = weight.shape
        turned = weight[:, :, ::-1, ::-1]
        if self.groups == 1:
            return turned.swapaxes(0, 1)
        by_group = turned.reshape(self.groups, o // self.groups, c, kh, kw)
        return by_group.swapaxes(1, 2).reshape(self.groups * c, o // self.groups, kh, kw)

    def inside(self, axis: int, tap: int) -> tuple[slice, slice]:
        """Return, along an axis, the outputs for which `tap` is inside the image, and the pixels it sees."""
        first = tap * self.dilation[axis] - self.padding[axis][0]
        return within(first, self.output_size[axis], self.input_shape[2 + axis], self.stride[axis])


def within(first: int, count: int, size: int, step: int = 1) -> tuple[slice, slice]:
    """Return which of `count` positions, `first`, `first` + `step`, ..., are in range(`size`), and these."""
    start = min(max(0, -(first // step)), count)  # ceil(-first / step)
    stop = max(start, min(count, (size - 1 - first) // step + 1))
    if start == stop:
        return slice(start, stop), slice(0, 0)
    return slice(start, stop), slice(first + start * step, first + (stop - 1) * step + 1, step)


def conv_geometry(
    input_shape: Shape,
    weight_shape: Shape,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> Geometry:
    """Return the geometry of a convolution of (N, C, H, W) with a weight (O, C / groups, KH, KW).

    Raises:
        ValueError: shapes that do not fit, an option out of range, a kernel larger than the padded input,
            "same" padding with a stride.
        TypeError: an option of the wrong type.
    """
    # Parsed before the look-up: (1, True) and (1.0, 1) equal (1, 1) as keys, and must be rejected.
    pads = padding if isinstance(padding, str) else pair("padding", padding, minimum=0)
    options = pair("stride", stride), pads, pair("dilation", dilation), integer("groups", groups)
    return _conv_geometry(tuple(input_shape), tuple(weight_shape), *options)


@lru_cache(CACHED)
def _conv_geometry(
    input_shape: Shape, weight_shape: Shape, stride: Pair, padding: Pair | str, dilation: Pair, groups: int
) -> Geometry:
    if len(weight_shape) != 4:
        raise ValueError(f"`weight` (of shape {weight_shape}) must have the form (O, C / groups, KH, KW)")
    kernel_size = pair("kernel_size", weight_shape[2:])
    pads = named_padding(padding, kernel_size, stride, dilation)
    if len(input_shape) != 4:
        raise ValueError(f"`input` (of shape {input_shape}) must have the form (N, C, H, W) or (C, H, W)")
    check_channels(input_shape, weight_shape, groups)
    size = output_size(input_shape[2:], kernel_size, stride, pads, dilation)
    stride, dilation = steps(stride, size), steps(dilation, kernel_size)
    return Geometry(input_shape, weight_shape[0], kernel_size, stride, pads, dilation, groups, size)


def named_padding(padding: Pair | str, kernel_size: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Return padding in numbers: a pair is for both sides, "valid" is none, "same" keeps the size.

    If "same" needs an odd number of rows or columns, the larger part is at the bottom or the right.
    """
    if not isinstance(padding, str):
        return (padding[0], padding[0]), (padding[1], padding[1])
    if one_of("padding", padding, ("same", "valid")) == "valid":
        return UNPADDED
    if stride != (1, 1):
        raise ValueError(f"`padding` (='same') needs a `stride` of 1, got {stride}")
    down, across = (d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True))
    return (down // 2, down - down // 2), (across // 2, across - across // 2)


def check_channels(input_shape: Shape, weight_shape: Shape, groups: int) -> None:
    """Check the channels of an input (N, C, ...) and of a weight (O, C / groups, ...)."""
    if 0 in input_shape[1:]:
        raise ValueError(f"`input` (of shape {input_shape}) must have channels and values")
    channels, (o, c_group) = input_shape[1], weight_shape[:2]
    if channels != c_group * groups:
        raise ValueError(
            f"`input` (of shape {input_shape}) must have {c_group * groups} channels "
            f"for `weight` of shape {weight_shape} and `groups` {groups}"
        )
    if o == 0 or o % groups:
        raise ValueError(
            f"`weight` (of shape {weight_shape}) must have output channels divisible by `groups` (={groups})"
        )


def window_geometry(
    input_shape: Shape,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
) -> Geometry:
    """Return the geometry of a window that moves over each channel of `input_shape`, (N, C, H, W).

    Raises:
        ValueError: an option out of range, a window larger than the padded input.
        TypeError: an option of the wrong type.
    """
    top, left = pair("padding", padding, minimum=0)
    options = pair("kernel_size", kernel_size), pair("stride", stride), pair("dilation", dilation)
    return _window_geometry(tuple(input_shape), *options, ((top, top), (left, left)))


@lru_cache(CACHED)
def _window_geometry(
    input_shape: Shape, kernel_size: Pair, stride: Pair, dilation: Pair, pads: Pads
) -> Geometry:
    size = output_size(input_shape[2:], kernel_size, stride, pads, dilation)
    channels, stride, dilation = input_shape[1], steps(stride, size), steps(dilation, kernel_size)
    return Geometry(input_shape, channels, kernel_size, stride, pads, dilation, channels, size)


def output_size(size: Shape, kernel_size: Pair, stride: Pair, padding: Pads, dilation: Pair) -> Pair:
    """Return (OH, OW) for an image of `size` (H, W).

    floor((size + padding before and after - dilation * (kernel - 1) - 1) / stride) + 1

    Raises:
        ValueError: the window is larger than the padded image.
    """
    (top, bottom), (left, right) = padding
    height, width = size[0] + top + bottom, size[1] + left + right
    extent = dilation[0] * (kernel_size[0] - 1) + 1, dilation[1] * (kernel_size[1] - 1) + 1
    if height < extent[0] or width < extent[1]:
        raise ValueError(
            f"`kernel_size` (={kernel_size}, with `dilation` {dilation} an extent of {extent}) "
            f"must not be larger than the padded input (={(height, width)})"
        )
    return (height - extent[0]) // stride[0] + 1, (width - extent[1]) // stride[1] + 1


def steps(step: Pair, counts: Pair) -> Pair:
    """Return a stride or dilation, or 1 where there is one position or tap and the value has no effect."""
    return step[0] if counts[0] > 1 else 1, step[1] if counts[1] > 1 else 1

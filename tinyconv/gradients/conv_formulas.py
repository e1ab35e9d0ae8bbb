"""What people write in place of the gradients of a convolution.

A convolution has an image, a kernel, and small maps of one value a window. Given two of them it makes the
third: conv2d makes the small maps, its gradient with respect to the input an image; conv_transpose2d has it
the other way round. So the wrong formulas are written once, for all three results, all three operators and
every stride, padding and dilation. One that is right for some arguments, such as a stride of 1, is tried all
the same: `diagnose` never names what gives the right array.

examples/conv_gradient_formulas.py has the same formulas as people write them, with the reasons.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tinyconv.functional as F
from tinyconv.arguments import pair, single
from tinyconv.arrays import Array
from tinyconv.functional.conv.geometry import named_padding
from tinyconv.gradients.mistakes import Mistake, mistake
from tinyconv.gradients.window_formulas import Pair, windows_of

Formula = Callable[["Conv"], Array]
Row = tuple[str, Formula]  # the key of the texts, and what computes the array
LAST = slice(-1, None)
LAST_OF_ALL = (-1, slice(None), -1, -1)  # the last position of the last sample
TURNED = (..., slice(None, None, -1), slice(None, None, -1))


class Conv(NamedTuple):
    """A convolution: two of its three arrays, and the shape of the one that is wanted."""

    image: Array
    weight: Array
    small: Array
    wanted: str  # "image", "weight" or "small", which holds zeros of the right shape
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    operator: str
    is_gradient: bool

    def result(self) -> Array:
        """The wanted array. The image is cut or filled with zeros at its end where the windows need it."""
        options = self.stride, 0, self.dilation, self.groups
        if self.wanted == "image":
            shape = (*self.image.shape[:2], *self.extent())
            return self.cut(F.conv2d_input(shape, self.weight, self.small, *options))
        padded = np.pad(self.image, [(0, 0), (0, 0), *((p, p) for p in self.padding)])
        image = _fitted(padded, self.extent())
        if self.wanted == "weight":
            return F.conv2d_weight(image, self.weight.shape, self.small, *options)
        return F.conv2d(image, self.weight, None, *options)

    @property
    def gradient(self) -> str:
        """Which array is grad_output, where the gradient of the kernel is wanted."""
        return "image" if self.operator == "conv_transpose2d" else "small"

    def having(self, **changed: Any) -> Array:
        """The result with some of the convolution's properties changed."""
        return self._replace(**changed).result()

    def extent(self) -> list[int]:
        """The rows and columns that the windows reach."""
        sizes = zip(self.small.shape[2:], self.stride, self.reach(), strict=True)
        return [(n - 1) * s + reach + 1 for n, s, reach in sizes]

    def reach(self) -> list[int]:
        """How far the kernel reaches beyond its first row and column."""
        return [d * (k - 1) for d, k in zip(self.dilation, self.weight.shape[2:], strict=True)]

    def cut(self, full: Array) -> Array:
        """The image without its padding, of all that the windows reach."""
        (top, left), (height, width) = self.padding, self.image.shape[2:]
        full = _fitted(full, [top + height, left + width])
        return full[:, :, top:, left:]

    def spread(self) -> Array:
        """The small maps among zeros, where stride 1 has the positions that the stride skips."""
        sizes = zip(self.image.shape[2:], self.padding, self.reach(), strict=True)
        spread = np.zeros((*self.small.shape[:2], *(size + 2 * p - reach for size, p, reach in sizes)))
        spread[:, :, :: self.stride[0], :: self.stride[1]] = self.small
        return spread

    def full_padding(self) -> tuple[int, ...]:
        """The padding with which a convolution of stride 1 gives the image."""
        return tuple(reach - p for reach, p in zip(self.reach(), self.padding, strict=True))

    def convolved(self, maps: Array, padding: Any) -> Array:
        """The image as a convolution of stride 1 with the rotated kernel, its channels swapped."""
        o, c, kh, kw = self.weight.shape
        grouped = self.weight[TURNED].reshape(self.groups, o // self.groups, c, kh, kw).swapaxes(1, 2)
        kernel = grouped.reshape(self.groups * c, o // self.groups, kh, kw)
        return F.conv2d(maps, kernel, None, 1, tuple(padding), self.dilation, self.groups)

    def kernel(self, **options: Any) -> Array:
        """The kernel's gradient as a convolution, batch and channels swapped."""
        if self.groups > 1 or self.operator == "conv_transpose2d":
            raise ValueError("it is not such a convolution")
        swapped = self.image.swapaxes(0, 1), self.small.swapaxes(0, 1)
        return F.conv2d(*swapped, **options).swapaxes(0, 1)

    def rows_read(self, kernel: Array) -> Array:
        """The rows and columns of a kernel's gradient that the kernel has."""
        rows, columns = self.weight.shape[2:]
        return kernel[:, :, :rows, :columns]


def _fitted(image: Array, size: list[int]) -> Array:
    """The image with rows and columns cut off or zeros added at its end."""
    image = image[:, :, : size[0], : size[1]]
    more = [(0, want - have) for want, have in zip(size, image.shape[2:], strict=True)]
    return np.pad(image, [(0, 0), (0, 0), *more])


def _alone(array: Array, index: Any) -> Array:
    """The array with zeros everywhere else."""
    result = np.zeros_like(array)
    result[index] = array[index]
    return result


# The operator's arguments as a convolution


def wrong(known: Any) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
    """The results of the wrong formulas, in the shapes of the operator's own arrays."""
    if known.wrt == "bias":
        g = known.grad_output[None] if known.input.ndim == known.weight.ndim - 1 else known.grad_output
        for key, formula in BIAS.items():
            yield formula(g.reshape(*g.shape[:2], -1)), (mistake(key),)
    elif conv := _conv(known):
        for key, changed in _kernels(conv):
            yield _lowered(changed.result(), known), (mistake(key),)
        for array, named in _results(conv):
            yield _lowered(array, known), (named,)
        if known.wrt == "output" and known.bias is not None:
            yield known.output(bias=None), (mistake("bias missing"),)


def wrong_twice(known: Any) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
    """The results of the wrong formulas with the kernel rotated, or its channels swapped, as well."""
    if known.wrt not in ("bias", "weight") and (conv := _conv(known)):
        kernels = list(_kernels(conv))
        for key, changed in kernels:
            for array, second in _results(changed):
                yield _lowered(array, known), (mistake(key), second)
        if len(kernels) == 2:
            both = conv._replace(weight=kernels[1][1].weight[TURNED])
            yield _lowered(both.result(), known), (mistake(kernels[0][0]), mistake(kernels[1][0]))


def _conv(known: Any) -> Conv | None:
    """The convolution as one of batches of images; None for a padding that is not the same at both ends."""
    x, weight = known.input, known.weight
    grad = known.output() if known.wrt == "output" else known.grad_output
    if x.ndim == weight.ndim - 1:
        x, grad = x[None], grad[None]
    if line := weight.ndim == 3:
        x, weight, grad = x[:, :, None], weight[:, :, None], grad[:, :, None]
    stride, dilation = (_pair(name, getattr(known, name), line, 1) for name in ("stride", "dilation"))
    padding = known.padding if isinstance(known.padding, str) else _pair("padding", known.padding, line, 0)
    pads = named_padding(padding, weight.shape[2:], stride, dilation)
    if any(start != end for start, end in pads):
        return None
    image, small, names = x, grad, {"input": "image", "weight": "weight", "output": "small"}
    if known.operator == "conv_transpose2d":
        image, small, names = grad, x, {"input": "small", "weight": "weight", "output": "image"}
    ends = pads[0][0], pads[1][0]
    options = stride, ends, dilation, known.groups, known.operator, known.wrt != "output"
    return Conv(image, weight, small, names[known.wrt], *options)


def _pair(name: str, value: Any, line: bool, first: int) -> Pair:
    """The value for rows and columns; a line has one row, with `first`."""
    return (first, single(name, value, first)) if line else pair(name, value, first)


def _lowered(array: Array, known: Any) -> Array:
    """The array without the axes that `_conv` added, and with the bias."""
    if known.wrt == "output" and known.bias is not None:
        array = array + np.reshape(known.bias, (-1, 1, 1))
    if known.weight.ndim == 3:
        array = array.squeeze(2)
    one = known.wrt != "weight" and known.input.ndim == known.weight.ndim - 1
    return array[0] if one else array


# The wrong formulas


def _results(conv: Conv) -> Iterator[tuple[Array, Mistake]]:
    """What the wrong formulas give that fit the shapes."""
    for key, formula, values in _entries(conv):
        try:
            array = formula(conv)
        except (ValueError, IndexError, TypeError):
            continue
        if array.size:
            yield array, mistake(key, **values)


def _entries(c: Conv) -> Iterator[tuple[str, Formula, dict[str, Any]]]:
    """The wrong formulas for what is wanted, and what their texts need."""
    yield from _geometry(c)
    stride_one = IMAGE_OF_STRIDE_ONE if c.wanted == "image" and c.is_gradient else ()
    values = {"padding": c.padding, "right": c.full_padding()}
    for key, formula in (*TABLE[c.wanted], *stride_one):
        yield key, formula, values


def _kernels(c: Conv) -> Iterator[tuple[str, Conv]]:
    """The convolution with its kernel rotated the wrong way, or with its channels in the wrong order."""
    if c.wanted == "weight":
        return
    how = "not " if c.wanted == "image" and c.is_gradient else ""
    yield f"kernel {how}rotated", c._replace(weight=c.weight[TURNED])
    if c.groups == 1 and c.weight.shape[0] == c.weight.shape[1]:
        yield f"channels {how}swapped", c._replace(weight=c.weight.swapaxes(0, 1))


def _geometry(c: Conv) -> Iterator[tuple[str, Formula, dict[str, Any]]]:
    """Another stride, dilation or padding than forward's."""
    line = c.operator == "conv1d"
    off = [(1, 1), (-1, -1), (0, 1), (1, 0), (0, -1), (-1, 0)]
    changes: list[tuple[str, dict[str, Any]]] = [
        ("stride ignored", {"stride": (1, 1)}),
        ("dilation ignored", {"dilation": (1, 1)}),
        ("stride and dilation exchanged", {"stride": c.dilation, "dilation": c.stride}),
        ("padding ignored", {"padding": (0, 0)}),
        *(("padding off by one", {"padding": (c.padding[0] + a, c.padding[1] + b)}) for a, b in off),
        ("stride and padding ignored", {"stride": (1, 1), "padding": (0, 0)}),
    ]
    tried = {(c.stride, c.padding, c.dilation)}
    for key, change in changes:
        changed = c._replace(**change)
        geometry = changed.stride, changed.padding, changed.dilation
        if geometry in tried or min(changed.padding) < 0 or (line and changed.padding[0]):
            continue
        tried.add(geometry)
        differ = [name for name, value in change.items() if value != getattr(c, name)]
        pairs = [(change[name], getattr(c, name)) for name in differ]
        shown = [(wrong[1], right[1]) if line else (wrong, right) for wrong, right in pairs]
        texts = [f"{name} {a} in place of {b}" for name, (a, b) in zip(differ, shown, strict=True)]
        values = {"values": " and ".join(texts), "which": " and ".join(differ)}
        yield key, partial(Conv.having, **change), values


def _dealt(c: Conv, array: Array, axis: int) -> Array:
    """The channels or maps in the order of their groups, if number k is in group k % groups."""
    return array.take(np.arange(array.shape[axis]).reshape(-1, c.groups).T.ravel(), axis)


def _stored(array: Array) -> Array:
    """An array whose bytes are in the order NHWC, reshaped to NCHW."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).reshape(array.shape)


def _last_written(c: Conv, by_window: bool) -> Array:
    """The image, if each window, or each tap of the kernel, overwrites what was there before."""
    kernel, small = c.weight.shape[2:], c.small.shape
    full = np.zeros((*c.image.shape[:2], *c.extent()))
    windows = windows_of(full, kernel, c.stride, c.dilation)
    places = list(np.ndindex(kernel))
    for i, j in reversed(places) if by_window else places:  # the last window is that of the first place
        shape = small[0], c.image.shape[1], *small[2:]
        tap = c.weight[:, :, i : i + 1, j : j + 1]
        windows[..., i, j] = F.conv2d_input(shape, tap, c.small, groups=c.groups)
    return c.cut(full)


def _without_end(c: Conv) -> Array:
    """The small maps among zeros, without zeros at the end."""
    rows, columns = ((n - 1) * s + 1 for n, s in zip(c.small.shape[2:], c.stride, strict=True))
    return c.spread()[:, :, :rows, :columns]


def _unpadded(c: Conv) -> Array:
    return F.conv2d(c.image, c.weight, None, c.stride, 0, c.dilation, c.groups)


def _unswapped(c: Conv) -> Array:
    return c.rows_read(F.conv2d(c.image, c.small, None, 1, c.padding, c.stride))


IMAGE: tuple[Row, ...] = (
    ("= for +=: last output channel", lambda c: c.having(weight=c.weight[LAST], small=c.small[:, LAST])),
    ("groups mixed", lambda c: c.having(small=_dealt(c, c.small, 1), weight=_dealt(c, c.weight, 0))),
    ("= for +=: last window", lambda c: _last_written(c, by_window=True)),
    ("= for +=: last tap", lambda c: _last_written(c, by_window=False)),
)
SMALL: tuple[Row, ...] = (
    ("padding ignored: output", _unpadded),
    ("= for +=: last input channel", lambda c: c.having(weight=c.weight[:, LAST], image=c.image[:, LAST])),
    ("groups mixed", lambda c: c.having(image=_dealt(c, c.image, 1))),
    ("= for +=: last value", lambda c: c.having(weight=_alone(c.weight, (..., -1, -1)))),
)
WEIGHT: tuple[Row, ...] = (
    ("convolved", lambda c: c.having(**{c.gradient: getattr(c, c.gradient)[TURNED]})),
    ("convolved", lambda c: c.having(small=c.spread()[TURNED], stride=(1, 1))),
    ("groups mixed", lambda c: c.having(image=_dealt(c, c.image, 1))),
    ("reshaped in place of transposed", lambda c: c.having(image=_stored(c.image), small=_stored(c.small))),
    ("= for +=: last sample", lambda c: c.having(image=c.image[LAST], small=c.small[LAST])),
    ("first sample only", lambda c: c.having(image=c.image[:1], small=c.small[:1])),
    ("= for +=: last position", lambda c: c.having(small=_alone(c.small, (..., -1, -1)))),
    ("= for +=: last position of the last sample", lambda c: c.having(small=_alone(c.small, LAST_OF_ALL))),
    ("batch and channels not swapped", _unswapped),
    ("stride of forward", lambda c: c.kernel(stride=c.stride, padding=c.padding)),
    ("padding ignored: weight", lambda c: c.rows_read(c.kernel(dilation=c.stride))),
    ("not cut", lambda c: c.kernel(dilation=c.stride, padding=c.padding)),
)
TABLE = {"image": IMAGE, "small": SMALL, "weight": WEIGHT}  # by the array that is wanted
IMAGE_OF_STRIDE_ONE = (
    ("padding of forward", lambda c: c.convolved(c.spread(), c.padding)),
    ("padding not cut off", lambda c: c.convolved(c.spread(), c.reach())),
    ("zeros of the stride missing", lambda c: c.convolved(c.small, c.full_padding())),
    ("last rows missing", lambda c: c.convolved(_without_end(c), c.full_padding())),
)
BIAS: dict[str, Callable[[Array], Array]] = {  # of grad_output with one axis of positions
    "= for +=: last sample": lambda g: g[-1].sum(axis=1),
    "first sample only": lambda g: g[0].sum(axis=1),
    "= for +=: last position": lambda g: g[:, :, -1].sum(axis=0),
    "= for +=: last position of the last sample": lambda g: g[-1, :, -1],
    "wrong axis: bias": lambda g: g.sum(axis=(1, 2)),
}

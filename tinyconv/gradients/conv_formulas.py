"""What people write in place of the gradients of a convolution.

A convolution has an image, a kernel, and small maps of one value a window. Given two of them it makes the
third: conv2d makes the small maps, its gradient with respect to the input an image; conv_transpose2d has it
the other way round. So the wrong formulas are written once, for all three results, all three operators and
every stride, padding and dilation.

examples/conv_gradient_formulas.py has the same formulas as people write them, with the reasons.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import tinyconv.functional as F
from tinyconv.arguments import pair, single
from tinyconv.arrays import Array
from tinyconv.functional.conv.geometry import named_padding
from tinyconv.gradients.transformations import Mistake

Pair = tuple[int, int]


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

    def result(self) -> Array:
        """The wanted array. The image is cut or filled with zeros at its end where the windows need it."""
        extent = self.extent()
        if self.wanted == "image":
            shape = (*self.image.shape[:2], *extent)
            full = F.conv2d_input(shape, self.weight, self.small, self.stride, 0, self.dilation, self.groups)
            size = [n + 2 * p for n, p in zip(self.image.shape[2:], self.padding, strict=True)]
            return _cut(_fitted(full, size), self.padding)
        options = self.stride, 0, self.dilation, self.groups
        image = _fitted(_padded(self.image, self.padding), extent)
        if self.wanted == "weight":
            return F.conv2d_weight(image, self.weight.shape, self.small, *options)
        return F.conv2d(image, self.weight, None, *options)

    def extent(self) -> list[int]:
        """The rows and columns that the windows reach."""
        sizes = zip(self.small.shape[2:], self.weight.shape[2:], self.stride, self.dilation, strict=True)
        return [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in sizes]

    def turned(self) -> Array:
        """The kernel, rotated by 180 degrees."""
        return self.weight[:, :, ::-1, ::-1]

    def spread(self) -> Array:
        """The small maps among zeros, where stride 1 has the positions that the stride skips."""
        n, o = self.small.shape[:2]
        sizes = zip(self.image.shape[2:], self.padding, self.weight.shape[2:], self.dilation, strict=True)
        spread = np.zeros((n, o, *(size + 2 * p - d * (k - 1) for size, p, k, d in sizes)))
        spread[:, :, :: self.stride[0], :: self.stride[1]] = self.small
        return spread


def _padded(image: Array, padding: Pair) -> Array:
    return np.pad(image, [(0, 0), (0, 0), *((p, p) for p in padding)])


def _cut(image: Array, padding: Pair) -> Array:
    index: Any = tuple(slice(p, size - p) for p, size in zip(padding, image.shape[2:], strict=True))
    return image[(..., *index)]


def _fitted(image: Array, size: list[int]) -> Array:
    """The image with rows and columns cut off or zeros added at its end."""
    image = image[:, :, : size[0], : size[1]]
    more = [(0, want - have) for want, have in zip(size, image.shape[2:], strict=True)]
    return np.pad(image, [(0, 0), (0, 0), *more])


class Wrong(NamedTuple):
    """What a wrong formula gives, and how the mistake is called, worded and cured."""

    array: Any
    name: str
    says: str
    cure: str

    def mistake(self, known: Any) -> Mistake:
        """The same without the array."""
        return Mistake(self.name, {"operator": known.operator}, self.cure, self.says)


def wrong(known: Any) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
    """The results of the wrong formulas, in the shapes of the operator's own arrays."""
    if known.wrt == "bias":
        one = known.input.ndim == known.weight.ndim - 1
        for entry in _bias(known.grad_output[None] if one else known.grad_output):
            yield entry.array, (entry.mistake(known),)
    elif made := _conv(known):
        conv, drop = made
        for formulas in (_kernel, *FORMULAS):
            for entry in _fitting(formulas(conv, known)):
                yield _lowered(entry.array, drop, known), (entry.mistake(known),)
        if known.wrt == "output" and known.bias is not None:
            yield known.output(bias=None), (Mistake("bias missing", {}, "Add the bias.", "without the bias"),)


def wrong_twice(known: Any) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
    """The results of the wrong formulas with the kernel rotated, or its channels swapped, as well."""
    made = None if known.wrt in ("bias", "weight") else _conv(known)
    if made is None:
        return
    conv, drop = made
    for changed, first in _kernels(conv, known):
        for formulas in FORMULAS:
            for entry in _fitting(formulas(changed, known)):
                yield _lowered(entry.array, drop, known), (first.mistake(known), entry.mistake(known))


def _lowered(array: Array, drop: tuple[int, ...], known: Any) -> Array:
    """The array without the axes that `_lifted` added, and with the bias."""
    if known.wrt == "output" and known.bias is not None:
        array = array + np.reshape(known.bias, (-1, 1, 1))
    return array.reshape([size for axis, size in enumerate(array.shape) if axis not in drop])


def _fitting(entries: Iterator[Any]) -> Iterator[Wrong]:
    """The entries whose formula fits the shapes."""
    for thunk, name, says, cure in entries:
        try:
            array = thunk()
        except (ValueError, IndexError, TypeError):
            continue
        if array.size:
            yield Wrong(array, name, says, cure)


def _conv(known: Any) -> tuple[Conv, tuple[int, ...]] | None:
    """The convolution as one of batches of images, and the axes that this has added to the result."""
    lifted, options, drop = _lifted(known)
    x, weight, grad = lifted
    stride, padding, dilation = options
    if padding is None:
        return None
    transpose = known.operator == "conv_transpose2d"
    image, small = (grad, x) if transpose else (x, grad)
    wanted = {"input": "small" if transpose else "image", "weight": "weight"}.get(known.wrt)
    wanted = wanted or ("image" if transpose else "small")
    return Conv(image, weight, small, wanted, stride, padding, dilation, known.groups), drop


def _lifted(known: Any) -> tuple[tuple[Array, Array, Array], tuple[Pair, Pair | None, Pair], tuple[int, ...]]:
    """Arrays with a batch and two axes of positions; stride, padding, dilation as pairs; the axes added."""
    x, weight = known.input, known.weight
    grad = known.output() if known.wrt == "output" else known.grad_output
    drop: tuple[int, ...] = ()
    if x.ndim == weight.ndim - 1:
        x, grad = x[None], grad[None]
        drop = () if known.wrt == "weight" else (0,)
    if weight.ndim == 3:
        drop = (*drop, 2)
        x, weight, grad = x[:, :, None], weight[:, :, None], grad[:, :, None]
        stride, dilation = ((1, single(n, getattr(known, n))) for n in ("stride", "dilation"))
        named = known.padding if isinstance(known.padding, str) else (0, single("padding", known.padding, 0))
    else:
        stride, dilation = pair("stride", known.stride), pair("dilation", known.dilation)
        named = known.padding if isinstance(known.padding, str) else pair("padding", known.padding, 0)
    pads = named_padding(named, weight.shape[2:], stride, dilation)
    even = all(start == end for start, end in pads)
    return (x, weight, grad), (stride, (pads[0][0], pads[1][0]) if even else None, dilation), drop


def _kernels(c: Conv, known: Any) -> Iterator[tuple[Conv, Wrong]]:
    """The convolution with its kernel rotated the wrong way, or with its channels in the wrong order."""
    backward = known.wrt != "output" and c.wanted == "image"
    name = "kernel not rotated" if backward else "kernel rotated"
    cure = "Use the kernel as it is: scipy.signal.correlate2d in place of convolve2d."
    if backward:
        cure = "Rotate the kernel, w[..., ::-1, ::-1], before the correlation that gives the gradient."
    turned = c._replace(weight=c.turned())
    yield turned, Wrong(None, name, f"computed with the {name} by 180°", cure)
    if c.groups == 1 and c.weight.shape[0] == c.weight.shape[1] > 1:
        name = "channels not swapped" if backward else "channels swapped"
        which = "are not swapped" if backward else "are swapped"
        cure = "Sum over the output channels in the gradient, and over the input channels in forward."
        says = f"computed with a kernel whose in and out channels {which}"
        yield c._replace(weight=c.weight.swapaxes(0, 1)), Wrong(None, name, says, cure)


def _kernel(c: Conv, known: Any) -> Iterator[Any]:
    """The kernel rotated or not, in and out channels swapped or not; or grad_output rotated."""
    if c.wanted != "weight":
        for changed, what in _kernels(c, known):
            yield changed.result, what.name, what.says, what.cure
        return
    cure = "Use correlate2d in place of convolve2d: nothing is rotated in the gradient of the kernel."
    says = "computed by a convolution, which rotates grad_output by 180°, where a correlation is wanted"
    turned = (slice(None), slice(None), slice(None, None, -1), slice(None, None, -1))
    which = "image" if known.operator == "conv_transpose2d" else "small"
    if which == "small":
        yield lambda: c._replace(small=c.small[turned]).result(), "convolved", says, cure
        spread = c.spread()[turned]
        yield lambda: c._replace(small=spread, stride=(1, 1)).result(), "convolved", says, cure
    else:
        yield lambda: c._replace(image=c.image[turned]).result(), "convolved", says, cure


def _geometry(c: Conv, known: Any) -> Iterator[Any]:
    """Another stride, dilation or padding than forward's."""
    one, line = (1, 1), known.operator == "conv1d"

    def shown(value: Pair) -> Any:
        return value[1] if line else value

    changes: list[tuple[str, dict[str, Pair]]] = [
        ("stride ignored", {"stride": one}),
        ("dilation ignored", {"dilation": one}),
        ("stride and dilation exchanged", {"stride": c.dilation, "dilation": c.stride}),
        ("padding ignored", {"padding": (0, 0)}),
        *(
            ("padding off by one", {"padding": (c.padding[0] + a, c.padding[1] + b)})
            for a, b in ((1, 1), (-1, -1), (0, 1), (1, 0), (0, -1), (-1, 0))
        ),
        ("stride and padding ignored", {"stride": one, "padding": (0, 0)}),
    ]
    tried = {(c.stride, c.padding, c.dilation)}
    for name, change in changes:
        changed = c._replace(**change)  # type: ignore[arg-type]
        geometry = changed.stride, changed.padding, changed.dilation
        if geometry in tried or min(changed.padding) < 0 or (line and changed.padding[0]):
            continue
        tried.add(geometry)
        differ = [key for key, value in change.items() if value != getattr(c, key)]
        values = " and ".join(
            f"{key} {shown(change[key])} in place of {shown(getattr(c, key))}" for key in differ
        )
        which = " and ".join(differ)
        cure = f"Use forward's {which}: window p reads the row p * stride + i * dilation - padding."
        yield changed.result, name, f"computed with {values}", cure
    if c.wanted == "small":
        options = None, c.stride, 0, c.dilation, c.groups
        if known.operator != "conv_transpose2d" and any(c.padding):
            cure = "Pad the image first."
            yield lambda: F.conv2d(c.image, c.weight, *options), "padding ignored", "without padding", cure


def _exchanged(c: Conv, known: Any) -> Iterator[Any]:
    """In and out channels in the wrong order, beside another mistake."""
    if c.wanted != "weight":
        for changed, what in list(_kernels(c, known))[1:]:
            yield changed.result, what.name, what.says, what.cure


def _groups(c: Conv, known: Any) -> Iterator[Any]:
    """Channels dealt out to the groups in turn, or all in one."""
    if c.groups == 1:
        return
    channels, maps = (_dealt(array.shape[1], c.groups) for array in (c.image, c.small))
    cure = (
        "Group k has the input channels from k * C / groups on, the output channels from k * O / groups on."
    )
    says = "computed with the channels dealt out to the groups in turn (channel k to group k % groups)"
    for mixed in ((channels, maps), (None, maps), (channels, None)):
        yield lambda mixed=mixed: _dealt_result(c, *mixed), "groups mixed", says, cure
    if c.wanted == "weight":
        says = "computed with groups=1"
        yield (
            lambda: F.conv2d_weight(
                _fitted(_padded(c.image, c.padding), c.extent()),
                (c.small.shape[1], c.image.shape[1], *c.weight.shape[2:]),
                c.small,
                c.stride,
                0,
                c.dilation,
            ),
            "groups ignored",
            says,
            "Each output channel has a gradient for the input channels of its own group alone.",
        )


def _dealt(number: int, groups: int) -> Array:
    """The channels in the order of their groups, if channel k is in group k % groups."""
    return np.arange(number).reshape(-1, groups).T.ravel()


def _dealt_result(c: Conv, channels: Array | None, maps: Array | None) -> Array:
    """The result, if the channels of the image and of the maps are dealt out in such an order."""
    channels = np.arange(c.image.shape[1]) if channels is None else channels
    maps = np.arange(c.small.shape[1]) if maps is None else maps
    mixed = c._replace(image=c.image[:, channels], small=c.small[:, maps], weight=c.weight[maps])
    result = np.empty_like(getattr(c, c.wanted), dtype=np.float64)
    if c.wanted == "weight":
        result[maps] = mixed.result()
    else:
        result[:, channels if c.wanted == "image" else maps] = mixed.result()
    return result


def _overwritten(c: Conv, known: Any) -> Iterator[Any]:
    """= in place of +=: what is written last remains; or what is first, as other samples are not read."""
    cure = "Add (+=) what each step of the loop gives; the array starts with zeros."
    name = "= for +="
    if c.wanted == "weight":
        for which, part in (("last", slice(-1, None)), ("first", slice(0, 1))):
            one = c._replace(image=c.image[part], small=c.small[part])
            called, step = (name, cure) if which == "last" else ("first sample only", "Sum over the batch.")
            yield one.result, called, f"computed from the {which} sample alone", step
        small = np.zeros_like(c.small)
        small[..., -1, -1] = c.small[..., -1, -1]
        yield c._replace(small=small).result, name, "computed from the last position alone", cure
        small = np.zeros_like(c.small)
        small[-1, :, -1, -1] = c.small[-1, :, -1, -1]
        yield (
            c._replace(small=small).result,
            name,
            "computed from the last position of the last sample alone",
            cure,
        )
        return
    if c.groups == 1:
        last = slice(-1, None)
        one = c._replace(weight=c.weight[last], small=c.small[:, last])
        if c.wanted == "small":
            one = c._replace(weight=c.weight[:, last], image=c.image[:, last])
        says = f"computed from the last {'input' if c.wanted == 'small' else 'output'} channel alone"
        yield one.result, name, says, cure
    weight = np.zeros_like(c.weight)
    weight[..., -1, -1] = c.weight[..., -1, -1]
    if c.wanted == "small":
        yield c._replace(weight=weight).result, name, "computed from the last value of the kernel alone", cure
    else:
        yield (
            lambda: _last_written(c, True),
            name,
            "computed from the last window alone where windows overlap",
            cure,
        )
        yield (
            lambda: _last_written(c, False),
            name,
            "computed from the last tap of the kernel alone where taps overlap",
            cure,
        )


def _last_written(c: Conv, by_window: bool) -> Array:
    """The image, if each window, or each tap of the kernel, overwrites what was there before."""
    full = np.zeros((*c.image.shape[:2], *c.extent()))
    places = list(np.ndindex(c.weight.shape[2:]))
    for place in reversed(places) if by_window else places:  # the last window is that of the first place
        one = np.zeros_like(c.weight)
        one[(..., *place)] = c.weight[(..., *place)]
        part = c._replace(image=full, weight=one, padding=(0, 0)).result()
        index: Any = tuple(
            slice(at * d, at * d + (n - 1) * s + 1, s)
            for at, d, n, s in zip(place, c.dilation, c.small.shape[2:], c.stride, strict=True)
        )
        full[(..., *index)] = part[(..., *index)]
    size = [n + 2 * p for n, p in zip(c.image.shape[2:], c.padding, strict=True)]
    return _cut(_fitted(full, size), c.padding)


def _image_of_stride_one(c: Conv, known: Any) -> Iterator[Any]:
    """A "full" convolution, with the wrong padding or without the stride's zeros."""
    if c.wanted != "image" or known.wrt == "output":
        return
    reach = [d * (k - 1) for d, k in zip(c.dilation, c.weight.shape[2:], strict=True)]
    kernel = _swapped(c.turned(), c.groups)
    pads = [r - p for r, p in zip(reach, c.padding, strict=True)]

    def convolved(maps: Array, padding: Any) -> Array:
        if min(padding) < 0:
            raise ValueError
        return F.conv2d(maps, kernel, None, 1, tuple(padding), c.dilation, c.groups)

    if tuple(pads) != c.padding:
        cure = "Pad with dilation * (KH - 1) - padding, which equals forward's padding only for 'same'."
        says = f"computed with forward's padding {c.padding} in place of {tuple(pads)}"
        yield lambda: convolved(c.spread(), c.padding), "padding of forward", says, cure
    if any(c.padding):
        says = "with the rows and columns of the padding"
        yield (
            lambda: convolved(c.spread(), reach),
            "padding not cut off",
            says,
            "Cut the padding off each side.",
        )
    if c.stride != (1, 1):
        cure = "Put stride - 1 zeros between the values of grad_output first."
        says = "computed without the zeros of the stride between the values of grad_output"
        yield lambda: convolved(c.small, pads), "zeros of the stride missing", says, cure
        between = [(n - 1) * s + 1 for n, s in zip(c.small.shape[2:], c.stride, strict=True)]
        spread = c.spread()[:, :, : between[0], : between[1]]
        cure = "Add zeros at the end as well (output_padding), for the rows that no window reads."
        says = "without the last rows or columns, which the stride leaves unread"
        yield lambda: convolved(spread, pads), "last rows missing", says, cure


def _swapped(weight: Array, groups: int) -> Array:
    """The kernel with its in and out channels exchanged, group by group."""
    o, c = weight.shape[:2]
    parts = weight.reshape(groups, o // groups, c, *weight.shape[2:]).swapaxes(1, 2)
    return parts.reshape(groups * c, o // groups, *weight.shape[2:])


def _weight(c: Conv, known: Any) -> Iterator[Any]:
    """The kernel's gradient as a convolution with the wrong axes, stride or padding."""
    if c.wanted != "weight" or known.operator == "conv_transpose2d":
        return
    kh, kw = c.weight.shape[2:]
    x, g = c.image, c.small
    if c.groups == 1:

        def convolved(x: Array, g: Array, **options: Any) -> Array:
            return F.conv2d(x.swapaxes(0, 1), g.swapaxes(0, 1), **options).swapaxes(0, 1)

        cure = "Swap batch and channels of the input and of grad_output first: x.swapaxes(0, 1)."
        yield (
            lambda: F.conv2d(x, g, None, 1, c.padding, c.stride)[:, :, :kh, :kw],
            "batch and channels not swapped",
            "summed over the channels in place of the batch",
            cure,
        )
        yield (
            lambda: convolved(x, g, stride=c.stride, padding=c.padding),
            "stride of forward",
            "computed with the stride as a stride, where it is the dilation of grad_output",
            "Use conv2d(..., dilation=stride).",
        )
        yield (
            lambda: convolved(x, g, dilation=c.stride)[:, :, :kh, :kw],
            "padding ignored",
            "computed from the input without its padding",
            "Pad the input as in forward.",
        )
        yield (
            lambda: convolved(x, g, dilation=c.stride, padding=c.padding),
            "not cut",
            "with the rows and columns that the stride leaves unread",
            "Keep the first KH rows and KW columns.",
        )

    def stored(array: Array) -> Array:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).reshape(array.shape)

    cure = "Use transpose(0, 3, 1, 2): reshape does not move axes."
    for name, changed in (
        ("input and grad_output", (x, g)),
        ("the input", (x, None)),
        ("grad_output", (None, g)),
    ):
        image = x if changed[0] is None else stored(x)
        small = g if changed[1] is None else stored(g)
        says = f"computed with {name} reshaped from NHWC to NCHW"
        yield c._replace(image=image, small=small).result, "reshaped in place of transposed", says, cure


def _bias(g: Array) -> Iterator[Wrong]:
    """The bias's gradient, summed over the wrong axes or not at all."""
    if g.ndim < 3:
        return
    axes = (0, *range(2, g.ndim))
    cure = f"Sum over the batch and all positions: grad_output.sum(axis={axes})."
    positions = tuple(range(2, g.ndim))
    last = g.reshape(*g.shape[:2], -1)[:, :, -1]
    yield Wrong(
        g[-1].sum(axis=tuple(range(1, g.ndim - 1))), "= for +=", "computed from the last sample alone", cure
    )
    yield Wrong(
        g[0].sum(axis=tuple(range(1, g.ndim - 1))),
        "first sample only",
        "computed from the first sample alone",
        cure,
    )
    yield Wrong(last.sum(axis=0), "= for +=", "computed from the last position alone", cure)
    yield Wrong(last[-1], "= for +=", "computed from the last position of the last sample alone", cure)
    yield Wrong(g.sum(axis=(1, *positions)), "wrong axis", "summed over channels, not over the batch", cure)
    yield Wrong(g.sum(axis=positions), "not summed", "before it is summed over the batch", cure)
    yield Wrong(g.sum(axis=0), "not summed", "before it is summed over the positions", cure)
    yield Wrong(g, "not summed", "before it is summed: it is grad_output", cure)


FORMULAS = (_exchanged, _geometry, _groups, _overwritten, _image_of_stride_one, _weight)

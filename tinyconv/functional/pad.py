"""Padding in four modes, negative pads included, and its gradient.

Apart from "constant", each output position along an axis is read from one input position; `gather` copies the
values, and its backward adds every gradient up where its value was read.
"""

from collections.abc import Sequence

from tinyconv.arguments import Pair, check_arrays, check_shape, integers, number, one_of
from tinyconv.arrays import Array, as_logical, as_stored, empty_stored, zeros_stored
from tinyconv.functional.gather import gather, gather_backward

__all__ = ["pad", "pad_backward"]

MODES = ("constant", "reflect", "replicate", "circular")


def pad(input: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """Put values around the last dimensions of an array; negative pads remove values.

    Along a dimension of length L, output position i holds input position j = i - before, and where j
    is outside 0 to L - 1

        constant: `value`                     replicate: the nearest position, 0 or L - 1
        reflect:  -j or 2 * (L - 1) - j       circular:  j modulo L (L after cropping by negative pads)

    Args:
        input: float32 or float64; any shape for "constant", else (N, C, ...) or (C, ...) with as many
            spatial dimensions, 1 to 3, as `pad` has pairs.
        pad: (before, after) for the last dimension, then for the one before it, and so on.
        mode: "constant", "reflect", "replicate" or "circular".
        value: the value for "constant"; None is 0.

    Returns:
        An array with each length L become before + L + after, in the memory format
        (see `tinyconv.arrays.layout`).

    Raises:
        ValueError: an odd number of pads or too many, a negative length, an unknown mode, a `value` in
            another mode than "constant"; "reflect" with pads of L or more, "circular" with pads above the
            cropped L.
        TypeError: `input` is not floating, `pad` is not a sequence of ints.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pad.html

    >>> import numpy as np
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> [pad(x, (2, -1), mode)[0].tolist() for mode in ("constant", "reflect", "replicate", "circular")]
    [[0.0, 0.0, 1.0, 2.0], [3.0, 2.0, 1.0, 2.0], [1.0, 1.0, 1.0, 2.0], [1.0, 2.0, 1.0, 2.0]]
    """
    xp = check_arrays(input=input)
    pairs = _pad_pairs(input.shape, pad, mode)
    shape = _padded_shape(input.shape, pairs)
    if mode == "constant":
        inside, read = _constant_slices(input.shape, pairs)
        output = empty_stored(shape, input.dtype, xp)
        output[...] = 0.0 if value is None else number("value", value)
        output[inside] = input[read]
        return output
    if value:
        raise ValueError(f"`value` (={value}) must be None for `mode` {mode!r}")
    moves = _pad_indices(input.shape, pairs, mode)
    for axis, indices in moves:
        input = gather(input, indices, axis)
    return input if moves else _copy(input)


def pad_backward(
    grad_output: Array, input: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Array:
    """Add up every gradient at the position where `pad` read its value.

    >>> import numpy as np
    >>> grad, x = np.array([[1.0, 10.0, 100.0, 1000.0]]), np.zeros((1, 3))
    >>> [pad_backward(grad, x, (1, 0), mode)[0].tolist() for mode in ("constant", "reflect", "circular")]
    [[10.0, 100.0, 1000.0], [10.0, 101.0, 1000.0], [10.0, 100.0, 1001.0]]
    """
    check_arrays(input=input, grad_output=grad_output)
    pairs = _pad_pairs(input.shape, pad, mode)
    shape = _padded_shape(input.shape, pairs)
    check_shape("grad_output", grad_output, shape, "of the output")
    if mode == "constant":
        inside, read = _constant_slices(input.shape, pairs)
        grad = zeros_stored(input.shape, like=input)
        grad[read] = grad_output[inside]
        return grad
    moves = _pad_indices(input.shape, pairs, mode)
    for axis, indices in reversed(moves):
        grad_output = gather_backward(grad_output, indices, axis, input.shape[axis])
    return grad_output if moves else _copy(grad_output)


def pad_shape(shape: tuple[int, ...], pad: Sequence[int], mode: str = "constant") -> tuple[int, ...]:
    """Return the shape that `pad` gives an array of `shape`."""
    return _padded_shape(shape, _pad_pairs(shape, pad, mode))


def _copy(x: Array) -> Array:
    """A copy of `x` in the memory format."""
    return as_logical(as_stored(x).copy())


def _padded_shape(shape: tuple[int, ...], pairs: list[Pair]) -> tuple[int, ...]:
    return tuple(length + sum(pair) for length, pair in zip(shape, pairs, strict=True))


def _pad_pairs(shape: tuple[int, ...], pad: Sequence[int], mode: str) -> list[Pair]:
    """`pad` as a checked pair for each dimension of `shape`, in the order of the dimensions."""
    one_of("mode", mode, MODES)
    values = integers("pad", pad, minimum=-(1 << 62))
    if len(values) % 2 or len(values) > 2 * len(shape):
        raise ValueError(
            f"`pad` (={tuple(pad)}) must have a pair for each padded dimension, "
            f"of the {len(shape)} dimensions of `input`"
        )
    spatial = len(values) // 2
    if mode != "constant" and not (1 <= spatial <= 3 and len(shape) - spatial in (1, 2)):
        raise ValueError(
            f"`input` (of shape {shape}) must have the form (N, C, ...) or (C, ...) with the {spatial} "
            f"spatial dimensions that `pad` (={tuple(pad)}) pads, 1 to 3, for `mode` {mode!r}"
        )
    pairs = [(values[i], values[i + 1]) for i in range(0, len(values), 2)]
    pairs = [(0, 0)] * (len(shape) - spatial) + pairs[::-1]
    for length, pair in zip(shape, pairs, strict=True):
        _check_pair(length, pair, mode)
    return pairs


def _check_pair(length: int, pair: Pair, mode: str) -> None:
    kept = length + min(pair[0], 0) + min(pair[1], 0)
    if (kept if mode in ("constant", "circular") else length + sum(pair)) < 0:
        raise ValueError(f"`pad` (={pair}) must not remove more than the dimension's length {length}")
    most = {"reflect": length - 1, "circular": kept}.get(mode)
    if most is not None and max(pair) > max(most, 0):
        raise ValueError(
            f"`pad` (={pair}) must be at most {max(most, 0)} for `mode` {mode!r} and a length of {length}"
        )
    if mode == "replicate" and length == 0 < max(pair):
        raise ValueError(f"`pad` (={pair}) must be 0 for `mode` {mode!r} and a length of 0")


def _pad_indices(shape: tuple[int, ...], pairs: list[Pair], mode: str) -> list[tuple[int, list[int]]]:
    """For each padded axis, the input position of every output position."""
    return [
        (axis, [_source(i, shape[axis], pair, mode) for i in range(shape[axis] + sum(pair))])
        for axis, pair in enumerate(pairs)
        if pair != (0, 0)
    ]


def _source(position: int, length: int, pair: Pair, mode: str) -> int:
    """The input position that an output position reads."""
    j, last = position - pair[0], length - 1
    if mode == "replicate":
        return min(max(j, 0), last)
    if mode == "reflect":
        return -j if j < 0 else min(j, 2 * last - j)
    first = max(-pair[0], 0)
    return first + (j - first) % (length - first + min(pair[1], 0))


def _constant_slices(
    shape: tuple[int, ...], pairs: list[Pair]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The slices of the output that have values of the input, and the slices of these in the input."""
    inside, read = [], []
    for length, (before, after) in zip(shape, pairs, strict=True):
        read.append(slice(max(-before, 0), length - max(-after, 0)))
        inside.append(slice(max(before, 0), length + before + after - max(after, 0)))
    return tuple(inside), tuple(read)

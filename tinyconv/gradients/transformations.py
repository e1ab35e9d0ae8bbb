"""The ways in which an array can be another one, transformed: what `diagnose` tries.

Each function of the table takes `got` and `want` and yields candidates: two arrays that are equal, or
proportional, if the mistake was made. Almost all of them are views, and a sample of their values rejects
almost all of them, so that many can be tried on large arrays.
"""

import itertools
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arrays import Array
from tinyconv.gradients.mistakes import Mistake

LARGEST_SHIFT = 3
LARGEST_CROP = 8
MOST_AXES = 5
SAMPLES = 97
LOOSE = 1e-2  # of the largest value, for a first look at a sample


class Candidate(NamedTuple):
    """Two arrays that would be equal if the mistakes had been made."""

    got: Array
    want: Array
    mistakes: tuple[Mistake, ...]


Transformation: TypeAlias = Callable[[Array, Array], Iterator[Candidate]]


def factor_between(got: Array, want: Array, tolerance: float) -> float | None:
    """The c with got = c * want to within `tolerance` of the largest `got`, or None; 1.0 is exact."""
    if got.shape != want.shape or not got.size:
        return None
    got, want = np.atleast_1d(got, want)
    largest = abs(got).max()
    places = _sampled(got.shape)
    if largest == 0 or not _proportional(got[places], want[places], tolerance * largest):
        return None
    if (abs(got - want) <= tolerance * largest).all():
        return 1.0
    top = abs(want).max() or 1.0  # so that squares neither overflow nor vanish
    square = float(((want / top) ** 2).sum())
    factor = float((got / top * (want / top)).sum()) / square if square else 0.0
    return factor if factor and (abs(got - factor * want) <= tolerance * largest).all() else None


def _sampled(shape: tuple[int, ...]) -> tuple[Array, ...]:
    """The indices of some values, evenly spaced."""
    size = prod(shape)
    return np.unravel_index(np.linspace(0, size - 1, min(SAMPLES, size)).astype(int), shape)


def _proportional(got: Array, want: Array, apart: float) -> bool:
    """Whether these values may be proportional."""
    top = int(abs(want).argmax())
    if want[top] == 0:
        return bool((abs(got) <= apart).all())
    return bool((abs(got - got[top] / want[top] * want) <= 3 * apart).all())


def axes_named(axes: tuple[int, ...], ndim: int) -> str:
    """How a sentence says which axes: "its last two axes", "axis 1", "axes 0 and 2"."""
    if len(axes) == 2 and axes == (ndim - 2, ndim - 1):
        return "its last two axes" if ndim > 2 else "its two axes"
    if len(axes) == 1:
        return f"its axis {axes[0]}" if ndim > 1 else "its axis"
    return f"its axes {', '.join(map(str, axes[:-1]))} and {axes[-1]}"


# Same values, in other places


def flipped(got: Array, want: Array) -> Iterator[Candidate]:
    """Reverse some axes."""
    for axes in _subsets([axis for axis, size in enumerate(want.shape) if size > 1]):
        yield Candidate(got, np.flip(want, axes), (_flip(axes, want.ndim),))


def _flip(axes: tuple[int, ...], ndim: int) -> Mistake:
    index = ", ".join("::-1" if axis in axes else ":" for axis in range(ndim))
    says = f"with {axes_named(axes, ndim)} reversed"
    if ndim >= 2 and axes == (ndim - 2, ndim - 1):
        why = "the kernel is rotated by 180°"
        return Mistake("rotated", {"axes": axes}, "Use w[..., ::-1, ::-1].", says, why)
    return Mistake("flipped", {"axes": axes}, f"Use got[{index}].", says)


def transposed(got: Array, want: Array) -> Iterator[Candidate]:
    """Exchange axes."""
    for axes in _orders(want):
        if (moved := want.transpose(axes)).shape == got.shape:
            yield Candidate(got, moved, (_transposition(axes),))


def _transposition(axes: tuple[int, ...]) -> Mistake:
    back = tuple(int(axis) for axis in np.argsort(axes))
    if axes == tuple(range(len(axes)))[::-1]:
        says = "transposed" if len(axes) == 2 else "with all its axes in reverse order (.T)"
        cure = "Use got.T." if len(axes) == 2 else f"Use got.transpose{back}: .T reverses all axes."
        return Mistake("transposed", {"axes": axes}, cure, says)
    moved = [axis for axis, was in enumerate(axes) if axis != was]
    if len(moved) == 2:
        says, cure = (
            f"with axes {moved[0]} and {moved[1]} exchanged",
            f"Use got.swapaxes({moved[0]}, {moved[1]}).",
        )
    else:
        says, cure = f"with its axes in the order {axes}", f"Use got.transpose{back}."
    return Mistake("transposed", {"axes": axes}, cure, says)


def in_another_memory_order(got: Array, want: Array) -> Iterator[Candidate]:
    """Read the bytes of another layout as if they were in this one: a reshape that should be a transpose."""
    for axes in _orders(want):
        stored = want.transpose(axes)
        if _long(stored.shape) != _long(got.shape) and _reshape_may_fit(stored, got):
            yield Candidate(got, stored.reshape(got.shape), (_memory_order(axes, want),))
    for axes in _orders(got):
        stored = got.transpose(axes)
        if _long(stored.shape) != _long(want.shape) and _reshape_may_fit(stored, want):
            cure = f"Use got.transpose{axes}.reshape{want.shape}: reshape does not move axes."
            says = "read in another memory order"
            mistake = Mistake("memory order", {"axes": axes, "stored": "got"}, cure, says)
            yield Candidate(stored.reshape(want.shape), want, (mistake,))


def _reshape_may_fit(stored: Array, other: Array) -> bool:
    """Whether a reshape, which is a copy, is worth trying."""
    some, others = stored[_sampled(stored.shape)], other[_sampled(other.shape)]
    return _proportional(others, some, LOOSE * abs(others).max())


def _memory_order(axes: tuple[int, ...], want: Array) -> Mistake:
    layouts: dict[tuple[int, ...], str] = {
        (0, 2, 3, 1): "NHWC as NCHW",
        (2, 3, 1, 0): "HWIO as OIHW",
        (1, 2, 3, 0): "CHWN as NCHW",
    }
    layouts |= {tuple(range(want.ndim))[::-1]: "Fortran order as C order"}
    which = f" ({layouts[axes]})" if axes in layouts else ""
    back = tuple(int(axis) for axis in np.argsort(axes))
    shape = tuple(want.shape[axis] for axis in axes)
    cure = f"Use got.reshape{shape}.transpose{back}: reshape does not move axes."
    return Mistake("memory order", {"axes": axes}, cure, f"read in another memory order{which}")


def reshaped(got: Array, want: Array) -> Iterator[Candidate]:
    """Give the same values another shape."""
    if got.shape != want.shape and got.size == want.size:
        mistake = Mistake(
            "reshaped", {"shape": want.shape}, f"Use got.reshape{want.shape}.", "in another shape"
        )
        yield Candidate(got.reshape(want.shape), want, (mistake,))


def rolled(got: Array, want: Array) -> Iterator[Candidate]:
    """Shift cyclically, along one axis or the last two."""
    if got.shape != want.shape or not want.ndim:
        return
    choices: list[dict[int, int]] = []
    for axis, size in enumerate(want.shape):
        reach = min(size // 2, 2 * LARGEST_SHIFT)
        choices += [{axis: shift} for shift in _near(reach) if 2 * shift != -size]  # which is size / 2
    if want.ndim >= 2:
        down, right = (_near(min(size // 2, LARGEST_SHIFT)) for size in want.shape[-2:])
        choices += [{want.ndim - 2: d, want.ndim - 1: r} for d, r in itertools.product(down, right)]
    places = _sampled(got.shape)
    some = got[places]
    for shifts in choices:
        source = tuple((at - shifts.get(axis, 0)) % want.shape[axis] for axis, at in enumerate(places))
        if _proportional(some, want[source], LOOSE * abs(some).max()):
            moved = np.roll(want, tuple(shifts.values()), tuple(shifts))
            yield Candidate(got, moved, (_shift(shifts, "around"),))


def _shift(shifts: dict[int, int], filled: str) -> Mistake:
    by = " and ".join(f"{number:+d} along axis {axis}" for axis, number in shifts.items())
    what = (
        "with what leaves at one end entering at the other" if filled == "around" else "with zeros filled in"
    )
    why = "an index or the padding is off" if filled == "zeros" else "np.roll, or a wrong origin"
    amounts = ", ".join(str(-number) for number in shifts.values())
    cure = "Check the padding and the index of the first window."
    if filled == "around":
        cure = f"Use np.roll(got, ({amounts},), {tuple(shifts)})."
    return Mistake("shifted", {"shift": shifts, "filled": filled}, cure, f"shifted by {by} {what}", why)


# Some of the values, or values and zeros


def shifted(got: Array, want: Array) -> Iterator[Candidate]:
    """Shift the last one or two axes and fill with zeros."""
    if got.shape != want.shape or not want.ndim:
        return
    sizes = want.shape[-2:]
    reach = [range(-min(size - 1, LARGEST_SHIFT), min(size - 1, LARGEST_SHIFT) + 1) for size in sizes]
    for shifts in itertools.product(*reach):
        to: Any = tuple(slice(max(s, 0), size + min(s, 0)) for s, size in zip(shifts, sizes, strict=True))
        source: Any = tuple(
            slice(max(-s, 0), size + min(-s, 0)) for s, size in zip(shifts, sizes, strict=True)
        )
        if any(shifts) and _is_zero_outside(got, to):
            part, kept = got[(..., *to)], want[(..., *source)]
            moved = {want.ndim - len(shifts) + axis: s for axis, s in enumerate(shifts) if s}
            yield Candidate(part, kept, (_shift(moved, "zeros"),))


def _is_zero_outside(got: Array, inside: tuple[slice, ...]) -> bool:
    """Whether all that is not in these slices of the last axes is 0."""
    for axis, part in enumerate(inside, start=got.ndim - len(inside)):
        start, stop, _ = part.indices(got.shape[axis])
        for outside in (slice(0, start), slice(stop, None)):
            index = (slice(None),) * axis
            if got[(*index, outside)].any():
                return False
    return True


def cropped(got: Array, want: Array) -> Iterator[Candidate]:
    """Cut rows off, or leave on rows that want does not have."""
    if got.ndim != want.ndim or got.shape == want.shape:
        return
    smaller = all(a <= b for a, b in zip(got.shape, want.shape, strict=True))
    larger = all(a >= b for a, b in zip(got.shape, want.shape, strict=True))
    if not (smaller or larger):
        return
    inner, outer = (got, want) if smaller else (want, got)
    spare = [b - a for a, b in zip(inner.shape, outer.shape, strict=True)]
    if max(spare) > 2 * LARGEST_CROP or sum(1 for size in spare if size) > 2:
        return
    for before in itertools.product(*(range(size + 1) for size in spare)):
        index: Any = tuple(slice(b, b + size) for b, size in zip(before, inner.shape, strict=True))
        window = outer[index]
        cut = {axis: (b, spare[axis] - b) for axis, b in enumerate(before) if spare[axis]}
        left, right = (inner, window) if smaller else (window, inner)
        yield Candidate(left, right, (_crop(cut, smaller),))


def _crop(cut: dict[int, tuple[int, int]], smaller: bool) -> Mistake:
    ends = "; ".join(f"axis {axis}: {a} at the start, {b} at the end" for axis, (a, b) in cut.items())
    if smaller:
        cure = "Values at the ends are missing: check the padding, and the output_padding for a stride."
        return Mistake("cropped", {"cut": cut}, cure, f"without some values ({ends})")
    index = ", ".join(f"{cut[a][0]}:{-cut[a][1] or ''}" if a in cut else ":" for a in range(max(cut) + 1))
    why = "the padding is not cut off, or rows are left that no window reads"
    return Mistake("not cropped", {"cut": cut}, f"Use got[{index}].", f"with more values ({ends})", why)


# Sums


def not_summed(got: Array, want: Array) -> Iterator[Candidate]:
    """Leave out a sum or a mean over some axes."""
    for axes, keep in _reducible(got.shape, want.shape):
        where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
        for mean in (False, True):
            verb = "averaged" if mean else "summed"
            call = f"got.{'mean' if mean else 'sum'}({axes[0] if len(axes) == 1 else axes}{keep})"
            reduced = (got.mean if mean else got.sum)(axis=axes, keepdims=bool(keep))
            details = {"axes": axes, "mean": mean}
            cure, says = f"Use {call}.", f"before it is {verb} over {where}"
            yield Candidate(reduced, want, (Mistake("not summed", details, cure, says),))


def summed(got: Array, want: Array) -> Iterator[Candidate]:
    """Sum or average over axes that should stay, also where the result is repeated along them."""
    choices = list(_reducible(want.shape, got.shape))
    if got.shape == want.shape:
        same = [axis for axis, size in enumerate(got.shape) if size > 1 and _is_constant(got, axis)]
        choices = [(axes, ", keepdims=True") for axes in _subsets(same)]
    for axes, keep in choices:
        where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
        for mean in (False, True):
            reduced = (want.mean if mean else want.sum)(axis=axes, keepdims=bool(keep))
            verb = "averaged" if mean else "summed"
            details = {"axes": axes, "mean": mean}
            cure, says = f"Leave out the {'mean' if mean else 'sum'} over {where}.", f"{verb} over {where}"
            if got.shape == want.shape:
                reduced = np.broadcast_to(reduced, got.shape)
            yield Candidate(got, reduced, (Mistake("summed", details, cure, says),))


def _is_constant(array: Array, axis: int) -> bool:
    first = array.take([0], axis)
    largest = abs(array).max()
    return bool((abs(array.take([1], axis) - first) <= 1e-3 * largest).all()) and bool(
        (abs(array - first) <= 1e-3 * largest).all()
    )


def _reducible(larger: tuple[int, ...], smaller: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    """The axes that may be summed to get from one shape to the other, if its axes may be exchanged."""
    if len(larger) == len(smaller):
        axes = tuple(axis for axis, size in enumerate(smaller) if size == 1 < larger[axis])
        if axes and all(
            a == b for k, (a, b) in enumerate(zip(larger, smaller, strict=True)) if k not in axes
        ):
            yield axes, ", keepdims=True"
    elif len(smaller) < len(larger) <= MOST_AXES + 1:
        for axes in itertools.combinations(range(len(larger)), len(larger) - len(smaller)):
            kept = sorted(size for axis, size in enumerate(larger) if axis not in axes)
            if kept == sorted(smaller) and prod(larger) != prod(smaller):  # else it is a reshape
                yield axes, ""


def without_signs(got: Array, want: Array) -> Iterator[Candidate]:
    """Take absolute values."""
    if (
        got.shape == want.shape
        and (want < 0).any()
        and (want > 0).any()
        and not ((got < 0).any() and (got > 0).any())
    ):
        cure = "Look for an abs, a square root of a square, or a norm in place of the values."
        mistake = Mistake("signs lost", {}, cure, "without its signs")
        yield Candidate(got, abs(want), (mistake,))


# The table: what keeps all values and moves them, and what does not

SAME_VALUES: tuple[Transformation, ...] = (flipped, transposed, in_another_memory_order, rolled)
OTHERS: tuple[Transformation, ...] = (reshaped, not_summed, summed, without_signs, cropped, shifted)


def single(got: Array, want: Array, tolerance: float) -> Iterator[Candidate]:
    """Every single transformation, the simplest first; without any the arrays are proportional at best."""
    yield Candidate(got, want, ())
    for transformation in OTHERS:
        yield from transformation(got, want)
    if have_same_values(got, want, tolerance):
        for transformation in SAME_VALUES:
            yield from transformation(got, want)


def double(got: Array, want: Array, tolerance: float) -> Iterator[Candidate]:
    """Two of them: axes reversed as well, or values moved after a sum was left out or too much was cut."""
    same = have_same_values(got, want, tolerance)
    tried = [cropped, shifted, *((transposed, in_another_memory_order, rolled) if same else ())]
    for axes in _subsets([axis for axis, size in enumerate(got.shape) if size > 1]):
        turned, flip = np.flip(got, axes), _flip(axes, got.ndim)
        for transformation in tried:
            for found in transformation(turned, want):
                yield found._replace(mistakes=(*found.mistakes, flip))
    for outer in (not_summed, summed):
        for left, right, mistakes in outer(got, want):
            if have_same_values(left, right, tolerance):
                for inner in (flipped, transposed):
                    for found in inner(left, right):
                        yield found._replace(mistakes=(*found.mistakes, *mistakes))


def have_same_values(got: Array, want: Array, tolerance: float) -> bool:
    """Whether the values are the same but for their order, one factor and signs."""
    if got.size != want.size or not got.size:
        return False
    sizes = abs(got).max(), abs(want).max()
    if not all(sizes):
        return False
    means = [abs(array).mean() / size for array, size in zip((got, want), sizes, strict=True)]
    if abs(means[0] - means[1]) > 2 * tolerance:
        return False
    left, right = (
        np.sort(abs(array), axis=None) / size for array, size in zip((got, want), sizes, strict=True)
    )
    return bool((abs(left - right) <= 3 * tolerance).all())


def _subsets(axes: list[int]) -> Iterator[tuple[int, ...]]:
    """Some of the axes: the last two first, as kernels are rotated most often, then by their number."""
    if len(axes) > MOST_AXES:
        return
    if len(axes) > 2:
        yield tuple(axes[-2:])
    for number in range(1, len(axes) + 1):
        for some in itertools.combinations(axes, number):
            if len(axes) <= 2 or some != tuple(axes[-2:]):
                yield some


def _orders(array: Array) -> Iterator[tuple[int, ...]]:
    """The orders of the axes that are not this one, nor this one but for axes of length 1."""
    if not 2 <= array.ndim <= MOST_AXES:
        return
    for axes in itertools.permutations(range(array.ndim)):
        long = [axis for axis in axes if array.shape[axis] > 1]
        if long != sorted(long):
            yield axes


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1."""
    return tuple(size for size in shape if size > 1)


def _near(reach: int) -> list[int]:
    """1, -1, 2, -2, ... up to `reach`."""
    return [sign * number for number in range(1, reach + 1) for sign in (1, -1)]

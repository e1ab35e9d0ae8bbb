"""The ways in which an array can be another one, transformed: what `diagnose` tries.

Each function of the table takes `got` and `want` and yields candidates: two arrays that are equal, or
proportional, if the mistake was made. Almost all of them are views, and a sample of their values rejects
almost all of them, so that many can be tried on large arrays.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arrays import Array
from tinyconv.gradients.mistakes import Mistake, mistake

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


# Same values, in other places


def flipped(got: Array, want: Array) -> Iterator[Candidate]:
    """Reverse some axes."""
    for axes in _subsets([axis for axis, size in enumerate(want.shape) if size > 1]):
        yield Candidate(got, np.flip(want, axes), (_flip(axes, want.ndim),))


def _flip(axes: tuple[int, ...], ndim: int) -> Mistake:
    if axes == (ndim - 2, ndim - 1):
        return mistake("rotated", {"axes": axes}, which="last two" if ndim > 2 else "two")
    index = ", ".join("::-1" if axis in axes else ":" for axis in range(ndim))
    which = f"axes {', '.join(map(str, axes[:-1]))} and {axes[-1]}"
    if len(axes) == 1:
        which = f"axis {axes[0]}" if ndim > 1 else "axis"
    return mistake("flipped", {"axes": axes}, which=which, index=index)


def transposed(got: Array, want: Array) -> Iterator[Candidate]:
    """Exchange axes."""
    for axes in _orders(want):
        if (moved := want.transpose(axes)).shape == got.shape:
            yield Candidate(got, moved, (_transposition(axes),))


def _transposition(axes: tuple[int, ...]) -> Mistake:
    moved = [axis for axis, was in enumerate(axes) if axis != was]
    kind = "two axes" if len(moved) == 2 else "order"
    if axes == tuple(range(len(axes)))[::-1]:
        kind = "matrix" if len(axes) == 2 else "all axes"
    return mistake(f"transposed: {kind}", {"axes": axes}, moved=moved, back=_inverse(axes))


def in_another_memory_order(got: Array, want: Array) -> Iterator[Candidate]:
    """Read the bytes of another layout as if they were in this one: a reshape that should be a transpose."""
    for axes in _orders(want):
        stored = want.transpose(axes)
        if _reshape_may_fit(stored, got):
            yield Candidate(got, stored.reshape(got.shape), (_memory_order(axes, stored.shape),))
    for axes in _orders(got):
        stored = got.transpose(axes)
        if _reshape_may_fit(stored, want):
            details = {"axes": axes, "stored": "got"}
            named = mistake("memory order: got", details, shape=want.shape)
            yield Candidate(stored.reshape(want.shape), want, (named,))


def _reshape_may_fit(stored: Array, other: Array) -> bool:
    """Whether a reshape, which is a copy, is worth trying."""
    lengths = ([size for size in array.shape if size > 1] for array in (stored, other))
    some, others = stored[_sampled(stored.shape)], other[_sampled(other.shape)]
    return next(lengths) != next(lengths) and _proportional(others, some, LOOSE * abs(others).max())


def _memory_order(axes: tuple[int, ...], shape: tuple[int, ...]) -> Mistake:
    layouts: dict[tuple[int, ...], str]
    layouts = {(0, 2, 3, 1): "NHWC as NCHW", (2, 3, 1, 0): "HWIO as OIHW", (1, 2, 3, 0): "CHWN as NCHW"}
    layouts[tuple(range(len(axes)))[::-1]] = "Fortran order as C order"
    which = f" ({layouts[axes]})" if axes in layouts else ""
    return mistake("memory order", {"axes": axes}, which=which, shape=shape, back=_inverse(axes))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.argsort(axes))


def reshaped(got: Array, want: Array) -> Iterator[Candidate]:
    """Give the same values another shape."""
    if got.shape != want.shape and got.size == want.size:
        yield Candidate(got.reshape(want.shape), want, (mistake("reshaped", {"shape": want.shape}),))


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
    amounts = ", ".join(str(-number) for number in shifts.values())
    details = {"shift": shifts, "filled": filled}
    return mistake(f"shifted: {filled}", details, by=by, amounts=amounts, axes=tuple(shifts))


# Some of the values, or values and zeros


def shifted(got: Array, want: Array) -> Iterator[Candidate]:
    """Shift the last one or two axes and fill with zeros."""
    if got.shape != want.shape or not want.ndim:
        return
    sizes, nonzero = want.shape[-2:], np.count_nonzero(got)
    first = want.ndim - len(sizes)
    reach = [min(size - 1, LARGEST_SHIFT) for size in sizes]
    for shifts in itertools.product(*(range(-far, far + 1) for far in reach)):
        to, source = _overlap(shifts, sizes), _overlap([-shift for shift in shifts], sizes)
        if any(shifts) and np.count_nonzero(got[to]) == nonzero:  # so that it is zero elsewhere
            moved = {first + axis: shift for axis, shift in enumerate(shifts) if shift}
            yield Candidate(got[to], want[source], (_shift(moved, "zeros"),))


def _overlap(shifts: Sequence[int], sizes: tuple[int, ...]) -> Any:
    """The index of the values of the last axes that are in the array still after a shift."""
    pairs = zip(shifts, sizes, strict=True)
    return (..., *(slice(max(shift, 0), size + min(shift, 0)) for shift, size in pairs))


def cropped(got: Array, want: Array) -> Iterator[Candidate]:
    """Cut rows off, or leave on rows that want does not have."""
    if got.ndim != want.ndim or got.shape == want.shape:
        return
    spare = [b - a for a, b in zip(got.shape, want.shape, strict=True)]
    smaller = max(spare) > 0
    if smaller and min(spare) < 0:
        return
    spare = [abs(size) for size in spare]
    if max(spare) > 2 * LARGEST_CROP or np.count_nonzero(spare) > 2:
        return
    inner, outer = (got, want) if smaller else (want, got)
    for before in itertools.product(*(range(size + 1) for size in spare)):
        window = outer[tuple(slice(b, b + size) for b, size in zip(before, inner.shape, strict=True))]
        cut = {axis: (b, spare[axis] - b) for axis, b in enumerate(before) if spare[axis]}
        left, right = (inner, window) if smaller else (window, inner)
        yield Candidate(left, right, (_crop(cut, smaller),))


def _crop(cut: dict[int, tuple[int, int]], smaller: bool) -> Mistake:
    ends = "; ".join(f"axis {axis}: {a} at the start, {b} at the end" for axis, (a, b) in cut.items())
    index = ", ".join(f"{cut[a][0]}:{-cut[a][1] or ''}" if a in cut else ":" for a in range(max(cut) + 1))
    return mistake("cropped" if smaller else "not cropped", {"cut": cut}, ends=ends, index=index)


# Sums


def not_summed(got: Array, want: Array) -> Iterator[Candidate]:
    """Leave out a sum or a mean over some axes."""
    for axes in _reducible(got.shape, want.shape):
        for reduced, mistakes in _reduced(got, axes, got.ndim == want.ndim, "not summed"):
            yield Candidate(reduced, want, mistakes)


def summed(got: Array, want: Array) -> Iterator[Candidate]:
    """Sum or average over axes that should stay, also where the result is repeated along them."""
    choices = _reducible(want.shape, got.shape)
    if got.shape == want.shape:
        choices = _subsets([axis for axis, size in enumerate(got.shape) if size > 1 and _repeats(got, axis)])
    for axes in choices:
        for reduced, mistakes in _reduced(want, axes, got.ndim == want.ndim, "summed"):
            yield Candidate(got, np.broadcast_to(reduced, got.shape), mistakes)


def _reduced(
    array: Array, axes: tuple[int, ...], keep: bool, key: str
) -> Iterator[tuple[Array, tuple[Mistake, ...]]]:
    """The sum and the mean over the axes."""
    which: Any = axes[0] if len(axes) == 1 else axes
    where = f"axis {which}" if len(axes) == 1 else f"axes {which}"
    arguments = f"{which}{', keepdims=True' if keep else ''}"
    for function, verb in (("sum", "summed"), ("mean", "averaged")):
        details = {"axes": axes, "mean": function == "mean"}
        named = mistake(key, details, where=where, verb=verb, function=function, arguments=arguments)
        yield getattr(array, function)(axis=axes, keepdims=keep), (named,)


def _repeats(array: Array, axis: int) -> bool:
    """Whether the values are the same along this axis."""
    return bool((abs(array - array.take([0], axis)) <= 1e-3 * abs(array).max()).all())


def _reducible(larger: tuple[int, ...], smaller: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The axes that may be summed to get from one shape to the other, if its axes may be exchanged."""
    if len(larger) == len(smaller):
        axes = tuple(axis for axis, size in enumerate(smaller) if size == 1 < larger[axis])
        if axes and smaller == tuple(1 if axis in axes else size for axis, size in enumerate(larger)):
            yield axes
    elif len(smaller) < len(larger) <= MOST_AXES + 1:
        for axes in itertools.combinations(range(len(larger)), len(larger) - len(smaller)):
            kept = sorted(size for axis, size in enumerate(larger) if axis not in axes)
            if kept == sorted(smaller) and prod(larger) != prod(smaller):  # else it is a reshape
                yield axes


def without_signs(got: Array, want: Array) -> Iterator[Candidate]:
    """Take absolute values."""
    if got.shape == want.shape and want.min() < 0 < want.max() and not got.min() < 0 < got.max():
        yield Candidate(got, abs(want), (mistake("signs lost"),))


# The table: what keeps all values and moves them, and what does not

SAME_VALUES: tuple[Transformation, ...] = (flipped, transposed, in_another_memory_order, rolled)
OTHERS: tuple[Transformation, ...] = (reshaped, not_summed, summed, without_signs, cropped, shifted)


def single(got: Array, want: Array, tolerance: float) -> Iterator[Candidate]:
    """Every single transformation, the simplest first; without any the arrays are proportional at best."""
    yield Candidate(got, want, ())
    same = have_same_values(got, want, tolerance)
    for transformation in (*OTHERS, *(SAME_VALUES if same else ())):
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
    for left, right, mistakes in itertools.chain(not_summed(got, want), summed(got, want)):
        if have_same_values(left, right, tolerance):
            for found in itertools.chain(flipped(left, right), transposed(left, right)):
                yield found._replace(mistakes=(*found.mistakes, *mistakes))


def have_same_values(got: Array, want: Array, tolerance: float) -> bool:
    """Whether the values are the same but for their order, one factor and signs."""
    if got.size != want.size or not (got.any() and want.any()):
        return False
    left, right = (np.sort(abs(array), axis=None) / abs(array).max() for array in (got, want))
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


def _near(reach: int) -> list[int]:
    """1, -1, 2, -2, ... up to `reach`."""
    return [sign * number for number in range(1, reach + 1) for sign in (1, -1)]

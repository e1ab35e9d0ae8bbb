"""What is wrong with single values: where arrays differ, NaN, rounding, constants, masks and borders."""

from math import comb, lgamma, log, log10, prod
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays import Array
from tinyconv.gradients.mistakes import Mistake, mistake
from tinyconv.gradients.transformations import factor_between

FEWEST = 4
SHOWN = 6
PLACE_DIGITS = 4  # of the number of ways in which as many other values could be wrong


class Differences(NamedTuple):
    """Where two arrays of one shape differ, and how much."""

    wrong: Array
    largest: float
    relative: float

    @classmethod
    def between(cls, got: Array, want: Array, rtol: float, atol: float) -> "Differences | None":
        """What differs by more than atol + rtol * the largest finite value of `want`; None for two shapes."""
        if got.shape != want.shape:
            return None
        with np.errstate(all="ignore"):
            finite = abs(want[np.isfinite(want)])
            top = float(finite.max(initial=0.0))
            apart = np.where((got == want) | (np.isnan(got) & np.isnan(want)), 0.0, abs(got - want))
            wrong = ~(apart <= atol + rtol * top)
            largest = float(apart.max(initial=0.0))
            return cls(wrong, largest, largest / top if top else float("inf") if largest else 0.0)

    @property
    def number(self) -> int:
        """How many values differ."""
        return int(self.wrong.sum())

    @property
    def first(self) -> tuple[int, ...] | None:
        """The index of the first that differs."""
        return _first(self.wrong) if self.number else None

    @property
    def place(self) -> str:
        """One word for where they are; "" if nowhere."""
        if not self.number:
            return ""
        if box := self.box():
            return box[0]
        return "everywhere" if self.number >= 0.9 * self.wrong.size else "some places"

    def box(self) -> tuple[str, dict[int, tuple[int, int]]] | None:
        """ "border" or "interior" where all that differs is outside or inside of a box, and its bounds."""
        ndim = self.wrong.ndim
        for axes in (1, 2) if ndim == 3 else (min(2, ndim),):
            somewhere: Array = np.asarray(self.wrong.any(axis=tuple(range(ndim - axes))))
            for place, inside in (("border", ~somewhere), ("interior", somewhere)):
                bounds = _bounds(inside)
                index: Any = tuple(slice(*b) for b in bounds or ())
                if not bounds or not inside[index].all() or inside.all() or inside.sum() < FEWEST:
                    continue
                touches = any(b[0] == 0 or b[1] == n for b, n in zip(bounds, inside.shape, strict=True))
                if place == "border" or not touches:
                    return place, dict(enumerate(bounds, start=ndim - axes))
        return None

    def axes_text(self) -> str:
        """Which entries of an axis alone have differences, if not all have."""
        parts = []
        for axis in range(self.wrong.ndim):
            others = tuple(a for a in range(self.wrong.ndim) if a != axis)
            at = np.flatnonzero(self.wrong.any(axis=others))
            if len(at) < (size := self.wrong.shape[axis]):
                listed = ", ".join(str(i) for i in at[:SHOWN]) + (", ..." if len(at) > SHOWN else "")
                parts.append(f"{listed} of axis {axis} (length {size})")
        return "; ".join(parts)

    def text(self, got: Array, want: Array) -> str:
        """Two sentences for a message."""
        at = self.first
        assert at is not None
        share = f" ({self.relative:.2g} of the largest expected value)" if np.isfinite(self.relative) else ""
        where = {"border": " All of them are on the border.", "interior": " None of them is on the border."}
        only = self.axes_text() if self.number > 1 else ""
        return (
            f"{self.number} of {self.wrong.size} values differ, by at most {self.largest:.3g}{share}; "
            f"the first is at {at}: {got[at]:.6g}, expected {want[at]:.6g}.{where.get(self.place, '')}"
            + (f" They have the indices {only}." if only else "")
        )


def _bounds(inside: Array) -> list[tuple[int, int]] | None:
    """The smallest box around what is true."""
    places = np.argwhere(inside)
    if not len(places):
        return None
    return list(zip(places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist(), strict=True))


def not_finite(got: Array, want: Array) -> Mistake | None:
    """NaN or infinite values that the other array does not have."""
    same_shape = got.shape == want.shape
    if not same_shape and not np.isfinite(want).all():
        return None
    for key, array, other in (("got", got, want), ("want", want, got)):
        bad = ~np.isfinite(array)
        if same_shape:
            bad &= np.isfinite(other)
        if bad.any():
            return _nan(key, array, bad)
    return None


def _nan(key: str, array: Array, bad: Array) -> Mistake:
    count, nan = int(bad.sum()), int(np.isnan(array[bad]).sum())
    kinds = "NaN" if nan == count else "infinite" if not nan else f"NaN ({nan}) or infinite ({count - nan})"
    details = {"count": count, "nan": nan, "first": _first(bad), "in": key}
    return mistake(f"nan: {key}", details, size=bad.size, kinds=f"{'is' if count == 1 else 'are'} {kinds}")


def precise(got: Array, want: Array, dtype: "np.dtype[Any]") -> Mistake | None:
    """Zeros in place of the values, values with too few digits, and whole numbers."""
    if got.shape != want.shape:
        return None
    if not got.any():
        return mistake("zeros")
    return _few_bits(got, want, dtype) or _few_decimals(got, want, dtype)


def _few_bits(got: Array, want: Array, dtype: "np.dtype[Any]") -> Mistake | None:
    differ = (got != want) & (got != np.rint(got))
    if differ.sum() < FEWEST or dtype.kind != "f":
        return None
    for name, bits, allowed in (("bfloat16", 8, 1e-2), ("float16", 11, 4e-3), ("float32", 24, 1e-5)):
        if np.finfo(dtype).nmant + 1 > bits and (abs(got - want) <= allowed * abs(want).max()).all():
            scale = np.exp2(bits - np.frexp(got)[1])
            if (np.rint(got * scale) == got * scale).all():
                return mistake("precision: bits", {"dtype": name}, computed=dtype)
    return None


def _few_decimals(got: Array, want: Array, dtype: "np.dtype[Any]") -> Mistake | None:
    if len(np.unique(got.ravel()[:4096])) < FEWEST or abs(got - want).max() > 1.0:
        return None
    near = 4 * np.finfo(dtype if dtype.kind == "f" else np.float64).eps * abs(want).max()
    for decimals in range(7):
        if 10.0**-decimals > 20 * near and (abs(got - np.round(want, decimals)) <= near).all():
            key = "precision: decimals" if decimals else "precision: integers"
            return mistake(key, {"decimals": decimals}, how="to 0 decimals")
    for how, function in (("toward zero", np.trunc), ("down", np.floor)):
        if (got == function(want)).all():
            return mistake("precision: integers", {"decimals": 0}, how=f"{how} to whole numbers")
    return None


def constant_added(got: Array, want: Array, tolerance: float) -> Mistake | None:
    """One number added to every value."""
    if got.shape != want.shape:
        return None
    apart = got - want
    constant, largest = float(apart.mean()), max(abs(got).max(), abs(want).max())
    if abs(constant) <= 10 * tolerance * largest or (abs(apart - constant) > tolerance * largest).any():
        return None
    return mistake("constant added", {"constant": constant})


def part(got: Array, want: Array, tolerance: float, differences: Differences | None) -> Mistake | None:
    """What explains only where the values are wrong: a mask, the border."""
    if differences is None:
        return None
    zero, none = (abs(array) <= tolerance * abs(array).max() for array in (want, got))
    extra, lost = zero & ~none, none & ~zero
    clear = extra.sum() >= 0.9 * zero.sum() and _digits(extra.size, int(extra.sum())) >= PLACE_DIGITS
    found = None
    if len(np.unique(got[~zero & ~none])) >= FEWEST:
        if clear and not lost.any():
            factor = factor_between(got[~zero], want[~zero], tolerance)
            found = _masked("mask missing", extra, factor, differences)
        elif lost.sum() >= FEWEST and not extra.any():
            factor = factor_between(got[~lost], want[~lost], tolerance)
            found = _masked("mask too much", lost, factor, differences)
    return found or _border(differences)


def _masked(key: str, places: Array, factor: float | None, differences: Differences) -> Mistake | None:
    if factor is None:
        return None
    where = differences.axes_text() if factor == 1.0 else ""
    details = {"count": int(places.sum()), "factor": factor}
    times = "" if factor == 1.0 else f" multiplied by {factor:.6g}"
    return mistake(key, details, times=times, size=places.size, at=f" (indices {where})" if where else "")


def _border(differences: Differences) -> Mistake | None:
    """Values that are wrong on the border alone, and all there, or all but there, unless that is chance."""
    wrong, box = differences.wrong, differences.box()
    if box is None:
        return None
    place, bounds = box
    count, region = int(wrong.sum()), np.full(wrong.shape, place == "border")
    index = tuple(slice(*bounds.get(axis, (None,))) for axis in range(wrong.ndim))
    region[index] = place == "interior"
    if count < 0.9 * region.sum() or (~region).sum() < 9:
        return None
    boxes = prod(comb(wrong.shape[axis] + 1, 2) for axis in bounds)
    if _digits(wrong.size, count) - log10(boxes) < PLACE_DIGITS:
        return None
    widths = {axis: (start, wrong.shape[axis] - stop) for axis, (start, stop) in bounds.items()}
    ends = "; ".join(f"axis {a}: {w[0]} at the start, {w[1]} at the end" for a, w in widths.items() if any(w))
    return mistake(place, {"widths": widths}, ends=ends)


def _digits(total: int, count: int) -> float:
    """The decimal digits of the number of ways to choose so many places."""
    return (lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)) / log(10)


def _first(places: Array) -> tuple[int, ...]:
    """The index of the first that is true."""
    return tuple(int(i) for i in np.unravel_index(places.argmax(), places.shape))

"""What is wrong with single values: where arrays differ, NaN, rounding, constants, masks and borders."""

from collections.abc import Iterator
from math import comb, lgamma, log, log10, prod
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arrays import Array
from tinyconv.gradients.mistakes import Mistake
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
        if not self.number:
            return None
        return tuple(int(i) for i in np.unravel_index(self.wrong.argmax(), self.wrong.shape))

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
                if place == "interior" and touches:
                    continue
                return place, dict(enumerate(bounds, start=ndim - axes))
        return None

    def axes_text(self) -> str:
        """Which entries of an axis alone have differences, if not all have."""
        parts = []
        for axis in range(self.wrong.ndim):
            others = tuple(a for a in range(self.wrong.ndim) if a != axis)
            at = np.flatnonzero(self.wrong.any(axis=others))
            size = self.wrong.shape[axis]
            if len(at) == size:
                continue
            listed = ", ".join(str(i) for i in at[:SHOWN]) + (", ..." if len(at) > SHOWN else "")
            parts.append(f"{listed} of axis {axis} (length {size})")
        return "; ".join(parts)

    def text(self, got: Array, want: Array) -> str:
        """Two sentences for a message."""
        at = self.first
        assert at is not None
        relative = (
            f" ({self.relative:.2g} of the largest expected value)" if np.isfinite(self.relative) else ""
        )
        where = {"border": " All of them are on the border.", "interior": " None of them is on the border."}
        only = self.axes_text() if self.number > 1 else ""
        return (
            f"{self.number} of {self.wrong.size} values differ, by at most {self.largest:.3g}{relative}; "
            f"the first is at {at}: {got[at]:.6g}, expected {want[at]:.6g}.{where.get(self.place, '')}"
            + (f" They have the indices {only}." if only else "")
        )


def _bounds(inside: Array) -> list[tuple[int, int]] | None:
    """The smallest box around what is true."""
    found = []
    for axis in range(inside.ndim):
        at = np.flatnonzero(inside.any(axis=tuple(a for a in range(inside.ndim) if a != axis)))
        if not len(at):
            return None
        found.append((int(at[0]), int(at[-1]) + 1))
    return found


def not_finite(got: Array, want: Array) -> Mistake | None:
    """NaN or infinite values that the other array does not have."""
    bad = ~np.isfinite(got)
    if got.shape == want.shape:
        bad &= np.isfinite(want)
    elif not np.isfinite(want).all():
        return None
    name, array, cure = "`got`", got, "Look for a division by 0, a log of 0 or an overflow before this array."
    if not bad.any():
        bad = ~np.isfinite(want) & np.isfinite(got) if got.shape == want.shape else np.zeros(got.shape, bool)
        name, array, cure = "the expected array", want, "Check the inputs that it is computed from."
    if not bad.any():
        return None
    nan, first = int((np.isnan(array) & bad).sum()), np.unravel_index(bad.argmax(), bad.shape)
    at = tuple(int(i) for i in first)
    count = int(bad.sum())
    kinds = "NaN" if nan == count else "infinite" if not nan else f"NaN ({nan}) or infinite ({count - nan})"
    details = {"count": count, "nan": nan, "first": at, "in": "got" if array is got else "want"}
    values = f"{count} of the {bad.size} values of {name} {'is' if count == 1 else 'are'} {kinds}"
    return Mistake("nan", details, cure, f"{values}, the first at {at}", sentence=True)


def precise(got: Array, want: Array, dtype: "np.dtype[Any]") -> Mistake | None:
    """Zeros in place of the values, values with too few digits, and whole numbers."""
    if got.shape != want.shape:
        return None
    if not got.any():
        cure = "Nothing was written to it: check that the sum is added to the array that is returned."
        return Mistake("zeros", {}, cure, "`got` is 0 everywhere", sentence=True)
    digits = (_few_bits(got, want, dtype), _few_decimals(got, want, dtype))
    return next((found for found in digits if found), None)


def _few_bits(got: Array, want: Array, dtype: "np.dtype[Any]") -> Mistake | None:
    largest = abs(want).max()
    whole = got == np.rint(got)
    differ = (got != want) & ~whole
    if differ.sum() < FEWEST or dtype.kind != "f":
        return None
    for name, bits, allowed in (("bfloat16", 8, 1e-2), ("float16", 11, 4e-3), ("float32", 24, 1e-5)):
        if np.finfo(dtype).nmant + 1 > bits and (abs(got - want) <= allowed * largest).all():
            scale = np.exp2(bits - np.frexp(got)[1])
            if (np.rint(got * scale) == got * scale).all():
                cure = f"Compute in {dtype} throughout: look for an array of {name} before this one."
                return Mistake("precision", {"dtype": name}, cure, f"rounded to {name}")
    return None


def _few_decimals(got: Array, want: Array, dtype: "np.dtype[Any]") -> Mistake | None:
    if len(np.unique(got.ravel()[:4096])) < FEWEST or abs(got - want).max() > 1.0:
        return None
    near = 4 * np.finfo(dtype if dtype.kind == "f" else np.float64).eps * abs(want).max()
    for decimals in range(7):
        if 10.0**-decimals > 20 * near and (abs(got - np.round(want, decimals)) <= near).all():
            cure = "Use the values themselves, and not what was printed of them."
            if not decimals:
                cure = "Look for an array of an integer dtype."
            return Mistake("precision", {"decimals": decimals}, cure, f"rounded to {decimals} decimals")
    for how, function in (("toward zero", np.trunc), ("down", np.floor)):
        if (got == function(want)).all():
            cure = "Look for an array of an integer dtype, or for //."
            return Mistake("precision", {"decimals": 0}, cure, f"rounded {how} to whole numbers")
    return None


def constant_added(got: Array, want: Array, tolerance: float) -> Mistake | None:
    """One number added to every value."""
    if got.shape != want.shape:
        return None
    apart = got - want
    constant, largest = float(apart.mean()), max(abs(got).max(), abs(want).max())
    if abs(constant) <= 10 * tolerance * largest or (abs(apart - constant) > tolerance * largest).any():
        return None
    cure = "Subtract it: look for a term that is added to every value, such as a bias or an eps."
    return Mistake("constant added", {"constant": constant}, cure, f"plus the constant {constant:.6g}")


def parts(got: Array, want: Array, tolerance: float, differences: Differences | None) -> Iterator[Mistake]:
    """What explains only where the values are wrong: a mask, the border."""
    if differences is None:
        return
    zero, none = abs(want) <= tolerance * abs(want).max(), abs(got) <= tolerance * abs(got).max()
    extra, lost = zero & ~none, none & ~zero
    enough = len(np.unique(got[~zero & ~none])) >= FEWEST
    clear = extra.sum() >= 0.9 * zero.sum() and _digits(extra.size, int(extra.sum())) >= PLACE_DIGITS
    if enough and clear and not lost.any():
        factor = factor_between(got[~zero], want[~zero], tolerance)
        yield from _masked("mask missing", extra, factor, differences)
    if enough and lost.sum() >= FEWEST and not extra.any():
        factor = factor_between(got[~lost], want[~lost], tolerance)
        yield from _masked("mask too much", lost, factor, differences)
    if (box := differences.box()) and _is_clear(differences.wrong, box[1], box[0]):
        yield _border(box, differences.wrong.shape)


def _masked(name: str, places: Array, factor: float | None, differences: Differences) -> Iterator[Mistake]:
    if factor is None:
        return
    times = "" if factor == 1.0 else f" multiplied by {factor:.6g}"
    count, where = f"{int(places.sum())} of {places.size}", differences.axes_text()
    at = f" (indices {where})" if where and factor == 1.0 else ""
    details = {"count": int(places.sum()), "factor": factor}
    if name == "mask missing":
        says = f"`got` equals the expected array{times} where that is not 0, but has values at {count} "
        says += f"places{at} where it should be 0"
        cure = (
            "Multiply by the mask: of ReLU (input > 0), of dropout, of pooling's winners or of the padding."
        )
    else:
        says = f"`got` equals the expected array{times} but for {count} places{at} where it is 0"
        cure = (
            "Look for a mask that is applied twice or to the wrong array, or for a loop that ends too soon."
        )
    yield Mistake(name, details, cure, says, sentence=True)


def _is_clear(wrong: Array, bounds: dict[int, tuple[int, int]], place: str) -> bool:
    """Whether so many values differ in that place alone, and all there, that it is not chance."""
    index = tuple(slice(*bounds[axis]) if axis in bounds else slice(None) for axis in range(wrong.ndim))
    inside = np.zeros(wrong.shape, bool)
    inside[index] = True
    region = ~inside if place == "border" else inside
    total, count = wrong.size, int(wrong.sum())
    if count < 0.9 * region.sum() or (~region).sum() < 9:
        return False
    boxes = prod(comb(wrong.shape[axis] + 1, 2) for axis in bounds)
    return _digits(total, count) - log10(boxes) >= PLACE_DIGITS


def _digits(total: int, count: int) -> float:
    """The decimal digits of the number of ways to choose so many places."""
    return (lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)) / log(10)


def _border(box: tuple[str, dict[int, tuple[int, int]]], shape: tuple[int, ...]) -> Mistake:
    place, bounds = box
    widths = {axis: (start, shape[axis] - stop) for axis, (start, stop) in bounds.items()}
    ends = "; ".join(f"axis {a}: {w[0]} at the start, {w[1]} at the end" for a, w in widths.items() if any(w))
    if place == "border":
        says = f"`got` is right but for its border ({ends})"
        cure = "The padding is handled in another way, or the last windows are left out."
    else:
        says = f"`got` is wrong but for its border, which is right ({ends})"
        cure = "Only windows that reach into the padding are right: check the others."
    return Mistake(place, {"widths": widths}, cure, says, sentence=True)

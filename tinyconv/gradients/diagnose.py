"""diagnose: which known mistake made a gradient wrong.

A mistake is named only if it explains every value: `got` must be what the mistake makes of the right array,
to rounding. With the operator and its arguments, the right array is computed here, and so are the results of
the formulas that people write in its place (formulas.py); without them, `got` is compared with what
transformations make of `want` (transformations.py).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arguments import check_kinds, number
from tinyconv.arrays import Array, moved
from tinyconv.gradients import flaws, formulas
from tinyconv.gradients.mistakes import Mistake
from tinyconv.gradients.scales import meanings, scaled
from tinyconv.gradients.transformations import Candidate, double, factor_between, single

__all__ = ["Diagnosis", "Mistake", "diagnose"]

# Two results of the same sums in another order differ by about this much of the largest value.
ROUNDING = {2: 2e-3, 4: 1e-5, 8: 1e-9}  # by the bytes of a floating value
NUMERIC = 1e-6  # of a gradient from finite differences in float64
LOOSEST = 1e-4  # for what a mistake must explain, whatever `rtol` allows
DIGITS = 8  # of agreement that a mistake needs, so that it does not fit by chance
SAMPLE = 4096  # values that are looked at for this
FEWEST = 4  # distinct values, where a mistake has a number that is fitted to them


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; it is true where the arrays agree, and str() gives the text.

    Attributes:
        agrees: whether got equals want to rounding.
        mistakes: the mistake, or the two of them, that explain every value; () where none does or they agree.
        alternatives: other mistakes that explain the same values, which cannot tell them apart.
        text: one or two sentences, with the cure.
        where: a sentence that says where the arrays differ and how much, or the shapes; "" where they agree.
        differing, size: how many values differ, of how many; None where the shapes differ.
        largest_difference, largest_relative: the latter as a part of the largest expected value; None as
            above.
        first: the index of the first value that differs, or None.
        place: "everywhere", "border", "interior" or "some places"; "" where nothing differs or the shapes do.
    """

    agrees: bool
    mistakes: tuple[Mistake, ...]
    alternatives: tuple[tuple[Mistake, ...], ...]
    text: str
    where: str
    differing: int | None
    size: int | None
    largest_difference: float | None
    largest_relative: float | None
    first: tuple[int, ...] | None
    place: str

    def __bool__(self) -> bool:
        return self.agrees

    def __str__(self) -> str:
        return self.text


def diagnose(
    got: Array,
    want: Array | None = None,
    *,
    operator: str | None = None,
    wrt: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    **arguments: Any,
) -> Diagnosis:
    """Say what is wrong with a gradient: which known mistake turns the right one into it.

    A mistake (or two together, as a rotated kernel and a missing factor) is named only if it explains all
    values. Where several do, as with a symmetric kernel, the first is named and the text says that the data
    cannot tell them apart. Otherwise the text says where the arrays differ, and by how much.

    Args:
        got: the array to be judged, of any real dtype.
        want: the right one; it may be left out where the operator is given.
        operator: the name of a function of `tinyconv.functional`, such as "conv2d". `want` is then computed,
            and the operator's wrong formulas are tried as well. `operators.GRADIENTS` lists them.
        wrt: what `got` is the gradient with respect to: "input" (or "x"), "weight", "bias"; or "output", if
            `got` is the operator's value.
        rtol: how much two values may differ, as a part of the largest value of `want`. The default depends on
            the coarsest dtype of the two: 1e-9 for float64, 1e-5 for float32, 2e-3 for float16.
        atol: what they may differ by in addition (default 0).
        arguments: those of the operator by name, and `grad_output` for a gradient; `x` is its input.

    Returns:
        A `Diagnosis`: false unless the arrays agree, with the `mistakes` and the `text`.

    Raises:
        TypeError: `got` or `want` is not an array of real numbers, or an argument is not the operator's.
        ValueError: an unknown operator, a `wrt` that it does not have, or an argument that is missing.

    >>> import tinyconv as tc
    >>> weight_grad = np.arange(18.0).reshape(2, 1, 3, 3)
    >>> print(tc.diagnose(weight_grad[..., ::-1, ::-1], weight_grad))
    `got` equals the expected array with its last two axes reversed: the kernel is rotated by 180°. \
Use w[..., ::-1, ::-1].
    >>> rng = np.random.default_rng(0)
    >>> logits, grad = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    >>> probabilities = tc.F.softmax(logits, 1)
    >>> got = grad * probabilities * (1 - probabilities)
    >>> found = tc.diagnose(got, operator="softmax", wrt="input", x=logits, dim=1, grad_output=grad)
    >>> bool(found), found.mistakes[0].name
    (False, 'coupling term missing')
    """
    case = None
    if operator is not None:
        case = formulas.Case(operator, wrt, arguments)
        want = case.want if want is None else want
    elif want is None or wrt is not None or arguments:
        raise ValueError("`operator` must be given where `want` is not, or where `wrt` or arguments are")
    left, right = _real("got", got), _real("want", want)
    allowed = _Tolerance.of(left, right, rtol, atol)
    if case is None:
        return _Search(left, right, allowed, "the expected array", {}).diagnosis()
    return _Search(left, right, allowed, case.subject, case.sizes, case).diagnosis()


def against_numeric(got: Array, want: Array, sizes: dict[str, int]) -> Diagnosis:
    """What `gradcheck` says of a gradient and the numeric one, which is right to fewer digits."""
    allowed = _Tolerance(NUMERIC, NUMERIC, NUMERIC)
    return _Search(got, want, allowed, "the numeric gradient", sizes).diagnosis()


class _Tolerance(NamedTuple):
    """How much values may differ: as a part of the largest, in addition, and from what a mistake gives."""

    rtol: float
    atol: float
    explained: float

    @classmethod
    def of(cls, got: Array, want: Array, rtol: float | None, atol: float | None) -> "_Tolerance":
        floating = [array.dtype.itemsize for array in (got, want) if array.dtype.kind == "f"]
        rounding = max((ROUNDING.get(size, 0.0) for size in floating), default=0.0) or ROUNDING[8]
        relative = rounding if rtol is None else number("rtol", rtol, low=0)
        explained = min(max(relative, rounding), max(rounding, LOOSEST))
        return cls(relative, 0.0 if atol is None else number("atol", atol, low=0), explained)


def _real(name: str, value: Any) -> Array:
    """`value` on the CPU, which must be an array of real numbers."""
    check_kinds(**{name: value})
    array = np.asarray(moved(value, np))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"`{name}` (of dtype {array.dtype}) must be an array of real numbers")
    return array


class _Search:
    """Two arrays, and what is known about them."""

    def __init__(
        self,
        got: Array,
        want: Array,
        allowed: _Tolerance,
        subject: str,
        sizes: dict[str, int],
        case: Any = None,
    ) -> None:
        self.dtype = got.dtype
        self.got, self.want = (array.astype(np.float64) for array in (got, want))
        self.allowed, self.subject, self.case = allowed, subject, case
        self.meanings = meanings(want, sizes)
        self.differences = flaws.Differences.between(self.got, self.want, allowed.rtol, allowed.atol)

    def diagnosis(self) -> Diagnosis:
        d = self.differences
        numbers: Any = None, None, None, None, None, ""
        where = f"`got` has the shape {self.got.shape}, but {self.subject} has the shape {self.want.shape}."
        if d is not None:
            numbers = d.number, d.wrong.size, d.largest, d.relative, d.first, d.place
            if not d.number:
                return Diagnosis(True, (), (), self.agreement(d), "", *numbers)
            where = d.text(self.got, self.want)
        mistakes, *others = self.explanations() or [()]
        text = self.text(mistakes, others, where)
        return Diagnosis(False, mistakes, tuple(others), text, where, *numbers)

    def explanations(self) -> list[tuple[Mistake, ...]]:
        """The mistakes that explain all values, the simplest first, with others that do as well."""
        if broken := flaws.not_finite(self.got, self.want):
            return [(broken,)]
        if not all(array.size and np.isfinite(array).all() for array in (self.got, self.want)):
            return []
        tolerance = self.allowed.explained
        with np.errstate(all="ignore"):
            if plain := flaws.precise(self.got, self.want, self.dtype):
                return [(plain,)]
            if factor_between(self.got, self.want, tolerance) == 1.0:
                return []  # less precise than asked for: what changes nothing would explain it
            first = self.fitting(self.formulas())
            found = self.ranked(first)
            if found and len(found[0]) == 1:
                return found  # without what the same mistake is as a transformation
            first += self.fitting(single(self.got, self.want, tolerance))
            if added := flaws.constant_added(self.got, self.want, tolerance):
                first.append((self.enough(self.want, DIGITS, FEWEST), (added,)))
            found = self.ranked(first)
            if not found or len(found[0]) > 1:
                twice = itertools.chain(self.formulas(True), double(self.got, self.want, tolerance))
                found = self.ranked(first + self.fitting(twice))
            if not found:
                part = flaws.part(self.got, self.want, tolerance, self.differences)
                found = [(part,)] if part else []
        return found

    def formulas(self, twice: bool = False) -> Iterator[Candidate]:
        """What the operator's wrong formulas give, or those with two mistakes."""
        if self.case:
            for array, mistakes in self.case.wrong_twice() if twice else self.case.wrong():
                if array.size and np.isfinite(array).all():
                    yield Candidate(self.got, array.astype(np.float64), mistakes)

    def fitting(self, candidates: Iterator[Candidate]) -> list[tuple[bool, tuple[Mistake, ...]]]:
        """The mistakes whose arrays are proportional, and whether the values are enough to say so."""
        found, tolerance = [], self.allowed.explained
        for got, want, mistakes in candidates:
            factor = factor_between(got, want, tolerance)
            if factor is None or (factor == 1.0 and not mistakes):
                continue
            is_got = got is self.got and bool(mistakes)
            if factor != 1.0 and is_got and factor_between(want, self.want, tolerance):
                continue  # as with a symmetric kernel: the factor alone explains it
            scale = () if factor == 1.0 else (scaled(factor, self.meanings, tolerance),)
            needs = DIGITS * max(1, len(mistakes))
            fewest = FEWEST if scale and not scale[0].details["known"] else 1
            found.append((self.enough(want, needs, fewest), (*mistakes, *scale)))
        return found

    def enough(self, values: Array, digits: int, fewest: int) -> bool:
        """Whether there are so many different `values`, or so arranged, that agreement is not chance."""
        unit = abs(values).max() * 8 * self.allowed.explained
        steps = np.rint(abs(values).ravel() / unit)
        distinct = len(np.unique(steps[steps != 0][:SAMPLE]))
        counts = np.unique(steps[:: 1 + len(steps) // SAMPLE], return_counts=True)[1]
        shares = counts / counts.sum()
        arranged = -float((counts * np.log10(shares)).sum())
        evidence = -np.log10(self.allowed.explained) * distinct + arranged
        return bool(evidence >= digits and (distinct >= fewest or arranged >= 2 * digits))

    def ranked(self, found: list[tuple[bool, tuple[Mistake, ...]]]) -> list[tuple[Mistake, ...]]:
        """The simplest with enough evidence, then what fits as well and is as simple."""
        sure = [mistakes for enough, mistakes in found if enough]
        if not sure:
            return []
        best = min(sure, key=len)
        ranked = {tuple(mistake.name for mistake in best): best}
        for _, mistakes in found:
            if len(mistakes) <= len(best):
                ranked.setdefault(tuple(mistake.name for mistake in mistakes), mistakes)
        return list(ranked.values())

    def text(self, mistakes: tuple[Mistake, ...], others: list[tuple[Mistake, ...]], where: str) -> str:
        if not mistakes:
            d = self.differences
            small = " float32 rounds as much off." if d and d.relative <= ROUNDING[4] else ""
            return f"No known mistake explains `got`. {where}{small}"
        says = ", and ".join(mistake.says for mistake in mistakes)
        why = "; ".join(mistake.why for mistake in mistakes if mistake.why)
        cures = " ".join(mistake.cure for mistake in mistakes[::-1])  # undone in this order
        comma = "," if self.case else ""
        sentence = says if mistakes[0].sentence else f"`got` equals {self.subject}{comma} {says}"
        text = f"{sentence}{': ' + why if why else ''}. {cures}"
        if others:
            names = "; or ".join(" and ".join(mistake.says for mistake in other) for other in others[:3])
            text += f" These values cannot tell it from another mistake: {names}."
        return text

    def agreement(self, d: flaws.Differences) -> str:
        if not self.got.size:
            return "`got` and the expected array are both empty."
        if not d.largest:
            return f"`got` equals {self.subject}."
        apart = f"{d.largest:.3g}, {d.relative:.2g} of the largest value"
        return f"`got` equals {self.subject} to rounding: they differ by at most {apart}."

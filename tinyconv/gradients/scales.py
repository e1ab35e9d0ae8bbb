"""What a constant factor means: which number of the shapes it is."""

from math import prod
from typing import NamedTuple

from tinyconv.arrays import Array
from tinyconv.gradients.mistakes import Mistake


class Meanings(NamedTuple):
    """Numbers that a gradient may be multiplied by or divided by, with their names."""

    sizes: dict[str, int]

    @classmethod
    def of(cls, got: Array, want: Array, known: dict[str, int]) -> "Meanings":
        """The numbers that the shapes give, after the `known` ones."""
        sizes = dict(known)
        for axis, size in enumerate(want.shape):
            sizes[f"the length of axis {axis}"] = size
        if want.ndim > 2:
            sizes["the number of positions in the last two axes"] = prod(want.shape[-2:])
        if want.ndim > 1:
            sizes["the number of values"] = want.size
            sizes["the number of values per entry of axis 0"] = prod(want.shape[1:])
        return cls({name: size for name, size in sizes.items() if size > 1})

    def named(self, factor: float, tolerance: float) -> list[str]:
        """The names of the numbers that are `factor`: those of axes where there are no better ones."""
        found = [name for name, size in self.sizes.items() if abs(size - factor) <= 4 * tolerance * size]
        return [name for name in found if not name.startswith("the length")][:2] or found[:2]

    def corrected(self, factor: float, tolerance: float) -> int | None:
        """The n with factor = n / (n - 1), the correction of a variance, if it is one of the numbers."""
        found = (n for n in self.sizes.values() if abs(n / (n - 1) - factor) <= 4 * tolerance * factor)
        return next(found, None)


def scaled(factor: float, meanings: Meanings, tolerance: float) -> Mistake:
    """The mistake of a constant factor, worded by its meaning; `known` tells whether it has one."""
    size, sign = abs(factor), "-" if factor < 0 else ""
    for plain in (1, 2):
        for exact in (float(plain), 1 / plain):
            if abs(size - exact) <= 4 * tolerance * exact:
                return _plain(exact, factor < 0)
    names = meanings.named(size, tolerance)
    if names:
        whole, meaning = round(size), " or ".join(names)
        why = f"{whole} is {meaning}: a sum in place of a mean, or a factor that is applied twice"
        return _mistake(sign, factor, str(whole), meaning, why, f"Divide by {whole}")
    names = meanings.named(1 / size, tolerance)
    if names:
        whole, meaning = round(1 / size), " or ".join(names)
        why = f"{whole} is {meaning}: a mean in place of a sum, or a divisor that is applied twice"
        return _mistake(sign, factor, f"1/{whole}", meaning, why, f"Multiply by {whole}")
    for value, form in ((size, "n / (n - 1)"), (1 / size, "(n - 1) / n")):
        if n := meanings.corrected(value, tolerance):
            why = f"{form} with n = {n}: the one divides by n, the other by n - 1"
            return _mistake(sign, factor, form, f"n = {n}", why, "Use the variance that the operator uses")
    return _unknown(factor, sign, tolerance)


def _plain(size: float, negative: bool) -> Mistake:
    factor = -size if negative else size
    why = "the sign is wrong" if factor == -1 else f"a factor {2 if size == 0.5 else 0.5} is missing"
    if size == 2 and not negative:
        why = "it is added twice, or a factor 1/2 is missing"
    elif size == 0.5 and not negative:
        why = "a factor 2 is missing"
    cure = "Use -got." if factor == -1 else f"Multiply by {1 / factor:g}."
    return Mistake(
        "scaled", {"factor": factor, "meaning": "", "known": True}, cure, f"multiplied by {factor:g}", why
    )


def _mistake(sign: str, factor: float, shown: str, meaning: str, why: str, cure: str) -> Mistake:
    details = {"factor": factor, "meaning": meaning, "known": True}
    also = " and change the sign" if sign else ""
    return Mistake("scaled", details, f"{cure}{also}.", f"multiplied by {sign}{shown}", why)


def _unknown(factor: float, sign: str, tolerance: float) -> Mistake:
    """A factor without a meaning in the shapes; a whole number may be one that they do not show."""
    details = {"factor": factor, "meaning": "", "known": False}
    size = abs(factor)
    for value, shown, other in (
        (size, "{}", "sum in place of a mean"),
        (1 / size, "1/{}", "mean in place of a sum"),
    ):
        whole = round(value)
        if 2 < whole < 1e6 and abs(value - whole) <= 4 * tolerance * value:
            cure = f"If {whole} is the batch size or the number of positions, it is a {other}."
            return Mistake("scaled", details, cure, f"multiplied by {sign}{shown.format(whole)}")
    return Mistake(
        "scaled",
        details,
        "Look for a factor that is missing or applied twice.",
        f"multiplied by {factor:.6g}",
    )

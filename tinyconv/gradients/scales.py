"""What a constant factor means: which number of the shapes it is."""

from math import prod

from tinyconv.arrays import Array
from tinyconv.gradients.mistakes import Mistake, mistake


def meanings(want: Array, known: dict[str, int]) -> dict[str, int]:
    """Numbers that a gradient may be multiplied by or divided by: the `known` ones, those of the shape."""
    sizes = known | {f"the length of axis {axis}": size for axis, size in enumerate(want.shape)}
    if want.ndim > 2:
        sizes["the number of positions in the last two axes"] = prod(want.shape[-2:])
    if want.ndim > 1:
        sizes["the number of values"] = want.size
        sizes["the number of values per entry of axis 0"] = prod(want.shape[1:])
    return {name: size for name, size in sizes.items() if size > 1}


def scaled(factor: float, sizes: dict[str, int], tolerance: float) -> Mistake:
    """The mistake of a constant factor, worded by its meaning; `known` tells whether it has one."""
    for plain in (-2.0, -1.0, -0.5, 0.5, 2.0):
        if _near(factor, plain, tolerance):
            return mistake(f"scaled: {plain:g}", {"factor": plain, "meaning": "", "known": True})
    size, sign = abs(factor), "-" if factor < 0 else ""
    signs = {"sign": sign, "also": " and change the sign" if sign else ""}
    inverse = (size, "sum"), (1 / size, "mean")
    for value, kind in inverse:
        if names := _named(value, sizes, tolerance):
            details = {"factor": factor, "meaning": " or ".join(names), "known": True}
            return mistake(f"scaled: {kind}", details, whole=round(value), **signs)
    for value, form in ((size, "n / (n - 1)"), (1 / size, "(n - 1) / n")):
        if n := next((n for n in sizes.values() if _near(value, n / (n - 1), tolerance)), None):
            details = {"factor": factor, "meaning": f"n = {n}", "known": True}
            return mistake("scaled: variance", details, form=form, **signs)
    details = {"factor": factor, "meaning": "", "known": False}
    for value, kind in inverse:  # a whole number may be one that the shapes do not show
        whole = round(value)
        if 2 < whole < 1e6 and _near(value, whole, tolerance):
            return mistake(f"scaled: perhaps a {kind}", details, whole=whole, sign=sign)
    return mistake("scaled: unknown", details)


def _named(factor: float, sizes: dict[str, int], tolerance: float) -> list[str]:
    """The names of the numbers that are `factor`: those of axes where there are no better ones."""
    found = [name for name, size in sizes.items() if _near(factor, size, tolerance)]
    return [name for name in found if not name.startswith("the length")][:2] or found[:2]


def _near(value: float, exact: float, tolerance: float) -> bool:
    return abs(value - exact) <= 4 * tolerance * abs(exact)

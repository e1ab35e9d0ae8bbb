"""How far a kernel's values are from those of a case."""

import numpy as np

from tinyconv.arrays import Array


def close(got: Array, want: Array, rtol: float, atol: float) -> Array:
    """Where the values agree; NaN agrees with NaN, and an infinity with itself."""
    with np.errstate(all="ignore"):
        same: Array = np.isclose(got.astype(float), want.astype(float), rtol, atol, equal_nan=True)
    return same


def difference(got: Array, want: Array) -> float:
    """The largest difference divided by the largest value; of the finite values of both."""
    finite = np.isfinite(got) & np.isfinite(want)
    if not finite.any():
        return 0.0
    largest = np.abs(got[finite].astype(float) - want[finite].astype(float)).max()
    return float(largest / (np.abs(want[finite].astype(float)).max() or 1.0))

"""Assertions for tests of gradients: what differs, where, and which mistake it is."""

from tinyconv.arrays import Array
from tinyconv.gradients.diagnose import diagnose

__all__ = ["assert_close"]


def assert_close(got: Array, want: Array, *, rtol: float | None = None, atol: float | None = None) -> None:
    """Raise an AssertionError unless `got` equals `want` to rounding.

    Args:
        got: the array to be tested, of any real dtype.
        want: the right one, of the same shape; their dtypes may differ. NaN equals NaN in the same place.
        rtol: how much two values may differ, as a part of the largest value of `want`; the default depends on
            the dtypes, as in `diagnose`.
        atol: what they may differ by in addition (default 0).

    Raises:
        AssertionError: the shapes or values differ. The message says how many values do, how much, where, and
            then what `tinyconv.diagnose` says of the mistake.
        TypeError: one is not an array of real numbers.

    >>> import numpy as np
    >>> want = np.arange(1.0, 9).reshape(2, 4)
    >>> assert_close(want * (1 + 1e-12), want)
    >>> assert_close(-want, want)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: `got` differs from `want`:
    8 of 8 values differ, by at most 16 (2 of the largest expected value); the first is at (0, 0): ...
    `got` equals the expected array multiplied by -1: the sign is wrong. Use -got.
    """
    found = diagnose(got, want, rtol=rtol, atol=atol)
    if not found:
        what = found.text if found.mistakes else "No known mistake explains them."
        raise AssertionError(f"`got` differs from `want`:\n{found.where}\n{what}")

"""Centring of rows, for exact statistics in float32: the core of batch norm and group norm.

The values d are the input's, or in float32 what is left of them after a mean has been subtracted. With

    rest = mean(d)        var = mean(d * d) - rest * rest        factor = weight / sqrt(var + eps)
    y = (d - rest) / sqrt(var + eps) * weight + bias = d * factor + (bias - rest * factor)

nothing has to be subtracted from each value as long as rest is small: while rest * rest is at most 8 var, the
subtractions in var and y lose three bits at most. Where the rest of a set is larger, it is subtracted from d
and the statistics are computed again, until it is small. The first step is for large means; the next is for
what float32 cannot represent of the mean. Equal values become exactly 0.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinyconv.arrays import Array, array_module, fused
from tinyconv.functional.normalization.rows import Parts, along, pairs

FAR = 8  # times the variance: above this the square of a rest is large
MOST_STEPS = 3

# Means of d and of d * d, each in a form for `along`, and the number of values.
Moments: TypeAlias = Callable[[Parts], tuple[Array, Array, int]]


def centre(rows: Array, moments: Moments) -> tuple[Array, Array, Array, Array, int]:
    """Return centred rows (or `rows` itself), mean, rest, variance and the number of values."""
    xp, centred = array_module(rows), rows
    with np.errstate(over="ignore", invalid="ignore"):  # infinities give NaN, as in PyTorch
        rest, square, size = moments(pairs(rows, rows))
        subtracted, var = 0.0, _variance(rest, square)
        for _ in range(MOST_STEPS if xp is np else 1):
            if xp is np and not is_far(rest, var):
                break
            step = xp.where(xp.isfinite(rest), rest, 0).astype(rows.dtype)
            out = xp.empty_like(rows) if centred is rows else centred
            rest, square, size = moments(_differences(centred, step, out))
            centred, subtracted = out, subtracted + step.astype(np.float64)
            var = _variance(rest, square)
    return centred, subtracted + rest, rest, var, size


def is_far(rest: Array, var: Array) -> bool:
    """Return whether the rest of any set is too large compared with its standard deviation."""
    return bool((rest * rest > FAR * var).any())


def _variance(mean: Array, square: Array) -> Array:
    variance: Array = array_module(mean).maximum(square - mean * mean, 0)
    return variance


def _differences(rows: Array, values: Array, out: Array) -> Parts:
    """Blocks of `rows` minus `values`, as pairs of the same array, as they are written to `out`."""
    row = along(values, rows)

    def difference(block: slice) -> tuple[Array, Array]:
        np.subtract(rows[block], row, out=out[block])
        return out[block], out[block]

    return difference


@fused
def scaled(xp: Any, centred: Array, factor: Array, shift: Array, out: Array | None = None) -> Array:
    """Compute centred * factor + shift."""
    output: Array = centred * factor if out is None else xp.multiply(centred, factor, out)
    output += shift
    return output

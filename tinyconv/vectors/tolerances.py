"""How far a kernel in the dtype of a case may be from its values, which were rounded once.

A sum of K products, in any order, is wrong by less than K u times the sum of their magnitudes, where u is
the unit roundoff (2^-24 in float32), and by about sqrt(K) u times that where rounding errors are as often
up as down (Higham and Mary 2019, https://doi.org/10.1137/18M1226312). Of K random numbers around 0 the
magnitudes add up to about sqrt(K) times the size of the sum. The largest value of a tensor is at least of
that size, so

    atol = 4 u (K + 8) * largest value      rtol = 8 u

where 8 stands for the roundings of a division, an exponential and the like, and 4 is for safety.
Normalisations sum values of one sign first, whose magnitudes do not exceed their sum, but what is left
after subtracting the mean has the error of numbers as large as the input:

    atol = 4 u (sqrt(K) + 8) * largest value * largest input / standard deviation of the input

An input's gradient that has no weights in it, such as that of a saturated sigmoid, is a product of the
upstream gradient that may cancel or vanish: there the largest value is that of the upstream gradient, if
that is larger.

Indices and counts are exact. A kernel that multiplies in float16, bfloat16 or TF32 needs tolerances of its
own: `compare` takes them.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyconv.arrays import Array

_NORMALIZATIONS = ("batch_norm1d", "batch_norm2d", "layer_norm", "group_norm")


def tolerance(
    operator: str, attributes: Mapping[str, Any], name: str, arrays: Mapping[str, Array]
) -> tuple[float, float]:
    """`rtol` and `atol` of the tensor `name` among a case's `arrays`."""
    want = arrays[name]
    if want.dtype.kind != "f":
        return 0.0, 0.0
    roundoff = float(np.finfo(want.dtype).eps) / 2
    terms = _terms(operator, attributes, name, arrays)
    spread = 1.0
    if operator in _NORMALIZATIONS:
        terms, spread = math.sqrt(terms), _spread(arrays["input"])
    largest = _largest(want)
    if name == "grad_input" and "weight" not in arrays:
        largest = max(largest, _largest(arrays["grad_output"]))
    # Two digits, so that the last bit of a value hardly ever changes the text.
    return float(f"{8 * roundoff:.1e}"), float(f"{4 * roundoff * (terms + 8) * largest * spread:.1e}")


def _largest(array: Array) -> float:
    return float(np.abs(array[np.isfinite(array)], dtype=float).max(initial=0.0))


def _spread(x: Array) -> float:
    """The largest value, in standard deviations."""
    deviation = float(x.std(dtype=float)) if x.size else 0.0
    return max(1.0, float(np.abs(x).max()) / deviation) if deviation else 1.0


def _terms(operator: str, attributes: Mapping[str, Any], name: str, arrays: Mapping[str, Array]) -> Any:
    """How many products at most are summed for one value of the tensor `name`."""
    if "prediction" in arrays:
        size = arrays["prediction"].size
        classes = arrays["target"].dtype.kind == "i"
        return size if name == "loss" else arrays["prediction"].shape[1] if classes else 1
    x, output = arrays["input"], arrays["output"]
    if operator in ("conv1d", "conv2d", "conv_transpose2d", "linear"):
        return _terms_of_product(name, x, output, arrays["weight"], operator == "linear")
    if operator in _NORMALIZATIONS:
        return _terms_of_statistic(operator, attributes, name, arrays)
    if operator in ("softmax", "log_softmax"):
        return x.shape[attributes["dim"]]
    if operator == "adaptive_avg_pool2d":
        windows = zip(x.shape[-2:], output.shape[-2:], strict=True)
        return math.prod(math.ceil(i / max(o, 1)) + 1 for i, o in windows)
    return math.prod(attributes.get("kernel_size", ()))


def _terms_of_product(name: str, x: Array, output: Array, weight: Array, channels_last: bool) -> Any:
    """Of a convolution or a linear map: the products of one channel, or of one parameter."""
    axis = -1 if channels_last else 1
    inputs, outputs = max(1, x.shape[axis]), max(1, output.shape[axis])
    if name == "output":
        return weight.size // outputs + 1
    if name == "grad_input":
        return weight.size // inputs
    return max(x.size // inputs, output.size // outputs)


def _terms_of_statistic(
    operator: str, attributes: Mapping[str, Any], name: str, arrays: Mapping[str, Array]
) -> Any:
    """Of a normalisation: the values that a mean is taken of, or the products of one parameter."""
    x = arrays["input"]
    if name in ("grad_weight", "grad_bias"):
        return x.size // max(1, arrays[name].size)
    if operator == "layer_norm":
        return math.prod(attributes["normalized_shape"])
    if operator == "group_norm":
        return x.size // max(1, x.shape[0] * attributes["num_groups"])
    return x.size // max(1, x.shape[1])

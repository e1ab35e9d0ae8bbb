"""How far a kernel in the dtype of a case may be from its values, which were rounded once.

Where K terms are summed one after another, in any order, each addition errs by up to u times the sum so far;
u is the unit roundoff, 2^-24 in float32. Errors that are as often up as down add up to about sqrt(K) u times
the size of the sums, and to no more for pairwise sums (Higham and Mary 2019,
https://doi.org/10.1137/18M1226312). That size is the largest value of the tensor, or if that is more
what a sum of K random products has: sqrt(K) times the root mean squares of their factors. So

    atol = 4 u (sqrt(K) + 8) * size      rtol = 8 u

where 8 stands for the roundings of a division, an exponential and the like, and 4 is for safety. PyTorch's
float32 kernels and plain loops in C were within a fifth of it, over 25 seeds of all cases of the suite and
sums of up to 18,432 products.

What a normalisation leaves after subtracting the mean has the error of numbers as large as the input: there
atol is multiplied by the largest input, in standard deviations. An input's gradient that has no weights in
it, such as that of a saturated sigmoid, is a product of the upstream gradient that may cancel or vanish:
there the size is that of the upstream gradient at least.

Indices and counts are exact. A kernel that multiplies in float16, bfloat16 or TF32, or a convolution by
Winograd's or Fourier's transforms, needs tolerances of its own: `compare` takes them.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyconv.arrays import Array

Attributes = Mapping[str, Any]
Arrays = Mapping[str, Array]
Factors = dict[str, tuple[str, ...]]

_PRODUCTS = ("conv1d", "conv2d", "conv_transpose2d", "linear")
_NORMALIZATIONS = ("batch_norm1d", "batch_norm2d", "layer_norm", "group_norm")
# What is multiplied and summed for a tensor of the one and of the other.
_FACTORS_OF_PRODUCTS: Factors = {
    "output": ("input", "weight"),
    "grad_input": ("grad_output", "weight"),
    "grad_weight": ("grad_output", "input"),
    "grad_bias": ("grad_output",),
}
_FACTORS_OF_NORMALIZATIONS: Factors = {"grad_weight": ("grad_output",), "grad_bias": ("grad_output",)}


def tolerance(operator: str, attributes: Attributes, name: str, arrays: Arrays) -> tuple[float, float]:
    """`rtol` and `atol` of the tensor `name` among a case's `arrays`."""
    want = arrays[name]
    if want.dtype.kind != "f":
        return 0.0, 0.0
    roundoff = float(np.finfo(want.dtype).eps) / 2
    root = math.sqrt(_terms(operator, attributes, name, arrays))
    size = max(_largest(want), root * _factors(operator, name, arrays))
    if name == "grad_input" and "weight" not in arrays:
        size = max(size, _largest(arrays["grad_output"]))
    if operator in _NORMALIZATIONS:
        size *= _spread(arrays["input"])
    # Two digits, so that the last bit of a value hardly ever changes the text.
    return float(f"{8 * roundoff:.1e}"), float(f"{4 * roundoff * (root + 8) * size:.1e}")


def _factors(operator: str, name: str, arrays: Arrays) -> float:
    """The product of the root mean squares of what is multiplied; 0 for what is not a sum of products."""
    table = _FACTORS_OF_PRODUCTS if operator in _PRODUCTS else {}
    table = _FACTORS_OF_NORMALIZATIONS if operator in _NORMALIZATIONS else table
    if name not in table:
        return 0.0
    factors = (arrays[factor] for factor in table[name])
    return math.prod(math.sqrt(np.square(x, dtype=float).mean()) if x.size else 0.0 for x in factors)


def _largest(array: Array) -> float:
    return float(np.abs(array[np.isfinite(array)], dtype=float).max(initial=0.0))


def _spread(x: Array) -> float:
    """The largest value, in standard deviations."""
    deviation = float(x.std(dtype=float)) if x.size else 0.0
    return max(1.0, float(np.abs(x).max()) / deviation) if deviation else 1.0


def _terms(operator: str, attributes: Attributes, name: str, arrays: Arrays) -> Any:
    """How many products at most are summed for one value of the tensor `name`."""
    if "prediction" in arrays:
        size = arrays["prediction"].size
        classes = arrays["target"].dtype.kind == "i"
        return size if name == "loss" else arrays["prediction"].shape[1] if classes else 1
    x, output = arrays["input"], arrays["output"]
    if operator in _PRODUCTS:
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


def _terms_of_statistic(operator: str, attributes: Attributes, name: str, arrays: Arrays) -> Any:
    """Of a normalisation: the values that a mean is taken of, or the products of one parameter."""
    x = arrays["input"]
    if name in ("grad_weight", "grad_bias"):
        return x.size // max(1, arrays[name].size)
    if operator == "layer_norm":
        return math.prod(attributes["normalized_shape"])
    if operator == "group_norm":
        return x.size // max(1, x.shape[0] * attributes["num_groups"])
    return x.size // max(1, x.shape[1])

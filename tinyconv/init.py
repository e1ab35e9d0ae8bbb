"""Initialisers: they fill an array, such as a layer's parameter, in place, and return it.

They are those of torch.nn.init. A weight has the form (out, in, ...): fan_in is the number of inputs of an
output, weight[0].size, and fan_out is weight[:, 0].size. (The weight of a transposed convolution is (in, out,
...), and PyTorch reads its first dimension as the outputs all the same, and so does this module.)

>>> from tinyconv import Conv2d, Linear, Sequential, init
>>> model = Sequential(Conv2d(1, 4, 3), Linear(4, 2))
>>> for layer in model.modules():
...     if isinstance(layer, (Conv2d, Linear)):
...         _ = init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=0)
...         _ = init.zeros_(layer.bias)
"""

import math
from collections.abc import Callable

import numpy as np

from tinyconv.arguments import Generator as Rng
from tinyconv.arguments import check_arrays, number, one_of
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, moved, underflow_allowed

__all__ = ["calculate_gain", "constant_", "kaiming_normal_", "kaiming_uniform_", "normal_", "ones_"]
__all__ += ["orthogonal_", "uniform_", "xavier_normal_", "xavier_uniform_", "zeros_"]

_GAINS = {"sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "leaky_relu": None, "selu": 3 / 4}
_GAINS |= dict.fromkeys(
    ("linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))), 1.0
)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which the weights before a nonlinearity are larger, so that variances stay.

    Args:
        nonlinearity: "linear", "conv2d" (also 1d and 3d, and "conv_transpose2d") and "sigmoid": 1; "tanh":
            5 / 3; "relu": sqrt(2); "leaky_relu": sqrt(2 / (1 + param^2)); "selu": 3 / 4.
        param: the negative slope of "leaky_relu", 0.01 by default.

    Raises:
        ValueError, TypeError: another `nonlinearity`; a `param` that is not a number.

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.calculate_gain

    >>> calculate_gain("leaky_relu", 1.0)
    1.0
    """
    gain = _GAINS[one_of("nonlinearity", nonlinearity, tuple(_GAINS))]
    return (
        math.sqrt(2 / (1 + number("param", 0.01 if param is None else param) ** 2)) if gain is None else gain
    )


def uniform_(tensor: Array, a: float = 0.0, b: float = 1.0, generator: Rng = None) -> Array:
    """Fill `tensor` with numbers that are distributed uniformly between a and b.

    Args:
        tensor: any shape, float32 or float64; on either device.
        a, b: the bounds.
        generator: a numpy.random.Generator, a seed, or None for fresh entropy. Equal generators give equal
            numbers, whatever the dtype and memory layout.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: b < a; an argument of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.uniform_

    >>> uniform_(np.zeros(3), 1.0, 2.0, generator=0).round(3)
    array([1.637, 1.27 , 1.041])
    """
    low, high = number("a", a), number("b", b, a)
    return _filled(tensor, lambda: as_generator(generator).uniform(low, high, tensor.shape))


def normal_(tensor: Array, mean: float = 0.0, std: float = 1.0, generator: Rng = None) -> Array:
    """Fill `tensor` with normally distributed numbers.

    Args:
        tensor, generator: as for `uniform_`.
        mean, std: of the distribution.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: std < 0; an argument of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.normal_

    >>> normal_(np.zeros(3), 5.0, 0.1, generator=0).round(3)
    array([5.013, 4.987, 5.064])
    """
    centre, scale = number("mean", mean), number("std", std, 0.0)
    return _filled(tensor, lambda: as_generator(generator).normal(centre, scale, tensor.shape))


def constant_(tensor: Array, val: float) -> Array:
    """Fill `tensor`, float32 or float64, with the number `val`, and return it.

    Raises:
        TypeError: an argument of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.constant_

    >>> constant_(np.zeros(3), 0.5)
    array([0.5, 0.5, 0.5])
    """
    return _filled(tensor, lambda: np.array(number("val", val)))


def ones_(tensor: Array) -> Array:
    """Fill `tensor`, float32 or float64, with ones, and return it.

    Raises:
        TypeError: `tensor` is not an array of one of these dtypes.

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.ones_

    >>> ones_(np.zeros(3))
    array([1., 1., 1.])
    """
    return constant_(tensor, 1.0)


def zeros_(tensor: Array) -> Array:
    """Fill `tensor`, float32 or float64, with zeros, and return it.

    Raises:
        TypeError: `tensor` is not an array of one of these dtypes.

    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.zeros_

    >>> zeros_(np.ones(3))
    array([0., 0., 0.])
    """
    return constant_(tensor, 0.0)


def xavier_uniform_(tensor: Array, gain: float = 1.0, generator: Rng = None) -> Array:
    """Fill a weight uniformly between +-sqrt(3) * std, with the std of `xavier_normal_`.

    Args:
        tensor: a weight of two or more dimensions, float32 or float64; on either device.
        gain: as in the formula, see `calculate_gain`.
        generator: as for `uniform_`.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: `tensor` of another shape; an argument out of range or of the wrong type.

    Source: Glorot and Bengio, https://proceedings.mlr.press/v9/glorot10a.html;
        https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.xavier_uniform_

    >>> bool(abs(xavier_uniform_(np.zeros((4, 2)))).max() <= 1)
    True
    """
    bound = math.sqrt(3) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Array, gain: float = 1.0, generator: Rng = None) -> Array:
    """Fill a weight with a normal distribution of std = gain * sqrt(2 / (fan_in + fan_out)).

    Args:
        tensor: a weight of two or more dimensions, float32 or float64; on either device.
        gain: as in the formula, see `calculate_gain`.
        generator: as for `uniform_`.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: `tensor` of another shape; an argument out of range or of the wrong type.

    Source: Glorot and Bengio, https://proceedings.mlr.press/v9/glorot10a.html;
        https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.xavier_normal_

    >>> bool(xavier_normal_(np.zeros((300, 100)), generator=0).std().round(3) == 0.071)
    True
    """
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def kaiming_uniform_(
    tensor: Array, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Rng = None
) -> Array:
    """Fill a weight uniformly between +-sqrt(3) * std, with the std of `kaiming_normal_`.

    Args:
        tensor: a weight of two or more dimensions, float32 or float64; on either device.
        a: the negative slope of a "leaky_relu" that comes after the layer.
        mode: "fan_in", which keeps the variance in forward, or "fan_out", in backward.
        nonlinearity: what comes after the layer, see `calculate_gain`.
        generator: as for `uniform_`.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: `tensor` of another shape; an argument out of range or of the wrong type.

    Source: He et al., https://arxiv.org/abs/1502.01852;
        https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.kaiming_uniform_

    >>> bool(abs(kaiming_uniform_(np.zeros((4, 6)))).max() <= 1)
    True
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Array, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Rng = None
) -> Array:
    """Fill a weight with a normal distribution of std = gain / sqrt(fan), for layers before a ReLU.

    Args:
        tensor: a weight of two or more dimensions, float32 or float64; on either device.
        a: the negative slope of a "leaky_relu" that comes after the layer.
        mode: "fan_in", which keeps the variance in forward, or "fan_out", in backward.
        nonlinearity: what comes after the layer, see `calculate_gain`.
        generator: as for `uniform_`.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: `tensor` of another shape; an argument out of range or of the wrong type.

    Source: He et al., https://arxiv.org/abs/1502.01852;
        https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.kaiming_normal_

    >>> bool(kaiming_normal_(np.zeros((300, 200)), generator=0).std().round(3) == 0.1)
    True
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Array, gain: float = 1.0, generator: Rng = None) -> Array:
    """Fill a weight, as a matrix (rows, the rest), with rows or columns that are orthogonal, of length gain.

    The fewer of both are: it is `gain` times a matrix that is distributed uniformly among these.

    Args:
        tensor: a weight of two or more dimensions, float32 or float64; on either device.
        gain: as above, see `calculate_gain`.
        generator: as for `uniform_`.

    Returns:
        `tensor`.

    Raises:
        ValueError, TypeError: `tensor` of another shape; an argument of the wrong type.

    Source: Saxe, McClelland and Ganguli, https://arxiv.org/abs/1312.6120;
        https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.orthogonal_

    >>> weight = orthogonal_(np.zeros((2, 5)), generator=0)
    >>> (weight @ weight.T).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    (fan_in, _), rows, factor = _fans(tensor), len(tensor), number("gain", gain)
    normal = as_generator(generator).standard_normal((max(rows, fan_in), min(rows, fan_in)))
    basis, upper = np.linalg.qr(normal)
    basis *= factor * np.sign(np.diag(upper))  # without the signs the distribution would not be uniform
    return _filled(tensor, lambda: (basis if rows > fan_in else basis.T).reshape(tensor.shape))


def _xavier_std(tensor: Array, gain: float) -> float:
    return number("gain", gain, 0.0) * math.sqrt(2 / sum(_fans(tensor)))


def _kaiming_std(tensor: Array, a: float, mode: str, nonlinearity: str) -> float:
    fan = _fans(tensor)[("fan_in", "fan_out").index(one_of("mode", mode, ("fan_in", "fan_out")))]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _fans(tensor: Array) -> tuple[int, int]:
    """The numbers of inputs of an output, and of outputs of an input."""
    check_arrays(tensor=tensor)
    if tensor.ndim < 2 or not tensor.size:
        raise ValueError(
            f"`tensor` (of shape {tensor.shape}) must have two dimensions or more, none of them 0"
        )
    return tensor.size // tensor.shape[0], tensor.size // tensor.shape[1]


@underflow_allowed
def _filled(tensor: Array, values: Callable[[], Array]) -> Array:
    """`tensor`, with these values, which are drawn on the CPU."""
    check_arrays(tensor=tensor)
    tensor[...] = moved(values().astype(tensor.dtype), array_module(tensor))
    return tensor

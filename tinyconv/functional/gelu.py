"""GELU, exact and approximated by tanh, and its derivatives."""

from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, one_of
from tinyconv.arrays import Array, array_module, special
from tinyconv.functional.product_rule import tangent_of

__all__ = ["gelu", "gelu_backward", "gelu_backward_jvp"]

SQRT_2_OVER_PI = (2 / np.pi) ** 0.5
GELU_CUBIC = 0.044715


def gelu(input: Array, approximate: str = "none") -> Array:
    """Compute input * P(input), where P is the distribution function of the standard normal.

    With `approximate="tanh"`, P(x) is (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2.

    Args:
        input: any shape, float32 or float64.
        approximate: "none" or "tanh".

    Returns:
        A new array of the shape and memory layout of `input`.

    Raises:
        ValueError: another `approximate`.
        TypeError: `input` is not floating.

    Source: Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gelu.html

    >>> gelu(np.array([-1.0, 0.0, 2.0])).round(6)
    array([-0.158655,  0.      ,  1.9545  ])
    """
    xp = check_arrays(input=input)
    with np.errstate(invalid="ignore", under="ignore"):  # -inf * 0: NaN, as in PyTorch
        if one_of("approximate", approximate, ("none", "tanh")) == "none":
            share = special(xp).ndtr(input)
        else:
            share = 0.5 * (1 + _gelu_tanh(xp, input))
        output: Array = xp.asarray(input * share)
    return output


def gelu_backward(grad_output: Array, input: Array, approximate: str = "none") -> Array:
    """Compute grad_output * (P(input) + input * P'(input)), where P' is the normal density.

    With `approximate="tanh"`, P' is that of the approximation:
    (1 - tanh^2) / 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 x^2).

    >>> gelu_backward(np.array([2.0, 2.0]), np.array([0.0, 10.0])).round(6)
    array([1., 2.])
    """
    xp = check_like(input, grad_output=grad_output)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):  # inf * 0: NaN, as in PyTorch
        square = input * input
        if one_of("approximate", approximate, ("none", "tanh")) == "none":
            share = special(xp).ndtr(input)
            density = xp.exp(-0.5 * square) * (2 * np.pi) ** -0.5
        else:
            tanh = _gelu_tanh(xp, input)
            share = 0.5 * (1 + tanh)
            density = 0.5 * (1 - tanh * tanh) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * square)
        grad: Array = xp.asarray(grad_output * (share + input * density))
    return grad


@tangent_of(gelu_backward)
def gelu_backward_jvp(input_dot: Array, input: Array, approximate: str = "none") -> Any:
    """Compute the tangent of `gelu_backward`; f'' is P'(input) * (2 - input^2).

    With `approximate="tanh"` and u = sqrt(2 / pi) * (x + 0.044715 x^3), t = tanh(u), it is 2 P' + x P'',
    P' = (1 - t^2) u' / 2 and P'' = (1 - t^2) * (u'' / 2 - t u'^2).

    >>> gelu_backward_jvp(np.zeros(1), np.ones(1), np.ones(1), np.zeros(1)).round(6)  # 2 / sqrt(2 pi)
    array([0.797885])
    """
    square = input * input
    if approximate == "none":
        xp = array_module(input)
        return xp.exp(-0.5 * square) * (2 * np.pi) ** -0.5 * (2 - square) * input_dot
    tanh = _gelu_tanh(array_module(input), input)
    slope = SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * square)
    bend = 6 * SQRT_2_OVER_PI * GELU_CUBIC * input
    return (1 - tanh * tanh) * (slope + input * (0.5 * bend - tanh * slope * slope)) * input_dot


def _gelu_tanh(xp: Any, input: Array) -> Any:
    with np.errstate(over="ignore"):  # the cube may be infinite, but not its tanh
        return xp.tanh(SQRT_2_OVER_PI * (input + GELU_CUBIC * input * input * input))

"""Transposed convolution: the gradient of a convolution with respect to its input, under its own name.

A convolution with the kernel w, stride s, dilation d and padding P reads y[n, c, p*s + i*d - P, ...] for
output position p. Its transpose adds input[n, o, p, ...] * w[o, c, i, ...] there instead:

    conv_transpose2d(x, w) = conv2d_input(the output's size, w, x)

so the roles of the channels are swapped: w is (C_in, C_out / groups, KH, KW). With a stride above 1, several
output sizes have the same number of positions p; `output_padding` selects one of them, by adding rows and
columns at the end. As the map is linear in x and in w, its gradients are the two other maps of the family:
`conv2d` for the input, and `conv2d_weight`, with the roles of image and cotangent exchanged, for the weight.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_shape, integer, pair
from tinyconv.arrays import Array, empty_stored, formatted
from tinyconv.functional.conv.algorithms import pick
from tinyconv.functional.conv.conv2d import conv2d_bias
from tinyconv.functional.conv.geometry import CACHED, Geometry, Shape, steps

__all__ = [
    "conv_transpose2d",
    "conv_transpose2d_backward",
]


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Spread every input value over a window of the output, weighted by the kernel.

    y[n, c, a, b] = bias[c] + sum of input[n, o, p, q] * weight[o, c, i, j] over o, p, q, i, j with
        a = p*stride + i*dilation - padding  and  b = q*stride + j*dilation - padding

    Args:
        input: (N, C_in, H, W) or (C_in, H, W), float32 or float64.
        weight: (C_in, C_out / groups, KH, KW), of the dtype of `input`.
        bias: (C_out,) or None.
        stride, dilation: an int, or a pair for height and width.
        padding: the same; the number of rows and columns left out at each side of the output.
        output_padding: the same; the number of rows and columns added at the bottom and the right, less than
            the stride or the dilation.
        groups: number of groups; it divides C_in and C_out.
        algorithm: "columns", "windows" or "winograd"; by default the shapes decide (see `conv2d`).

    Returns:
        (N, C_out, OH, OW) or (C_out, OH, OW), in the memory format, with
        OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.

    Raises:
        ValueError: shapes that do not fit, an argument out of range, an output size below 1.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html

    >>> import numpy as np
    >>> conv_transpose2d(np.array([[[1.0, 10.0]]]), np.array([[[[1.0, 2.0]]]]), stride=2)
    array([[[ 1.,  2., 10., 20.]]])
    """
    xp = check_arrays(weight=weight, input=input, bias=bias)
    options = (stride, padding, output_padding, groups, dilation)
    geometry = transposed_geometry(input.shape, weight.shape, *options)
    if bias is not None:
        shape = geometry.input_shape[1:2]
        check_shape("bias", bias, shape, f"for `weight` of shape {weight.shape}")
    grads = input if input.ndim == 4 else input[None]
    image = empty_stored(geometry.input_shape, input.dtype, xp)
    pick("input", geometry, algorithm, xp)(geometry, weight, formatted(grads), image)
    if bias is not None:
        image += bias.reshape(-1, 1, 1)
    return image if input.ndim == 4 else image[0]


def conv_transpose2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
    *,
    algorithm: str | None = None,
) -> tuple[Array, Array, Array | None]:
    """Return the gradients with respect to `input`, `weight` and `bias` (None without a bias).

    The first is `conv2d` of grad_output with the same kernel, the second `conv2d_weight` with grad_output
    as the image and `input` as the cotangent.

    >>> import numpy as np
    >>> grad, x = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[10.0]]])
    >>> conv_transpose2d_backward(grad, x, np.array([[[[1.0, 0.0], [0.0, 1.0]]]]))
    (array([[[5.]]]), array([[[[10., 20.],
             [30., 40.]]]]), None)
    """
    options = (stride, padding, output_padding, groups, dilation)
    wanted = ("input", "weight", "bias")[: 3 if bias is not None else 2]
    grads = transposed_gradients(grad_output, input, weight, bias, options, algorithm, wanted)
    return grads["input"], grads["weight"], grads.get("bias")


def transposed_gradients(
    grad_output: Array,
    input: Array,
    weight: Array,
    bias: Array | None,
    options: tuple[Any, ...],
    algorithm: str | None,
    wanted: Collection[str],
) -> dict[str, Array]:
    """Return the gradients with respect to what is `wanted` of "input", "weight" and "bias", by name."""
    xp = check_arrays(weight=weight, input=input, grad_output=grad_output, bias=bias)
    geometry = transposed_geometry(input.shape, weight.shape, *options)
    shape = (*input.shape[:-3], *geometry.input_shape[1:])
    check_shape("grad_output", grad_output, shape, "of the output")
    if bias is not None:
        check_shape("bias", bias, geometry.input_shape[1:2], f"for `weight` of shape {weight.shape}")
    grads, image = (formatted(a if input.ndim == 4 else a[None]) for a in (grad_output, input))
    found: dict[str, Array] = {}
    if "input" in wanted:
        grad_input = empty_stored(geometry.output_shape, input.dtype, xp)
        pick("output", geometry, algorithm, xp)(geometry, grads, weight, None, grad_input)
        found["input"] = grad_input if input.ndim == 4 else grad_input[0]
    if "weight" in wanted:
        found["weight"] = pick("weight", geometry, algorithm, xp)(geometry, grads, image)
    if "bias" in wanted:
        found["bias"] = conv2d_bias(grad_output)
    return found


def transposed_geometry(
    input_size: Shape,
    weight_size: Shape,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Geometry:
    """Return the geometry of the convolution whose transpose this is: its image is the output here."""
    options = (
        pair("stride", stride),
        pair("padding", padding, minimum=0),
        pair("output_padding", output_padding, minimum=0),
        integer("groups", groups),
        pair("dilation", dilation),
    )
    return _transposed_geometry(tuple(input_size), tuple(weight_size), *options)


@lru_cache(CACHED)
def _transposed_geometry(
    input_size: Shape,
    weight_size: Shape,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    groups: int,
    dilation: Pair,
) -> Geometry:
    _check_sizes(input_size, weight_size, groups)
    channels, kernel_size = weight_size[1] * groups, (weight_size[2], weight_size[3])
    if any(e >= max(s, d) for e, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise ValueError(
            f"`output_padding` (={output_padding}) must be smaller than `stride` (={stride}) "
            f"or `dilation` (={dilation})"
        )
    shortest = shortest_size(input_size[-2:], kernel_size, stride, padding, dilation)
    size = shortest[0] + output_padding[0], shortest[1] + output_padding[1]
    if min(size) < 1:
        raise ValueError(f"`padding` (={padding}) must leave an output, not one of size {size}")
    n = input_size[0] if len(input_size) == 4 else 1
    pads = (padding[0], padding[0]), (padding[1], padding[1])
    positions = input_size[-2], input_size[-1]
    image, stride, dilation = (n, channels, *size), steps(stride, positions), steps(dilation, kernel_size)
    return Geometry(image, weight_size[0], kernel_size, stride, pads, dilation, groups, positions)


def shortest_size(input_size: Shape, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Return (OH, OW) of a transposed convolution of (H, W) without output padding; may be less than 1."""
    height, width = (
        (length - 1) * s + d * (k - 1) + 1 - 2 * p
        for length, k, s, p, d in zip(input_size, kernel_size, stride, padding, dilation, strict=True)
    )
    return height, width


def _check_sizes(input_size: tuple[int, ...], weight_size: tuple[int, ...], groups: int) -> None:
    if len(weight_size) != 4:
        raise ValueError(
            f"`weight` (of shape {weight_size}) must have the form (C_in, C_out / groups, KH, KW)"
        )
    if len(input_size) not in (3, 4):
        raise ValueError(
            f"`input` (of shape {input_size}) must have the form (N, C_in, H, W) or (C_in, H, W)"
        )
    if 0 in (*input_size[-3:], *weight_size):
        raise ValueError(
            f"`input` (of shape {input_size}) and `weight` (of shape {weight_size}) must hold values"
        )
    if input_size[-3] != weight_size[0] or weight_size[0] % groups:
        raise ValueError(
            f"`input` (of shape {input_size}) must have the {weight_size[0]} channels of `weight` (of shape "
            f"{weight_size}), a multiple of `groups` (={groups})"
        )

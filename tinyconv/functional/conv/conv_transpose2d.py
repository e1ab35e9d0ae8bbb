"""Transposed convolution: the gradient of a convolution by its input, under its own name.

A convolution with the kernel w, stride s, dilation d and padding P reads y[n, c, p*s + i*d - P, ...] for
output position p. Its transpose adds input[n, o, p, ...] * w[o, c, i, ...] there instead:

    conv_transpose2d(x, w) = conv2d_input(the output's size, w, x)

so the roles of the channels are swapped: w is (C_in, C_out / groups, KH, KW). Several output sizes have
the same number of positions p where the stride is above 1; `output_padding` chooses one of them, by rows
and columns at the end. As the map is linear in x and in w, its gradients are the two other maps of the
family: `conv2d` by the input and `conv2d_weight`, the roles of image and cotangent exchanged.
"""

from typing import NamedTuple

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_shape, integer, pair
from tinyconv.arrays import Array
from tinyconv.functional.conv.conv2d import conv2d_bias, correlate, correlate_input, correlate_weight
from tinyconv.functional.conv.unfold import Window, zeros_batch_last

__all__ = [
    "conv_transpose2d",
    "conv_transpose2d_backward",
]


class Transposed(NamedTuple):
    """Geometry of a transposed convolution.

    `window` is that of the convolution whose transpose it is, over an image of `reached` (H, W); rows and
    columns beyond, up to `size`, are reached by no input and hold the bias alone.
    """

    window: Window
    channels: int
    reached: Pair
    size: Pair

    @classmethod
    def of(
        cls,
        input_size: tuple[int, ...],
        weight_size: tuple[int, ...],
        stride: IntOrPair,
        padding: IntOrPair,
        output_padding: IntOrPair,
        groups: int,
        dilation: IntOrPair,
    ) -> "Transposed":
        """Geometry from the arguments of `conv_transpose2d`, checked."""
        _check_sizes(input_size, weight_size, integer("groups", groups))
        window = Window.of(weight_size[2:], stride, padding, dilation)
        extra = pair("output_padding", output_padding, minimum=0)
        both = tuple(zip(window.stride, window.dilation, strict=True))
        if any(e >= max(s, d) for e, (s, d) in zip(extra, both, strict=True)):
            raise ValueError(
                f"`output_padding` (={output_padding}) must be smaller than `stride` (={window.stride}) "
                f"or `dilation` (={window.dilation})"
            )
        size, reached, pads = zip(
            *(_axis(window, axis, input_size[axis - 2], extra[axis]) for axis in (0, 1)), strict=True
        )
        if min(size) < 1:
            raise ValueError(f"`padding` (={padding}) must leave an output, not one of size {size}")
        return cls(window._replace(padding=pads), weight_size[1] * groups, reached, size)


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    output_padding: IntOrPair = 0,
    groups: int = 1,
    dilation: IntOrPair = 1,
) -> Array:
    """Spread every input value over a window of the output, weighted by the kernel.

    y[n, c, a, b] = bias[c] + sum of input[n, o, p, q] * weight[o, c, i, j] over o, p, q, i, j with
        a = p*stride + i*dilation - padding  and  b = q*stride + j*dilation - padding

    Args:
        input: (N, C_in, H, W) or (C_in, H, W), float32 or float64.
        weight: (C_in, C_out / groups, KH, KW), of the dtype of `input`.
        bias: (C_out,) or None.
        stride, dilation: an int, or a pair for height and width.
        padding: the same; rows and columns that are left out at each side of the output.
        output_padding: the same; rows and columns more at the bottom and the right, fewer than the
            stride or the dilation.
        groups: number of groups; it divides C_in and C_out.

    Returns:
        (N, C_out, OH, OW) or (C_out, OH, OW), batch last in memory, with
        OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.

    Raises:
        ValueError: shapes that do not fit, an argument out of range, an output size below 1.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html

    >>> import numpy as np
    >>> conv_transpose2d(np.array([[[1.0, 10.0]]]), np.array([[[[1.0, 2.0]]]]), stride=2)
    array([[[ 1.,  2., 10., 20.]]])
    """
    check_arrays(input=input, weight=weight, bias=bias)
    geometry = Transposed.of(input.shape, weight.shape, stride, padding, output_padding, groups, dilation)
    if bias is not None:
        check_shape("bias", bias, (geometry.channels,), f"for `weight` of shape {weight.shape}")
    grads = input if input.ndim == 4 else input[None]
    height, width = geometry.reached
    shape = (len(grads), geometry.channels)
    if geometry.size == geometry.reached:
        image = correlate_input((*shape, height, width), weight, grads, geometry.window, groups)
    else:
        image = zeros_batch_last((*shape, *geometry.size), like=input)
        if height and width:
            seen = correlate_input((*shape, height, width), weight, grads, geometry.window, groups)
            image[:, :, :height, :width] = seen
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
) -> tuple[Array, Array, Array | None]:
    """Gradients of `conv_transpose2d` by `input`, `weight` and `bias` (None without a bias).

    The first is `conv2d` of grad_output with the same kernel, the second `conv2d_weight` with grad_output
    as the image and `input` as the cotangent.
    """
    xp = check_arrays(grad_output=grad_output, input=input, weight=weight)
    geometry = Transposed.of(input.shape, weight.shape, stride, padding, output_padding, groups, dilation)
    shape = (*input.shape[:-3], geometry.channels, *geometry.size)
    check_shape("grad_output", grad_output, shape, "of the output")
    batched = input.ndim == 4
    grads, image = (grad_output, input) if batched else (grad_output[None], input[None])
    height, width = geometry.reached
    if not (height and width):
        zeros = xp.zeros_like
        return zeros(input), zeros(weight), None if bias is None else conv2d_bias(grad_output)
    seen = grads[:, :, :height, :width]
    grad_input = correlate(seen, weight, geometry.window, groups)
    return (
        grad_input if batched else grad_input[0],
        correlate_weight(seen, weight.shape, image, geometry.window, groups),
        None if bias is None else conv2d_bias(grad_output),
    )


def shortest_size(window: Window, input_size: tuple[int, ...]) -> Pair:
    """(OH, OW) of a transposed convolution of (H, W) without output padding; may be less than 1."""
    height, width = (_axis(window, axis, input_size[axis], 0)[0] for axis in (0, 1))
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


def _axis(window: Window, axis: int, length: int, extra: int) -> tuple[int, int, Pair]:
    """Along one axis the output's size, the part that inputs reach, and the window's padding over it."""
    before = window.padding[axis][0]
    extent = (length - 1) * window.stride[axis] + window.dilation[axis] * (window.kernel[axis] - 1) + 1
    reached = max(0, extent - before - max(before - extra, 0))  # 0: the output lies beyond all of it
    return extent - 2 * before + extra, reached, (before, max(before - extra, 0))

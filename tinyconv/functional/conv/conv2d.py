"""Convolution and its gradients: one trilinear form, three maps.

For an image x, a kernel w and a cotangent g with the shape of the output, take the number

    T(g, x, w) = sum  g[n, o, p, q] * x[n, c, p*s + i*d - P, q*s + j*d - P] * w[o, c, i, j]

over all indices, where s is the stride, d the dilation, P the padding, and x counts as zero outside
the image. It is linear in each of its three arguments. Leave one argument out, and the form becomes
a map of the other two:

    conv2d(x, w)              without g: the output     y[n,o,p,q] = sum over c,i,j  x[...] * w[...]
    conv2d_input(., w, g)     without x: the gradient by the image, scattered to where x was read
    conv2d_weight(x, ., g)    without w: the gradient by the kernel, g correlated with x

So the derivative of any of the three maps, in any of its arguments, is another of the three: the
family is closed under differentiation, and the second order needs no new formula. `conv2d_input` is
also known as transposed convolution.

In terms of the columns of `unfold` each map is one matrix product per group:

    output = W @ columns(x)       columns' gradient = W.T @ g       W's gradient = g @ columns(x).T

and the gradient by the image is the `fold` of the columns' gradient. No kernel is rotated and no
stride is divided: a stride that leaves pixels at the border unread gives them the gradient zero, as
the image's size is an argument of `conv2d_input`.

Columns are made and multiplied in blocks that fit the cache; they never exist whole. That can serve every
convolution. For some shapes there are faster ways to the same result, each in a file of its own; the
tables at the end of this file list them, and `conv_rules` says by which rule of shapes one is picked. (Some
of them multiply by zeros: an infinite pixel may then make more of its neighbourhood NaN.)
"""

import math

from tinyconv.arguments import IntOrPair, check_arrays, check_shape, integer, one_of
from tinyconv.arrays import (
    Array,
    array_module,
    batch_last,
    channel_rows,
    contiguous_batch_last,
    empty_batch_last,
    matmul,
    scratch,
)
from tinyconv.functional.conv.conv_rotated import rotated
from tinyconv.functional.conv.conv_rows import conv2d_input_rows
from tinyconv.functional.conv.conv_rules import (
    Algorithm,
    Shapes,
    always,
    pays_depthwise,
    pays_rotated,
    pays_rows,
    pays_rows_forward,
    pays_tiled,
    pays_winograd,
    pays_winograd_input,
    pick,
    serves_depthwise,
    serves_rotated,
    serves_rows,
    serves_rows_forward,
    serves_tiled,
    serves_winograd,
)
from tinyconv.functional.conv.conv_tiled import conv2d_tiled, conv2d_weight_tiled
from tinyconv.functional.conv.depthwise import (
    conv2d_depthwise,
    conv2d_input_depthwise,
    conv2d_weight_depthwise,
)
from tinyconv.functional.conv.unfold import (
    Window,
    add_columns,
    column_blocks,
    columns_bytes,
    position_blocks,
    span,
    zeros_batch_last,
)
from tinyconv.functional.conv.winograd import (
    conv2d_input_winograd,
    conv2d_weight_winograd,
    conv2d_winograd,
)

__all__ = [
    "conv2d",
    "conv2d_backward",
    "conv2d_bias",
    "conv2d_input",
    "conv2d_weight",
]


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Convolve a batch of images with a set of kernels (cross-correlation, no kernel is rotated).

    y[n, o, p, q] = bias[o] + sum over c, i, j of
        input[n, c, p*stride + i*dilation - padding, q*stride + j*dilation - padding] * weight[o, c, i, j]

    With `groups`, output channel o sees only the input channels of its own group.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        weight: (O, C / groups, KH, KW), of the dtype of `input`.
        bias: (O,) or None.
        stride, dilation: an int, or a pair for height and width.
        padding: an int, a pair, "valid" (none) or "same" (the output has the size of the input, for
            stride 1; an odd row or column of padding goes to the bottom or the right).
        groups: number of groups; it divides C and O.
        algorithm: one of `FORWARD`; by default the shapes decide. The results agree to rounding.

    Returns:
        (N, O, OH, OW) or (O, OH, OW), batch last in memory, with
        OH = floor((H + 2 * padding - dilation * (KH - 1) - 1) / stride) + 1.

    Raises:
        ValueError: shapes that do not fit, an argument out of range, a kernel larger than the
            padded input, "same" with a stride, an `algorithm` that does not serve the shapes.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html

    >>> import numpy as np
    >>> sobel = np.array([[[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]]])
    >>> conv2d(np.arange(1.0, 10.0).reshape(1, 1, 3, 3), sobel)
    array([[[[-8.]]]])
    """
    check_arrays(input=input, weight=weight, bias=bias)
    window = conv_window(weight.shape, stride, padding, dilation)
    if input.ndim == 3:
        output: Array = correlate(input[None], weight, window, groups, bias, algorithm)[0]
        return output
    return correlate(input, weight, window, groups, bias, algorithm)


def conv2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
) -> tuple[Array, Array, Array | None]:
    """Gradients of `conv2d` by `input`, `weight` and `bias` (None without a bias).

    The first two are `conv2d_input` and `conv2d_weight`; the bias's is grad_output summed over all
    but the channels.
    """
    geometry = (stride, padding, dilation, groups)
    return (
        conv2d_input(input.shape, weight, grad_output, *geometry),
        conv2d_weight(input, weight.shape, grad_output, *geometry),
        None if bias is None else conv2d_bias(grad_output),
    )


def conv2d_input(
    input_size: tuple[int, ...],
    weight: Array,
    grad_output: Array,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Gradient of `conv2d` by its input.

    dx[n, c, y, x] = sum of grad_output[n, o, p, q] * weight[o, c, i, j] over all o, p, q, i, j with
        y = p*stride + i*dilation - padding  and  x = q*stride + j*dilation - padding

    Args:
        input_size: the shape of the input, (N, C, H, W) or (C, H, W).
        weight: (O, C / groups, KH, KW).
        grad_output: (N, O, OH, OW) or (O, OH, OW).
        stride, padding, dilation, groups: as for `conv2d`.
        algorithm: one of `INPUT`; by default the shapes decide.

    Returns:
        An array of the shape `input_size`, batch last in memory.

    Raises:
        ValueError: shapes that do not fit, an argument out of range.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/nn.html#torch.nn.grad.conv2d_input (torch.nn.grad)

    >>> import numpy as np
    >>> conv2d_input((1, 1, 2, 2), np.array([[[[1.0, 2], [3, 4]]]]), np.array([[[[10.0]]]]))
    array([[[[10., 20.],
             [30., 40.]]]])
    """
    check_arrays(weight=weight, grad_output=grad_output)
    window = conv_window(weight.shape, stride, padding, dilation)
    if len(input_size) == 3:
        batch = (1, *input_size)
        image: Array = correlate_input(batch, weight, grad_output[None], window, groups, algorithm)[0]
        return image
    return correlate_input(tuple(input_size), weight, grad_output, window, groups, algorithm)


def conv2d_weight(
    input: Array,
    weight_size: tuple[int, ...],
    grad_output: Array,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Gradient of `conv2d` by its weight.

    dw[o, c, i, j] = sum of grad_output[n, o, p, q] * input[n, c, y, x] over all n, p, q with
        y = p*stride + i*dilation - padding  and  x = q*stride + j*dilation - padding

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight_size: the shape of the weight, (O, C / groups, KH, KW).
        grad_output: (N, O, OH, OW) or (O, OH, OW).
        stride, padding, dilation, groups: as for `conv2d`.
        algorithm: one of `WEIGHT`; by default the shapes decide.

    Returns:
        An array of the shape `weight_size`.

    Raises:
        ValueError: shapes that do not fit, an argument out of range.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/nn.html#torch.nn.grad.conv2d_weight (torch.nn.grad)

    >>> import numpy as np
    >>> conv2d_weight(np.arange(4.0).reshape(1, 1, 2, 2), (1, 1, 2, 2), np.array([[[[10.0]]]]))
    array([[[[ 0., 10.],
             [20., 30.]]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    window = conv_window(tuple(weight_size), stride, padding, dilation)
    if input.ndim == 3:
        input, grad_output = input[None], grad_output[None]
    return correlate_weight(input, tuple(weight_size), grad_output, window, groups, algorithm)


def conv2d_bias(grad_output: Array) -> Array:
    """Gradient of `conv2d` by its bias: `grad_output`, (N, O, OH, OW) or (O, OH, OW), summed to (O,)."""
    batched = grad_output if grad_output.ndim == 4 else grad_output[None]
    summed: Array = channel_rows(batched).sum(axis=1)
    return summed


def correlate(
    input: Array,
    weight: Array,
    window: Window,
    groups: int,
    bias: Array | None = None,
    algorithm: str | None = None,
) -> Array:
    """`conv2d` of a batch, with its geometry as a window."""
    shape = conv2d_output_shape(input.shape, weight.shape, window, groups)
    if bias is not None:
        check_shape("bias", bias, (shape[1],), f"for `weight` of shape {weight.shape}")
    shapes = Shapes(weight.shape, window, groups, shape)
    run = pick(FORWARD, algorithm, shapes, array_module(input))
    output: Array = run(input, weight, bias, window, groups, shape)
    return output


def correlate_input(
    input_size: tuple[int, ...],
    weight: Array,
    grad_output: Array,
    window: Window,
    groups: int,
    algorithm: str | None = None,
) -> Array:
    """`conv2d_input` of a batch, with its geometry as a window."""
    shape = conv2d_output_shape(input_size, weight.shape, window, groups)
    check_shape("grad_output", grad_output, shape, f"for `input_size` {input_size}")
    shapes = Shapes(weight.shape, window, groups, shape)
    run = pick(INPUT, algorithm, shapes, array_module(grad_output))
    image: Array = run(input_size, weight, grad_output, window, groups)
    return image


def correlate_weight(
    input: Array,
    weight_size: tuple[int, ...],
    grad_output: Array,
    window: Window,
    groups: int,
    algorithm: str | None = None,
) -> Array:
    """`conv2d_weight` of a batch, with its geometry as a window."""
    shape = conv2d_output_shape(input.shape, weight_size, window, groups)
    check_shape("grad_output", grad_output, shape, f"for `input` of shape {input.shape}")
    shapes = Shapes(weight_size, window, groups, shape)
    run = pick(WEIGHT, algorithm, shapes, array_module(input))
    weight: Array = run(input, weight_size, grad_output, window, groups)
    return weight


def conv2d_columns(
    input: Array, weight: Array, bias: Array | None, window: Window, groups: int, shape: tuple[int, ...]
) -> Array:
    """`conv2d`, with an output of `shape`, from columns: output = W @ columns(x)."""
    xp = array_module(input)
    output = empty_batch_last(shape, input.dtype, xp)
    rows, kernels = _by_group(batch_last(output), groups), _by_group(weight, groups)
    for block, columns in column_blocks(input, window):
        out = rows[..., block]
        matmul(kernels, _by_group(columns, groups), out)
        if bias is not None:
            out += bias.reshape(groups, -1, 1)
    return output


def conv2d_input_columns(
    input_size: tuple[int, ...], weight: Array, grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_input` from columns: their gradient is W.T @ g, and the image's the fold of it."""
    xp = array_module(grad_output)
    image = zeros_batch_last(input_size, like=grad_output)
    n, c = image.shape[:2]
    grads = _by_group(contiguous_batch_last(grad_output), groups)
    kernels = _by_group(weight, groups).swapaxes(1, 2)
    output_size = grad_output.shape[2], grad_output.shape[3]
    for rows, cols in position_blocks(output_size, columns_bytes(image, window), xp):
        size = (rows.stop - rows.start, cols.stop - cols.start, n)
        columns = scratch("columns", (window.rows(c), math.prod(size)), image.dtype, xp)
        matmul(kernels, grads[..., span(rows, cols, output_size[1], n)], _by_group(columns, groups))
        add_columns(batch_last(image), columns.reshape(c, *window.kernel, *size), window, rows, cols)
    return image


def conv2d_weight_columns(
    input: Array, weight_size: tuple[int, ...], grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_weight` from columns: W's gradient = g @ columns(x).T."""
    weight: Array = array_module(input).zeros(weight_size, input.dtype)
    grads, kernels = _by_group(contiguous_batch_last(grad_output), groups), _by_group(weight, groups)
    for block, columns in column_blocks(input, window):
        kernels += matmul(grads[..., block], _by_group(columns, groups).swapaxes(1, 2))
    return weight


def conv2d_rows(
    input: Array, weight: Array, bias: Array | None, window: Window, groups: int, shape: tuple[int, ...]
) -> Array:
    """`conv2d` for stride 1, row by row: the gradient by the image for the rotated kernel."""
    kernel, around = rotated(weight, window, groups)
    output = conv2d_input_rows(shape, kernel, input, around, groups)
    if bias is not None:
        output += bias.reshape(-1, 1, 1)
    return output


def conv2d_input_rotated(
    input_size: tuple[int, ...], weight: Array, grad_output: Array, window: Window, groups: int
) -> Array:
    """`conv2d_input` for stride 1: a convolution of `grad_output` with the rotated kernel."""
    return correlate(grad_output, *rotated(weight, window, groups), groups)


def conv_window(
    weight_size: tuple[int, ...], stride: IntOrPair, padding: IntOrPair | str, dilation: IntOrPair
) -> Window:
    """The window of a convolution, with "same" and "valid" turned into numbers."""
    if len(weight_size) != 4:
        raise ValueError(f"`weight` (of shape {weight_size}) must have the form (O, C / groups, KH, KW)")
    kernel = weight_size[2:]
    if not isinstance(padding, str):
        return Window.of(kernel, stride, padding, dilation)
    window = Window.of(kernel, stride, 0, dilation)
    if one_of("padding", padding, ("same", "valid")) == "valid":
        return window
    if window.stride != (1, 1):
        raise ValueError(f"`padding` (='same') needs a `stride` of 1, got {window.stride}")
    total = window.reaches
    top, left = total[0] // 2, total[1] // 2
    around = ((top, total[0] - top), (left, total[1] - left))
    return Window(window.kernel, window.stride, around, window.dilation)


def conv2d_output_shape(
    input_size: tuple[int, ...], weight_size: tuple[int, ...], window: Window, groups: int
) -> tuple[int, int, int, int]:
    """Shape (N, O, OH, OW) of a convolution's output; raises ValueError where the shapes do not fit."""
    if len(input_size) != 4:
        raise ValueError(f"`input` (of shape {input_size}) must have the form (N, C, H, W) or (C, H, W)")
    check_channels(input_size, weight_size, groups)
    return input_size[0], weight_size[0], *window.output_size(input_size[2:])


def check_channels(input_size: tuple[int, ...], weight_size: tuple[int, ...], groups: int) -> None:
    """Check the channels of an input (N, C, ...) and of a weight (O, C / groups, ...)."""
    if 0 in input_size[1:]:
        raise ValueError(f"`input` (of shape {input_size}) must hold channels and values")
    channels, (o, c_group) = input_size[1], weight_size[:2]
    if channels != c_group * integer("groups", groups):
        raise ValueError(
            f"`input` (of shape {input_size}) must have {c_group * groups} channels "
            f"for `weight` of shape {weight_size} and `groups` {groups}"
        )
    if o == 0 or o % groups:
        raise ValueError(
            f"`weight` (of shape {weight_size}) must have output channels divisible by `groups` (={groups})"
        )


def _by_group(array: Array, groups: int) -> Array:
    """An array whose rows lie group after group, as one matrix a group: (groups, rows, the rest)."""
    return array.reshape(groups, array.shape[0] // groups, -1)


# The first that pays is taken.
FORWARD = {
    "depthwise": Algorithm(serves_depthwise, pays_depthwise, conv2d_depthwise),
    "winograd": Algorithm(serves_winograd, pays_winograd, conv2d_winograd),
    "tiled": Algorithm(serves_tiled, pays_tiled, conv2d_tiled),
    "rows": Algorithm(serves_rows_forward, pays_rows_forward, conv2d_rows),
    "columns": Algorithm(always, always, conv2d_columns),
}
INPUT = {
    "depthwise": Algorithm(serves_depthwise, pays_depthwise, conv2d_input_depthwise),
    "winograd": Algorithm(serves_winograd, pays_winograd_input, conv2d_input_winograd),
    "rotated": Algorithm(serves_rotated, pays_rotated, conv2d_input_rotated),
    "rows": Algorithm(serves_rows, pays_rows, conv2d_input_rows),
    "columns": Algorithm(always, always, conv2d_input_columns),
}
WEIGHT = {
    "depthwise": Algorithm(serves_depthwise, pays_depthwise, conv2d_weight_depthwise),
    "winograd": Algorithm(serves_winograd, pays_winograd, conv2d_weight_winograd),
    "tiled": Algorithm(serves_tiled, pays_tiled, conv2d_weight_tiled),
    "columns": Algorithm(always, always, conv2d_weight_columns),
}

"""Convolution and its gradients: one trilinear form, three maps.

For an image x, a kernel w and a cotangent g with the shape of the output, take the number

    T(g, x, w) = sum  g[n, o, p, q] * x[n, c, p*s + i*d - P, q*s + j*d - P] * w[o, c, i, j]

over all indices, where s is the stride, d the dilation, P the padding, and x counts as zero outside
the image. It is linear in each of its three arguments. If one argument is left out, the form becomes a map of
the other two:

    conv2d(x, w)              without g: the output     y[n,o,p,q] = sum over c,i,j  x[...] * w[...]
    conv2d_input(., w, g)     without x: the gradient with respect to the image, scattered to where x was read
    conv2d_weight(x, ., g)    without w: the gradient with respect to the kernel, g correlated with x

So the derivative of each of the three maps, with respect to each of its arguments, is another of the three:
the family is closed under differentiation, and the second order needs no new formula. `conv2d_input` is also
known as transposed convolution.

With what the window sees at each position copied into the columns of a matrix, each map is one matrix product
per group (`columns.py`, the file to read first):

    output = W @ columns(x)       columns' gradient = W.T @ g       W's gradient = g @ columns(x).T

and the gradient with respect to the image adds the columns' gradient up where the columns were read. No
kernel is turned and no stride is divided: pixels at the border that a stride leaves unread get a zero
gradient, as the image's size is an argument of `conv2d_input`.

There are faster ways to the same result, each in a separate file:

    windows.py    saves most of the copying, as the windows are matrices of the image as stored
    winograd.py   3x3 and 5x5 kernels with a quarter or a sixth of the multiplications. It mixes the pixels of
                  a tile of 4x4 outputs, so rounding errors are larger, and an inf or a NaN spreads over it
    depthwise.py  one channel per group: the definition, for all channels and samples at once
    residues.py   a dilation, or in the gradient with respect to the image a stride: as several convolutions
                  without one, by the files above

The shapes decide which one runs (`algorithms.py`), or `algorithm` does: "columns" and "windows" add up the
same products as the definition. All of them cut their work into parts, which several threads compute.
"""

from tinyconv.arguments import IntOrPair, check_arrays, check_ndim, check_shape
from tinyconv.arrays import Array, empty_stored, formatted
from tinyconv.functional.conv.algorithms import pick
from tinyconv.functional.conv.geometry import conv_geometry

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
    """Convolve a batch of images with a set of kernels (a cross-correlation: no kernel is rotated).

    y[n, o, p, q] = bias[o] + sum over c, i, j of
        input[n, c, p*stride + i*dilation - padding, q*stride + j*dilation - padding] * weight[o, c, i, j]

    With `groups`, output channel o sees only the input channels of its group.

    Args:
        input: (N, C, H, W) or (C, H, W), float32 or float64.
        weight: (O, C / groups, KH, KW), of the dtype of `input`.
        bias: (O,) or None.
        stride, dilation: an int, or a pair for height and width.
        padding: an int, a pair, "valid" (none) or "same" (the output has the size of the input, for
            stride 1; of an odd number, the larger part is at the bottom or the right).
        groups: number of groups; it divides C and O.
        algorithm: "columns", "windows" or "winograd"; by default the shapes decide. The results agree to
            rounding, which in float32 is up to 6e-6 of the largest output for "winograd" (3x3 and 5x5 kernels
            without stride and groups), and a fifth of that or less for the others. Winograd spreads an
            outlier or a NaN over a tile of 4x4 outputs.

    Returns:
        (N, O, OH, OW) or (O, OH, OW), in the memory format (see `arrays.layout`), with
        OH = floor((H + 2 * padding - dilation * (KH - 1) - 1) / stride) + 1.

    Raises:
        ValueError: shapes that do not fit, an argument out of range, a kernel larger than the
            padded input, "same" with a stride, an `algorithm` that does not support the shapes.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html

    >>> import numpy as np
    >>> sobel = np.array([[[[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]]])
    >>> conv2d(np.arange(1.0, 10.0).reshape(1, 1, 3, 3), sobel)
    array([[[[-8.]]]])
    """
    xp = check_arrays(weight=weight, input=input, bias=bias)
    batch = formatted(input[None] if input.ndim == 3 else input)
    geometry = conv_geometry(batch.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None and bias.shape != weight.shape[:1]:
        check_shape("bias", bias, weight.shape[:1], f"for `weight` of shape {weight.shape}")
    output = empty_stored(geometry.output_shape, input.dtype, xp)
    pick("output", geometry, algorithm, xp)(geometry, batch, weight, bias, output)
    return output if input.ndim == 4 else output[0]


def conv2d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> tuple[Array, Array, Array | None]:
    """Compute the gradients of `conv2d` with respect to `input`, `weight` and `bias` (None without a bias).

    The first two are `conv2d_input` and `conv2d_weight`; the bias's is grad_output summed over all
    but the channels.

    >>> import numpy as np
    >>> x, weight = np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([10.0, 100.0]).reshape(2, 1, 1, 1)
    >>> grads = conv2d_backward(np.ones((2, 1, 2)), x, weight, np.zeros(2), groups=2)
    >>> [grad.ravel().tolist() for grad in grads]  # of input, weight and bias
    [[10.0, 10.0, 100.0, 100.0], [3.0, 7.0], [2.0, 2.0]]
    """
    check_arrays(weight=weight, input=input, grad_output=grad_output, bias=bias)
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], f"for `weight` of shape {weight.shape}")
    geometry = (stride, padding, dilation, groups)
    grad_output = formatted(grad_output) if grad_output.ndim == 4 else grad_output
    return (
        conv2d_input(input.shape, weight, grad_output, *geometry, algorithm=algorithm),
        conv2d_weight(input, weight.shape, grad_output, *geometry, algorithm=algorithm),
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
    """Compute the gradient of `conv2d` with respect to its input.

    dx[n, c, y, x] = sum of grad_output[n, o, p, q] * weight[o, c, i, j] over all o, p, q, i, j with
        y = p*stride + i*dilation - padding  and  x = q*stride + j*dilation - padding

    Args:
        input_size: the shape of the input, (N, C, H, W) or (C, H, W).
        weight: (O, C / groups, KH, KW).
        grad_output: (N, O, OH, OW) or (O, OH, OW).
        stride, padding, dilation, groups: as for `conv2d`.
        algorithm: as for `conv2d`.

    Returns:
        An array of the shape `input_size`, in the memory format (see `arrays.layout`).

    Raises:
        ValueError: shapes that do not fit, an argument out of range.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/nn.html#torch.nn.grad.conv2d_input (torch.nn.grad)

    >>> import numpy as np
    >>> conv2d_input((1, 1, 2, 2), np.array([[[[1.0, 2], [3, 4]]]]), np.array([[[[10.0]]]]))
    array([[[[10., 20.],
             [30., 40.]]]])
    """
    xp = check_arrays(weight=weight, grad_output=grad_output)
    single = len(input_size) == 3
    size, grads = ((1, *input_size), grad_output[None]) if single else (input_size, grad_output)
    geometry = conv_geometry(size, weight.shape, stride, padding, dilation, groups)
    if grads.shape != geometry.output_shape:
        check_shape("grad_output", grads, geometry.output_shape, f"for `input_size` {size}")
    image = empty_stored(geometry.input_shape, weight.dtype, xp)
    pick("input", geometry, algorithm, xp)(geometry, weight, formatted(grads), image)
    return image[0] if single else image


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
    """Compute the gradient of `conv2d` with respect to its weight.

    dw[o, c, i, j] = sum of grad_output[n, o, p, q] * input[n, c, y, x] over all n, p, q with
        y = p*stride + i*dilation - padding  and  x = q*stride + j*dilation - padding

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight_size: the shape of the weight, (O, C / groups, KH, KW).
        grad_output: (N, O, OH, OW) or (O, OH, OW).
        stride, padding, dilation, groups: as for `conv2d`.
        algorithm: as for `conv2d`.

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
    xp = check_arrays(input=input, grad_output=grad_output)
    if input.ndim == 3:
        input, grad_output = input[None], grad_output[None]
    geometry = conv_geometry(input.shape, weight_size, stride, padding, dilation, groups)
    if grad_output.shape != geometry.output_shape:
        check_shape("grad_output", grad_output, geometry.output_shape, f"for `input` of shape {input.shape}")
    weight: Array = pick("weight", geometry, algorithm, xp)(
        geometry, formatted(input), formatted(grad_output)
    )
    return weight


def conv2d_bias(grad_output: Array) -> Array:
    """Sum `grad_output` over all but the channels: the gradient with respect to the bias, (O,).

    >>> import numpy as np
    >>> conv2d_bias(np.ones((2, 3, 4, 5)))
    array([40., 40., 40.])
    """
    check_arrays(grad_output=grad_output)
    if grad_output.ndim not in (3, 4):
        check_ndim("grad_output", grad_output, (3, 4), "(N, O, OH, OW) or (O, OH, OW)")
    batch = grad_output if grad_output.ndim == 4 else grad_output[None]
    lines = batch.transpose(2, 3, 1, 0)
    h, w, o, n = lines.shape
    summed: Array = lines.reshape(h * w, o * n).sum(axis=0).reshape(o, n).sum(axis=1)
    return summed

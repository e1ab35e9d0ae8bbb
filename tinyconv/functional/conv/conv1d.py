"""Convolution of sequences, as images of height 1 with a kernel of height 1."""

from typing import TypeAlias

from tinyconv.arguments import IntOrPair, Pair, check_arrays, check_ndim, check_shape, integer, single
from tinyconv.arrays import Array
from tinyconv.functional.conv.conv2d import conv2d, conv2d_bias, conv2d_input, conv2d_weight
from tinyconv.functional.conv.geometry import check_channels

__all__ = [
    "conv1d",
    "conv1d_backward",
    "conv1d_bias",
    "conv1d_input",
    "conv1d_weight",
]

IntOrSingle: TypeAlias = IntOrPair  # an int or a sequence of one


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrSingle = 1,
    padding: IntOrSingle | str = 0,
    dilation: IntOrSingle = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Convolve a batch of sequences with a set of kernels (a cross-correlation: no kernel is rotated).

    y[n, o, p] = bias[o] + sum over c, i of input[n, c, p*stride + i*dilation - padding] * weight[o, c, i]

    Args:
        input: (N, C, L) or (C, L), float32 or float64.
        weight: (O, C / groups, K), of the dtype of `input`.
        bias: (O,) or None.
        stride, dilation: an int or a sequence of one.
        padding: the same, or "valid" (none) or "same" (the output has the length of the input, for
            stride 1; of an odd number, the larger part is at the end).
        groups: number of groups; it divides C and O.
        algorithm: "columns" or "windows"; by default the shapes decide. The results agree to rounding.

    Returns:
        (N, O, OL) or (O, OL), stored as (L, C, N), with
        OL = floor((L + 2 * padding - dilation * (K - 1) - 1) / stride) + 1.

    Raises:
        ValueError: shapes that do not fit, an argument out of range, a kernel larger than the padded
            input, "same" with a stride.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv1d.html

    >>> import numpy as np
    >>> conv1d(np.array([[1.0, 2.0, 4.0]]), np.array([[[-1.0, 1.0]]]))
    array([[1., 2.]])
    """
    check_arrays(weight=weight, input=input, bias=bias)
    options = options_2d(input.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], f"for `weight` of shape {weight.shape}")
    return conv2d(_image(input), weight[:, :, None], bias, *options, algorithm=algorithm)[..., 0, :]


def conv1d_backward(
    grad_output: Array,
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: IntOrSingle = 1,
    padding: IntOrSingle | str = 0,
    dilation: IntOrSingle = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> tuple[Array, Array, Array | None]:
    """Return the gradients with respect to `input`, `weight` and `bias` (None without a bias).

    >>> import numpy as np
    >>> x, weight, bias = np.array([[1.0, 2.0, 4.0]]), np.array([[[-1.0, 1.0]]]), np.zeros(1)
    >>> conv1d_backward(np.array([[1.0, 10.0]]), x, weight, bias)
    (array([[-1., -9., 10.]]), array([[[21., 42.]]]), array([11.]))
    """
    check_arrays(weight=weight, input=input, grad_output=grad_output, bias=bias)
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], f"for `weight` of shape {weight.shape}")
    geometry = (stride, padding, dilation, groups)
    return (
        conv1d_input(input.shape, weight, grad_output, *geometry, algorithm=algorithm),
        conv1d_weight(input, weight.shape, grad_output, *geometry, algorithm=algorithm),
        None if bias is None else conv1d_bias(grad_output),
    )


def conv1d_input(
    input_size: tuple[int, ...],
    weight: Array,
    grad_output: Array,
    stride: IntOrSingle = 1,
    padding: IntOrSingle | str = 0,
    dilation: IntOrSingle = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Compute the gradient of `conv1d` with respect to its input.

    dx[n, c, l] = sum of grad_output[n, o, p] * weight[o, c, i] over o, p, i with
        l = p*stride + i*dilation - padding

    Args:
        input_size: the shape of the input, (N, C, L) or (C, L).
        weight: (O, C / groups, K).
        grad_output: (N, O, OL) or (O, OL).
        stride, padding, dilation, groups, algorithm: as for `conv1d`.

    Returns:
        An array of the shape `input_size`, stored as (L, C, N).

    Raises:
        ValueError: shapes that do not fit, an argument out of range.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/nn.html#torch.nn.grad.conv1d_input (torch.nn.grad)

    >>> import numpy as np
    >>> conv1d_input((1, 4), np.array([[[1.0, 2.0]]]), np.array([[1.0, 10.0]]), dilation=2)
    array([[ 1., 10.,  2., 20.]])
    """
    check_arrays(weight=weight, grad_output=grad_output)
    options = options_2d(tuple(input_size), weight.shape, stride, padding, dilation, groups)
    _check_grad(grad_output, len(input_size))
    size = (*input_size[:-1], 1, input_size[-1])
    return conv2d_input(size, weight[:, :, None], _image(grad_output), *options, algorithm=algorithm)[
        ..., 0, :
    ]


def conv1d_weight(
    input: Array,
    weight_size: tuple[int, ...],
    grad_output: Array,
    stride: IntOrSingle = 1,
    padding: IntOrSingle | str = 0,
    dilation: IntOrSingle = 1,
    groups: int = 1,
    *,
    algorithm: str | None = None,
) -> Array:
    """Compute the gradient of `conv1d` with respect to its weight.

    dw[o, c, i] = sum of grad_output[n, o, p] * input[n, c, p*stride + i*dilation - padding] over n, p

    Args:
        input: (N, C, L) or (C, L).
        weight_size: the shape of the weight, (O, C / groups, K).
        grad_output: (N, O, OL) or (O, OL).
        stride, padding, dilation, groups, algorithm: as for `conv1d`.

    Returns:
        An array of the shape `weight_size`.

    Raises:
        ValueError: shapes that do not fit, an argument out of range.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/nn.html#torch.nn.grad.conv1d_weight (torch.nn.grad)

    >>> import numpy as np
    >>> conv1d_weight(np.array([[1.0, 2.0, 3.0, 4.0]]), (1, 1, 2), np.array([[1.0, 10.0]]), stride=2)
    array([[[31., 42.]]])
    """
    check_arrays(input=input, grad_output=grad_output)
    options = options_2d(input.shape, tuple(weight_size), stride, padding, dilation, groups)
    _check_grad(grad_output, input.ndim)
    size = (*weight_size[:2], 1, weight_size[2])
    return conv2d_weight(_image(input), size, _image(grad_output), *options, algorithm=algorithm)[:, :, 0]


def conv1d_bias(grad_output: Array) -> Array:
    """Sum `grad_output`, (N, O, OL) or (O, OL), to the gradient with respect to the bias, (O,).

    >>> import numpy as np
    >>> conv1d_bias(np.array([[1.0, 2.0], [10.0, 20.0]]))
    array([ 3., 30.])
    """
    check_arrays(grad_output=grad_output)
    check_ndim("grad_output", grad_output, (2, 3), "(N, O, OL) or (O, OL)")
    return conv2d_bias(_image(grad_output))


def options_2d(
    input_size: tuple[int, ...],
    weight_size: tuple[int, ...],
    stride: IntOrSingle,
    padding: IntOrSingle | str,
    dilation: IntOrSingle,
    groups: int,
) -> tuple[Pair, Pair | str, Pair, int]:
    """Return stride, padding, dilation and groups of the 2-D convolution; raise if shapes do not fit."""
    if len(weight_size) != 3:
        raise ValueError(f"`weight` (of shape {weight_size}) must have the form (O, C / groups, K)")
    options = (
        (1, single("stride", stride)),
        padding if isinstance(padding, str) else (0, single("padding", padding, minimum=0)),
        (1, single("dilation", dilation)),
        integer("groups", groups),
    )
    if len(input_size) not in (2, 3):
        raise ValueError(f"`input` (of shape {input_size}) must have the form (N, C, L) or (C, L)")
    check_channels(input_size if len(input_size) == 3 else (1, *input_size), weight_size, groups)
    return options


def _check_grad(grad_output: Array, ndim: int) -> None:
    check_ndim("grad_output", grad_output, (ndim,), "(N, O, OL)" if ndim == 3 else "(O, OL)")


def _image(sequences: Array) -> Array:
    """(N, C, L) or (C, L) as images of height 1, (N, C, 1, L) or (C, 1, L)."""
    return sequences[..., None, :]

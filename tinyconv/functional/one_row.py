"""Functions of sequences that are those of images of height 1."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from tinyconv.arguments import check_ndim, single
from tinyconv.functional.conv.conv_transpose2d import conv_transpose2d, conv_transpose2d_backward
from tinyconv.functional.pooling.avg_pool import avg_pool2d, avg_pool2d_backward
from tinyconv.functional.pooling.max_pool import max_pool2d, max_pool2d_backward

__all__ = ["avg_pool1d", "avg_pool1d_backward", "conv_transpose1d", "conv_transpose1d_backward"]
__all__ += ["max_pool1d", "max_pool1d_backward"]

P = ParamSpec("P")
R = TypeVar("R")

# Options of a window -> their value for the one row, which is also their minimum.
ROW = {"kernel_size": 1, "stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}
ARRAYS = ("input", "grad_output", "weight")


def of_one_row(function: Callable[P, R], *without: str) -> Callable[[Callable[[], object]], Callable[P, R]]:
    """Return a decorator that makes a function of sequences of one of images.

    Args:
        function: the function of images.
        without: the parameters that the function of sequences does not have.

    The decorated function is only a name and a docstring. It becomes a function with the parameters of
    `function`, which it calls with arrays and windows of one row.
    """
    takes = inspect.signature(function)
    takes = takes.replace(parameters=[p for p in takes.parameters.values() if p.name not in without])

    def decorate(named: Callable[[], object]) -> Callable[P, R]:
        @functools.wraps(named)
        def call(*args: Any, **options: Any) -> Any:
            given = with_row(takes.bind(*args, **options).arguments)
            try:
                return without_row(function(**given))  # type: ignore[call-arg]
            except ValueError as error:
                raise ValueError(f"{error} (as an image of height 1)") from None

        vars(call)["__signature__"] = takes
        return cast("Callable[P, R]", call)

    return decorate


def with_row(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a function of sequences as those of one of images of height 1."""
    images = dict(given)
    for name, value in given.items():
        if name in ARRAYS:
            form = "(C_in, C_out / groups, K)" if name == "weight" else "(N, C, L) or (C, L)"
            check_ndim(name, value, (3,) if name == "weight" else (2, 3), form)
            images[name] = value[..., None, :]
        elif name in ROW and value is not None and value != ():
            images[name] = ROW[name], single(name, value, ROW[name])
    return images


def without_row(result: Any) -> Any:
    """Return what a function of images of height 1 has returned as sequences; biases are left as they are."""
    if isinstance(result, tuple):
        return tuple(map(without_row, result))
    return result if result is None or result.ndim < 3 else result[..., 0, :]


@of_one_row(cast("Callable[..., Any]", max_pool2d))  # two overloads
def max_pool1d() -> None:
    """Compute the maximum of each window of a sequence.

    Args:
        input: (N, C, L) or (C, L), float32 or float64.
        kernel_size: an int or a sequence of one.
        stride: the same; default `kernel_size`.
        padding: the same; positions of -inf at both ends, at most half of `kernel_size`.
        dilation: the same; distance between the taps of a window.
        ceil_mode: round the output's length up, so that a window may reach beyond the padded sequence
            (one that would start there is left out).
        return_indices: also return where each maximum was found.

    Returns:
        (N, C, OL) or (C, OL), with OL = floor((L + 2 * padding - dilation * (K - 1) - 1) / stride) + 1; with
        `return_indices` a pair of this and an int64 array of positions. The first of equal maxima is taken;
        NaN is larger than any number.

    Raises:
        ValueError: wrong number of dimensions, an argument out of range, an output length below 1.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_pool1d.html

    >>> import numpy as np
    >>> max_pool1d(np.array([[1.0, 3.0, 2.0, 0.0]]), 2)
    array([[3., 2.]])
    """


@of_one_row(max_pool2d_backward)
def max_pool1d_backward() -> None:
    """Add the gradient of each maximum to the position where it was found.

    >>> import numpy as np
    >>> x = np.array([[3.0, 3.0, 0.0, 1.0]])  # of equal ones the first counts
    >>> max_pool1d_backward(np.array([[5.0, 7.0]]), x, 2)
    array([[5., 0., 0., 7.]])
    """


@of_one_row(avg_pool2d, "divisor_override")
def avg_pool1d() -> None:
    """Compute the mean of each window of a sequence.

    Args:
        input: (N, C, L) or (C, L), float32 or float64.
        kernel_size: an int or a sequence of one.
        stride: the same; default `kernel_size`.
        padding: the same; positions of 0 at both ends, at most half of `kernel_size`.
        ceil_mode: round the output's length up, so that a window may reach beyond the padded sequence
            (one that would start there is left out).
        count_include_pad: whether padding counts in the number that the sum is divided by; positions beyond
            the padded sequence never do.

    Returns:
        (N, C, OL) or (C, OL), with OL = floor((L + 2 * padding - K) / stride) + 1.

    Raises:
        ValueError: wrong number of dimensions, no channel or position, an argument out of range, an output
            length below 1.
        TypeError: `input` is not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.avg_pool1d.html

    >>> import numpy as np
    >>> avg_pool1d(np.array([[1.0, 3.0, 2.0, 0.0]]), 2)
    array([[2., 1.]])
    """


@of_one_row(avg_pool2d_backward, "divisor_override")
def avg_pool1d_backward() -> None:
    """Add to each position its share of the gradient of every window that sees it.

    >>> import numpy as np
    >>> avg_pool1d_backward(np.array([[4.0, 8.0]]), np.zeros((1, 3)), 2, ceil_mode=True)
    array([[2., 2., 8.]])
    """


@of_one_row(conv_transpose2d)
def conv_transpose1d() -> None:
    """Spread every input value over a window of the output, weighted by the kernel.

    y[n, c, a] = bias[c] + sum of input[n, o, p] * weight[o, c, i] over o, p, i with
        a = p*stride + i*dilation - padding

    Args:
        input: (N, C_in, L) or (C_in, L), float32 or float64.
        weight: (C_in, C_out / groups, K), of the dtype of `input`.
        bias: (C_out,) or None.
        stride, dilation: an int or a sequence of one.
        padding: the same; the number of positions left out at each end of the output.
        output_padding: the same; the number of positions added at the end, less than the stride or the
            dilation.
        groups: number of groups; it divides C_in and C_out.
        algorithm: as for `conv_transpose2d`.

    Returns:
        (N, C_out, OL) or (C_out, OL), with
        OL = (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1.

    Raises:
        ValueError: shapes that do not fit, an argument out of range, an output length below 1.
        TypeError: dtypes that differ or are not floating.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose1d.html

    >>> import numpy as np
    >>> conv_transpose1d(np.array([[1.0, 10.0]]), np.array([[[1.0, 2.0]]]), stride=2)
    array([[ 1.,  2., 10., 20.]])
    """


@of_one_row(conv_transpose2d_backward)
def conv_transpose1d_backward() -> None:
    """Return the gradients with respect to `input`, `weight` and `bias` (None without a bias).

    >>> import numpy as np
    >>> x, weight, grad = np.array([[1.0, 10.0]]), np.array([[[1.0, 2.0]]]), np.array([[1.0, 0.0, 0.0, 1.0]])
    >>> conv_transpose1d_backward(grad, x, weight, stride=2)
    (array([[1., 2.]]), array([[[ 1., 10.]]]), None)
    """

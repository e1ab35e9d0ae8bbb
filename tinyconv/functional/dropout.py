"""Dropout: elements or whole channels are zeroed at random, and the same ones in backward.

`dropout_backward` draws the same numbers again, so it needs the same seed, or a Generator in the state in
which `dropout` received its own. Where one generator serves all calls, as in a layer, `dropout_saved` returns
the mask for `dropout_saved_backward`.
"""

from collections.abc import Callable
from typing import Any

from tinyconv.arguments import Generator, check_arrays, check_shape, number
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, as_logical, stored_shape, underflow_allowed, uniform

__all__ = [
    "dropout",
    "dropout2d",
    "dropout2d_backward",
    "dropout2d_saved",
    "dropout2d_saved_backward",
    "dropout_backward",
    "dropout_saved",
    "dropout_saved_backward",
]


def dropout(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: Generator = None,
) -> Array:
    """Zero each element with probability `p`, and multiply the others by 1 / (1 - p).

    Args:
        input: any shape, float32 or float64.
        p: probability of a zero, 0 to 1.
        training: if False, return `input` unchanged.
        inplace: accepted for PyTorch's signature and ignored.
        generator: a numpy.random.Generator, a seed, or None for fresh entropy.

    Returns:
        An array of the shape of `input`. Equal generators zero equal positions, whatever the memory layout
        and dtype of `input`.

    Raises:
        ValueError: `p` outside 0 to 1.
        TypeError: `input` is not floating.

    Source: Srivastava et al., https://jmlr.org/papers/v15/srivastava14a.html;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html

    >>> import numpy as np
    >>> sorted(set(dropout(np.ones(100), p=0.75, generator=0).tolist()))
    [0.0, 4.0]
    """
    check_arrays(input=input)
    p = number("p", p, 0.0, 1.0)
    return dropout_saved(input, p, generator)[0] if training else input


def dropout_backward(
    grad_output: Array,
    input: Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: Generator = None,
) -> Array:
    """Zero and scale `grad_output` as `dropout` did its input.

    Args:
        grad_output: the shape of `input`.
        input, p, training, inplace: what was passed to `dropout`.
        generator: the seed passed to `dropout`, or a Generator in the state that its Generator had.

    Returns:
        An array of the shape of `input`; `grad_output` itself if not `training`.

    Raises:
        ValueError: `p` outside 0 to 1, a `grad_output` of another shape than `input`; no `generator` in
            training, as the same positions could not be drawn again.
        TypeError: dtypes that differ or are not floating.

    >>> import numpy as np
    >>> x = np.ones(6)
    >>> dropout(x, generator=1), dropout_backward(np.full(6, 3.0), x, generator=1)
    (array([0., 2., 2., 2., 0., 0.]), array([0., 6., 6., 6., 0., 0.]))
    """
    return _masked_again(dropout_saved, grad_output, input, p, training, generator)


@underflow_allowed
def dropout_saved(input: Array, p: float = 0.5, generator: Generator = None) -> tuple[Array, Array]:
    """Return `dropout` in training, and the mask that `input` was multiplied by.

    >>> import numpy as np
    >>> output, mask = dropout_saved(np.ones(100), p=0.75, generator=0)
    >>> grad_input = dropout_saved_backward(np.full(100, 3.0), mask)
    >>> sorted(set(output.tolist())), sorted(set(grad_input.tolist()))
    ([0.0, 4.0], [0.0, 12.0])
    """
    xp = check_arrays(input=input)
    mask = _mask(input.shape, input.dtype, p, generator, xp)
    return xp.asarray(input * mask), mask


@underflow_allowed
def dropout_saved_backward(grad_output: Array, mask: Array) -> Array:
    """Multiply `grad_output` by the `mask` of `dropout_saved`.

    >>> import numpy as np
    >>> dropout_saved_backward(np.array([1.0, 5.0]), np.array([0.0, 4.0]))
    array([ 0., 20.])
    """
    check_arrays(mask=mask, grad_output=grad_output)
    if grad_output.shape != mask.shape:  # for whole channels it is (N, C, 1, ...)
        lengths = *grad_output.shape[:2], *[1] * (grad_output.ndim - 2)
        check_shape("mask", mask, lengths, f"for `grad_output` of shape {grad_output.shape}")
    grad: Array = array_module(mask).asarray(grad_output * mask)
    return grad


def dropout2d(
    input: Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: Generator = None,
) -> Array:
    """Zero each channel of each sample with probability `p`, and multiply the others by 1 / (1 - p).

    Args:
        input: (N, C, ...), float32 or float64; three dimensions are (N, C, L), as in PyTorch.
        p: probability that a channel is zero, 0 to 1.
        training: if False, return `input` unchanged.
        inplace: accepted for PyTorch's signature and ignored.
        generator: a numpy.random.Generator, a seed, or None for fresh entropy.

    Returns:
        An array of the shape of `input`.

    Raises:
        ValueError: `p` outside 0 to 1, fewer than two dimensions.
        TypeError: `input` is not floating.

    Source: Tompson et al., https://arxiv.org/abs/1411.4280;
        https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout2d.html

    >>> import numpy as np
    >>> dropped = dropout2d(np.ones((1, 100, 2, 2)), p=0.75, generator=0)
    >>> sorted(set(dropped.sum(axis=(0, 2, 3)).tolist()))
    [0.0, 16.0]
    """
    check_arrays(input=input)
    p = number("p", p, 0.0, 1.0)
    return dropout2d_saved(input, p, generator)[0] if training else input


def dropout2d_backward(
    grad_output: Array,
    input: Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    generator: Generator = None,
) -> Array:
    """Zero and scale `grad_output` as `dropout2d` did its input.

    Args:
        grad_output: the shape of `input`.
        input, p, training, inplace: what was passed to `dropout2d`.
        generator: the seed passed to `dropout2d`, or a Generator in the state that its Generator had.

    Returns:
        An array of the shape of `input`; `grad_output` itself if not `training`.

    Raises:
        ValueError: `p` outside 0 to 1, a `grad_output` of another shape than `input`; no `generator` in
            training, as the same positions could not be drawn again.
        TypeError: dtypes that differ or are not floating.

    >>> import numpy as np
    >>> x = np.ones((1, 4, 2))
    >>> dropout2d(x, generator=1)[0, :, 0], dropout2d_backward(3 * x, x, generator=1)[0, :, 0]
    (array([0., 2., 2., 2.]), array([0., 6., 6., 6.]))
    """
    return _masked_again(dropout2d_saved, grad_output, input, p, training, generator)


@underflow_allowed
def dropout2d_saved(input: Array, p: float = 0.5, generator: Generator = None) -> tuple[Array, Array]:
    """Return `dropout2d` in training, and the mask, (N, C, 1, ...), that `input` was multiplied by.

    >>> import numpy as np
    >>> output, mask = dropout2d_saved(np.ones((1, 100, 5, 5)), p=0.75, generator=0)
    >>> mask.shape, sorted(set(mask.ravel().tolist()))
    ((1, 100, 1, 1), [0.0, 4.0])
    >>> bool((dropout2d_saved_backward(np.ones((1, 100, 5, 5)), mask) == output).all())
    True
    """
    xp = check_arrays(input=input)
    if input.ndim < 2:
        raise ValueError(f"`input` (of shape {input.shape}) must have the form (N, C, ...)")
    mask = _mask(input.shape[:2], input.dtype, p, generator, xp)
    mask = mask.reshape(*mask.shape, *[1] * (input.ndim - 2))
    return input * mask, mask


def dropout2d_saved_backward(grad_output: Array, mask: Array) -> Array:
    """Multiply `grad_output` by the `mask` of `dropout2d_saved`.

    >>> import numpy as np
    >>> mask = np.array([0.0, 2.0]).reshape(1, 2, 1)
    >>> dropout2d_saved_backward(np.ones((1, 2, 3)), mask)
    array([[[0., 0., 0.],
            [2., 2., 2.]]])
    """
    return dropout_saved_backward(grad_output, mask)


def _masked_again(
    saved: Callable[..., tuple[Array, Array]],
    grad_output: Array,
    input: Array,
    p: float,
    training: bool,
    generator: Generator,
) -> Array:
    """`grad_output` times the mask that `saved`, of one of the two dropouts, draws again."""
    check_arrays(grad_output=grad_output, input=input)
    check_shape("grad_output", grad_output, input.shape, "of `input`")
    p = number("p", p, 0.0, 1.0)
    if not training:
        return grad_output
    if generator is None:
        raise ValueError(
            "`generator` (=None) must be the seed passed to forward, or a Generator in the same state; "
            "or use the mask of `dropout_saved`"
        )
    return dropout_saved_backward(grad_output, saved(input, p, generator)[1])


def _mask(shape: tuple[int, ...], dtype: Any, p: float, generator: Generator, xp: Any) -> Array:
    """The factors: 0 with probability `p`, else 1 / (1 - p); in the memory format."""
    scale = 0.0 if number("p", p, 0.0, 1.0) == 1 else 1 / (1 - p)
    kept = uniform(as_generator(generator), stored_shape(shape), xp) >= p
    return as_logical(xp.asarray(kept * dtype.type(scale)))

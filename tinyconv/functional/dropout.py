"""Dropout: zeroing at random, and the same zeros in backward."""

from tinyconv.arguments import Generator, check_arrays, number
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, batch_first


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
        training: if False, return `input` as it is.
        inplace: accepted for PyTorch's signature and ignored.
        generator: a numpy.random.Generator, a seed, or None for fresh entropy.

    Returns:
        An array of the shape of `input`. Equal generators drop equal positions, whatever the memory
        layout and dtype of `input`.

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
    number("p", p, 0.0, 1.0)
    return dropout_saved(input, p, generator)[0] if training else input


def dropout_saved(input: Array, p: float = 0.5, generator: Generator = None) -> tuple[Array, Array]:
    """`dropout` in training, and the mask that it multiplied `input` with."""
    xp = check_arrays(input=input)
    scale = 0.0 if number("p", p, 0.0, 1.0) == 1 else 1 / (1 - p)
    size = (*input.shape[1:], *input.shape[:1])
    kept = as_generator(generator).random(size, dtype="float32") >= p
    mask = xp.asarray(kept * input.dtype.type(scale))
    if input.ndim:
        mask = batch_first(mask)
    return input * mask, mask


def dropout_saved_backward(grad_output: Array, mask: Array) -> Array:
    """Gradient of `dropout` by its input: `grad_output` times the `mask` that `dropout_saved` returned."""
    check_arrays(grad_output=grad_output, mask=mask)
    grad: Array = array_module(mask).asarray(grad_output * mask)
    return grad

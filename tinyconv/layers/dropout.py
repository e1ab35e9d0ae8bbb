"""Dropout and Dropout2d."""

from collections.abc import Mapping

import tinyconv.functional as F
from tinyconv.arguments import Generator, number
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer

__all__ = ["Dropout", "Dropout2d"]


class Dropout(Layer):
    """Zero each element with probability `p` in training, and scale the others by 1 / (1 - p).

    Args:
        p: probability of a zero, 0 to 1.
        inplace: accepted for PyTorch's signature and ignored.
        generator: a numpy.random.Generator or seed that the masks are drawn from.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html

    >>> import numpy as np
    >>> layer, x = Dropout(0.75, generator=0), np.ones(100)
    >>> sorted(set(layer(x).tolist())), sorted(set(layer.eval()(x).tolist()))
    ([0.0, 4.0], [1.0])
    """

    _function_saved = staticmethod(F.dropout_saved)

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator = None) -> None:
        super().__init__()
        self.p, self.inplace = number("p", p, 0.0, 1.0), bool(inplace)
        self.generator = as_generator(generator)

    def forward(self, x: Array) -> Array:
        if not self.training:
            return self.save(F.dropout(x, self.p, training=False), None)
        return self.save(*self._function_saved(x, self.p, self.generator))

    def backward(self, grad_output: Array) -> Array:
        (mask,) = self.saved(grad_output)
        return grad_output if mask is None else F.dropout_saved_backward(grad_output, mask)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (mask,) = self.kept()
        self.tangents_of(params_dot)
        return self.save_tangents(x_dot if mask is None else F.dropout_saved_backward(x_dot, mask))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (mask,), _, _ = self.saved_tangents(grad_output_dot)
        return grad_output_dot if mask is None else F.dropout_saved_backward(grad_output_dot, mask)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(input_shape)


class Dropout2d(Dropout):
    """Zero each channel of each sample with probability `p` in training; see `functional.dropout2d`.

    Args:
        p: probability that a channel is zero, 0 to 1.
        inplace: accepted for PyTorch's signature and ignored.
        generator: a numpy.random.Generator or seed that the masks are drawn from.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout2d.html

    >>> import numpy as np
    >>> output = Dropout2d(0.75, generator=0)(np.ones((1, 100, 2, 2)))
    >>> sorted(set(output.sum(axis=(2, 3)).ravel().tolist()))  # all four pixels of a channel, or none
    [0.0, 16.0]
    """

    _function_saved = staticmethod(F.dropout2d_saved)

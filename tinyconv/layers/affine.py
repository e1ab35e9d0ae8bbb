"""Affine: base class of the layers that are linear in their input except for a bias."""

from typing import Any

from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer


class Affine(Layer):
    """Base class of convolutions and Linear, whose bias can be added in a separate step.

    A subclass writes `product`, `product_backward`, `as_batch` and `bias_gradient`.
    """

    def product(self, x: Array, bias: Array | None) -> Array:
        """Return the output, plus the `bias` if there is one; keep what `product_backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} does not implement product")

    def product_backward(self, grad_output: Array, wants_input: bool = True) -> Any:
        """Add the weight's gradient; return the gradient with respect to the input, if it is wanted."""
        raise NotImplementedError(f"{type(self).__name__} does not implement product_backward")

    def as_batch(self, y: Array) -> Array:
        """Return a view of an output as (N, O, ...), to add the bias along the second axis."""
        raise NotImplementedError(f"{type(self).__name__} does not implement as_batch")

    def bias_gradient(self, grad_output: Array) -> Array:
        """Return the gradient with respect to the bias."""
        raise NotImplementedError(f"{type(self).__name__} does not implement bias_gradient")

    def forward(self, x: Array) -> Array:
        return self.product(x, self._params.get("bias"))

    def backward(self, grad_output: Array) -> Array:
        grad: Array = self.product_backward(grad_output)
        self.add_bias_gradient(grad_output)
        return grad

    def backward_params(self, grad_output: Array) -> None:
        self.product_backward(grad_output, wants_input=False)
        self.add_bias_gradient(grad_output)

    def add_bias_gradient(self, grad_output: Array) -> None:
        """Add the bias's gradient, if there is a bias and it is not frozen."""
        if "bias" in self._grads:
            self._grads["bias"] += self.bias_gradient(grad_output)

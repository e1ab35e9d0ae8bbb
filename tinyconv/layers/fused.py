"""Fused layers: a layer, the ReLU after it and the max-pooling after that, in a faster order."""

from tinyconv.arrays import Array
from tinyconv.functional.activation import bias_relu, relu_backward
from tinyconv.layers.affine import Affine
from tinyconv.layers.conv import Conv1d, Conv2d
from tinyconv.layers.layer import ERRORS, Layer, located
from tinyconv.layers.linear import Linear
from tinyconv.layers.pool import MaxPool2d

FUSIBLE = (Conv1d, Conv2d, Linear)  # but no subclass, which may compute something else


class Fused(Layer):
    """Compute a layer, max-pooling, then bias and ReLU in place, instead of layer, ReLU, max-pooling.

    Adding a number and ReLU are monotonic, rounding included, so the values are the same; after pooling, a
    quarter of them are left. The gradients are those of the plain layers, except where rounding or ReLU makes
    different values of a window equal: there the plain layers give the gradient to the first of them, and
    this one to the largest. `Sequential.fused` creates these layers; they do not support the second order.

    Args:
        layer: any layer. Only an `Affine`'s bias is added after the pooling.
        pools: the MaxPool2d by its name in the network; it may be empty for an `Affine` only.
    """

    layer: Layer
    pools: dict[str, MaxPool2d]
    _affine: Affine | None

    def __init__(self, layer: Layer, pools: dict[str, MaxPool2d]) -> None:
        super().__init__()
        affine = layer if isinstance(layer, Affine) and type(layer) in FUSIBLE else None
        # Bypasses the registration of layers, as one is created for each prediction.
        vars(self).update(layer=layer, pools=pools, _affine=affine)
        self._children.update({"layer": layer, **pools})

    def forward(self, x: Array) -> Array:
        y = self.layer.forward(x) if self._affine is None else self._affine.product(x, None)
        for name, pool in self.pools.items():
            try:
                y = pool.forward(y)
            except ERRORS as error:
                raise located(name, pool, error) from error
        if self._affine is None:
            bias_relu(y, None)
        else:
            bias_relu(self._affine.as_batch(y), self._affine._params.get("bias"))
        return self.save(y, y)

    def backward(self, grad_output: Array) -> Array:
        grad = self._backward_to_layer(grad_output)
        if self._affine is None:
            return self.layer.backward(grad)
        grad_input: Array = self._affine.product_backward(grad)
        return grad_input

    def backward_params(self, grad_output: Array) -> None:
        grad = self._backward_to_layer(grad_output)
        if self._affine is None:
            self.layer.backward_params(grad)
        else:
            self._affine.product_backward(grad, wants_input=False)

    def _backward_to_layer(self, grad_output: Array) -> Array:
        (output,) = self.saved(grad_output)
        grad = relu_backward(grad_output, output)
        if self._affine is not None:
            self._affine.add_bias_gradient(grad)
        for pool in self.pools.values():
            grad = pool.backward(grad)
        return grad

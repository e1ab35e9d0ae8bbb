"""LinearMap: base class of the layers that are linear in their input and have no parameters."""

from collections.abc import Mapping

from tinyconv.arguments import check_shape
from tinyconv.arrays import Array
from tinyconv.layers.layer import Layer


class LinearMap(Layer):
    """Base class of the layers without parameters that are linear in their input.

    Such a map is its own tangent, and so is its backward, which does not depend on the input's values. A
    subclass implements both.
    """

    def map(self, x: Array) -> Array:
        """Apply the map."""
        raise NotImplementedError(f"{type(self).__name__} does not implement map")

    def map_backward(self, grad_output: Array, x: Array) -> Array:
        """Apply its transpose; `x` has the input's shape."""
        raise NotImplementedError(f"{type(self).__name__} does not implement map_backward")

    def forward(self, x: Array) -> Array:
        return self.save(self.map(x), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        return self.map_backward(grad_output, x)

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        (x,) = self.kept()
        self.tangents_of(params_dot)
        check_shape("x_dot", x_dot, x.shape, "of the input")
        return self.save_tangents(self.map(x_dot))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), _, _ = self.saved_tangents(grad_output_dot)
        return self.map_backward(grad_output_dot, x)

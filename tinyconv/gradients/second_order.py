"""The second order: Hessian-vector products, and gradients as layers of a network.

Without a tape, the second order takes one more pass of each kind. `jvp` propagates a direction v forward
through the network, then `backward_jvp` propagates it back along with the gradient. The result is

    d/d eps  grad E(x + eps * v)  =  H v

exactly (Pearlmutter 1994, https://doi.org/10.1162/neco.1994.6.1.147). As a Hessian is symmetric, the
same product is the backward of the map x -> grad E(x; w): so a gradient, or a step along it, can be a layer
of a network that is trained.

>>> import numpy as np
>>> from tinyconv import Linear, MSELoss
>>> model = Linear(2, 1, bias=False, dtype=np.float64)
>>> model.weight = [[3.0, 4.0]]
>>> x, target = np.ones((1, 2)), np.zeros((1, 1))
>>> hessian_vector_product(model, MSELoss(), x, target, x_dot=np.array([[1.0, 0.0]])).x  # 2 w w.T v
array([[18., 24.]])
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import check_arrays, floating_dtype, instance, number
from tinyconv.arrays import Array, array_module, moved, underflow_allowed
from tinyconv.layers import Layer, Loss, Parameter
from tinyconv.layers.cache import Pass


class HessianVectorProduct(NamedTuple):
    """The product with the Hessian: its parts for the input, and for each parameter by name."""

    x: Array
    params: dict[str, Array]


def hessian_vector_product(
    model: Layer,
    criterion: Loss,
    x: Array,
    target: Array,
    x_dot: Array | None = None,
    params_dot: Mapping[str, Array] | None = None,
) -> HessianVectorProduct:
    """Multiply a vector by the Hessian of criterion(model(x), target) in input and parameters.

    Args:
        model, criterion: the network, in its present mode, and the loss, whose elements are added up with
            `reduction="none"`.
        x, target: a batch.
        x_dot: the vector's part for the input, of the shape of `x`; None for zeros.
        params_dot: its part for the parameters, name -> array; missing names are zeros.

    Returns:
        The product for the input, of the shape of `x`, and for all parameters. The model's gradients do not
        change. In training mode each product is a separate pass, which updates running statistics and draws
        new dropout masks; use `model.eval()` if several products must use the same Hessian.

    Raises:
        ValueError, TypeError: a vector that does not have the shape and dtype of its array, an unknown name.
        NotImplementedError: a layer without jvp.

    Source: Pearlmutter, https://doi.org/10.1162/neco.1994.6.1.147

    >>> from tinyconv import Linear, MSELoss
    >>> model, x = Linear(2, 1, bias=False, dtype=np.float64), np.array([[1.0, 2.0]])
    >>> params_dot = {"weight": np.array([[1.0, 0.0]])}
    >>> product = hessian_vector_product(model, MSELoss(), x, np.zeros((1, 1)), params_dot=params_dot)
    >>> product.params["weight"]  # 2 x.T x v, whatever the weight is
    array([[2., 4.]])
    """
    objective = Objective(model, criterion, target)
    named = {f"model.{name}": tangent for name, tangent in (params_dot or {}).items()}
    with Pass(keeps=True):
        output = objective.forward(x)
        objective.jvp(array_module(x).zeros_like(x) if x_dot is None else x_dot, named)
        objective.backward(array_module(output).ones_like(output))
        product = objective.backward_jvp(array_module(output).zeros_like(output))
        return HessianVectorProduct(product, _grads_dot(model))


def hessian_operator(model: Layer, criterion: Loss, x: Array, target: Array) -> Any:
    """Return the Hessian of criterion(model(x), target) in all parameters, as a SciPy LinearOperator.

    Its vectors have the parameters one after another, in the order of `model.params`, each in C order.

    Args:
        model, criterion, x, target: as for `hessian_vector_product`.

    Returns:
        A symmetric scipy.sparse.linalg.LinearOperator with a row for each number in the parameters, of their
        dtype.

    Raises:
        ValueError, TypeError, NotImplementedError: as `hessian_vector_product`, in the first product.

    Source: https://docs.scipy.org/doc/scipy/reference/generated/scipy.sparse.linalg.LinearOperator.html

    >>> from scipy.sparse.linalg import eigsh
    >>> from tinyconv import CrossEntropyLoss, Linear
    >>> model, x = Linear(3, 4, dtype=np.float64, generator=0), np.eye(3)
    >>> hessian = hessian_operator(model, CrossEntropyLoss(), x, np.arange(3))
    >>> hessian.shape, eigsh(hessian, k=2, return_eigenvectors=False).shape
    ((16, 16), (2,))
    """
    from scipy.sparse.linalg import LinearOperator

    sizes = [param.size for param in model.params.values()]
    dtype = np.result_type(*(param.dtype for param in model.params.values()))
    xp = array_module(*model.params.values())

    def product(vector: Array) -> Array:
        parts = np.split(vector.astype(dtype).ravel(), np.cumsum(sizes)[:-1])
        named = zip(model.params.items(), parts, strict=True)
        params_dot = {name: moved(part.reshape(param.shape), xp) for (name, param), part in named}
        found = hessian_vector_product(model, criterion, x, target, params_dot=params_dot).params
        return np.concatenate([moved(part, np).ravel() for part in found.values()])

    return LinearOperator((sum(sizes), sum(sizes)), matvec=product, dtype=dtype)


class Objective(Layer):
    """Compute criterion(model(x), target) as a layer: an energy of x.

    Args:
        model, criterion: the network and the loss. With `reduction="sum"` each sample has its own energy;
            with "mean" the gradient with respect to x depends on the size of the batch.
        target: the second argument of the loss. For a target per batch, your own layer around this one
            assigns it (`objective.target = ...`) before forward; `predict` and parallel workers, which divide
            a batch, do not divide it. The gradient with respect to the target is not computed.

    Raises:
        TypeError: `model` is not a Layer, or `criterion` not a Loss.

    >>> from tinyconv import Linear, MSELoss
    >>> model = Linear(2, 1, bias=False, dtype=np.float64)
    >>> model.weight = [[3.0, 4.0]]
    >>> energy = Objective(model, MSELoss(), target=np.zeros((1, 1)))
    >>> float(energy(np.ones((1, 2)))), energy.backward(np.array(1.0))  # (w x)^2, 2 w x w
    (49.0, array([[42., 56.]]))
    """

    def __init__(self, model: Layer, criterion: Loss, target: Array | None = None) -> None:
        super().__init__()
        self.model = instance("model", model, Layer)
        self.criterion, self.target = instance("criterion", criterion, Loss), target

    def forward(self, x: Array) -> Array:
        if self.target is None:
            raise ValueError("`target` (=None) must be assigned before forward")
        return self.criterion.forward(self.model.forward(x), self.target)

    def backward(self, grad_output: Array) -> Array:
        return self.model.backward(self.criterion.backward(grad_output))

    def jvp(self, x_dot: Array, params_dot: Mapping[str, Array] | None = None) -> Array:
        tangents = self.tangents_by_child(params_dot)
        return self.criterion.jvp(self.model.jvp(x_dot, tangents["model"]))

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        return self.model.backward_jvp(self.criterion.backward_jvp(grad_output_dot))

    def _convert(self, convert: Callable[[Array], Array]) -> None:
        super()._convert(convert)
        if self.target is not None:
            self.target = convert(self.target)

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.criterion.output_shape(self.model.output_shape(input_shape))

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return self.model.multiply_adds(input_shape)


class GradientLayer(Layer):
    """Compute the gradient of an energy with respect to its input, as a layer: x -> grad E(x; w).

    Its backward multiplies by the Hessian of E, exactly, for the input and for the energy's parameters, which
    are this layer's ("energy...."). It does not have jvp and backward_jvp, which would be third
    derivatives. In parallel workers an energy cannot have a batch norm in training.

    Args:
        energy: a layer, such as an `Objective`, the sum of whose outputs is the energy.

    Raises:
        TypeError: `energy` is not a Layer.

    >>> from tinyconv import Linear, MSELoss
    >>> model = Linear(2, 1, bias=False, dtype=np.float64)
    >>> model.weight = [[3.0, 4.0]]
    >>> layer = GradientLayer(Objective(model, MSELoss(), target=np.zeros((1, 1))))
    >>> layer(np.ones((1, 2))), layer.backward(np.array([[1.0, 0.0]]))  # 2 w x w, 2 w w.T v
    (array([[42., 56.]]), array([[18., 24.]]))
    """

    def __init__(self, energy: Layer) -> None:
        super().__init__()
        self.energy = instance("energy", energy, Layer)

    def forward(self, x: Array) -> Array:
        gradient, passed = self._gradient(x)
        return self.save(gradient, passed)

    def backward(self, grad_output: Array) -> Array:
        (passed,) = self.saved(grad_output)
        return self._gradient_backward(grad_output, passed)

    def _gradient(self, x: Array) -> tuple[Array, Pass]:
        """The energy's gradient, and what `_gradient_backward` needs."""
        with Pass(keeps=True) as passed:
            output = self.energy.forward(x)
            return self.energy.backward(array_module(output).ones_like(output)), passed

    def _gradient_backward(self, grad_gradient: Array, passed: Pass) -> Array:
        """Gradient with respect to x; add the gradients of the energy's parameters to their `grads`."""
        passed.grads_dot.clear()
        with passed:
            output_dot = self.energy.jvp(grad_gradient)
            product = self.energy.backward_jvp(array_module(output_dot).zeros_like(output_dot))
            products = _grads_dot(self.energy)
        for name, grad in self.energy.grads.items():
            grad += products[name]
        return product

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.energy.output_shape(input_shape)
        return tuple(input_shape)

    def multiply_adds(self, input_shape: tuple[int, ...]) -> int:
        return 2 * self.energy.multiply_adds(input_shape)


class GradientStep(GradientLayer):
    """Take a step of gradient descent on an energy, as a layer: x -> x - step_size * grad E(x; w).

    Its backward is exact for the input, for the energy's parameters ("energy....") and for the step size.

    Args:
        energy: a layer, such as an `Objective`, the sum of whose outputs is the energy.
        step_size: the initial value of the parameter "step_size", a 0-d array.
        dtype: that of this parameter, float32 (default) or float64.

    Raises:
        TypeError: `energy` is not a Layer, or `step_size` not a number.

    >>> from tinyconv import Linear, MSELoss, Sequential
    >>> rng = np.random.default_rng(0)
    >>> model, target = Linear(3, 2, generator=rng), np.zeros((4, 2), np.float32)
    >>> objective = Objective(model, MSELoss(reduction="sum"), target)
    >>> step = GradientStep(objective, step_size=0.1)
    >>> x = rng.standard_normal((4, 3)).astype(np.float32)
    >>> float(objective(step(x))) < float(objective(x)), list(step.params)
    (True, ['step_size', 'energy.model.weight', 'energy.model.bias'])
    """

    def __init__(self, energy: Layer, step_size: float, *, dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__(energy)
        self.step_size = Parameter(np.asarray(number("step_size", step_size), floating_dtype(dtype)))

    @underflow_allowed
    def forward(self, x: Array) -> Array:
        check_arrays(input=x, step_size=self.step_size)
        gradient, passed = self._gradient(x)
        return self.save(x - self.step_size * gradient, gradient, passed)

    @underflow_allowed
    def backward(self, grad_output: Array) -> Array:
        gradient, passed = self.saved(grad_output)
        grads = self._grads
        if "step_size" in grads:
            grads["step_size"] -= (grad_output * gradient).sum()
        return grad_output + self._gradient_backward(-self.step_size * grad_output, passed)


def _grads_dot(layer: Layer) -> dict[str, Array]:
    """The tangents of the gradients, for all parameters; zeros for those without one."""
    found = layer.grads_dot
    return {
        name: found[name] if name in found else array_module(param).zeros_like(param)
        for name, param in layer.params.items()
    }

"""All numbers of a network for one input: values, gradients and their tangents, layer by layer."""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from tinyconv.arrays import Array
from tinyconv.functional import softmax
from tinyconv.layers import CrossEntropyLoss, Sequential

__all__ = ["OBJECTIVES", "Pass", "forward_values", "network_pass"]

OBJECTIVES = ("loss", "score")


@dataclass(frozen=True)
class Pass:
    """What a network computes for one input.

    Attributes:
        values: the input, and the output of each layer.
        gradients: of the objective with respect to these.
        tangents: of `values`, in a direction of the input.
        gradients_dot: the tangents of `gradients`; that of the input is the Hessian times the direction.
        grads: the gradient with respect to each parameter.
        grads_dot: their tangents.
        probabilities: of the classes, (C,).
        loss: the cross-entropy.
    """

    values: list[Array]
    gradients: list[Array]
    tangents: list[Array]
    gradients_dot: list[Array]
    grads: dict[str, Array]
    grads_dot: dict[str, Array]
    probabilities: Array
    loss: float


def forward_values(model: Sequential, x: Array) -> list[Array]:
    """Return `x` and the output of each layer of `model`."""
    return list(accumulate(model, lambda x, layer: layer.forward(x), initial=x))


def network_pass(
    model: Sequential, x: Array, target: int, objective: str = "loss", direction: Array | None = None
) -> Pass:
    """Run `model` forward and backward, and forward and backward again for tangents, as it is in evaluation.

    Args:
        model: whose gradients are replaced; its last layer gives the scores of classes.
        x: (1, ...).
        target: the class.
        objective: "loss", the cross-entropy of `target`, or "score", the output of that class.
        direction: tangent of `x`, of its shape (default: zeros).
    """
    model.eval().zero_grad()
    criterion, layers = CrossEntropyLoss(), list(model)
    values = forward_values(model, x)
    loss = criterion.forward(values[-1], np.array([target]))
    direction = np.zeros_like(x) if direction is None else direction
    tangents = list(accumulate(layers, lambda x_dot, layer: layer.jvp(x_dot), initial=direction))
    criterion.jvp(tangents[-1])
    gradients, gradients_dot = [criterion.backward()], [criterion.backward_jvp()]
    if objective == "score":
        gradients, gradients_dot = [np.zeros_like(values[-1])], [np.zeros_like(values[-1])]
        gradients[0][0, target] = 1
    for layer in reversed(layers):
        gradients.append(layer.backward(gradients[-1]))
        gradients_dot.append(layer.backward_jvp(gradients_dot[-1]))
    return Pass(
        values,
        gradients[::-1],
        tangents,
        gradients_dot[::-1],
        {name: grad.copy() for name, grad in model.grads.items()},
        {name: grad_dot.copy() for name, grad_dot in model.grads_dot.items()},
        softmax(values[-1], 1)[0],
        float(loss),
    )

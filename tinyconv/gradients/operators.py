"""The operators that `diagnose` knows: their arguments by name, and their gradients for any of them."""

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np

import tinyconv.functional as F
from tinyconv.arguments import check_kinds, one_of
from tinyconv.arrays import Array, moved

ALL_GRADIENTS = ("input", "weight", "bias")
WITH_BIAS = ("conv1d", "conv2d", "conv_transpose2d", "linear")
GRADIENTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(WITH_BIAS, ALL_GRADIENTS),
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm"), ALL_GRADIENTS),
    **dict.fromkeys(("max_pool2d", "avg_pool2d", "softmax", "log_softmax"), ("input",)),
    **dict.fromkeys(("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "softplus", "elu"), ("input",)),
    "cross_entropy": ("input",),
    "mse_loss": ("input", "target"),
}


class Given(SimpleNamespace):
    """An operator's arguments by name, in float64, with its gradient or value for any of them changed."""

    def __init__(self, operator: str, wrt: str | None, arguments: dict[str, Any]) -> None:
        one_of("operator", operator, tuple(GRADIENTS))
        results = (*GRADIENTS[operator], "output")
        if wrt is None:
            raise ValueError(f"`wrt` must be given with `operator`: one of {', '.join(map(repr, results))}")
        wrt = one_of("wrt", "input" if wrt == "x" else wrt, results)
        if "x" in arguments:
            if "input" in arguments:
                raise ValueError("`x` and `input` are one argument and must not both be given")
            arguments = {"input" if name == "x" else name: value for name, value in arguments.items()}
        bound = _bound(operator, arguments)
        if wrt == "bias" and bound["bias"] is None and operator in WITH_BIAS:  # on which no gradient depends
            weight = bound["weight"]
            channels = weight.shape[1] * bound["groups"] if "transpose" in operator else len(weight)
            bound["bias"] = np.zeros(channels)
        super().__init__(operator=operator, wrt=wrt, arguments=bound, **bound)
        self.grad_output: Array = np.zeros(())
        if wrt != "output":
            self.grad_output = self._cotangent(arguments.get("grad_output"))

    def output(self, **changed: Any) -> Array:
        """The operator's value."""
        return np.asarray(getattr(F, self.operator)(**self.arguments | changed))

    def gradient(self, **changed: Any) -> Any:
        """The gradient that is asked for, or the value, with some arguments changed."""
        if self.wrt == "output":
            return self.output(**changed)
        arguments = {"grad_output": self.grad_output} | self.arguments | changed
        found = getattr(F, f"{self.operator}_backward")(**arguments)
        parts = found if isinstance(found, tuple) else (found,)
        return parts[GRADIENTS[self.operator].index(self.wrt)]

    def _cotangent(self, grad_output: Any) -> Array:
        if grad_output is None:
            if not self.operator.endswith(("loss", "entropy")):
                raise ValueError("`grad_output` must be given for a gradient")
            return np.ones_like(self.output())
        check_kinds(grad_output=grad_output)
        return np.asarray(_float64(grad_output))


def _bound(operator: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """All arguments of the operator, with its defaults; floating arrays are float64."""
    parameters = inspect.signature(getattr(F, operator)).parameters
    if unknown := [name for name in arguments if name not in parameters and name != "grad_output"]:
        raise TypeError(f"`{unknown[0]}` is not an argument of {operator}: it takes {', '.join(parameters)}")
    bound = {}
    for name, parameter in parameters.items():
        if name in arguments:
            bound[name] = _float64(arguments[name])
        elif parameter.default is not inspect.Parameter.empty:
            bound[name] = parameter.default
        elif name.startswith("running_"):
            bound[name] = None
        else:
            alias = " (or `x`)" if name == "input" else ""
            raise ValueError(f"`{name}`{alias} must be given: {operator} needs it")
    if "momentum" in bound:
        bound["momentum"] = 0.0  # no call changes the running statistics
    return bound


def _float64(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        value = np.asarray(moved(value, np))
        return value.astype(np.float64) if value.dtype.kind == "f" else value
    return value

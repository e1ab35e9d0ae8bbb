"""The operators that `diagnose` knows: their arguments by name, and their gradients for any of them."""

import inspect
from typing import Any

import numpy as np

import tinyconv.functional as F
from tinyconv.arguments import check_kinds
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


class Given:
    """An operator's arguments by name, in float64, with its gradient or value for any of them changed."""

    def __init__(self, operator: str, wrt: str, arguments: dict[str, Any]) -> None:
        self.operator, self.wrt = operator, wrt
        self.arguments = _bound(operator, arguments)
        self.grad_output: Array = np.zeros(())
        if wrt != "output":
            self.grad_output = self._cotangent(arguments.get("grad_output"))
        if wrt == "bias" and self.bias is None and operator in WITH_BIAS:  # on which no gradient depends
            channels = self.weight.shape[1] * self.groups if "transpose" in operator else len(self.weight)
            self.arguments["bias"] = np.zeros(channels)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["arguments"][name]
        except KeyError:
            raise AttributeError(name) from None

    def output(self, **changed: Any) -> Array:
        """The operator's value."""
        arguments = _copied(self.arguments | changed)
        value: Array = np.asarray(getattr(F, self.operator)(**arguments))
        return value

    def gradient(self, **changed: Any) -> Array:
        """The gradient that is asked for, or the value, with some arguments changed."""
        if self.wrt == "output":
            return self.output(**changed)
        arguments = _copied({"grad_output": self.grad_output} | self.arguments | changed)
        found = getattr(F, f"{self.operator}_backward")(**arguments)
        parts = found if isinstance(found, tuple) else (found,)
        value: Array = parts[GRADIENTS[self.operator].index(self.wrt)]
        return value

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
    return bound


def _float64(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        value = moved(value, np) if not isinstance(value, np.generic) else np.asarray(value)
        return value.astype(np.float64) if value.dtype.kind == "f" else value
    return value


def _copied(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with copies of the running statistics, which batch norm writes to."""
    return {
        name: value.copy() if name.startswith("running_") and value is not None else value
        for name, value in arguments.items()
    }

"""The second order of functions of one element: the tangent of a gradient, by the product rule."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyconv.arguments import check_arrays, check_like, check_shape
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.functional.losses.reduction import reduce_backward


def tangent_of(backward: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Array]]:
    """Return a decorator that makes the tangent of a slope the tangent of `backward`.

    Where `backward` multiplies each gradient with the slope f'(input), its tangent is

        backward_jvp = f'(input) * grad_output_dot + slope_dot * grad_output

    The decorated function takes `input_dot` and then what the forward takes, and returns
    slope_dot = f''(input) * input_dot; or None for an f' that is piecewise constant. It becomes a function of
    `grad_output_dot`, `input_dot`, and what `backward` takes. The gradients of a loss are first spread over
    its elements, as its reduction says.

    Args:
        backward: the gradient of an activation or an elementwise loss.
    """
    takes = inspect.signature(backward)

    def decorate(slope_dot: Callable[..., Any]) -> Callable[..., Array]:
        @underflow_allowed
        @functools.wraps(slope_dot)
        def backward_jvp(
            grad_output_dot: Array, input_dot: Array, grad_output: Array, *inputs: Any, **options: Any
        ) -> Array:
            given = takes.bind(grad_output, *inputs, **options)
            given.apply_defaults()
            input, reduction = given.arguments["input"], given.arguments.get("reduction", "none")
            check_like(input, input_dot=input_dot)
            xp = check_arrays(input=input, grad_output_dot=grad_output_dot, grad_output=grad_output)
            if "reduction" not in given.arguments:
                check_shape("grad_output_dot", grad_output_dot, input.shape, "of `input`")
            check_shape("grad_output", grad_output, grad_output_dot.shape, "of `grad_output_dot`")
            grads = backward(grad_output_dot, *inputs, **options)
            grad_dot: Array = grads[0] if isinstance(grads, tuple) else grads
            with np.errstate(over="ignore", invalid="ignore"):  # inf * 0: NaN, as in the gradient
                bent = slope_dot(input_dot, *inputs, **options)
                if bent is not None:
                    grad_dot = xp.asarray(grad_dot + bent * reduce_backward(grad_output, input, reduction))
            return grad_dot

        dots = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Array)
            for name in ("grad_output_dot", "input_dot")
        ]
        parameters = [*dots, *takes.parameters.values()]
        vars(backward_jvp)["__signature__"] = takes.replace(parameters=parameters, return_annotation=Array)
        return backward_jvp

    return decorate

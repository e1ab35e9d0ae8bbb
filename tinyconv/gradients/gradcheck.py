"""gradcheck: an explicit backward against finite differences, in float64.

With a random cotangent v, the number L = sum of v * f(inputs) has the gradient that backward(v)
returns. Each entry of it is compared with (L(x + eps) - L(x - eps)) / (2 * eps); where an argument has
more than MAX_ENTRIES entries, its gradient is compared along random directions instead.

For the second order everything, inputs, parameters and cotangent, moves along random tangents, and what jvp
and backward_jvp return is compared with the differences of forward and backward.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import Generator, given
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array, array_module, is_array, moved
from tinyconv.layers import Layer, MultiInputLoss
from tinyconv.layers.loss import Criterion

MAX_ENTRIES = 1000
DIRECTIONS = 20
TANGENTS = 5

Place: TypeAlias = tuple[str, tuple[int, ...] | str]


class GradcheckError(RuntimeError):
    """Raised by `gradcheck`: an analytic and a numeric derivative differ."""


class Gradcheck(NamedTuple):
    """What `gradcheck` found: the number of derivatives that agree, and where the function has kinks.

    A kink is an (argument, index) where the slopes to the left and to the right differ, so that
    a derivative does not exist: ReLU at 0, equal maxima in a pooling window.
    """

    checked: int
    kinks: tuple[Place, ...]


def gradcheck(
    layer_or_function: Layer | Criterion | Callable[..., Array],
    inputs: Array | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    *,
    second_order: bool = False,
    generator: Generator = 0,
) -> Gradcheck:
    """Check every derivative that a backward returns against finite differences.

    Args:
        layer_or_function: a Layer (its input and all its parameters are checked, except frozen ones), a Loss
            (its prediction is), a MultiInputLoss (the inputs that it names are), or a function `op` beside
            which its module has an `op_backward`; arguments that are not to be checked may be bound by
            functools.partial as keywords.
        inputs: the input, or a sequence of inputs. Floating arrays are converted to float64; others
            are passed on as they are.
        eps: half of the step.
        atol, rtol: derivatives agree within atol + rtol * abs(numeric).
        second_order: check the jvp and the backward_jvp of a Layer or a Loss instead, against differences
            of its forward and backward along random tangents.
        generator: a numpy.random.Generator or seed for the cotangent and the directions.

    Returns:
        How many derivatives agree, and where kinks kept one from being compared. The layer stays as
        it is: a float64 copy of it is checked, every time in the state and mode that it is in now.

    Raises:
        GradcheckError: two derivatives differ; the message names the layer or function, the argument, the
            index, the analytic and the numeric value, and ends with what `tinyconv.diagnose` says of the
            whole gradient, if the argument has at most MAX_ENTRIES entries.
        ValueError: a function without a backward, or one that returns another number of gradients
            than there are floating inputs; a function with `second_order`.

    >>> from tinyconv import Conv2d
    >>> gradcheck(Conv2d(1, 2, 3, generator=0), np.random.default_rng(0).normal(size=(2, 1, 5, 5)))
    Gradcheck(checked=70, kinks=())
    """
    rng = as_generator(generator)
    listed = inputs if isinstance(inputs, (tuple, list)) else [inputs]
    subject = _subject(layer_or_function, [_float64(value) for value in listed])
    tolerance = _Tolerance(eps, atol, rtol)
    if not second_order:
        return _check_first_order(subject, rng, tolerance)
    if isinstance(subject, _Function):
        raise ValueError(f"`second_order` is for a Layer or a Loss, not for {subject.name}")
    return _check_second_order(subject, rng, tolerance)


def _check_first_order(subject: "_Subject", rng: "np.random.Generator", tolerance: "_Tolerance") -> Gradcheck:
    output, grads_of = subject.run()
    cotangent = _normal(rng, output)
    arguments, analytic = subject.arguments, grads_of(cotangent)
    if len(analytic) != len(arguments):
        raise ValueError(
            f"the backward of {subject.name} returns {len(analytic)} gradients "
            f"for {len(arguments)} floating inputs"
        )

    def loss() -> float:
        return float((subject.run()[0] * cotangent).sum())

    checked, kinks = 0, []
    for (name, array), grad in zip(arguments.items(), analytic, strict=True):
        if grad.shape != array.shape:
            raise GradcheckError(
                f"{subject.name}: the gradient with respect to {name} has the shape {grad.shape}, "
                f"not {array.shape}" + _diagnosis(grad, array, loss, tolerance)
            )
        for place, direction in _directions(array, rng):
            at, derivative = _along(loss, [array], [direction]), float((grad * direction).sum())
            if not _differing(at, derivative, tolerance):
                checked += 1
            elif _kinked(at, tolerance):
                kinks.append((name, place))
            else:
                raise GradcheckError(
                    f"{subject.name}: the derivative with respect to {name} at {place} is {derivative:.10g} "
                    f"by backward, but {_central(at, tolerance.eps):.10g} by finite differences"
                    + _diagnosis(grad, array, loss, tolerance)
                )
    return Gradcheck(checked, tuple(kinks))


def _diagnosis(analytic: Array, array: Array, loss: Callable[[], float], tolerance: "_Tolerance") -> str:
    """What `diagnose` says of a gradient, for the end of a message; "" where that takes too long."""
    if array.size > MAX_ENTRIES:
        return ""
    from tinyconv.gradients.diagnose import against_numeric

    units = _directions(array, np.random.default_rng(0))
    numeric = [_central(_along(loss, [array], [unit]), tolerance.eps) for _, unit in units]
    sizes = {"the length of the argument's axis 0": array.shape[0]} if array.ndim else {}
    found = against_numeric(moved(analytic, np), np.reshape(numeric, array.shape), sizes)
    return "" if found else f". Diagnosis of `got`, which backward returned: {found}"


def _check_second_order(subject: "_Module", rng: "np.random.Generator", tolerance: "_Tolerance") -> Gradcheck:
    arguments = subject.arguments
    places = ["the output", *(f"the gradient with respect to {name}" for name in arguments)]
    checked, kinks = 0, []
    for number in range(TANGENTS):
        arrays = [*arguments.values(), _normal(rng, subject.run()[0])]
        dots = [_normal(rng, array) for array in arrays]
        if number == 0:  # once without tangents of the parameters, as where the input alone moves
            for dot in dots[len(arguments) - len(subject.params) : -1]:
                dot[...] = 0
        tangents = subject.tangents(arrays[-1], dots)
        for which, (place, tangent) in enumerate(zip(places, tangents, strict=True)):
            at = _along(partial(_result, subject, arrays[-1], which), arrays, dots)
            analytic = moved(tangent, np)
            differing = _differing(at, analytic, tolerance)
            kinked = differing & _kinked(at, tolerance) if differing.any() else differing
            if (wrong := differing & ~kinked).any():
                index = tuple(np.argwhere(wrong)[0].tolist())
                raise GradcheckError(
                    f"{subject.name}: the tangent of {place} at {index} is {analytic[index]:.10g} by "
                    f"{'backward_jvp' if which else 'jvp'}, but "
                    f"{_central(at, tolerance.eps)[index]:.10g} by finite differences"
                )
            kinks += [(f"the tangent of {place}", tuple(index)) for index in np.argwhere(kinked).tolist()]
            checked += analytic.size - int(differing.sum())
    return Gradcheck(checked, tuple(kinks))


def _result(subject: "_Module", cotangent: Array, which: int) -> Array:
    """The output, or one of the gradients, on the CPU."""
    output, grads_of = subject.run()
    return np.array(moved((output, *grads_of(cotangent))[which], np))  # some are views


def _along(function: Callable[[], Any], arrays: list[Array], dots: list[Array]) -> Callable[[float], Any]:
    """What `function` returns, as a function of how far the arrays are moved along `dots`."""

    def at(step: float) -> Any:
        before = [array.copy() for array in arrays]
        for array, dot in zip(arrays, dots, strict=True):
            array += step * dot
        try:
            return function()
        finally:
            for array, kept in zip(arrays, before, strict=True):
                array[...] = kept

    return at


def _central(at: Callable[[float], Any], eps: float) -> Any:
    return (at(eps) - at(-eps)) / (2 * eps)


def _differing(at: Callable[[float], Any], analytic: Any, tolerance: "_Tolerance") -> Any:
    """Where the slope differs from `analytic` for both steps: where one meets a kink, the other may not."""
    wrong = np.ones(np.shape(analytic), bool)
    for eps in tolerance.steps():
        if wrong.any():
            numeric = _central(at, eps)
            wrong &= ~np.less_equal(abs(numeric - analytic), tolerance.atol + tolerance.rtol * abs(numeric))
    return wrong


def _kinked(at: Callable[[float], Any], tolerance: "_Tolerance") -> Any:
    """Where the slopes to the left and right of 0 differ, by no less in a smaller neighbourhood.

    A curve's slopes differ as well, but ten times less in a tenth of the neighbourhood; NaN is not a kink.
    """
    here = at(0.0)
    wide, near = (abs(at(eps) - 2 * here + at(-eps)) / eps for eps in tolerance.steps())
    return (near > tolerance.atol) & (near > wide / 2)


class _Tolerance(NamedTuple):
    """Half of the step, and how close two derivatives must be."""

    eps: float
    atol: float
    rtol: float

    def steps(self) -> tuple[float, float]:
        """The steps that are tried."""
        return self.eps, self.eps / 10


_Run: TypeAlias = tuple[Array, Callable[[Array], list[Array]]]


class _Module:
    """A layer or a loss, as a function of float64 arrays that are changed in place between runs."""

    def __init__(self, module: Layer | Criterion, values: list[Any]) -> None:
        self.name, self.values = type(module).__name__, values
        if isinstance(module, Layer):
            module.check_whole()
        self.module: Any = copy.deepcopy(module).to(np.float64)
        self.params: dict[str, Array] = {}
        names = module.inputs if isinstance(module, MultiInputLoss) else ("prediction",)
        self.arguments = dict(zip(names, values, strict=False))
        if isinstance(self.module, Layer):
            self.module.zero_grad()
            grads = self.module.grads  # frozen parameters do not have one
            self.params = {name: param for name, param in self.module.params.items() if name in grads}
            self.arguments = _floating(values) | self.params

    def run(self) -> _Run:
        """The output, and a function from its cotangent to the gradients: of inputs, then of params."""
        module = copy.deepcopy(self.module)  # so that no run changes statistics or random generators

        def grads(cotangent: Array) -> list[Array]:
            return [*_listed(module.backward(cotangent)), *getattr(module, "grads", {}).values()]

        return module.forward(*self.values), grads

    def tangents(self, cotangent: Array, dots: list[Array]) -> list[Array]:
        """Tangents of the output and of the gradients for tangents of inputs, parameters and cotangent."""
        module = copy.deepcopy(self.module)
        *x_dots, cotangent_dot = dots
        param_dots = [x_dots.pop() for _ in self.params][::-1]
        moving = {name: dot for name, dot in zip(self.params, param_dots, strict=True) if dot.any()}
        module.forward(*self.values)
        output_dot = module.jvp(*x_dots, moving) if moving else module.jvp(*x_dots)
        module.backward(cotangent)
        grads_dot = _listed(module.backward_jvp(cotangent_dot))
        zeros, found = array_module(cotangent).zeros_like, getattr(module, "grads_dot", {})
        return [output_dot, *grads_dot, *(found.get(n, zeros(p)) for n, p in self.params.items())]


class _Function:
    """A function with a backward beside it, as one of arrays that are changed in place between runs."""

    def __init__(self, function: Callable[..., Array], values: list[Any]) -> None:
        self.values, self.arguments = values, _floating(values)
        self.keywords: dict[str, Any] = {}
        if isinstance(function, partial) and not function.args:
            self.keywords = {key: _float64(value) for key, value in function.keywords.items()}
            function = function.func
        self.name = getattr(function, "__name__", repr(function))
        self.function = function
        module = sys.modules[function.__module__]
        if not hasattr(module, f"{self.name}_backward"):
            raise ValueError(f"{self.name}_backward does not exist beside {self.name} in {module.__name__}")
        self.backward: Callable[..., Any] = getattr(module, f"{self.name}_backward")

    def run(self) -> _Run:
        """The output, and a function from its cotangent to the gradients."""

        def grads(cotangent: Array) -> list[Array]:
            # A copy of its own, so that a random generator is in the state that forward got it in.
            result = self.backward(cotangent, *self.values, **copy.deepcopy(self.keywords))
            return [grad for grad in _listed(result) if grad is not None]

        return self.function(*self.values, **copy.deepcopy(self.keywords)), grads


def _listed(grads: Any) -> tuple[Any, ...]:
    """Gradients, of which there may be one."""
    return grads if isinstance(grads, tuple) else (grads,)


_Subject: TypeAlias = _Module | _Function


def _subject(layer_or_function: Layer | Criterion | Callable[..., Array], values: list[Any]) -> _Subject:
    if isinstance(layer_or_function, (Layer, Criterion)):
        return _Module(layer_or_function, values)
    if callable(layer_or_function):
        return _Function(layer_or_function, values)
    raise TypeError(f"`layer_or_function` ({given(layer_or_function)}) must be a Layer, a Loss or a function")


def _directions(array: Array, rng: "np.random.Generator") -> Iterator[tuple[Any, Array]]:
    """The unit directions with their index; or some random ones, with their number."""
    if array.size <= MAX_ENTRIES:
        for index in np.ndindex(array.shape):
            unit = array_module(array).zeros_like(array)
            unit[index] = 1.0
            yield index, unit
    else:
        for number in range(DIRECTIONS):
            yield f"random direction {number}", _normal(rng, array)


def _normal(rng: "np.random.Generator", like: Array) -> Array:
    """Standard normal numbers in the shape of `like`, on its device."""
    drawn: Array = array_module(like).asarray(rng.standard_normal(like.shape))
    return drawn


def _floating(values: list[Any]) -> dict[str, Array]:
    """The floating arrays among the inputs, by name."""
    return {f"input {i}": value for i, value in enumerate(values) if _is_floating(value)}


def _is_floating(value: Any) -> bool:
    return is_array(value) and value.dtype.kind == "f"


def _float64(value: Any) -> Any:
    """A float64 copy of a floating array; anything else as it is."""
    return value.astype(np.float64) if _is_floating(value) else value

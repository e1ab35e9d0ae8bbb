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
from tinyconv.arrays import Array, array_module, moved
from tinyconv.layers import Layer, Loss

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
    layer_or_function: Layer | Loss | Callable[..., Array],
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
        layer_or_function: a Layer (its input and all its parameters are checked), a Loss (its
            prediction is), or a function `op` beside which its module has an `op_backward`; arguments
            that are not to be checked may be bound by functools.partial as keywords.
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
    listed = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    values = [_float64(value) for value in listed]
    check = _check_second_order if second_order else _check_first_order
    return check(_subject(layer_or_function), values, rng, _Tolerance(eps, atol, rtol))


def _check_first_order(
    subject: "_Subject", values: list[Any], rng: "np.random.Generator", tolerance: "_Tolerance"
) -> Gradcheck:
    output, grads_of = subject.run(values)
    cotangent = _normal(rng, output)
    arguments = [(name, values[i]) for i, name in subject.checked(values)]
    arguments += list(subject.params.items())
    analytic = grads_of(cotangent)
    if len(analytic) != len(arguments):
        raise ValueError(
            f"the backward of {subject.name} returns {len(analytic)} gradients "
            f"for {len(arguments)} floating inputs"
        )

    def loss() -> float:
        return float((subject.run(values)[0] * cotangent).sum())

    checked, kinks = 0, []
    for (name, array), grad in zip(arguments, analytic, strict=True):
        if grad.shape != array.shape:
            raise GradcheckError(
                f"{subject.name}: the gradient with respect to {name} has the shape {grad.shape}, "
                f"not {array.shape}" + _diagnosis(grad, array, loss, tolerance)
            )
        for place, direction in _directions(array, rng):
            slope, derivative = _Slope(loss, array, direction), float((grad * direction).sum())
            if any(tolerance.close(slope.central(eps), derivative) for eps in tolerance.steps()):
                checked += 1
            elif _has_kink(slope.at, tolerance):
                kinks.append((name, place))
            else:
                raise GradcheckError(
                    f"{subject.name}: the derivative with respect to {name} at {place} is {derivative:.10g} "
                    f"by backward, but {slope.central(tolerance.eps):.10g} by finite differences"
                    + _diagnosis(grad, array, loss, tolerance)
                )
    return Gradcheck(checked, tuple(kinks))


def _diagnosis(analytic: Array, array: Array, loss: Callable[[], float], tolerance: "_Tolerance") -> str:
    """What `diagnose` says of a gradient, for the end of a message; "" where that takes too long."""
    if array.size > MAX_ENTRIES:
        return ""
    from tinyconv.gradients.diagnose import against_numeric

    numeric = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        unit = array_module(array).zeros_like(array)
        unit[index] = 1.0
        numeric[index] = _Slope(loss, array, unit).central(tolerance.eps)
    sizes = {"the length of the argument's axis 0": array.shape[0]} if array.ndim else {}
    found = against_numeric(moved(analytic, np), numeric, sizes)
    return "" if found else f". Diagnosis of `got`, which backward returned: {found}"


def _check_second_order(
    subject: "_Subject", values: list[Any], rng: "np.random.Generator", tolerance: "_Tolerance"
) -> Gradcheck:
    checked, kinks = 0, []
    moving = [values[i] for i, _ in subject.checked(values)] + list(subject.params.values())
    names = [name for _, name in subject.checked(values)] + list(subject.params)
    places = ["the output", *(f"the gradient with respect to {name}" for name in names)]
    for number in range(TANGENTS):
        cotangent = _normal(rng, subject.run(values)[0])
        along = _Line(subject, values, [*moving, cotangent], rng)
        if number == 0:  # once without tangents of the parameters, as where the input alone moves
            along.hold_parameters(len(subject.params))
        for place, analytic, line in zip(places, along.tangents(), along.each(), strict=True):
            differences = line.differences(analytic, tolerance)
            checked += analytic.size - len(differences)
            for index in differences:
                if _has_kink(lambda step, line=line, index=index: line.at(step)[index], tolerance):  # type: ignore[misc]
                    kinks.append((f"the tangent of {place}", index))
                    continue
                raise GradcheckError(
                    f"{subject.name}: the tangent of {place} at {index} is {analytic[index]:.10g} by "
                    f"{'jvp' if place == 'the output' else 'backward_jvp'}, but "
                    f"{line.central(tolerance.eps)[index]:.10g} by finite differences"
                )
    return Gradcheck(checked, tuple(kinks))


def _has_kink(at: Callable[[float], Any], tolerance: "_Tolerance") -> bool:
    """Whether the slopes to the left and right of 0 differ, by no less in a smaller neighbourhood.

    A curve's slopes differ as well, but ten times less in a tenth of the neighbourhood; NaN is not a kink.
    """
    here = at(0.0)
    wide, near = (abs(at(eps) - 2 * here + at(-eps)) / eps for eps in tolerance.steps())
    return bool(near > tolerance.atol and near > wide / 2)


class _Tolerance(NamedTuple):
    """Half of the step, and how close two derivatives must be."""

    eps: float
    atol: float
    rtol: float

    def close(self, numeric: Any, analytic: Any) -> Any:
        """Whether two numbers, or the entries of two arrays, agree."""
        return abs(numeric - analytic) <= self.atol + self.rtol * abs(numeric)

    def steps(self) -> tuple[float, float]:
        """The steps that are tried: where one meets a kink nearby, the other may not."""
        return self.eps, self.eps / 10


class _Line:
    """Output and gradients of a subject while its arrays, the cotangent last, move along random tangents."""

    def __init__(
        self, subject: "_Subject", values: list[Any], arrays: list[Array], rng: "np.random.Generator"
    ) -> None:
        self.subject, self.values, self.arrays = subject, values, arrays
        self.dots = [_normal(rng, array) for array in arrays]

    def hold_parameters(self, count: int) -> None:
        """Let the last `count` arrays before the cotangent stand still."""
        for dot in self.dots[len(self.dots) - 1 - count : -1]:
            dot[...] = 0

    def tangents(self) -> list[Array]:
        """What jvp and backward_jvp say, on the CPU."""
        found = self.subject.tangents(self.values, self.arrays[-1], self.dots)
        return [moved(array, np) for array in found]

    def at(self, step: float) -> list[Array]:
        """What forward and backward say, `step` along the line, on the CPU."""
        before = [array.copy() for array in self.arrays]
        for array, dot in zip(self.arrays, self.dots, strict=True):
            array += step * dot
        output, grads_of = self.subject.run(self.values)
        results = output, *grads_of(self.arrays[-1])
        found = [np.array(moved(array, np)) for array in results]  # some are views
        for array, kept in zip(self.arrays, before, strict=True):
            array[...] = kept
        return found

    def each(self) -> list["_Curve"]:
        """One result at a time."""
        return [_Curve(partial(self.result, number)) for number in range(len(self.arrays))]

    def result(self, number: int, step: float) -> Array:
        """One of what forward and backward say."""
        return self.at(step)[number]


class _Curve:
    """An array that depends on one number."""

    def __init__(self, at: Callable[[float], Array]) -> None:
        self.at = at

    def central(self, eps: float) -> Array:
        difference: Array = (self.at(eps) - self.at(-eps)) / (2 * eps)
        return difference

    def differences(self, analytic: Array, tolerance: _Tolerance) -> list[tuple[int, ...]]:
        """Where the slope differs from `analytic` for every step that is tried."""
        wrong = np.ones(analytic.shape, bool)
        for eps in tolerance.steps():
            if wrong.any():
                wrong &= ~tolerance.close(self.central(eps), analytic)
        return [tuple(int(i) for i in index) for index in np.argwhere(wrong)]


class _Slope:
    """The `loss` as a function of one number, by which `array` moves along `direction`."""

    def __init__(self, loss: Callable[[], float], array: Array, direction: Array) -> None:
        self.loss, self.array, self.direction = loss, array, direction

    def central(self, eps: float) -> float:
        return (self.at(eps) - self.at(-eps)) / (2 * eps)

    def at(self, step: float) -> float:
        before = self.array.copy()
        self.array += step * self.direction
        try:
            return self.loss()
        finally:
            self.array[...] = before


class _Subject:
    """What is checked, as a function of float64 arrays that are changed in place between runs."""

    name: str
    params: dict[str, Array]

    def run(self, values: list[Any]) -> tuple[Array, Callable[[Array], list[Array]]]:
        """The output, and a function from its cotangent to the gradients: of inputs, then of params."""
        raise NotImplementedError

    def tangents(self, values: list[Any], cotangent: Array, dots: list[Array]) -> list[Array]:
        """Tangents of the output and of the gradients for tangents of inputs, parameters and cotangent."""
        raise ValueError(f"`second_order` is for a Layer or a Loss, not for {self.name}")

    def checked(self, values: list[Any]) -> list[tuple[int, str]]:
        """Position and name of the inputs that are checked."""
        floating = [i for i, value in enumerate(values) if _is_floating(value)]
        return [(i, f"input {i}") for i in floating]


class _LayerSubject(_Subject):
    def __init__(self, layer: Layer) -> None:
        layer.check_whole()
        self.layer = copy.deepcopy(layer).to(np.float64)
        self.name = type(layer).__name__
        self.params = self.layer.params

    def run(self, values: list[Any]) -> tuple[Array, Callable[[Array], list[Array]]]:
        layer = copy.deepcopy(self.layer)  # so that no run changes statistics or random generators

        def grads(cotangent: Array) -> list[Array]:
            layer.zero_grad()
            return [layer.backward(cotangent), *layer.grads.values()]

        return layer.forward(*values), grads

    def tangents(self, values: list[Any], cotangent: Array, dots: list[Array]) -> list[Array]:
        layer = copy.deepcopy(self.layer)
        layer.zero_grad()
        x_dot, *param_dots, cotangent_dot = dots
        layer.forward(*values)
        moving = {name: dot for name, dot in zip(layer.params, param_dots, strict=True) if dot.any()}
        output_dot = layer.jvp(x_dot, moving or None)
        layer.backward(cotangent)
        grad_dot = layer.backward_jvp(cotangent_dot)
        found = layer.grads_dot
        zeros = array_module(cotangent).zeros_like
        return [output_dot, grad_dot, *(found.get(n, zeros(p)) for n, p in layer.params.items())]


class _LossSubject(_Subject):
    def __init__(self, loss: Loss) -> None:
        self.loss = copy.deepcopy(loss)
        self.name = type(loss).__name__
        self.params = {}
        for key, value in vars(self.loss).items():
            setattr(self.loss, key, _float64(value))  # class weights, in dicts too

    def run(self, values: list[Any]) -> tuple[Array, Callable[[Array], list[Array]]]:
        output = self.loss.forward(*values)
        return output, lambda cotangent: [self.loss.backward(cotangent)]

    def tangents(self, values: list[Any], cotangent: Array, dots: list[Array]) -> list[Array]:
        prediction_dot, cotangent_dot = dots
        self.loss.forward(*values)
        loss_dot = self.loss.jvp(prediction_dot)
        self.loss.backward(cotangent)
        return [loss_dot, self.loss.backward_jvp(cotangent_dot)]

    def checked(self, values: list[Any]) -> list[tuple[int, str]]:
        return [(0, "prediction")]


class _FunctionSubject(_Subject):
    def __init__(self, function: Callable[..., Array]) -> None:
        self.keywords: dict[str, Any] = {}
        if isinstance(function, partial) and not function.args:
            self.keywords = {key: _float64(value) for key, value in function.keywords.items()}
            function = function.func
        self.name = getattr(function, "__name__", repr(function))
        self.params = {}
        self.function = function
        module = sys.modules[function.__module__]
        if not hasattr(module, f"{self.name}_backward"):
            raise ValueError(f"{self.name}_backward does not exist beside {self.name} in {module.__name__}")
        self.backward: Callable[..., Any] = getattr(module, f"{self.name}_backward")

    def run(self, values: list[Any]) -> tuple[Array, Callable[[Array], list[Array]]]:
        def grads(cotangent: Array) -> list[Array]:
            # A copy of its own, so that a random generator is in the state that forward got it in.
            result = self.backward(cotangent, *values, **copy.deepcopy(self.keywords))
            listed = result if isinstance(result, tuple) else (result,)
            return [grad for grad in listed if grad is not None]

        return self.function(*values, **copy.deepcopy(self.keywords)), grads


def _subject(layer_or_function: Layer | Loss | Callable[..., Array]) -> _Subject:
    if isinstance(layer_or_function, Layer):
        return _LayerSubject(layer_or_function)
    if isinstance(layer_or_function, Loss):
        return _LossSubject(layer_or_function)
    if callable(layer_or_function):
        return _FunctionSubject(layer_or_function)
    raise TypeError(f"`layer_or_function` ({given(layer_or_function)}) must be a Layer, a Loss or a function")


def _directions(array: Array, rng: "np.random.Generator") -> Iterator[tuple[tuple[int, ...] | str, Array]]:
    """Unit directions, one an entry, with their index; or some random ones, with their number."""
    if array.size > MAX_ENTRIES:
        for number in range(DIRECTIONS):
            yield f"random direction {number}", _normal(rng, array)
        return
    for index in np.ndindex(array.shape):
        unit = array_module(array).zeros_like(array)
        unit[index] = 1.0
        yield index, unit


def _normal(rng: "np.random.Generator", like: Array) -> Array:
    """Standard normal numbers in the shape of `like`, on its device."""
    drawn: Array = array_module(like).asarray(rng.standard_normal(like.shape))
    return drawn


def _is_floating(value: Any) -> bool:
    is_array = hasattr(value, "dtype") and not isinstance(value, np.generic)
    return is_array and value.dtype.kind == "f"


def _float64(value: Any) -> Any:
    """A float64 copy of a floating array, or of those in a dict; anything else as it is."""
    if isinstance(value, dict):
        return {key: _float64(item) for key, item in value.items()}
    return value.astype(np.float64) if _is_floating(value) else value

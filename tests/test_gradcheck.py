"""gradcheck finds wrong derivatives, says where, and is not fooled by kinks."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv
import tinyconv.functional as F
from tests.compare import layouts
from tinyconv import BatchNorm2d, Dropout, Layer, Linear, MaxPool2d, MSELoss, ReLU, gradcheck
from tinyconv.arrays import Array
from tinyconv.gradients.gradcheck import GradcheckError


class Square(Layer):
    """x^2 * scale, with a fault that a test may set."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.scale = tinyconv.Parameter(np.full((), 2.0, np.float32))

    def forward(self, x: Array) -> Array:
        return self.save(x * x * self.params["scale"], x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        self.grads["scale"] += (grad_output * x * x).sum() * (2 if self.fault == "scale" else 1)
        grad: Array = 2 * x * grad_output * self.params["scale"]
        if self.fault == "entry":
            grad[1, 2] += 0.01
        return grad.T if self.fault == "shape" else grad


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape)


def test_a_right_layer_passes_and_stays_as_it_is() -> None:
    layer = Square()
    layer.grads["scale"][...] = 5
    assert gradcheck(layer, normal(2, 3)).checked == 7
    assert layer.params["scale"].dtype == np.float32
    assert layer.grads["scale"] == 5


def test_a_wrong_entry_is_named() -> None:
    with pytest.raises(
        GradcheckError, match=r"Square: the derivative with respect to input 0 at \(1, 2\) is .* by backward"
    ):
        gradcheck(Square("entry"), normal(2, 3))


def test_a_wrong_parameter_gradient_is_named() -> None:
    with pytest.raises(GradcheckError, match=r"Square: the derivative with respect to scale at \(\)"):
        gradcheck(Square("scale"), normal(2, 3))


def test_a_gradient_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(
        GradcheckError, match=r"Square: the gradient with respect to input 0 has the shape \(3, 2\)"
    ):
        gradcheck(Square("shape"), normal(2, 3))


def test_large_arguments_are_checked_along_random_directions() -> None:
    assert gradcheck(Square(), normal(40, 40)).checked == 21
    with pytest.raises(GradcheckError, match="random direction"):
        gradcheck(Linear_with_wrong_input(), normal(40, 40))


class Linear_with_wrong_input(Square):  # noqa: N801
    def backward(self, grad_output: Array) -> Array:
        return super().backward(grad_output) * 1.01


def test_kinks_are_reported_and_not_failed() -> None:
    found = gradcheck(ReLU(), np.array([0.0, 1.0, -1.0, 0.0]))
    assert found == (2, (("input 0", (0,)), ("input 0", (3,))))
    ties = gradcheck(MaxPool2d(2), np.array([[[1.0, 1.0], [0.0, 0.5]]]))
    assert ties.kinks == (("input 0", (0, 0, 0)), ("input 0", (0, 0, 1)))


def test_a_kink_close_by_is_no_fault() -> None:
    assert gradcheck(ReLU(), np.array([5e-7, -5e-7])).checked == 2


def test_states_and_random_masks_are_the_same_in_every_evaluation() -> None:
    norm = BatchNorm2d(2, momentum=None)
    assert gradcheck(norm, normal(3, 2, 2, 2)).kinks == ()
    assert norm.buffers["num_batches_tracked"] == 0
    dropout = Dropout(0.5, generator=0)
    before = dropout.generator.bit_generator.state
    assert gradcheck(dropout, normal(4, 5)).checked == 20
    assert dropout.generator.bit_generator.state == before


def test_functions_are_checked_by_the_backward_beside_them() -> None:
    assert gradcheck(partial(F.conv2d, padding=1), (normal(1, 2, 4, 4), normal(3, 2, 3, 3))).checked == 86
    with pytest.raises(ValueError, match="layouts_backward does not exist beside layouts"):
        gradcheck(layouts, normal(3))  # type: ignore[arg-type]


def test_losses_are_checked_by_their_prediction() -> None:
    assert gradcheck(MSELoss(reduction="none"), (normal(3, 2), np.zeros((3, 2)))).checked == 6


@pytest.mark.parametrize("subject", [None, 3, "conv2d"])
def test_what_has_no_backward_is_refused(subject: Any) -> None:
    with pytest.raises(TypeError, match="`layer_or_function`"):
        gradcheck(subject, normal(2))


def test_float32_layers_are_checked_in_float64() -> None:
    assert gradcheck(Linear(3, 2, generator=0), normal(2, 3).astype(np.float32)).checked == 14


class Wrong(Layer):
    """A layer whose backward may be anything."""

    def __init__(self, forward: Any, backward: Any) -> None:
        super().__init__()
        self.functions = forward, backward

    def forward(self, x: Array) -> Array:
        return self.save(self.functions[0](x), x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        grad: Array = grad_output * self.functions[1](x)
        return grad


def test_neither_nan_nor_an_extremum_is_taken_for_a_kink() -> None:
    with pytest.raises(GradcheckError, match="nan by finite differences"):
        gradcheck(Wrong(lambda x: x * np.nan, lambda x: x + 7), normal(2, 3))
    top = np.full((1, 1), np.pi / 100)
    wrong = Wrong(lambda x: np.sin(50 * x), lambda x: 50 * np.cos(50 * x) + 1)
    with pytest.raises(GradcheckError, match="by backward"):
        gradcheck(wrong, top)
    gradcheck(Wrong(lambda x: np.sin(50 * x), lambda x: 50 * np.cos(50 * x)), top)


def test_a_kink_does_not_hide_another_entrys_error_of_second_order() -> None:
    class Bent(Wrong):
        def __init__(self, curvature: float) -> None:
            super().__init__(lambda x: np.maximum(x, 0) + x**3, lambda x: (x > 0) + 3 * x**2)
            self.curvature = curvature

        def jvp(self, x_dot: Array, params_dot: Any = None) -> Array:
            (x,) = self.kept()
            return self.save_tangents(x_dot * self.functions[1](x), x_dot)

        def backward_jvp(self, grad_output_dot: Array) -> Array:
            (x,), (x_dot,), grad_output = self.saved_tangents(grad_output_dot)
            curved: Array = self.curvature * x * x_dot * grad_output
            return grad_output_dot * self.functions[1](x) + curved  # type: ignore[no-any-return]

    x = normal(2, 3)
    x[0, 0] = 0.0
    assert {place for _, place in gradcheck(Bent(6.0), x, second_order=True).kinks} == {(0, 0)}
    with pytest.raises(GradcheckError, match="backward_jvp"):
        gradcheck(Bent(600.0), x, second_order=True)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_frozen_layer_is_not_checked(second_order: bool) -> None:
    model = tinyconv.Sequential(Linear(4, 3, generator=0), ReLU(), Linear(3, 2, generator=1))
    x = np.random.default_rng(0).normal(size=(5, 4))
    whole = gradcheck(model, x, second_order=second_order).checked
    model[0].requires_grad_(False)
    assert 20 < gradcheck(model, x, second_order=second_order).checked < whole


def test_a_wrong_gradient_beside_a_frozen_layer_is_found() -> None:
    class Wrong(Linear):
        def bias_gradient(self, grad_output: Array) -> Array:
            return 2 * super().bias_gradient(grad_output)

    model = tinyconv.Sequential(Linear(4, 3, generator=0), Wrong(3, 3, generator=1))
    model[0].requires_grad_(False)
    with pytest.raises(GradcheckError, match=r"1\.bias"):
        gradcheck(model, np.random.default_rng(0).normal(size=(5, 4)))

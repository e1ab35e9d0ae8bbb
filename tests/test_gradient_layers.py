"""Gradients as layers share energies, keep what is others', and take energies of users' own."""

from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close
from tinyconv import gradcheck
from tinyconv.arrays import Array
from tinyconv.layers.divided import dividing

f8 = np.float64


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def objective() -> tc.Objective:
    model = tc.Sequential(tc.Linear(4, 3, dtype=f8, generator=0), tc.Tanh())
    return tc.Objective(model, tc.MSELoss(reduction="sum"), normal(5, 3, seed=1))


def test_the_energy_may_run_between_a_steps_forward_and_backward() -> None:
    energy, x, g = objective(), normal(5, 4), normal(5, 4, seed=2)
    step = tc.GradientStep(energy, 0.1, dtype=f8)
    step(x)
    expected = step.backward(g)
    y = step(x)
    energy(y)
    energy.criterion(normal(5, 3), normal(5, 3, seed=3))
    assert_close(step.backward(g), expected)


def test_two_steps_may_share_an_energy() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    energy, x, g = objective(), normal(5, 4), normal(5, 4, seed=2)
    first, second = (tc.GradientStep(energy, size, dtype=f8) for size in (0.1, 0.2))
    second(first(x))
    dx = first.backward(second.backward(g))
    w, b = (torch.tensor(energy.params[f"model.0.{name}"], requires_grad=True) for name in ("weight", "bias"))
    target, tensor = torch.tensor(energy.target), torch.tensor(x, requires_grad=True)
    z = tensor
    for size in (0.1, 0.2):
        loss = ((torch.tanh(z @ w.T + b) - target) ** 2).sum()
        z = z - size * torch.autograd.grad(loss, z, create_graph=True)[0]
    expected = torch.autograd.grad(z, (tensor, w, b), torch.tensor(g))
    assert_close(dx, expected[0].numpy())
    assert_close(energy.grads["model.0.weight"], expected[1].numpy())
    assert_close(energy.grads["model.0.bias"], expected[2].numpy())


class Scaled(tc.Layer):
    """scale * body(x), which adds to its gradients without asking whether they are wanted."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.body = tc.Linear(4, 3, dtype=f8, generator=0)
        self.scale = tc.Parameter(np.full((), 2.0))
        self.in_place = in_place

    def forward(self, x: Array) -> Array:
        y = self.body.forward(x)
        return self.save(self.params["scale"] * y * y, y)

    def backward(self, grad_output: Array) -> Array:
        (y,) = self.saved(grad_output)
        if self.in_place:
            self.grads["scale"][...] += (grad_output * y * y).sum()
        else:
            self.grads["scale"] += (grad_output * y * y).sum()
        return self.body.backward(2 * self.params["scale"] * grad_output * y)

    def jvp(self, x_dot: Array, params_dot: Any = None) -> Array:
        (y,) = self.kept()
        y_dot = self.body.jvp(x_dot)
        return self.save_tangents(2 * self.params["scale"] * y * y_dot, y_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (y,), (y_dot,), grad_output = self.saved_tangents(grad_output_dot)
        self.add_grad_dot("scale", (grad_output_dot * y * y + 2 * grad_output * y * y_dot).sum())
        moved = 2 * self.params["scale"] * (grad_output_dot * y + grad_output * y_dot)
        return self.body.backward_jvp(moved)


def test_layers_of_layers_that_add_to_their_gradients_are_energies() -> None:
    x = normal(2, 4)
    plain = tc.GradientLayer(Scaled(in_place=False))
    assert gradcheck(plain, x).kinks == ()
    assert_close(tc.GradientLayer(Scaled(in_place=True)).forward(x), plain.forward(x))
    assert not plain.grads["energy.scale"]


def test_targets_and_class_weights_follow_the_layers_dtype() -> None:
    single = tc.Objective(tc.Linear(4, 2, generator=0), tc.MSELoss(), np.zeros((3, 2), np.float32))
    assert gradcheck(tc.GradientStep(single, 0.1), normal(3, 4).astype(np.float32)).kinks == ()
    weighted = tc.CrossEntropyLoss(np.array([1.0, 2.0], np.float32), reduction="none")
    energy = tc.Objective(tc.Linear(4, 2, generator=0), weighted, np.array([0, 1, 1]))
    assert energy.output_shape((3, 4)) == energy(normal(3, 4).astype(np.float32)).shape == (3,)
    assert energy.to(f8).forward(normal(3, 4)).dtype == f8


def test_batch_norm_of_an_energy_in_evaluation_works_on_a_part() -> None:
    layer, x = tc.BatchNorm1d(3, dtype=f8), normal(4, 3)
    with dividing(lambda array: array):
        layer.forward(x)
        with pytest.raises(RuntimeError, match="whole batch"):
            layer.jvp(x)
        layer.eval().forward(x)
        assert layer.jvp(x).shape == x.shape


def test_a_hessian_operator_multiplies_as_the_dense_hessian() -> None:
    model = tc.Sequential(tc.Linear(2, 2, dtype=f8, generator=0), tc.Tanh())
    x, target = normal(6, 2), normal(6, 2, seed=1)
    operator = tc.hessian_operator(model, tc.MSELoss(), x, target)
    dense = operator @ np.eye(6)
    np.testing.assert_allclose(dense, dense.T, atol=1e-12)
    assert_close(operator @ normal(6, seed=2), dense @ normal(6, seed=2))

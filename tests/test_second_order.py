"""jvp, backward_jvp and what stands on them: against PyTorch's double backward, and against differences."""

import inspect
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close
from tests.drawn import LAYERS, layers, losses
from tests.drawn import LOSSES as DRAWN_LOSSES
from tests.hypothesis_or_skip import given, settings, st
from tests.test_layer_contract import CASES, Case, cases, normal
from tinyconv import gradcheck
from tinyconv.arrays import Array
from tinyconv.gradients.gradcheck import GradcheckError

f8 = np.float64
SECOND = 1e-8


def assert_second(actual: Array, expected: Any, what: str, scale: float = 0.0) -> None:
    """Equal to 1e-8 of the largest expected value, or of `scale`."""
    expected = np.asarray(expected.detach())
    assert actual.shape == expected.shape, what
    largest = max(float(np.abs(expected).max(initial=0)), scale)
    np.testing.assert_allclose(actual, expected, rtol=SECOND, atol=SECOND * largest, err_msg=what)


def tangents_like(arrays: dict[str, Array], seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(array.shape)) for name, array in arrays.items()}


# Every layer


@cases
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_every_layers_second_order_agrees_with_differences(case: Case, training: bool) -> None:
    layer, x = case.make().train(training), normal(*case.shape)
    if isinstance(layer, tc.GradientLayer):
        pytest.skip("a third derivative")
    assert gradcheck(layer, x, second_order=True).kinks == ()


def compare_second_order(layer: tc.Layer, theirs: Any, x: Array) -> None:
    """d/d eps of backward along a direction is PyTorch's gradient of <gradients, their cotangents>."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    if isinstance(layer, tc.Hardsigmoid):
        pytest.skip("PyTorch does not have its second derivative")
    theirs = theirs.double().train(layer.training)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    dots = {"x": normal(*x.shape, seed=3), **tangents_like(layer.params, 4)}
    y = layer.forward(x)
    g, g_dot = normal(*y.shape, seed=1), normal(*y.shape, seed=2)
    y_dot = layer.jvp(dots["x"], {name: dots[name] for name in layer.params})
    layer.backward(g)
    actual = {"x": layer.backward_jvp(g_dot), **layer.grads_dot}

    tensors = {"x": torch.tensor(x, requires_grad=True), **dict(theirs.named_parameters())}
    upstream = torch.tensor(g, requires_grad=True)
    output = theirs(tensors["x"])
    grads = torch.autograd.grad(output, list(tensors.values()), upstream, create_graph=True)
    # <grads, dots> differentiated by g is the jvp; by the inputs, and with g_dot, it is backward's tangent.
    moved = sum((grad * torch.tensor(dots[name])).sum() for name, grad in zip(tensors, grads, strict=True))
    (expected_y_dot,) = torch.autograd.grad(moved, upstream, create_graph=True)
    assert_second(y_dot, expected_y_dot, "tangent of the output")
    scalar = moved + (torch.tensor(g_dot) * output).sum()
    expected = torch.autograd.grad(scalar, list(tensors.values()))
    scale = float(max(np.abs(a).max(initial=0) for a in (actual["x"], g, g_dot)))
    for (name, tensor), second in zip(tensors.items(), expected, strict=True):
        zeros = np.zeros(tuple(tensor.shape))
        assert_second(actual.get(name, zeros), second, f"tangent of the gradient of {name}", scale)


@cases
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_every_layers_second_order_agrees_with_pytorchs(case: Case, training: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    if not case.torch_name:
        pytest.skip("PyTorch has no such layer, or another random generator")
    theirs = getattr(torch.nn, case.torch_name)(*case.torch_args, **case.torch_options)
    compare_second_order(case.make().train(training), theirs, normal(*case.shape))


few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("name", LAYERS)
@few
@given(st.data(), st.booleans())
def test_second_order_of_drawn_layers_agrees_with_pytorchs(
    name: str, data: st.DataObject, training: bool
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    drawn = data.draw(layers(name))
    kind = getattr(tc, name)
    own = {"dtype": f8} if "dtype" in inspect.signature(kind).parameters else {}
    layer = kind(*drawn.args, **drawn.options, **own).train(training)
    theirs = getattr(torch.nn, name)(*drawn.args, **drawn.options)
    compare_second_order(layer, theirs, normal(*drawn.shape))


def test_every_layer_that_pytorch_has_is_drawn() -> None:
    theirs = {case.torch_name for case in CASES.values()} - {""}
    assert theirs == set(LAYERS)


def test_unpooling_moves_tangents_as_it_moves_values() -> None:
    values, indices = tc.functional.max_pool2d(normal(2, 3, 6, 4), 2, return_indices=True)
    layer, v = tc.MaxUnpool2d(2), normal(*values.shape, seed=1)
    g = normal(*layer(values, indices).shape, seed=2)
    assert_close(layer.jvp(v), tc.MaxUnpool2d(2)(v, indices))
    assert_close(layer.backward(g), layer.backward_jvp(g))


@cases
def test_a_second_order_pass_has_an_order(case: Case) -> None:
    layer, x = case.make(), normal(*case.shape)
    if isinstance(layer, tc.GradientLayer):
        with pytest.raises(NotImplementedError, match="does not implement jvp"):
            layer.jvp(x)
        return
    with pytest.raises(RuntimeError, match="jvp needs a forward before it"):
        layer.jvp(x)
    y = layer.forward(x)
    layer.jvp(normal(*x.shape, seed=1))
    with pytest.raises(RuntimeError, match="needs a forward, a jvp and a backward before it"):
        layer.backward_jvp(y)
    layer.backward(y)
    layer.backward_jvp(y)
    with pytest.raises(RuntimeError, match="needs a forward, a jvp and a backward before it"):
        layer.backward_jvp(y)
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        layer.backward(y)


@cases
def test_tangents_that_do_not_fit_are_refused_and_right_ones_then_taken(case: Case) -> None:
    layer, x = case.make(), normal(*case.shape)
    if isinstance(layer, tc.GradientLayer):
        pytest.skip("it has no jvp")
    y = layer.forward(x)
    with pytest.raises((ValueError, TypeError)):
        layer.jvp(normal(*x.shape[:-1], x.shape[-1] + 1))
    with pytest.raises((ValueError, TypeError)):
        layer.jvp(x.astype(np.float32))
    with pytest.raises(ValueError, match=r"`params_dot` has unknown \['more'\]"):
        layer.jvp(x, {"more": np.zeros(1)})
    for name, param in layer.params.items():
        with pytest.raises(ValueError, match="params_dot"):
            layer.jvp(x, {name: np.zeros((*param.shape, 2))})
    layer.jvp(x)
    layer.backward(y)
    with pytest.raises(ValueError, match="`grad_output_dot`"):
        layer.backward_jvp(np.zeros((*y.shape, 1)))
    assert layer.backward_jvp(y).shape == x.shape
    layer.zero_grad()
    assert not layer.grads_dot


def test_tangents_of_gradients_add_up_and_nothing_else_is_changed() -> None:
    layer, x = tc.Linear(3, 2, dtype=f8, generator=0), normal(4, 3)
    kept = []
    for _ in range(2):
        y = layer.forward(x)
        layer.jvp(normal(4, 3, seed=1), {"weight": normal(2, 3, seed=2)})
        layer.backward(y)
        layer.backward_jvp(normal(4, 2, seed=3))
        kept.append(layer.grads_dot["weight"].copy())
    assert_close(kept[1], 2 * kept[0])


# Losses

PREDICTION, TARGETS = normal(5, 3), np.random.default_rng(1).integers(0, 3, 5)
PROBABILITIES = np.random.default_rng(2).uniform(0.1, 0.9, (5, 3))
WEIGHT = np.array([0.5, 2.0, 1.0])
LOSSES: dict[str, tuple[Any, str, dict[str, Any], Array, Array]] = {
    "MSELoss": (tc.MSELoss, "MSELoss", {}, PREDICTION, PROBABILITIES),
    "L1Loss": (tc.L1Loss, "L1Loss", {}, PREDICTION, PROBABILITIES),
    "SmoothL1Loss": (tc.SmoothL1Loss, "SmoothL1Loss", {"beta": 0.7}, PREDICTION, PROBABILITIES),
    "HuberLoss": (tc.HuberLoss, "HuberLoss", {"delta": 0.7}, PREDICTION, PROBABILITIES),
    "KLDivLoss": (tc.KLDivLoss, "KLDivLoss", {}, PREDICTION, PROBABILITIES),
    "KLDivLoss, log_target": (tc.KLDivLoss, "KLDivLoss", {"log_target": True}, PREDICTION, PROBABILITIES),
    "HingeEmbeddingLoss": (
        tc.HingeEmbeddingLoss,
        "HingeEmbeddingLoss",
        {"margin": 0.5},
        PREDICTION,
        np.sign(PROBABILITIES - 0.5),
    ),
    "BCELoss": (tc.BCELoss, "BCELoss", {"weight": WEIGHT}, PROBABILITIES[::-1], PROBABILITIES),
    "BCEWithLogitsLoss": (
        tc.BCEWithLogitsLoss,
        "BCEWithLogitsLoss",
        {"weight": WEIGHT, "pos_weight": WEIGHT},
        PREDICTION,
        PROBABILITIES,
    ),
    "NLLLoss": (tc.NLLLoss, "NLLLoss", {"weight": WEIGHT, "ignore_index": 1}, PREDICTION, TARGETS),
    "CrossEntropyLoss": (
        tc.CrossEntropyLoss,
        "CrossEntropyLoss",
        {"weight": WEIGHT, "ignore_index": 1, "label_smoothing": 0.1},
        PREDICTION,
        TARGETS,
    ),
    "CrossEntropyLoss, probabilities": (
        tc.CrossEntropyLoss,
        "CrossEntropyLoss",
        {"weight": WEIGHT},
        PREDICTION,
        PROBABILITIES,
    ),
}


def compare_losses_second_order(name: str, options: dict[str, Any], prediction: Array, target: Array) -> None:
    """The same for a loss, whose target stands still."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    criterion = getattr(tc, name)(**options)
    x_dot = normal(*prediction.shape, seed=5)
    loss = criterion.forward(prediction, target)
    g, g_dot = np.asarray(normal(*loss.shape, seed=6)), np.asarray(normal(*loss.shape, seed=7))
    loss_dot = criterion.jvp(x_dot)
    criterion.backward(g)
    second = criterion.backward_jvp(g_dot)

    tensor, upstream = (torch.tensor(np.array(a), requires_grad=True) for a in (prediction, g))
    converted = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with warnings.catch_warnings(action="ignore"):  # of KLDivLoss's mean
        output = getattr(torch.nn, name)(**converted)(tensor, torch.tensor(target))
    (grad,) = torch.autograd.grad(output, tensor, upstream, create_graph=True)
    moved = (grad * torch.tensor(x_dot)).sum()
    (expected_dot,) = torch.autograd.grad(moved, upstream, create_graph=True)
    assert_second(np.asarray(loss_dot), expected_dot, "tangent of the loss")
    (expected,) = torch.autograd.grad(moved + (torch.tensor(g_dot) * output).sum(), tensor)
    assert_second(second, expected, "tangent of the gradient")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_every_losss_second_order_agrees_with_pytorchs_and_differences(name: str, reduction: str) -> None:
    kind, torch_name, options, prediction, target = LOSSES[name]
    options = {**options, "reduction": reduction}
    gradcheck(kind(**options), (prediction, target), second_order=True)
    compare_losses_second_order(torch_name, options, prediction, target)


@pytest.mark.parametrize("name", DRAWN_LOSSES)
@few
@given(st.data())
def test_second_order_of_drawn_losses_agrees_with_pytorchs(name: str, data: st.DataObject) -> None:
    compare_losses_second_order(*data.draw(losses(name)))


# gradcheck's second order on users' own layers


class Cube(tc.Layer):
    """scale * x^3, with a fault that a test may set."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.scale = tc.Parameter(np.full((), 2.0))

    def forward(self, x: Array) -> Array:
        return self.save(self.params["scale"] * x**3, x)

    def backward(self, grad_output: Array) -> Array:
        (x,) = self.saved(grad_output)
        self.grads["scale"] += (grad_output * x**3).sum()
        return 3 * self.params["scale"] * x**2 * grad_output  # type: ignore[no-any-return]

    def jvp(self, x_dot: Array, params_dot: Any = None) -> Array:
        (x,) = self.kept()
        (scale_dot,) = self.tangents_of(params_dot, "scale")
        output_dot = 3 * self.params["scale"] * x**2 * x_dot * (1.1 if self.fault == "jvp" else 1)
        if scale_dot is not None:
            output_dot = output_dot + scale_dot * x**3
        return self.save_tangents(output_dot, x_dot, 0.0 if scale_dot is None else scale_dot)

    def backward_jvp(self, grad_output_dot: Array) -> Array:
        (x,), (x_dot, scale_dot), grad_output = self.saved_tangents(grad_output_dot)
        grad = (grad_output_dot * x**3 + grad_output * 3 * x**2 * x_dot).sum()
        self.add_grad_dot("scale", grad * (2 if self.fault == "scale" else 1))
        curved = 0 if self.fault == "backward" else 6 * self.params["scale"] * x * x_dot * grad_output
        slope = self.params["scale"] * grad_output_dot + scale_dot * grad_output
        return 3 * x**2 * slope + curved  # type: ignore[no-any-return]


def test_gradchecks_second_order_passes_a_right_layer_of_a_user() -> None:
    assert gradcheck(Cube(), normal(2, 3), second_order=True).checked == 5 * (6 + 6 + 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("jvp", r"Cube: the tangent of the output at \(0, 0\) is .* by jvp"),
        (
            "backward",
            r"Cube: the tangent of the gradient with respect to input 0 at \(0, 0\) is .* by backward_jvp",
        ),
        ("scale", r"Cube: the tangent of the gradient with respect to scale at \(\) is .* by backward_jvp"),
    ],
)
def test_gradchecks_second_order_names_what_is_wrong(fault: str, message: str) -> None:
    with pytest.raises(GradcheckError, match=message):
        gradcheck(Cube(fault), normal(2, 3), second_order=True)


def test_gradchecks_second_order_reports_kinks_and_refuses_functions() -> None:
    x = normal(2, 3)
    x[0, 1] = 0.0
    kinks = gradcheck(tc.ReLU(), x, second_order=True).kinks
    assert kinks
    assert {place for _, place in kinks} == {(0, 1)}
    with pytest.raises(ValueError, match="`second_order` is for a Layer or a Loss"):
        gradcheck(tc.functional.relu, x, second_order=True)


# Hessian-vector products


def network(seed: int = 0) -> tc.Sequential:
    return tc.Sequential(
        tc.Conv2d(2, 3, 3, padding=1, dtype=f8, generator=seed),
        tc.BatchNorm2d(3, dtype=f8),
        tc.GELU(),
        tc.MaxPool2d(2),
        tc.Residual(
            tc.Sequential(tc.Conv2d(3, 3, 3, padding=1, dtype=f8, generator=seed + 1), tc.Tanh()),
        ),
        tc.Flatten(),
        tc.Linear(12, 4, dtype=f8, generator=seed + 2),
    )


def pytorchs(model: tc.Sequential) -> Any:
    """The same network in PyTorch."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())

        def forward(self, x: Any) -> Any:
            return self.body(x) + x

    theirs = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.GELU(),
        nn.MaxPool2d(2),
        Block(),
        nn.Flatten(),
        nn.Linear(12, 4),
    ).double()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in model.state_dict().items()})
    return theirs


@pytest.mark.parametrize("moving", ["both", "input", "parameters"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_hessian_vector_products_agree_with_pytorchs_double_backward(moving: str, training: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model = network().train(training)
    theirs = pytorchs(model).train(training)
    x, target = normal(5, 2, 4, 4), np.arange(5) % 4
    x_dot = normal(*x.shape, seed=1) if moving != "parameters" else None
    params_dot = tangents_like(model.params, 2) if moving != "input" else None
    before = {name: grad.copy() for name, grad in model.grads.items()}
    product = tc.hessian_vector_product(model, tc.CrossEntropyLoss(), x, target, x_dot, params_dot)

    tensors = {"x": torch.tensor(x, requires_grad=True), **dict(theirs.named_parameters())}
    loss = torch.nn.functional.cross_entropy(theirs(tensors["x"]), torch.tensor(target))
    grads = torch.autograd.grad(loss, list(tensors.values()), create_graph=True)
    dots = {"x": x_dot, **(params_dot or {})}
    moved = sum(
        (grad * torch.tensor(dots[name])).sum()
        for name, grad in zip(tensors, grads, strict=True)
        if dots.get(name) is not None
    )
    expected = dict(zip(tensors, torch.autograd.grad(moved, list(tensors.values())), strict=True))
    scale = max(float(second.abs().max()) for second in expected.values())
    assert_second(product.x, expected.pop("x"), "input", scale)
    assert list(product.params) == list(expected)
    for name, second in expected.items():
        assert_second(product.params[name], second, name, scale)
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, before[name])
    assert not model.grads_dot


def test_a_hessian_is_symmetric() -> None:
    model, x, target = network().eval(), normal(5, 2, 4, 4), np.arange(5) % 4
    u, v = ({"x": normal(*x.shape, seed=seed), **tangents_like(model.params, seed + 10)} for seed in (1, 2))

    def product(dots: dict[str, Array]) -> dict[str, Array]:
        params = {name: dot for name, dot in dots.items() if name != "x"}
        found = tc.hessian_vector_product(model, tc.CrossEntropyLoss(), x, target, dots["x"], params)
        return {"x": found.x, **found.params}

    hu, hv = product(u), product(v)
    left = sum((u[name] * hv[name]).sum() for name in u)
    right = sum((v[name] * hu[name]).sum() for name in u)
    assert abs(left - right) < 1e-10 * abs(left)


def test_a_vector_that_does_not_fit_is_refused() -> None:
    model, x, target = network(), normal(5, 2, 4, 4), np.arange(5) % 4
    product = partial(tc.hessian_vector_product, model, tc.CrossEntropyLoss(), x, target)
    with pytest.raises(ValueError, match="unknown"):
        product(params_dot={"7.weight": np.zeros(1)})
    with pytest.raises(ValueError, match="layer '6'"):
        product(params_dot={"6.weight": np.zeros(1)})
    with pytest.raises(ValueError, match="`x_dot`"):
        product(x_dot=x[:1])
    assert product(x_dot=x).x.shape == x.shape
    assert model.backward_params(model.forward(x)) is None


# Gradients as layers


def unrolled(steps: int) -> tc.Sequential:
    """Gradient steps on energies of their own, and layers between them."""
    layers: list[tc.Layer] = []
    for i in range(steps):
        body = tc.Sequential(
            tc.Conv2d(2, 4, 3, padding=1, dtype=f8, generator=i),
            tc.BatchNorm2d(4, dtype=f8),
            tc.SiLU(),
            tc.Conv2d(4, 2, 3, padding=1, dtype=f8, generator=10 + i),
        )
        energy = tc.Objective(body, tc.MSELoss(reduction="sum"), normal(3, 2, 5, 5, seed=20 + i))
        layers += [tc.GradientStep(energy, 0.05 * (i + 1), dtype=f8), tc.Tanh()]
    return tc.Sequential(*layers)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_several_gradient_steps_in_a_row_agree_with_pytorchs_double_backward(training: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    nn, model = torch.nn, unrolled(3).train(training)
    x, g = normal(3, 2, 5, 5), normal(3, 2, 5, 5, seed=1)
    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in model.params.items()}
    buffers = {name: torch.tensor(value) for name, value in model.buffers.items()}
    tensor = torch.tensor(x, requires_grad=True)
    z = tensor
    for i in (0, 2, 4):
        own = f"{i}.energy.model"
        w = [parameters[f"{own}.{j}.{kind}"] for j in (0, 1, 3) for kind in ("weight", "bias")]
        h = nn.functional.conv2d(z, w[0], w[1], padding=1)
        statistics = [buffers[f"{own}.1.running_{kind}"].clone() for kind in ("mean", "var")]
        h = nn.functional.silu(nn.functional.batch_norm(h, *statistics, w[2], w[3], training))
        h = nn.functional.conv2d(h, w[4], w[5], padding=1)
        energy = ((h - torch.tensor(normal(3, 2, 5, 5, seed=20 + i // 2))) ** 2).sum()
        (gradient,) = torch.autograd.grad(energy, z, create_graph=True)
        z = torch.tanh(z - parameters[f"{i}.step_size"] * gradient)
    expected = torch.autograd.grad(z, [tensor, *parameters.values()], torch.tensor(g))
    output = model.forward(x)
    assert_second(output, z, "output")
    assert_second(model.backward(g), expected[0], "input")
    for (name, grad), second in zip(model.grads.items(), expected[1:], strict=True):
        assert_second(grad, second, name, 1e-3)


def test_gradient_layers_agree_with_differences() -> None:
    energy = tc.Objective(network(), tc.CrossEntropyLoss(reduction="sum"), np.arange(3) % 4)
    for layer in (tc.GradientLayer(energy), tc.GradientStep(energy, 0.3, dtype=f8)):
        assert gradcheck(layer, normal(3, 2, 4, 4)).kinks == ()


def test_a_gradient_layer_is_the_gradient_and_leaves_the_energys_gradients_alone() -> None:
    model, x, target = network(), normal(5, 2, 4, 4), np.arange(5) % 4
    criterion = tc.CrossEntropyLoss()
    criterion.forward(model.forward(x), target)
    expected = model.backward(criterion.backward())
    model.zero_grad()
    layer = tc.GradientLayer(tc.Objective(model, criterion, target))
    assert_close(layer.forward(x), expected)
    assert not any(grad.any() for grad in model.grads.values())
    layer.backward(expected)
    assert any(grad.any() for grad in model.grads.values())
    with pytest.raises(RuntimeError, match="needs a forward"):
        model.backward(np.zeros((5, 4)))
    assert_close(layer.predict(x), layer.eval().forward(x))


def test_a_hessian_vector_product_between_forward_and_backward_leaves_them_alone() -> None:
    model, x, target = network().eval(), normal(5, 2, 4, 4), np.arange(5) % 4
    y = model.forward(x)
    model.jvp(x)
    model.backward(y)
    model.backward_jvp(y)
    before = {name: grad.copy() for name, grad in model.grads_dot.items()}
    y = model.forward(x)
    tc.hessian_vector_product(model, tc.CrossEntropyLoss(), x[:2], target[:2], x_dot=x[:2])
    assert model.backward(y).shape == x.shape
    for name, grad_dot in model.grads_dot.items():
        np.testing.assert_array_equal(grad_dot, before[name])


def test_dropout_in_an_energy_drops_the_same_forward_and_back() -> None:
    dropped = tc.Sequential(tc.Dropout(0.5, generator=0), tc.Tanh())
    layer, x, v = tc.GradientLayer(dropped), normal(4, 5), normal(4, 5, seed=1)
    output = layer.forward(x)
    product = layer.backward(v)
    np.testing.assert_array_equal(output == 0, product == 0)


def test_what_is_no_energy_is_refused() -> None:
    with pytest.raises(TypeError, match="`energy`"):
        tc.GradientLayer(tc.MSELoss())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`criterion`"):
        tc.Objective(tc.ReLU(), tc.ReLU())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`model`"):
        tc.Objective(tc.MSELoss(), tc.MSELoss())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`target`"):
        tc.Objective(tc.ReLU(), tc.MSELoss()).forward(np.zeros(3))
    with pytest.raises(TypeError, match="`step_size`"):
        tc.GradientStep(tc.ReLU(), "0.1")  # type: ignore[arg-type]
    step = tc.GradientStep(tc.Objective(tc.ReLU(), tc.MSELoss(), np.zeros(3)), 0.1)
    with pytest.raises(TypeError, match="must have the dtype"):
        step.forward(np.zeros(3))

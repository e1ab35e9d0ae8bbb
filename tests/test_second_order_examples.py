"""The examples that differentiate gradients: against PyTorch's double backward, and as a user runs them."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.compare import assert_close
from tests.test_examples import run
from tests.test_second_order import assert_second
from tinyconv.arrays import Array

EXAMPLES = Path(__file__).parent.parent / "examples"


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture
def restoration(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import unrolled_restoration

    yield unrolled_restoration
    sys.modules.pop("unrolled_restoration")


@pytest.fixture
def eigenvalues(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import hessian_eigenvalues

    yield hessian_eigenvalues
    sys.modules.pop("hessian_eigenvalues")


# Unrolled restoration


def restorer(restoration: ModuleType, steps: int) -> tc.Layer:
    """A Restorer whose steps are of unequal sizes."""
    model: tc.Layer = restoration.Restorer(steps, dtype=np.float64, generator=np.random.default_rng(1))
    for i, step in enumerate(model.children.values()):
        step.params["step_size"][...] = 0.05 + 0.02 * i
    return model


def pytorchs_restored(params: dict[str, Any], y: Any, steps: int) -> Any:
    """What the steps make of `y`, each gradient taken by PyTorch of the energy as it is written."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    conv2d = torch.nn.functional.conv2d

    def data(x: Any, i: int) -> Any:
        return ((conv2d(x, params[f"data{i}.energy.model.weight"], padding=2) - y) ** 2).sum()

    def prior(x: Any, i: int) -> Any:
        weight, bias = params[f"prior{i}.energy.0.weight"], params[f"prior{i}.energy.0.bias"]
        return torch.tanh(conv2d(x, weight, bias, padding=1)).sum()

    x = y.clone()  # else the first gradient would also be with respect to the target
    for i in range(steps):
        for name, energy in (("data", data), ("prior", prior)):
            (gradient,) = torch.autograd.grad(energy(x, i), x, create_graph=True)
            x = x - params[f"{name}{i}.step_size"] * gradient
    return x


@pytest.mark.parametrize("steps", [1, 5])
def test_a_restorers_gradients_are_pytorchs_double_backward(restoration: ModuleType, steps: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model, y, clean = restorer(restoration, steps), normal(4, 1, 9, 8), normal(4, 1, 9, 8, seed=1)
    criterion = tc.MSELoss()
    loss = criterion(model(y), clean)
    grads = {"y": model.backward(criterion.backward()), **model.grads}

    params = {name: torch.tensor(value, requires_grad=True) for name, value in model.params.items()}
    tensor = torch.tensor(y, requires_grad=True)
    restored = pytorchs_restored(params, tensor, steps)
    expected_loss = torch.nn.functional.mse_loss(restored, torch.tensor(clean))
    assert_second(np.asarray(loss), expected_loss, "loss")
    expected = torch.autograd.grad(expected_loss, [tensor, *params.values()])
    assert len(grads) == 1 + 5 * steps
    for (name, grad), second in zip(grads.items(), expected, strict=True):
        assert grad.any(), name
        assert_second(grad, second, name)


def test_a_restorers_gradients_agree_with_differences(restoration: ModuleType) -> None:
    assert tc.gradcheck(restorer(restoration, 2), normal(2, 1, 6, 5)).kinks == ()


def test_a_data_steps_formulas_are_what_the_step_computes(restoration: ModuleType) -> None:
    model = restorer(restoration, 1)
    step = model.children["data0"]
    x, y, g = (normal(3, 1, 9, 8, seed=seed) for seed in range(3))
    w, s = step.params["energy.model.weight"], step.params["step_size"]
    step.children["energy"].target = y

    def transposed(image: Array) -> Array:
        return F.conv2d_input(x.shape, w, image, padding=2)

    r, wg = F.conv2d(x, w, padding=2) - y, F.conv2d(g, w, padding=2)
    by_w = F.conv2d_weight(x, w.shape, wg, padding=2) + F.conv2d_weight(g, w.shape, r, padding=2)
    assert_close(step.forward(x), x - 2 * s * transposed(r))
    assert_close(step.backward(g), g - 2 * s * transposed(wg))
    assert_close(step.grads["energy.model.weight"], -2 * s * by_w)
    assert_close(step.grads["step_size"], np.asarray(-(g * 2 * transposed(r)).sum()))


def short_run(
    restoration: ModuleType, images: int, epochs: int, seed: int
) -> tuple[tc.Layer, list[float], list[float]]:
    """The model, its losses, and the PSNR of other digits blurred and restored, after a short training."""
    rng = np.random.default_rng(seed)
    mnist = tc.data.load_mnist(EXAMPLES / "data" / "mnist")
    clean = tc.data.normalize(mnist.train_images[:images], mean=0, std=1)
    test = tc.data.normalize(mnist.test_images[:100], mean=0, std=1)
    y, test_y = restoration.blurred(clean, rng), restoration.blurred(test, rng)
    model = restoration.Restorer(3, generator=rng)
    losses = restoration.train(model, y, clean, epochs, rng)
    found = [restoration.psnr(np.square(each - test).mean()) for each in (test_y, model.predict(test_y))]
    return model, losses, found


def test_a_short_training_lowers_the_loss_and_restores(restoration: ModuleType) -> None:
    model, losses, (before, after) = short_run(restoration, 320, 5, seed=0)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert after > before + 1
    sizes = [float(step.params["step_size"]) for step in model.children.values()]
    assert len({*sizes, 0.1, 0.05}) == len(sizes) + 2


def test_equal_seeds_restore_equally_and_others_do_not(restoration: ModuleType) -> None:
    first, same, other = (short_run(restoration, 64, 1, seed)[0].params for seed in (0, 0, 1))
    assert all((first[name] == same[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_unrolled_restoration_prints_what_is_gained_and_draws(
    restoration: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    options = "--steps 2 --epochs 2 --images 64 --seed 3 --out"
    picture = tmp_path / "digits.png"
    monkeypatch.setattr(sys, "argv", ["unrolled_restoration.py", *options.split(), str(picture)])
    restoration.main()
    printed = capsys.readouterr().out
    assert printed.startswith("Make each gradient step a layer: tc.GradientStep(energy, step_size)")
    assert printed.splitlines()[5] == ""
    assert len(re.findall(r"^epoch \d/2: loss 0\.\d{4}, [\d.]+ dB", printed, re.MULTILINE)) == 2
    assert re.findall(r"^(\w[\w ]*\w) +[\d.]+ dB$", printed, re.MULTILINE) == [
        "blurred",
        "untrained network",
        "restored",
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_numbers_that_are_not_positive_are_refused(
    restoration: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["unrolled_restoration.py", "--steps", "0"])
    with pytest.raises(SystemExit):
        restoration.main()
    assert "argument --steps: 0 is less than 1" in capsys.readouterr().err


# Hessian


def small() -> tuple[tc.Sequential, Array, Array]:
    """A network of 96 parameters, and a batch."""
    model = tc.Sequential(
        tc.Conv2d(1, 2, 3, dtype=np.float64, generator=0),
        tc.Tanh(),
        tc.Flatten(),
        tc.Linear(18, 4, dtype=np.float64, generator=1),
    )
    return model, normal(6, 1, 5, 5), np.arange(6) % 4


def test_eigenvalues_are_those_of_pytorchs_dense_hessian(eigenvalues: ModuleType) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    nn, (model, x, target) = torch.nn, small()
    theirs = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 4)).double()

    def loss(vector: Any) -> Any:
        params, start = {}, 0
        for name, param in theirs.named_parameters():
            params[name] = vector[start : start + param.numel()].reshape(param.shape)
            start += param.numel()
        output = torch.func.functional_call(theirs, params, (torch.tensor(x),))
        return nn.functional.cross_entropy(output, torch.tensor(target))

    point = torch.tensor(eigenvalues.flatten(model.params))
    dense = torch.autograd.functional.hessian(loss, point).numpy()
    operator = tc.hessian_operator(model, tc.CrossEntropyLoss(), x, target)
    assert_second(operator @ np.eye(96), torch.tensor(dense), "Hessian")
    expected, vectors = np.linalg.eigh(dense)
    values, found = eigenvalues.largest(operator, k=3)
    assert_second(values, torch.tensor(expected[:-4:-1].copy()), "eigenvalues")
    overlaps = np.abs(np.sum(found * vectors[:, :-4:-1], axis=0))
    np.testing.assert_allclose(overlaps, 1, rtol=1e-8)
    (gradient,) = torch.autograd.grad(loss(point.requires_grad_()), point)
    assert_second(eigenvalues.gradient(model, tc.CrossEntropyLoss(), x, target), gradient, "gradient")


def pytorchs_lenet(model: tc.Layer) -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    nn = torch.nn
    theirs = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    ).double()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in model.state_dict().items()})
    return theirs


def test_lenets_hessian_vector_products_are_pytorchs_double_backward(eigenvalues: ModuleType) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model, x, target = eigenvalues.trained(images=640)
    x, target = x[:32], target[:32]
    x_dot = normal(*x.shape, seed=1)
    params_dot = {name: normal(*param.shape, seed=i) for i, (name, param) in enumerate(model.params.items())}
    product = tc.hessian_vector_product(model, tc.CrossEntropyLoss(), x, target, x_dot, params_dot)

    theirs = pytorchs_lenet(model)
    tensors = {"x": torch.tensor(np.array(x), requires_grad=True), **dict(theirs.named_parameters())}
    loss = torch.nn.functional.cross_entropy(theirs(tensors["x"]), torch.tensor(target.astype(int)))
    grads = torch.autograd.grad(loss, list(tensors.values()), create_graph=True)
    dots = {"x": x_dot, **params_dot}
    moved = sum((grad * torch.tensor(dots[name])).sum() for name, grad in zip(tensors, grads, strict=True))
    expected = torch.autograd.grad(moved, list(tensors.values()))
    actual = {"x": product.x, **product.params}
    assert list(actual) == list(tensors)
    for (name, found), second in zip(actual.items(), expected, strict=True):
        assert found.any(), name
        assert_second(found, second, name)


def test_lenets_hessian_is_symmetric(eigenvalues: ModuleType) -> None:
    model = tc.models.lenet5(dtype=np.float64, generator=0)
    operator = tc.hessian_operator(model, tc.CrossEntropyLoss(), normal(16, 1, 28, 28), np.arange(16) % 10)
    u, v = (normal(operator.shape[0], seed=seed) for seed in (1, 2))
    left, right = u @ operator.matvec(v), v @ operator.matvec(u)
    assert abs(left - right) < 1e-10 * abs(left)


def test_hessian_eigenvalues_prints_what_bounds_the_learning_rate(
    eigenvalues: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(eigenvalues, "trained", lambda images: small())
    monkeypatch.setattr(sys, "argv", ["hessian_eigenvalues.py"])
    eigenvalues.main()
    *_, below, above = capsys.readouterr().out.splitlines()
    assert below.startswith("    0.122 with the learning rate")  # 0.9 to the power of 20
    assert above.startswith("    6.73 with the learning rate")  # 1.1 to the power of 20


@pytest.mark.slow
def test_the_examples_of_full_size() -> None:
    restored = run(str(EXAMPLES / "unrolled_restoration.py"))
    before, _, after = map(float, re.findall(r"([\d.]+) dB$", restored, re.MULTILINE)[-3:])
    assert after > before + 6
    printed = run(str(EXAMPLES / "hessian_eigenvalues.py"))
    found = re.search(r"largest eigenvalues of its Hessian: ([\d.]+), ([\d.]+), ([\d.]+)\n", printed)
    assert found is not None
    first, second, third = map(float, found.groups())
    assert first >= second >= third > 0

"""Models to PyTorch and back, and weights in safetensors files that both read."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests import drawn
from tests.compare import assert_close
from tests.hypothesis_or_skip import given, settings, st
from tests.test_layer_contract import CASES, Case
from tinyconv.arrays import Array
from tinyconv.models import lenet5, mnist_cnn

torch = pytest.importorskip("torch", reason="PyTorch is what is converted to and from")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="safetensors.torch needs PyTorch")
nn = torch.nn

CONVERTIBLE = {
    name: case
    for name, case in CASES.items()
    if case.torch_name or name in ("Dropout", "Dropout2d", "Sequential")
}
convertible = pytest.mark.parametrize("case", CONVERTIBLE.values(), ids=list(CONVERTIBLE))
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small batches are slower on more, and much slower where other processes run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def outputs(module: Any, x: Array) -> Array:
    """Of a module in the mode that it is in."""
    with torch.no_grad():
        return np.asarray(module(torch.tensor(x)).numpy())


def changed(layer: tc.Layer, shape: tuple[int, ...], dtype: Any) -> tc.Layer:
    """The layer in `dtype`, with other parameters and running statistics than at its beginning."""
    layer.to(dtype)
    for param in layer.params.values():
        param += normal(*param.shape, seed=1).astype(dtype)
    layer.forward(normal(*shape, seed=2).astype(dtype))
    return layer


def assert_same_state(a: tc.Layer, b: tc.Layer) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        np.testing.assert_array_equal(value, theirs[name], name)


@convertible
@dtypes
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_layer_in_pytorch_and_back_is_the_same(case: Case, dtype: Any, training: bool) -> None:
    layer = changed(case.make(), case.shape, dtype).train(training)
    module = tc.to_torch(layer)
    back = tc.from_torch(module)
    assert type(back) is type(layer)
    assert (module.training, back.training) == (training, training)
    assert repr(tc.to_torch(back)) == repr(module)  # ours may differ: PyTorch makes a stride of 2 (2, 2)
    assert_same_state(back, layer)
    if isinstance(layer, tc.Dropout) and training:
        return  # other generators, other masks
    x = normal(*case.shape).astype(dtype)
    expected = outputs(module, x)
    for ours in (layer, back):
        assert_close(ours.forward(x), expected)
        for name, buffer in module.named_buffers():
            assert_close(ours.buffers[name], buffer.numpy(), name)


@pytest.mark.parametrize("name", drawn.LAYERS)
@given(data=st.data())
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_a_module_with_drawn_arguments_becomes_the_same_layer(name: str, data: st.DataObject) -> None:
    config = data.draw(drawn.layers(name))
    module = getattr(nn, name)(*config.args, **config.options, **dtype_option(name)).eval()
    layer = tc.from_torch(module)
    assert repr(tc.to_torch(layer)) == repr(module)
    try:
        expected = outputs(module, normal(*config.shape))
    except (RuntimeError, ValueError):  # arguments that do not fit the drawn shape
        return
    assert_close(layer.forward(normal(*config.shape)), expected)


def dtype_option(name: str) -> dict[str, Any]:
    state = getattr(tc, name)(*CASES[name].torch_args, **CASES[name].torch_options).state_dict()
    return {"dtype": torch.float64} if state else {}


CONTAINERS = (tc.Residual, tc.Concat, tc.Gate, tc.Shared)  # see test_branches.py


def test_every_layer_can_be_converted_or_is_known_not_to_be() -> None:
    public = {getattr(tc, name) for name in vars(tc)["__all__"]}
    layers = {kind for kind in public if isinstance(kind, type) and issubclass(kind, tc.Layer)}
    without = {tc.Layer, *CONTAINERS, tc.GradientLayer, tc.GradientStep, tc.Objective}
    converted = {type(case.make()) for case in CONVERTIBLE.values()}
    assert layers - without == converted | {tc.MaxUnpool2d}


def test_max_unpool2d_which_takes_two_inputs() -> None:
    module = nn.MaxUnpool2d(3, 2, (1, 0))
    assert repr(tc.to_torch(tc.from_torch(module))) == repr(module)


def test_nested_networks_keep_their_names_and_each_layers_mode() -> None:
    model = tc.Sequential(
        {
            "features": tc.Sequential(tc.Conv2d(1, 2, 3), tc.BatchNorm2d(2).eval(), tc.ReLU()),
            "end": tc.Flatten(),
        }
    )
    module = tc.to_torch(model)
    assert list(module.state_dict()) == list(model.state_dict())
    for ours, theirs in zip(model.modules(), module.modules(), strict=True):
        assert (type(ours).__name__, ours.training) == (type(theirs).__name__, theirs.training)
    back = tc.from_torch(module)
    assert [layer.training for layer in back.modules()] == [layer.training for layer in model.modules()]
    assert_same_state(back, model)


@pytest.mark.parametrize("make", [lenet5, mnist_cnn])
def test_the_networks_in_pytorch_give_the_same(make: Callable[..., tc.Sequential]) -> None:
    model = make(generator=0)
    x = normal(4, 1, 28, 28).astype(np.float32)
    module = tc.to_torch(model).eval()
    assert_close(model.predict(x), outputs(module, x))
    assert_close(tc.from_torch(module).predict(x), outputs(module, x))


def test_the_two_share_no_memory() -> None:
    layer = tc.Linear(2, 3, generator=0)
    module: Any = tc.to_torch(layer)
    back = tc.from_torch(module)
    before = layer.state_dict()
    with torch.no_grad():
        module.weight += 1
    for kept in (layer, back):
        np.testing.assert_array_equal(kept.params["weight"], before["weight"])


def test_parameters_in_pytorch_can_be_trained_and_its_generator_is_not_drawn_from() -> None:
    before = torch.get_rng_state()
    module = tc.to_torch(tc.Conv2d(1, 2, 3))
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), before)


# Trained in one, finished in the other


def network() -> tc.Sequential:
    rng = np.random.default_rng(0)
    options: dict[str, Any] = {"dtype": np.float64, "generator": rng}
    return tc.Sequential(
        tc.Conv2d(1, 4, 3, padding=1, **options),
        tc.BatchNorm2d(4, dtype=np.float64),
        tc.GELU(),
        tc.MaxPool2d(2),
        tc.Flatten(),
        tc.Linear(64, 5, **options),
    )


def batch(step: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(step)
    return rng.standard_normal((16, 1, 8, 8)), rng.integers(0, 5, 16)


def train_here(model: tc.Layer, optimizer: tc.optim.SGD, steps: range) -> list[float]:
    criterion, losses = tc.CrossEntropyLoss(), []
    for images, labels in map(batch, steps):
        losses.append(float(criterion(model(images), labels)))
        optimizer.zero_grad()
        model.backward(criterion.backward())
        optimizer.step()
    return losses


def train_there(module: Any, optimizer: Any, steps: range) -> list[float]:
    criterion, losses = nn.CrossEntropyLoss(), []
    for images, labels in map(batch, steps):
        loss = criterion(module(torch.tensor(images)), torch.tensor(labels))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def sgd_here(model: tc.Layer) -> tc.optim.SGD:
    return tc.optim.SGD(model, lr=0.05, momentum=0.9)


def sgd_there(module: Any) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)


carried = pytest.mark.parametrize("with_momentum", [True, False], ids=["momentum carried", "optimiser anew"])


@carried
def test_trained_here_and_finished_in_pytorch(with_momentum: bool) -> None:
    model = network()
    optimizer = sgd_here(model)
    train_here(model, optimizer, range(20))
    module = tc.to_torch(model)
    there = sgd_there(module)
    if with_momentum:
        for name, parameter in module.named_parameters():
            momentum = torch.tensor(optimizer.state[name]["momentum_buffer"])
            there.state[parameter]["momentum_buffer"] = momentum
    else:
        optimizer = sgd_here(model)
    losses = train_there(module, there, range(20, 70))
    np.testing.assert_allclose(losses, train_here(model, optimizer, range(20, 70)), rtol=1e-9)


@carried
def test_trained_in_pytorch_and_finished_here(with_momentum: bool) -> None:
    module = tc.to_torch(network())
    optimizer = sgd_there(module)
    train_there(module, optimizer, range(20))
    model = tc.from_torch(module)
    here = sgd_here(model)
    if with_momentum:
        for name, parameter in module.named_parameters():
            momentum = optimizer.state[parameter]["momentum_buffer"].numpy().copy()
            here.state[name]["momentum_buffer"] = momentum
    else:
        optimizer = sgd_there(module)
    losses = train_here(model, here, range(20, 70))
    np.testing.assert_allclose(losses, train_there(module, optimizer, range(20, 70)), rtol=1e-9)


# Weights in safetensors files


def test_pytorch_reads_our_weights(tmp_path: Path) -> None:
    model = network()
    train_here(model, sgd_here(model), range(3))
    tc.save_weights(model, tmp_path / "weights.safetensors")
    module: Any = tc.to_torch(network()).eval()
    module.load_state_dict(safetensors_torch.load_file(tmp_path / "weights.safetensors"))
    assert module[1].num_batches_tracked.item() == 3
    assert_close(model.predict(batch(0)[0]), outputs(module, batch(0)[0]))


def test_we_read_pytorchs_weights(tmp_path: Path) -> None:
    module = tc.to_torch(network())
    train_there(module, sgd_there(module), range(3))
    safetensors_torch.save_file(module.state_dict(), tmp_path / "weights.safetensors")
    model = network()
    tc.load_weights(model, tmp_path / "weights.safetensors")
    assert model.buffers["1.num_batches_tracked"] == 3
    assert_close(model.predict(batch(0)[0]), outputs(module.eval(), batch(0)[0]))


# What is refused


class Doubled(nn.Linear):  # type: ignore[misc, name-defined]
    pass


class Mine(tc.ReLU):
    pass


def with_hook(module: Any) -> Any:
    module.register_forward_hook(lambda *given: None)
    return module


LAYERS_REFUSED: dict[str, Callable[[], tc.Layer]] = {
    r"layer '1\.0' \(Shared\): the layer that is shared must come before it": lambda: tc.Shared(tc.ReLU()),
    r"layer '1\.0' \(Mine\): PyTorch does not have a module": Mine,
    r"layer '1\.0' \(GradientLayer\): PyTorch does not have a module": lambda: tc.GradientLayer(tc.ReLU()),
}
MODULES_REFUSED: dict[str, Callable[[], Any]] = {
    r"layer '1\.0' \(Tanhshrink\): tinyconv does not have a layer of this kind": nn.Tanhshrink,
    r"layer '1\.0' \(Doubled\): tinyconv does not have a layer of this kind": lambda: Doubled(2, 3),
    r"layer '1\.0' \(LazyLinear\): tinyconv does not have a layer": lambda: nn.LazyLinear(3),
    r"layer '1\.0' \(ParametrizedLinear\): tinyconv does not have a layer": lambda: (
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    ),
    r"layer '1\.0' \(Linear\): a module with hooks": lambda: with_hook(nn.Linear(2, 3)),
    r"layer '1\.0' \(Sequential\): a module with hooks": lambda: with_hook(nn.Sequential()),
    r"layer '1\.0' \(Linear\): .*must be float32 or float64, all the same, not \['bfloat16'\]": lambda: (
        nn.Linear(2, 3, dtype=torch.bfloat16)
    ),
    r"layer '1\.0' \(Upsample\): `mode` \(='bicubic'\)": lambda: nn.Upsample(None, 2, "bicubic"),
    r"layer '1\.0' \(Upsample\): tinyconv does not have `recompute_scale_factor` \(=True\)": lambda: (
        nn.Upsample(scale_factor=1.5, recompute_scale_factor=True)
    ),
    r"layer '1\.0' \(Softmax\): `dim` \(=None\) must be an integer": nn.Softmax,
}


@pytest.mark.parametrize("message", LAYERS_REFUSED)
def test_a_layer_without_a_counterpart_is_refused_with_its_place(message: str) -> None:
    model = tc.Sequential(tc.ReLU(), tc.Sequential(LAYERS_REFUSED[message]()))
    with pytest.raises(TypeError, match=f"^{message}"):
        tc.to_torch(model)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("message", MODULES_REFUSED)
def test_a_module_without_a_counterpart_is_refused_with_its_place(message: str) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(MODULES_REFUSED[message]()))
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        tc.from_torch(model)


def test_a_parameter_of_two_modules_is_refused_and_a_module_in_two_places_is_shared() -> None:
    linear, relu, other = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)
    other.weight = linear.weight
    with pytest.raises(ValueError, match=r"one tensor in two places, '0\.weight' and '2\.weight'"):
        tc.from_torch(nn.Sequential(linear, relu, other))
    shared = tc.from_torch(nn.Sequential(linear, relu, linear))
    assert [type(layer) for layer in shared.children.values()] == [tc.Linear, tc.ReLU, tc.Shared]
    assert list(shared.params) == ["0.weight", "0.bias"]
    assert len(tc.from_torch(nn.Sequential(relu, nn.Linear(2, 2), relu)).children) == 3


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match=r"`layer` \(=3\) must be a Layer"):
        tc.to_torch(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`module` \(=ReLU\(\)\) must be a Module"):
        tc.from_torch(tc.ReLU())  # type: ignore[arg-type]


def test_without_pytorch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"^from_torch and to_torch need PyTorch: pip install torch$"):
        tc.to_torch(tc.ReLU())


def test_frozen_layers_stay_frozen() -> None:
    model = tc.Sequential(tc.Linear(3, 2), tc.Linear(2, 1))
    model[0].requires_grad_(False)
    module = tc.to_torch(model)
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False, True, True]
    assert list(tc.from_torch(module).grads) == ["1.weight", "1.bias"]
    next(iter(module.parameters())).requires_grad_(True)
    with pytest.raises(ValueError, match=r"layer '0' .*freezes all parameters of a layer or none"):
        tc.from_torch(module)

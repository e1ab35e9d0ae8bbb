"""Concat, Gate, Residual, Shared and Identity: against PyTorch, in the second order, with several inputs."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close, compare_layer
from tinyconv.arrays import Array

f8 = np.float64


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def conv(c: int, o: int, kernel: int = 3, seed: int = 0) -> tc.Conv2d:
    return tc.Conv2d(c, o, kernel, padding=kernel // 2, dtype=f8, generator=seed)


def squeeze(channels: int) -> tc.Sequential:
    return tc.Sequential(
        tc.AdaptiveAvgPool2d(1), conv(channels, 2, 1), tc.ReLU(), conv(2, channels, 1), tc.Sigmoid()
    )


def tied() -> tc.Sequential:
    layer = conv(4, 4)
    return tc.Sequential(layer, tc.Tanh(), tc.Shared(layer), tc.Concat(tc.Identity(), tc.Shared(layer)))


def tied_block() -> tc.Sequential:
    block = tc.Sequential(conv(4, 4), tc.BatchNorm2d(4, dtype=f8), tc.Tanh())
    return tc.Sequential(block, tc.Shared(block), conv(4, 2, 1))


NETWORKS: dict[str, Callable[[], tc.Layer]] = {
    "Concat": lambda: tc.Concat(tc.Identity(), conv(4, 3), tc.Sequential(conv(4, 2, seed=1), tc.Tanh())),
    "Concat of rows": lambda: tc.Concat(conv(4, 3), conv(4, 3, seed=1), dim=-2),
    "Gate": lambda: tc.Gate(squeeze(4)),
    "Gate with a body": lambda: tc.Gate(tc.Sequential(conv(4, 3), tc.Sigmoid()), conv(4, 3, seed=2)),
    "Residual": lambda: tc.Residual(tc.Sequential(conv(4, 3), tc.Tanh()), conv(4, 3, 1)),
    "Residual of the input": lambda: tc.Residual(tc.Gate(squeeze(4), conv(4, 4))),
    "Identity": lambda: tc.Sequential(tc.Identity(5, name="ignored"), conv(4, 2)),
    "Shared": tied,
    "Shared block": tied_block,
}
networks = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


@networks
@pytest.mark.parametrize("training", [True, False])
def test_it_is_what_it_is_in_pytorch_and_comes_back_from_there(
    make: Callable[[], tc.Layer], training: bool
) -> None:
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = make().train(training)
    module = tc.to_torch(layer)
    if "Shared" not in repr(layer):  # whose names PyTorch has twice
        compare_layer(layer, module, normal(3, 4, 5, 6))
    back = tc.from_torch(module)
    assert repr(back) == repr(layer)
    x = normal(3, 4, 5, 6, seed=1)
    assert_close(back.forward(x), layer.forward(x))


@pytest.mark.parametrize("make", [tied, tied_block])
def test_a_shared_layer_has_pytorchs_outputs_and_gradients(make: Callable[[], tc.Layer]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = make(), normal(3, 4, 5, 6)
    module, tensor = tc.to_torch(layer), torch.tensor(x, requires_grad=True)
    expected = module(tensor)
    y = layer.forward(x)
    g = normal(*y.shape, seed=2)
    expected.backward(torch.tensor(g))
    assert_close(y, expected.detach().numpy())
    assert tensor.grad is not None
    assert_close(layer.backward(g), tensor.grad.numpy())
    named: dict[str, Any] = dict(module.named_parameters())
    assert list(named) == list(layer.params)
    for name, grad in layer.grads.items():
        assert_close(grad, named[name].grad.numpy(), name, scale=10.0)
    for name, buffer in layer.buffers.items():
        assert_close(buffer, dict(module.named_buffers())[name].numpy(), name)


@networks
def test_first_and_second_order_agree_with_finite_differences(make: Callable[[], tc.Layer]) -> None:
    x = normal(2, 4, 4, 3)
    assert tc.gradcheck(make(), x)
    assert tc.gradcheck(make(), x, second_order=True)


@pytest.mark.parametrize("make", [tied, tied_block])
def test_hessian_vector_products_go_through_shared_layers(make: Callable[[], tc.Layer]) -> None:
    x, target, step = normal(2, 4, 4, 3), normal(*make().output_shape((2, 4, 4, 3)), seed=1), 1e-6
    model, grads = make(), []
    directions = {name: normal(*param.shape, seed=3) for name, param in model.params.items()}
    product = tc.hessian_vector_product(model, tc.MSELoss(), x, target, params_dot=directions)
    for sign in (1, -1):
        moved, criterion = make(), tc.MSELoss()
        for name, param in moved.params.items():
            param += sign * step * directions[name]
        criterion.forward(moved.forward(x), target)
        moved.backward(criterion.backward())
        grads.append(moved.grads)
    for name, found in product.params.items():
        np.testing.assert_allclose(
            found, (grads[0][name] - grads[1][name]) / (2 * step), rtol=1e-5, atol=1e-8
        )


def siamese() -> tc.Sequential:
    tower = tc.Sequential(tc.Linear(4, 3, dtype=f8, generator=0), tc.Tanh())
    return tc.Sequential(tc.Concat(tower, tc.Shared(tower)), tc.Linear(6, 2, dtype=f8, generator=1))


def test_two_inputs_have_two_gradients_and_two_tangents() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model, inputs, g = siamese(), (normal(5, 4), normal(5, 4, seed=1)), normal(5, 2, seed=2)
    module, tensors = tc.to_torch(model), [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = module(tuple(tensors))
    expected.backward(torch.tensor(g))
    assert_close(model.forward(inputs), expected.detach().numpy())  # type: ignore[arg-type]
    tangents = normal(5, 4, seed=3), normal(5, 4, seed=4)
    y_dot = model.jvp(tangents)  # type: ignore[arg-type]
    step = 1e-6
    ahead, behind = (
        siamese().forward(tuple(x + s * step * t for x, t in zip(inputs, tangents, strict=True)))  # type: ignore[arg-type]
        for s in (1, -1)
    )
    np.testing.assert_allclose(y_dot, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-9)
    grads = model.backward(g)
    assert isinstance(grads, tuple)
    for grad, tensor in zip(grads, tensors, strict=True):
        assert_close(grad, tensor.grad.numpy())
    weight: Any = dict(module.named_parameters())["0.0.0.weight"]
    assert_close(model.grads["0.0.0.weight"], weight.grad.numpy())
    assert len(model.backward_jvp(np.zeros_like(g))) == 2
    with pytest.raises(ValueError, match="one input or one for each of 2, got 3"):
        model.forward((*inputs, inputs[0]))


@networks
def test_training_five_steps_is_pytorchs(make: Callable[[], tc.Layer]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model, x = make(), normal(4, 4, 5, 6)
    if not model.params:
        return
    module, target = tc.to_torch(model), normal(*model.output_shape(x.shape), seed=1)
    ours, theirs = (
        tc.optim.SGD(model, 0.1, momentum=0.9),
        torch.optim.SGD(module.parameters(), 0.1, momentum=0.9),
    )
    trainer = tc.Trainer(model, tc.MSELoss(), ours, progress=False)
    trainer.fit([(x, target)], 5)
    for _ in range(5):
        theirs.zero_grad()
        torch.nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(target)).backward()
        theirs.step()
    for name, param in module.named_parameters():
        assert_close(model.params[name], param.detach().numpy(), name, scale=1.0)


@networks
def test_copies_pickles_and_predictions_agree(make: Callable[[], tc.Layer]) -> None:
    layer, x = make().eval(), normal(3, 4, 5, 6)
    expected = layer.forward(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(other.forward(x), expected)
        for param in other.params.values():
            param += 1
        assert not np.array_equal(other.forward(x), expected) or not layer.params
    np.testing.assert_array_equal(layer.predict(x), expected)


@networks
def test_an_onnx_file_computes_the_same(make: Callable[[], tc.Layer], tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx writes the file")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the file")
    layer, x = make().to(np.float32).eval(), normal(3, 4, 5, 6).astype(np.float32)
    tc.export_onnx(layer, (1, 4, 5, 6), tmp_path / "model.onnx")
    (found,) = runtime.InferenceSession(tmp_path / "model.onnx").run(None, {"input": x})
    np.testing.assert_allclose(found, layer.predict(x), rtol=1e-4, atol=1e-5)


def test_outputs_of_images_are_in_the_memory_format() -> None:
    y = tc.Concat(conv(4, 3), tc.Identity()).forward(normal(3, 4, 5, 6))
    assert tc.arrays.as_stored(y).flags.c_contiguous


REFUSED: dict[str, Callable[[], Any]] = {
    r"`layers` must have at least one branch": tc.Concat,
    r"`layers\[1\]` \(='x'\) must be a Layer": lambda: tc.Concat(tc.ReLU(), "x"),  # type: ignore[arg-type]
    r"`gate` \(=3\) must be a Layer": lambda: tc.Gate(3),  # type: ignore[arg-type]
    r"`layer` \(=3\) must be a Layer": lambda: tc.Shared(3),  # type: ignore[arg-type]
    r"equal shapes but for dimension 1, got \(2, 4, 5, 5\), \(2, 4, 3, 3\)": lambda: tc.Concat(
        tc.Identity(), tc.MaxPool2d(3, 1)
    )(normal(2, 4, 5, 5)),
    r"`dim` \(=3\) must be a dimension of the outputs": lambda: tc.Concat(tc.Identity(), dim=3)(normal(2, 4)),
    r"the output of `gate` \(of shape \(2, 3, 1, 1\)\) must have that of `body`": lambda: tc.Gate(
        tc.Sequential(tc.AdaptiveAvgPool2d(1), conv(4, 3, 1))
    )(normal(2, 4, 5, 5)),
    r"layer '1' \(Linear\): `input`": lambda: tc.Concat(tc.Identity(), tc.Linear(3, 4, dtype=f8))(
        normal(2, 4)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        REFUSED[message]()


def test_a_shared_layer_outside_the_model_is_refused(tmp_path: Path) -> None:
    model = tc.Sequential(tc.Linear(4, 4), tc.Shared(tc.Linear(4, 4)))
    with pytest.raises(ValueError, match="layer '1' shares a Linear that is not in the model"):
        tc.save_weights(model, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="layer '1' shares a Linear that is not in the model"):
        tc.Trainer(model, tc.MSELoss(), tc.optim.SGD(model)).fit(
            (np.zeros((2, 4), "f"), np.zeros((2, 4), "f"))
        )
    layer = tc.Linear(4, 4, dtype=f8)
    early = tc.Sequential(tc.Shared(layer), layer)
    early.forward(normal(2, 4))
    with pytest.raises(RuntimeError, match="forward and jvp must reach a layer before those that share it"):
        early.jvp(normal(2, 4))


def test_a_frozen_layer_that_is_shared_stays_as_it_is() -> None:
    model = tied()
    model[0].requires_grad_(False)
    model.forward(normal(2, 4, 5, 5))
    model.backward(normal(2, 8, 5, 5))
    assert not model.grads

"""Layers by attribute: what is assigned is trained, saved, moved, printed; what would be lost is refused."""

import copy
import inspect
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.user_layers import Block, Scale
from tinyconv.arrays import Array
from tinyconv.signature import arguments, constructor


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# Children and arrays


def test_a_child_by_attribute_is_trained_saved_moved_and_printed(tmp_path: Path) -> None:
    block = Block(2)
    names = ["conv.weight", "scale.factor", "after.0.weight", "after.0.bias"]
    assert list(block.params) == list(block.grads) == names
    assert list(block.buffers) == [f"after.0.{name}" for name in ("running_mean", "running_var")] + [
        "after.0.num_batches_tracked"
    ]
    assert not any(layer.training for layer in block.eval().modules())
    tc.save_weights(block, tmp_path / "block.safetensors")
    other = Block(2)
    other.scale.factor = np.float32(7.0)
    tc.load_weights(other, tmp_path / "block.safetensors")
    assert float(other.scale.factor) == 0.5
    assert {p.dtype for p in block.to(np.float64).params.values()} == {np.dtype(np.float64)}
    assert [line.strip() for line in repr(Block(2)).splitlines()][:3] == [
        "Block(",
        "2",
        "(conv): Conv2d(2, 2, (3, 3), padding=(1, 1), bias=False)",
    ]


def test_a_layer_with_children_by_attribute_learns() -> None:
    x = normal(16, 2, 5, 5)
    target = normal(16, 2, 5, 5, seed=1)
    block = Block(2)
    before = block.state_dict()
    trainer = tc.Trainer(block, tc.MSELoss(), tc.optim.Adam(block, lr=0.01), progress=False)
    losses = trainer.fit((x, target), epochs=20, batch_size=8, generator=0).epochs
    assert losses[-1].train_loss < losses[0].train_loss
    assert all(not np.array_equal(p, before[name]) for name, p in block.params.items())


def test_attributes_are_the_arrays_and_the_layers_themselves() -> None:
    block = Block(3)
    assert block.conv.weight is block.params["conv.weight"]
    assert block.children["after"] is block.after
    assert block.after[0].running_mean is block.buffers["after.0.running_mean"]
    assert {"conv", "scale", "after"} <= set(dir(block))
    assert dict(block.named_parameters()).keys() == block.params.keys()
    assert [p.shape for p in block.parameters()] == [p.shape for p in block.params.values()]
    names = [name for name, _ in block.named_modules()]
    assert names == ["", "conv", "scale", "after", "after.0", "after.1"]
    assert [layer for _, layer in block.named_modules()] == list(block.modules())


def test_an_array_assigned_to_a_parameter_is_copied() -> None:
    layer = tc.Linear(3, 2)
    weight, values = layer.weight, normal(2, 3)
    layer.weight = values
    assert layer.weight is weight
    np.testing.assert_array_equal(layer.weight, values)
    values[...] = 0
    assert layer.weight.any()
    layer.weight *= 2
    assert layer.weight is weight
    layer.params["bias"] = [1.0, 2.0]  # type: ignore[assignment]
    np.testing.assert_array_equal(layer.bias, [1, 2])
    with pytest.raises(ValueError, match=r"`weight` \(of shape \(3,\)\) must have the shape \(2, 3\)"):
        layer.weight = np.ones(3)
    with pytest.raises(TypeError, match="cannot be cast"):
        layer.weight = np.ones((2, 3), complex)


def test_a_parameter_assigned_anew_replaces_array_and_gradient() -> None:
    layer = tc.Linear(3, 2)
    layer.grads["weight"] += 1
    layer.weight = tc.Parameter(normal(4, 3, dtype=np.float64))
    assert layer.weight.shape == layer.grads["weight"].shape == (4, 3)
    assert not layer.grads["weight"].any()
    assert list(layer.params) == ["weight", "bias"]
    layer.bias = None
    assert list(layer.params) == list(layer.grads) == ["weight"]
    assert layer.bias is None
    assert layer(normal(2, 3, dtype=np.float64)).shape == (2, 4)
    del layer.weight
    assert not layer.params
    with pytest.raises(AttributeError, match="Linear does not have the attribute 'weight'"):
        _ = layer.weight


def test_a_parameter_is_a_copy_in_c_order() -> None:
    layer, values = tc.Layer(), np.asfortranarray(normal(3, 4))
    layer.weight = tc.Parameter(values)
    values[...] = 0
    assert layer.weight.any()
    assert layer.weight.flags.c_contiguous
    with pytest.raises(TypeError, match="float32 or float64"):
        layer.weight = tc.Parameter(np.arange(3))
    layer.count = tc.Buffer(np.arange(3))
    assert layer.count.dtype == layer.state_dict()["count"].dtype == np.arange(3).dtype


def test_a_child_that_is_replaced_keeps_its_place() -> None:
    block = Block(2)
    block.conv = tc.Conv2d(2, 2, 1, generator=5)
    assert list(block.children) == ["conv", "scale", "after"]
    x = normal(3, 2, 4, 4)
    y = block(x)
    block.backward(y)
    assert block.grads["conv.weight"].shape == (2, 2, 1, 1)
    assert block.grads["conv.weight"].any()
    with pytest.raises(TypeError, match="`conv` is a layer, which only a Layer or None can replace"):
        block.conv = 3  # type: ignore[assignment]


def test_before_super_init_it_is_an_error_that_says_so() -> None:
    class Early(tc.Layer):
        def __init__(self, value: Any) -> None:
            self.inner = value
            super().__init__()

    class Never(tc.Layer):
        def __init__(self) -> None:
            self.width = 3

    for value in (tc.ReLU(), tc.Parameter(np.ones(2)), tc.Buffer(np.ones(2))):
        with pytest.raises(
            RuntimeError, match=r"call super\(\).__init__\(\) in Early.__init__ before .*`inner`"
        ):
            Early(value)
    with pytest.raises(AttributeError, match=r"must call super\(\).__init__\(\)"):
        _ = Never().params


@pytest.mark.parametrize("hold", [list, tuple, lambda layers: dict(enumerate(layers))])
def test_layers_in_a_list_are_refused(hold: Any) -> None:
    layer = tc.Layer()
    with pytest.raises(TypeError, match=r"`blocks` .* would not be trained or saved: use a Sequential"):
        layer.blocks = hold([tc.ReLU(), tc.Linear(2, 2)])
    layer.first = tc.Linear(2, 2)
    layer.blocks = hold([layer.first])  # which is registered


@pytest.mark.parametrize(
    "use", [tc.optim.SGD, tc.Layer.state_dict, lambda layer: tc.gradcheck(layer, normal(2, 2))]
)
def test_layers_added_to_a_list_later_are_refused_where_they_would_be_lost(use: Any) -> None:
    class Chain(tc.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.first = tc.Linear(2, 2)
            self._blocks: list[tc.Layer] = []
            self._blocks.append(tc.Linear(2, 2))

    with pytest.raises(TypeError, match=r"`_blocks` .* would not be trained or saved"):
        use(Chain())


def test_one_layer_in_two_places_and_circles_are_refused() -> None:
    block, linear = Block(2), tc.Linear(2, 2)
    with pytest.raises(ValueError, match="is here already"):
        block.again = block.conv
    with pytest.raises(ValueError, match="is here already"):
        block.again = tc.Sequential(tc.ReLU(), block.scale)
    with pytest.raises(ValueError, match="is here already"):
        block.self = block
    with pytest.raises(ValueError, match="is here already"):
        block.scale.outer = block
    block.after.append(tc.Sequential(linear))
    block.scale.inner = linear  # which `scale` alone cannot see
    with pytest.raises(ValueError, match=r"one layer object is in two places, 'scale.inner' and 'after.2.0'"):
        tc.optim.SGD(block)


@pytest.mark.parametrize("name", ["params", "forward", "training", "children"])
def test_names_that_the_class_uses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` cannot be the name"):
        setattr(tc.Layer(), name, tc.ReLU())


def test_the_dicts_of_arrays_refuse_what_would_be_lost() -> None:
    block = Block(2)
    block.params["scale.factor"] = np.float32(3)  # type: ignore[assignment]
    assert float(block.scale.factor) == 3
    block.params.update({"scale.factor": np.asarray(4.0)})
    assert float(block.scale.factor) == 4
    block.buffers["after.0.running_mean"] = np.array([1.0, 2.0])
    np.testing.assert_array_equal(block.after[0].running_mean, [1, 2])
    with pytest.raises(KeyError, match="'more' is not the name of an array here"):
        block.params["more"] = np.ones(1)
    with pytest.raises(ValueError, match="must have the shape"):
        block.params["conv.weight"] = np.ones(3)
    for change in (
        partial(block.params.pop, "conv.weight"),
        block.params.clear,
        partial(block.grads.setdefault, "more", np.ones(1)),
        partial(block.params.__delitem__, "conv.weight"),
    ):
        with pytest.raises(TypeError, match="by assigning to the attributes of a layer"):
            change()
    with pytest.raises(TypeError, match="does not support item assignment"):
        block.children["conv"] = tc.ReLU()  # type: ignore[index]


# Constructor arguments


LAYERS: dict[str, tuple[tc.Layer, dict[str, Any]]] = {
    "Conv1d": (tc.Conv1d(4, 6, 3, 2, "valid", groups=2), {"kernel_size": (3,), "stride": (2,), "groups": 2}),
    "Conv2d": (
        tc.Conv2d(1, 6, 5, padding=(1, 2)),
        {"kernel_size": (5, 5), "padding": (1, 2), "stride": (1, 1)},
    ),
    "ConvTranspose2d": (tc.ConvTranspose2d(2, 3, 3, 2), {"output_padding": (0, 0), "stride": (2, 2)}),
    "Linear": (tc.Linear(3, 2, bias=False), {"in_features": 3, "out_features": 2, "bias": None}),
    "MaxPool2d": (tc.MaxPool2d(2), {"kernel_size": (2, 2), "stride": (2, 2), "ceil_mode": False}),
    "MaxUnpool2d": (tc.MaxUnpool2d(2, 1), {"kernel_size": (2, 2), "stride": (1, 1), "padding": (0, 0)}),
    "AvgPool2d": (tc.AvgPool2d(3, ceil_mode=True), {"ceil_mode": True, "divisor_override": None}),
    "AdaptiveAvgPool2d": (tc.AdaptiveAvgPool2d((None, 2)), {"output_size": (None, 2)}),
    "BatchNorm1d": (tc.BatchNorm1d(4, affine=False), {"affine": False, "weight": None, "momentum": 0.1}),
    "BatchNorm2d": (tc.BatchNorm2d(4), {"num_features": 4, "track_running_stats": True}),
    "LayerNorm": (tc.LayerNorm(4), {"normalized_shape": (4,), "elementwise_affine": True}),
    "GroupNorm": (tc.GroupNorm(2, 4), {"num_groups": 2, "num_channels": 4, "affine": True}),
    "InstanceNorm2d": (
        tc.InstanceNorm2d(4),
        {"affine": False, "track_running_stats": False, "momentum": 0.1},
    ),
    "PixelShuffle": (tc.PixelShuffle(2), {"upscale_factor": 2}),
    "Hardtanh": (tc.Hardtanh(-2, 3), {"min_val": -2.0, "max_val": 3.0}),
    "PReLU": (tc.PReLU(3, 1), {"num_parameters": 3, "init": 1.0}),
    "ReLU6": (tc.ReLU6(True), {"inplace": True}),
    "ReLU": (tc.ReLU(), {"inplace": False}),
    "LeakyReLU": (tc.LeakyReLU(), {"negative_slope": 0.01}),
    "ELU": (tc.ELU(2), {"alpha": 2.0}),
    "GELU": (tc.GELU("tanh"), {"approximate": "tanh"}),
    "Softplus": (tc.Softplus(), {"beta": 1.0, "threshold": 20.0}),
    "Softmax": (tc.Softmax(-1), {"dim": -1}),
    "Dropout": (tc.Dropout(), {"p": 0.5}),
    "Flatten": (tc.Flatten(), {"start_dim": 1, "end_dim": -1}),
    "Unflatten": (tc.Unflatten(1, [2, 3]), {"unflattened_size": (2, 3)}),
    "Upsample": (tc.Upsample(scale_factor=2), {"size": None, "scale_factor": 2, "mode": "nearest"}),
    "Unfold": (tc.Unfold(2), {"kernel_size": (2, 2), "padding": (0, 0)}),
    "Fold": (tc.Fold(4, 2), {"output_size": (4, 4), "stride": (1, 1)}),
    "ZeroPad2d": (tc.ZeroPad2d(1), {"padding": (1, 1, 1, 1)}),
    "ConstantPad2d": (tc.ConstantPad2d(1, 2), {"value": 2.0}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_arguments_are_attributes_in_normal_form_and_those_of_pytorch(name: str) -> None:
    layer, expected = LAYERS[name]
    for attribute, value in expected.items():
        found = getattr(layer, attribute)
        assert found == value
        assert type(found) is type(value)
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    theirs = tc.to_torch(layer)
    assert isinstance(theirs, torch.nn.Module)
    for attribute, value in expected.items():
        their = getattr(theirs, attribute)
        if not (name == "MaxPool2d" or isinstance(value, tuple)):  # which PyTorch keeps as they were given
            assert their == value


def test_every_layers_arguments_are_attributes() -> None:
    kinds = [kind for kind in vars(tc).values() if isinstance(kind, type) and issubclass(kind, tc.Layer)]
    made = {type(layer): layer for layer, _ in LAYERS.values()}
    made |= {type(layer): layer for layer in (tc.Residual(tc.ReLU()), tc.GradientLayer(tc.ReLU()))}
    for kind in kinds:
        if kind in made:
            assert arguments(made[kind]).keys() == constructor(kind).keys(), kind


def test_an_attribute_that_is_changed_takes_effect() -> None:
    x = normal(2, 4, 6, 6)
    conv = tc.Conv2d(4, 4, 3, generator=0)
    conv.stride, conv.padding = (2, 2), (1, 1)
    want = tc.Conv2d(4, 4, 3, 2, 1, generator=0)
    np.testing.assert_array_equal(conv(x), want(x))
    assert conv.output_shape(x.shape) == want(x).shape
    assert repr(conv) == repr(want)
    leaky = tc.LeakyReLU(0.1)
    leaky.negative_slope = 0.5
    np.testing.assert_array_equal(leaky(-x), np.where(-x > 0, -x, -0.5 * x))
    pool = tc.MaxPool2d(2)
    pool.stride = (1, 1)
    assert pool(x).shape == (2, 4, 5, 5)


def test_reprs_name_required_arguments_and_what_differs_from_the_defaults() -> None:
    assert repr(tc.Conv2d(1, 6, 5, padding=2)) == "Conv2d(1, 6, (5, 5), padding=(2, 2))"
    assert repr(tc.Conv2d(1, 6, 5, bias=False)) == "Conv2d(1, 6, (5, 5), bias=False)"
    assert repr(tc.BatchNorm2d(3)) == "BatchNorm2d(3)"
    assert repr(tc.MaxPool2d(2)) == "MaxPool2d((2, 2), stride=(2, 2))"
    assert repr(tc.Dropout(0.5)) == "Dropout()"
    assert repr(tc.GELU("tanh")) == "GELU(approximate='tanh')"
    assert repr(Scale(2.0)) == "Scale()"  # its factor changes as it learns

    class Noise(tc.ReLU):
        def __init__(self, level: float, kind: str = "normal", hidden: int = 3) -> None:
            super().__init__()
            self.level, self.kind = level, kind

    assert repr(Noise(0.25, "uniform")) == "Noise(0.25, kind='uniform')"


def test_signatures_of_layers_are_those_that_the_attributes_follow() -> None:
    assert [*constructor(tc.Linear)] == ["in_features", "out_features", "bias"]
    assert "generator" in inspect.signature(tc.Linear).parameters


# Shapes without a rule


def test_output_shape_and_summary_of_layers_without_rules() -> None:
    block = Block(2)
    state = copy.deepcopy(block.state_dict())
    assert block.output_shape((3, 2, 6, 5)) == (3, 2, 6, 5)
    network = tc.Sequential(tc.Conv2d(1, 2, 3), block, tc.Flatten(), tc.Linear(2 * 16, 5))
    assert network.output_shape((7, 1, 6, 6)) == (7, 5)
    lines = [line.split() for line in network.summary((1, 1, 6, 6)).splitlines()]
    assert lines[3][:2] == ["1", "Block"]
    assert lines[3][-2:] == [f"{2 * 2 * 9 + 1 + 4}", f"{16 * 2 * 2 * 9}"]
    inner = [line.split()[:2] for line in block.summary((1, 2, 4, 4)).splitlines()]
    assert inner[2:5] == [["conv", "Conv2d"], ["scale", "Scale"], ["after", "Sequential"]]
    for name, value in block.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    with pytest.raises(ValueError, match=r"layer '1' \(Block\): .* must have 2 channels"):
        tc.Sequential(tc.ReLU(), block).output_shape((1, 3, 4, 4))


def test_a_dry_run_draws_from_no_generator_and_keeps_nothing() -> None:
    class Noisy(tc.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.calls = np.random.default_rng(0), 0

        def forward(self, x: Array) -> Array:
            self.calls += 1
            noise = self.generator.standard_normal(x.shape).astype(x.dtype)
            return self.save(np.concatenate([x, noise], axis=1), x)

    layer = Noisy()
    assert layer.output_shape((2, 3)) == (2, 6)
    assert layer.calls == 0
    np.testing.assert_array_equal(
        layer.generator.standard_normal(3), np.random.default_rng(0).standard_normal(3)
    )
    with pytest.raises(RuntimeError, match="needs a forward"):
        layer.saved(np.zeros((2, 6), np.float32))


# Copies


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copying_and_pickling_work_after_a_forward_as_before(copied: Any) -> None:
    x = normal(3, 2, 6, 6)
    energy = tc.Objective(Block(2), tc.MSELoss(reduction="sum"), normal(3, 2, 6, 6, seed=1))
    models = tc.Sequential(Block(2), tc.MaxPool2d(2), tc.Flatten()), tc.GradientStep(energy, 0.1)
    for model in models:
        y = model(x)
        other = copied(model)
        np.testing.assert_array_equal(other.eval()(x), copied(model).eval()(x))
        expected = model.backward(y)  # the original still can
        assert expected.shape == x.shape
        with pytest.raises(RuntimeError, match="needs a forward"):
            copied(model).backward(y)
        y = other.train()(x)
        assert other.backward(y).shape == x.shape
    block = Block(2)
    block(normal(3, 2, 4, 4))
    assert tc.gradcheck(block, normal(2, 2, 3, 3)).checked > 50
    criterion = tc.CrossEntropyLoss()
    criterion(normal(4, 3), np.arange(4) % 3)
    assert repr(copied(criterion)) == repr(criterion)


def test_a_pickle_is_small_after_a_large_forward() -> None:
    model = tc.Linear(4, 4)
    model(normal(100_000, 4))
    assert len(pickle.dumps(model)) < 5_000

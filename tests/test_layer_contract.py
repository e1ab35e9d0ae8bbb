"""The contract of a layer, run over every layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinyconv
from tests.compare import assert_close, compare_layer, layouts
from tests.user_layers import Block
from tinyconv import (
    ELU,
    GELU,
    SELU,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    CircularPad2d,
    Concat,
    ConstantPad2d,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Dropout,
    Dropout2d,
    Flatten,
    Fold,
    Gate,
    GradientLayer,
    GradientStep,
    GroupNorm,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    InstanceNorm2d,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    MaxPool1d,
    MaxPool2d,
    Mish,
    PixelShuffle,
    PixelUnshuffle,
    PReLU,
    ReflectionPad2d,
    ReLU,
    ReLU6,
    ReplicationPad2d,
    Residual,
    Sequential,
    Shared,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    Unflatten,
    Unfold,
    Upsample,
    ZeroPad2d,
    gradcheck,
)
from tinyconv.arrays import Array


class Case(NamedTuple):
    """A layer of float64, its input, PyTorch's arguments, and whether it takes one sample alone."""

    make: Callable[[], Layer]
    shape: tuple[int, ...]
    torch_name: str
    torch_args: tuple[Any, ...] = ()
    torch_options: dict[str, Any] = {}  # noqa: RUF012
    unbatched: bool = True


def tied() -> Sequential:
    layer = Conv2d(2, 2, 3, 1, 1, dtype=f8, generator=0)
    return Sequential(layer, SiLU(), Shared(layer))


f8 = np.float64
CASES = {
    "Conv2d": Case(
        lambda: Conv2d(4, 6, 3, 2, 1, groups=2, dtype=f8, generator=0),
        (3, 4, 6, 7),
        "Conv2d",
        (4, 6, 3, 2, 1, 1, 2),
    ),
    "Conv2d without bias": Case(
        lambda: Conv2d(2, 3, (2, 3), padding="same", bias=False, dtype=f8, generator=0),
        (3, 2, 5, 5),
        "Conv2d",
        (2, 3, (2, 3)),
        {"padding": "same", "bias": False},
    ),
    "MaxPool2d": Case(lambda: MaxPool2d(3, 2, 1), (3, 2, 7, 6), "MaxPool2d", (3, 2, 1)),
    "Linear": Case(lambda: Linear(5, 4, dtype=f8, generator=0), (3, 5), "Linear", (5, 4)),
    "Linear without bias": Case(
        lambda: Linear(5, 4, bias=False, dtype=f8, generator=0), (3, 2, 5), "Linear", (5, 4, False)
    ),
    "ReLU": Case(lambda: ReLU(), (3, 4, 2), "ReLU"),
    "BatchNorm2d": Case(lambda: BatchNorm2d(3, dtype=f8), (4, 3, 5, 2), "BatchNorm2d", (3,), unbatched=False),
    "BatchNorm2d, cumulative": Case(
        lambda: BatchNorm2d(3, 1e-3, None, dtype=f8),
        (4, 3, 5, 2),
        "BatchNorm2d",
        (3, 1e-3, None),
        unbatched=False,
    ),
    "BatchNorm2d, plain": Case(
        lambda: BatchNorm2d(3, affine=False, track_running_stats=False, dtype=f8),
        (4, 3, 5, 2),
        "BatchNorm2d",
        (3,),
        {"affine": False, "track_running_stats": False},
        unbatched=False,
    ),
    "Conv2d, reflected": Case(
        lambda: Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect", dtype=f8, generator=0),
        (3, 2, 5, 6),
        "Conv2d",
        (2, 3, 3),
        {"padding": (1, 2), "padding_mode": "reflect"},
    ),
    "Conv2d, replicated": Case(
        lambda: Conv2d(2, 4, 3, 2, 3, 2, 2, padding_mode="replicate", dtype=f8, generator=0),
        (3, 2, 5, 4),
        "Conv2d",
        (2, 4, 3, 2, 3, 2, 2),
        {"padding_mode": "replicate"},
    ),
    "Conv2d, circular": Case(
        lambda: Conv2d(2, 3, 4, padding="same", padding_mode="circular", dtype=f8, generator=0),
        (3, 2, 5, 5),
        "Conv2d",
        (2, 3, 4),
        {"padding": "same", "padding_mode": "circular"},
    ),
    "Conv1d": Case(
        lambda: Conv1d(4, 6, 3, 2, 1, groups=2, dtype=f8, generator=0),
        (3, 4, 7),
        "Conv1d",
        (4, 6, 3, 2, 1, 1, 2),
    ),
    "Conv1d, reflected": Case(
        lambda: Conv1d(2, 3, 4, padding=2, padding_mode="reflect", dtype=f8, generator=0),
        (3, 2, 7),
        "Conv1d",
        (2, 3, 4),
        {"padding": 2, "padding_mode": "reflect"},
    ),
    "ConvTranspose2d": Case(
        lambda: ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, dtype=f8, generator=0),
        (3, 4, 4, 3),
        "ConvTranspose2d",
        (4, 6, 3, 2, 1, 1, 2),
    ),
    "ConvTranspose2d, dilated": Case(
        lambda: ConvTranspose2d(
            2, 3, (2, 3), (1, 2), (0, 1), 2, bias=False, dilation=3, dtype=f8, generator=0
        ),
        (3, 2, 4, 3),
        "ConvTranspose2d",
        (2, 3, (2, 3), (1, 2), (0, 1), 2, 1, False, 3),
    ),
    "ConvTranspose1d": Case(
        lambda: ConvTranspose1d(4, 6, 3, 2, 1, 1, 2, dtype=f8, generator=0),
        (3, 4, 5),
        "ConvTranspose1d",
        (4, 6, 3, 2, 1, 1, 2),
    ),
    "AvgPool2d": Case(
        lambda: AvgPool2d(3, 2, 1, True, False), (3, 2, 7, 6), "AvgPool2d", (3, 2, 1, True, False)
    ),
    "AvgPool2d, divided": Case(
        lambda: AvgPool2d((2, 3), divisor_override=4),
        (3, 2, 7, 6),
        "AvgPool2d",
        ((2, 3),),
        {"divisor_override": 4},
    ),
    "MaxPool1d": Case(lambda: MaxPool1d(3, 2, 1), (3, 2, 9), "MaxPool1d", (3, 2, 1)),
    "MaxPool1d, dilated": Case(
        lambda: MaxPool1d(2, 1, 1, 3, ceil_mode=True), (3, 2, 9), "MaxPool1d", (2, 1, 1, 3, False, True)
    ),
    "AvgPool1d": Case(
        lambda: AvgPool1d(4, 3, 2, True, False), (3, 2, 9), "AvgPool1d", (4, 3, 2, True, False)
    ),
    "AdaptiveAvgPool2d": Case(
        lambda: AdaptiveAvgPool2d((3, None)), (3, 2, 7, 4), "AdaptiveAvgPool2d", ((3, None),)
    ),
    "AdaptiveMaxPool2d": Case(
        lambda: AdaptiveMaxPool2d((3, None)), (3, 2, 7, 4), "AdaptiveMaxPool2d", ((3, None),)
    ),
    "LeakyReLU": Case(lambda: LeakyReLU(0.2), (3, 4, 2), "LeakyReLU", (0.2,)),
    "ELU": Case(lambda: ELU(1.5), (3, 4, 2), "ELU", (1.5,)),
    "GELU": Case(lambda: GELU(), (3, 4, 2), "GELU"),
    "GELU, tanh": Case(lambda: GELU("tanh"), (3, 4, 2), "GELU", ("tanh",)),
    "Sigmoid": Case(lambda: Sigmoid(), (3, 4, 2), "Sigmoid"),
    "Tanh": Case(lambda: Tanh(), (3, 4, 2), "Tanh"),
    "SiLU": Case(lambda: SiLU(), (3, 4, 2), "SiLU"),
    "Softplus": Case(lambda: Softplus(2, 1.5), (3, 4, 2), "Softplus", (2, 1.5)),
    "ReLU6": Case(lambda: ReLU6(), (3, 4, 2), "ReLU6"),
    "Hardtanh": Case(lambda: Hardtanh(-0.5, 1), (3, 4, 2), "Hardtanh", (-0.5, 1)),
    "Hardsigmoid": Case(lambda: Hardsigmoid(), (3, 4, 2), "Hardsigmoid"),
    "Hardswish": Case(lambda: Hardswish(), (3, 4, 2), "Hardswish"),
    "SELU": Case(lambda: SELU(), (3, 4, 2), "SELU"),
    "Mish": Case(lambda: Mish(), (3, 4, 2), "Mish"),
    "PReLU": Case(lambda: PReLU(dtype=f8), (3, 4, 2), "PReLU"),
    "PReLU, channels": Case(
        lambda: PReLU(4, -0.5, dtype=f8), (3, 4, 5, 2), "PReLU", (4, -0.5), unbatched=False
    ),
    "Softmax": Case(lambda: Softmax(-1), (3, 4, 2), "Softmax", (-1,)),
    "LogSoftmax": Case(lambda: LogSoftmax(-2), (3, 4, 2), "LogSoftmax", (-2,)),
    "BatchNorm1d": Case(lambda: BatchNorm1d(3, dtype=f8), (4, 3, 5), "BatchNorm1d", (3,), unbatched=False),
    "BatchNorm1d, no bias": Case(
        lambda: BatchNorm1d(3, bias=False, dtype=f8),
        (4, 3, 2),
        "BatchNorm1d",
        (3,),
        {"bias": False},
        unbatched=False,
    ),
    "LayerNorm": Case(lambda: LayerNorm((4, 5), dtype=f8), (3, 2, 4, 5), "LayerNorm", ((4, 5),)),
    "LayerNorm, no bias": Case(
        lambda: LayerNorm(5, 1e-3, bias=False, dtype=f8), (3, 5), "LayerNorm", (5, 1e-3), {"bias": False}
    ),
    "GroupNorm": Case(lambda: GroupNorm(2, 6, dtype=f8), (3, 6, 5), "GroupNorm", (2, 6), unbatched=False),
    "GroupNorm, plain": Case(
        lambda: GroupNorm(3, 6, 0.1, False, dtype=f8),
        (3, 6, 2, 3),
        "GroupNorm",
        (3, 6, 0.1, False),
        unbatched=False,
    ),
    "InstanceNorm2d, plain": Case(lambda: InstanceNorm2d(3, dtype=f8), (2, 3, 4, 5), "InstanceNorm2d", (3,)),
    "InstanceNorm2d": Case(
        lambda: InstanceNorm2d(3, 1e-3, 0.3, True, True, dtype=f8),
        (2, 3, 4, 5),
        "InstanceNorm2d",
        (3, 1e-3, 0.3, True, True),
    ),
    "PixelShuffle": Case(lambda: PixelShuffle(2), (3, 8, 2, 3), "PixelShuffle", (2,)),
    "PixelUnshuffle": Case(lambda: PixelUnshuffle(2), (3, 2, 4, 6), "PixelUnshuffle", (2,)),
    "ZeroPad2d": Case(lambda: ZeroPad2d(2), (3, 2, 4, 5), "ZeroPad2d", (2,)),
    "ConstantPad2d": Case(
        lambda: ConstantPad2d((1, -1, 0, 2), 1.5), (3, 2, 4, 5), "ConstantPad2d", ((1, -1, 0, 2), 1.5)
    ),
    "ReflectionPad2d": Case(
        lambda: ReflectionPad2d((1, 2, 3, 0)), (3, 2, 4, 5), "ReflectionPad2d", ((1, 2, 3, 0),)
    ),
    "ReplicationPad2d": Case(
        lambda: ReplicationPad2d((1, 6, 3, -1)), (3, 2, 4, 5), "ReplicationPad2d", ((1, 6, 3, -1),)
    ),
    "CircularPad2d": Case(
        lambda: CircularPad2d((1, 2, 4, -1)), (3, 2, 5, 5), "CircularPad2d", ((1, 2, 4, -1),)
    ),
    "Unflatten": Case(lambda: Unflatten(-1, (3, -1)), (3, 2, 6), "Unflatten", (-1, (3, -1))),
    "Upsample": Case(lambda: Upsample(scale_factor=1.7), (3, 2, 5), "Upsample", (None, 1.7), unbatched=False),
    "Upsample, bilinear": Case(
        lambda: Upsample((3, 7), mode="bilinear"),
        (3, 2, 5, 4),
        "Upsample",
        ((3, 7), None, "bilinear"),
        unbatched=False,
    ),
    "Upsample, aligned": Case(
        lambda: Upsample(None, (2, 1.5), "bilinear", True),
        (3, 2, 3, 4),
        "Upsample",
        (None, (2, 1.5), "bilinear", True),
        unbatched=False,
    ),
    "Dropout2d": Case(lambda: Dropout2d(0.4, generator=0), (3, 4, 2, 2), ""),
    "Residual": Case(
        lambda: Residual(
            Sequential(Conv2d(2, 3, 3, 2, 1, dtype=f8, generator=0), SiLU()),
            Conv2d(2, 3, 1, 2, bias=False, dtype=f8, generator=1),
        ),
        (3, 2, 5, 6),
        "",
    ),
    "Concat": Case(
        lambda: Concat(Identity(), Sequential(Conv2d(2, 3, 3, 1, 1, dtype=f8, generator=0), SiLU())),
        (3, 2, 5, 6),
        "",
        unbatched=False,
    ),
    "Gate": Case(
        lambda: Gate(Sequential(AdaptiveAvgPool2d(1), Conv2d(2, 2, 1, dtype=f8, generator=0), SiLU())),
        (3, 2, 5, 6),
        "",
    ),
    "Shared": Case(lambda: Shared(SiLU()), (3, 2, 5, 6), ""),
    "Shared, after its layer": Case(tied, (3, 2, 5, 6), ""),
    "Identity": Case(lambda: Identity(), (3, 4), "Identity"),
    "GradientLayer": Case(
        lambda: GradientLayer(Sequential(Conv2d(2, 3, 3, padding=1, dtype=f8, generator=0), Softplus())),
        (3, 2, 4, 5),
        "",
    ),
    "GradientStep": Case(
        lambda: GradientStep(Sequential(Linear(4, 3, dtype=f8, generator=0), SiLU()), 0.3, dtype=f8),
        (3, 4),
        "",
    ),
    "a user's layer": Case(lambda: Block(2, dtype=f8), (3, 2, 5, 4), "", unbatched=False),
    "a user's layer in others": Case(
        lambda: Sequential(Conv2d(1, 2, 2, dtype=f8, generator=0), Residual(Block(2, dtype=f8)), Tanh()),
        (3, 1, 5, 4),
        "",
        unbatched=False,
    ),
    "Dropout": Case(lambda: Dropout(0.4, generator=0), (3, 4), ""),
    "Flatten": Case(lambda: Flatten(), (3, 4, 2, 2), "Flatten"),
    "Unfold": Case(lambda: Unfold(2, 1, 1, 2), (3, 2, 5, 4), "Unfold", (2, 1, 1, 2)),
    "Fold": Case(lambda: Fold((5, 4), 2, 1, 1, 2), (3, 8, 9), "Fold", ((5, 4), 2, 1, 1, 2)),
    "Sequential": Case(
        lambda: Sequential(Conv2d(2, 3, 3, dtype=f8, generator=0), ReLU(), MaxPool2d(2)), (3, 2, 6, 6), ""
    ),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def run(layer: Layer, x: Array) -> tuple[Array, Array, dict[str, Array]]:
    """Output, input gradient and parameter gradients for a fixed cotangent."""
    y = layer.forward(x)
    layer.zero_grad()
    dx = layer.backward(normal(*y.shape, seed=1).astype(y.dtype))
    return y, dx, {name: grad.copy() for name, grad in layer.grads.items()}


def test_every_public_layer_has_a_case() -> None:
    public = {
        name
        for name in vars(tinyconv)["__all__"]
        if isinstance(getattr(tinyconv, name), type) and issubclass(getattr(tinyconv, name), Layer)
    }
    assert public - {"Layer", "MaxUnpool2d", "Objective"} == {
        type(case.make()).__name__ for name, case in CASES.items() if "user's" not in name
    }


@cases
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_agrees_with_pytorch(case: Case, dtype: Any, training: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    if not case.torch_name:
        pytest.skip("PyTorch has no such layer, or another random generator")
    theirs = getattr(torch.nn, case.torch_name)(*case.torch_args, **case.torch_options)
    layer = case.make().to(dtype).train(training)
    compare_layer(layer, theirs, normal(*case.shape).astype(dtype))
    compare_layer(layer, theirs, normal(*case.shape, seed=2).astype(dtype) + dtype(1))


@cases
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_backward_agrees_with_finite_differences(case: Case, training: bool) -> None:
    layer, x = case.make().train(training), normal(*case.shape)
    found = gradcheck(layer, x)
    assert found.checked == x.size + sum(param.size for param in layer.params.values())


@cases
def test_backward_first_is_refused(case: Case) -> None:
    layer = case.make()
    with pytest.raises(RuntimeError, match="needs a forward before it"):
        layer.backward(np.zeros(layer.output_shape(case.shape)))


@cases
def test_backward_twice_is_refused(case: Case) -> None:
    layer = case.make()
    run(layer, normal(*case.shape))
    with pytest.raises(RuntimeError, match="one forward serves one backward"):
        layer.backward(np.zeros(layer.output_shape(case.shape)))


@cases
def test_a_wrong_gradient_is_refused_and_the_right_one_then_taken(case: Case) -> None:
    layer, x = case.make(), normal(*case.shape)
    y = layer.forward(x)
    with pytest.raises(ValueError, match=r"`grad_output` \(of shape .*must have the output's shape"):
        layer.backward(np.zeros((*y.shape, 1)))
    with pytest.raises(TypeError, match=r"`grad_output` \(of dtype float32\) must have the output's dtype"):
        layer.backward(np.zeros(y.shape, np.float32))
    with pytest.raises(TypeError, match="numpy"):
        layer.backward([1.0])  # type: ignore[arg-type]
    assert layer.backward(np.zeros(y.shape)).shape == x.shape


@cases
def test_every_memory_layout_gives_the_same_result(case: Case) -> None:
    x = normal(*case.shape)
    expected = run(case.make(), x)
    for name, x_ in layouts(x):
        y, dx, grads = run(case.make(), x_)
        assert_close(y, expected[0], name)
        assert_close(dx, expected[1], name)
        for key, grad in grads.items():
            assert_close(grad, expected[2][key], f"{name}: {key}")


@cases
def test_every_layout_of_the_gradient_gives_the_same_result(case: Case) -> None:
    x = normal(*case.shape)
    _, expected, expected_grads = run(case.make(), x)
    shape = case.make().output_shape(case.shape)
    for name, g in layouts(normal(*shape, seed=1)):
        layer = case.make()
        layer.forward(x)
        assert_close(layer.backward(g), expected, name)
        for key, grad in layer.grads.items():
            assert_close(grad, expected_grads[key], f"{name}: {key}")


@cases
def test_input_gradient_and_handed_out_arrays_are_never_written_to(case: Case) -> None:
    layer, x = case.make(), normal(*case.shape)
    kept = x.copy()
    y = layer.forward(x)
    g = normal(*y.shape, seed=1)
    y_kept, g_kept = y.copy(), g.copy()
    dx = layer.backward(g)
    dx_kept = dx.copy()
    run(layer, normal(*case.shape, seed=3))
    for array, before in ((x, kept), (y, y_kept), (g, g_kept), (dx, dx_kept)):
        np.testing.assert_array_equal(array, before)


@cases
def test_backward_works_in_evaluation_mode(case: Case) -> None:
    layer, x = case.make().eval(), normal(*case.shape)
    y, dx, _ = run(layer, x)
    again = run(layer, x)
    assert_close(again[0], y)
    assert_close(again[1], dx)
    assert dx.shape == x.shape


@cases
def test_gradients_add_up_until_zero_grad(case: Case) -> None:
    layer, x = case.make().eval(), normal(*case.shape)
    _, _, once = run(layer, x)
    g = normal(*layer.forward(x).shape, seed=1)
    layer.backward(g)
    for name, grad in layer.grads.items():
        assert_close(grad, 2 * once[name], name)
    layer.zero_grad()
    assert not any(grad.any() for grad in layer.grads.values())


@cases
def test_backward_params_gives_the_same_parameter_gradients(case: Case) -> None:
    x = normal(*case.shape)
    _, _, expected = run(case.make(), x)
    layer = case.make()
    y = layer.forward(x)
    layer.backward_params(normal(*y.shape, seed=1))
    for name, grad in layer.grads.items():
        assert_close(grad, expected[name], name)
    with pytest.raises(RuntimeError, match="needs a forward"):
        layer.backward(y)


@cases
def test_predict_keeps_nothing_and_leaves_the_mode(case: Case) -> None:
    layer, x = case.make(), normal(*case.shape)
    expected = case.make().eval().forward(x)
    for batch_size in (1, 2, 256) if layer.buffers or not isinstance(layer, BatchNorm2d) else (256,):
        assert_close(layer.predict(x, batch_size), expected)
    assert layer.training
    with pytest.raises(RuntimeError, match="needs a forward"):
        layer.backward(expected)
    y = layer.forward(x)
    layer.predict(x)
    assert layer.backward(y).shape == x.shape


@cases
def test_state_dict_round_trip(case: Case) -> None:
    layer, x = case.make(), normal(*case.shape)
    run(layer, x)
    state = layer.state_dict()
    other = case.make()
    for param in other.params.values():
        param += 1
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    assert_close(other.eval().forward(x), layer.eval().forward(x))
    for value in state.values():
        value[...] = 7  # copies: the layer does not change
    assert_close(other.forward(x), layer.forward(x))


@cases
def test_load_state_dict_is_strict_and_changes_nothing_when_it_refuses(case: Case) -> None:
    layer = case.make()
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"unknown \['more'\]"):
        layer.load_state_dict({**before, "more": np.zeros(1)})
    if not before:
        return
    last = list(before)[-1]
    with pytest.raises(ValueError, match=rf"lacks \['{last}'\]"):
        layer.load_state_dict({name: value + 1 for name, value in before.items() if name != last})
    with pytest.raises(ValueError, match="must have the shape"):
        layer.load_state_dict({name: np.zeros((*v.shape, 2)) for name, v in before.items()})
    with pytest.raises(TypeError, match="cannot be cast"):
        layer.load_state_dict({name: np.full(v.shape, "x") for name, v in before.items()})
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@cases
def test_load_state_dict_keeps_the_layers_dtype(case: Case) -> None:
    layer = case.make()
    layer.load_state_dict(
        {n: v.astype(np.float32) if v.dtype == f8 else v for n, v in layer.state_dict().items()}
    )
    assert all(param.dtype == f8 for param in layer.params.values())


@cases
@pytest.mark.parametrize("batch", [0, 1])
def test_batches_of_none_and_one(case: Case, batch: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = case.make(), normal(batch, *case.shape[1:])
    y, dx, grads = run(layer, x)
    assert y.shape == layer.output_shape(x.shape)
    assert dx.shape == x.shape
    fail_on_none = ("Unfold", "PixelShuffle", "PixelUnshuffle", "InstanceNorm2d")  # PyTorch's
    if case.torch_name and not (batch == 0 and case.torch_name in fail_on_none):
        theirs = getattr(torch.nn, case.torch_name)(*case.torch_args, **case.torch_options)
        compare_layer(case.make(), theirs, x)
    assert all(np.isfinite(grad).all() for grad in grads.values())


@cases
def test_one_sample_without_a_batch(case: Case) -> None:
    if not case.unbatched or isinstance(case.make(), Flatten):
        with pytest.raises(ValueError, match="must"):
            case.make().output_shape(()[:0] if isinstance(case.make(), Flatten) else case.shape[1:])
        return
    layer, x = case.make().eval(), normal(*case.shape)
    y, dx, _ = run(layer, x)
    single = layer.forward(x[0])
    assert_close(single, y[0])
    assert single.shape == layer.output_shape(case.shape[1:])
    assert_close(layer.backward(normal(*y.shape, seed=1)[0]), dx[0])


@cases
def test_output_shape_is_the_outputs_shape(case: Case) -> None:
    layer = case.make()
    assert layer.output_shape(case.shape) == layer.forward(normal(*case.shape)).shape


@cases
def test_same_seed_same_parameters_and_outputs(case: Case) -> None:
    a, b, x = case.make(), case.make(), normal(*case.shape)
    for name, param in a.params.items():
        np.testing.assert_array_equal(param, b.params[name])
    np.testing.assert_array_equal(a.forward(x), b.forward(x))


@cases
def test_results_have_the_inputs_dtype_and_mixed_dtypes_are_refused(case: Case) -> None:
    layer, x = case.make().to(np.float32), normal(*case.shape).astype(np.float32)
    y, dx, grads = run(layer, x)
    assert {array.dtype for array in (y, dx, *grads.values())} == {np.dtype(np.float32)}
    if layer.params:
        with pytest.raises(TypeError, match="must have the dtype"):
            layer.forward(x.astype(f8))
    if not isinstance(layer, (Flatten, Unflatten)):
        with pytest.raises(TypeError, match="must be of dtype float32 or float64, got int64"):
            layer.forward(np.ones(case.shape, np.int64))


@cases
def test_repr_names_the_layer(case: Case) -> None:
    assert repr(case.make()).startswith(type(case.make()).__name__ + "(")

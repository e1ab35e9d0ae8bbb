"""What is particular to one layer or loss: arguments, initialisation, Sequential."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.compare import assert_close, both_refuse, compare_layer
from tinyconv import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Layer,
    Linear,
    Loss,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sequential,
    gradcheck,
    models,
)
from tinyconv.functional.conv import algorithms, conv_transpose2d


def test_parameters_are_drawn_as_pytorch_draws_them() -> None:
    for layer, fan_in in (
        (Conv2d(8, 64, 5, groups=2, generator=0), 100),
        (Linear(100, 500, generator=0), 100),
    ):
        bound = fan_in**-0.5
        for param in layer.params.values():
            assert param.dtype == np.float32
            assert np.abs(param).max() <= np.float32(bound)
        weight = layer.params["weight"]
        assert np.abs(weight).max() > 0.99 * bound
        assert abs(weight.std() - bound / 3**0.5) < 0.02 * bound


def test_parameters_of_both_dtypes_are_the_same_numbers() -> None:
    single, double = (Linear(3, 2, dtype=dtype, generator=5) for dtype in (np.float32, np.float64))
    np.testing.assert_array_equal(single.params["weight"], double.params["weight"].astype(np.float32))


def test_keys_are_pytorchs() -> None:
    assert list(Conv2d(1, 1, 1, bias=False).params) == ["weight"]
    state = Sequential(Conv2d(1, 2, 1), BatchNorm2d(2)).state_dict()
    assert list(state) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    assert state["1.num_batches_tracked"].dtype == np.int64


@pytest.mark.parametrize(
    ("make", "name", "args", "match"),
    [
        (
            Conv2d,
            "Conv2d",
            (3, 4, 3, 1, 0, 1, 2),
            r"`in_channels` \(=3\) must be divisible by `groups` \(=2\)",
        ),
        (
            Conv2d,
            "Conv2d",
            (4, 3, 3, 1, 0, 1, 2),
            r"`out_channels` \(=3\) must be divisible by `groups` \(=2\)",
        ),
        (Conv2d, "Conv2d", (3, 4, 3, 1, 0, 1, 0), r"`groups` \(=0\)"),
        (Conv2d, "Conv2d", (3, 4, 3, 2, "same"), "'same'"),
        (Conv2d, "Conv2d", (3, 4, 3, 1, "full"), "'full'"),
        (Dropout, "Dropout", (1.5,), r"`p` \(=1.5\)"),
        (Dropout, "Dropout", (-0.1,), r"`p` \(=-0.1\)"),
    ],
)
def test_constructors_refuse_what_pytorchs_refuse(
    make: Any, name: str, args: tuple[Any, ...], match: str
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    both_refuse(partial(make, *args), partial(getattr(torch.nn, name), *args), match)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Conv2d(0, 1, 3),
        lambda: Conv2d(1, 1, 0),
        lambda: Conv2d(1, 1, 3, stride=0),
        lambda: Conv2d(1, 1, 3, dilation=0),
        lambda: Conv2d(1, 1, 3, padding=-1),
        lambda: Conv2d(1, 1, 3, dtype=np.int32),
        lambda: Conv2d(1, 1, True),
        lambda: Linear(0, 1),
        lambda: Linear(1.5, 1),  # type: ignore[arg-type]
        lambda: MaxPool2d(0),
        lambda: MaxPool2d(2, padding=2),
        lambda: BatchNorm2d(0),
        lambda: BatchNorm2d(1, eps=-1),
        lambda: BatchNorm2d(1, momentum=2),
        lambda: Flatten("1"),  # type: ignore[arg-type]
        lambda: Linear(1, 1, generator=-1),
        lambda: Linear(1, 1, generator="seed"),  # type: ignore[arg-type]
    ],
)
def test_constructors_refuse_nonsense(make: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="`"):
        make()


def test_a_failed_batch_norm_forward_counts_no_batch() -> None:
    norm = BatchNorm2d(2)
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm.forward(np.ones((1, 2, 1, 1), np.float32))
    assert norm.buffers["num_batches_tracked"] == 0


def test_layers_show_numbers_of_numpy_as_pythons() -> None:
    one: Any = np.int64(1)
    pairs: list[tuple[Layer, Layer]] = [
        (Conv2d(2 * one, 4 * one, 3, groups=one), Conv2d(2, 4, 3, groups=1)),
        (AvgPool2d(2, divisor_override=3 * one), AvgPool2d(2, divisor_override=3)),
    ]
    for numpys, plain in pairs:
        assert repr(numpys) == repr(plain)


def test_dropout_draws_a_new_mask_each_time_and_backward_uses_it() -> None:
    dropout, x = Dropout(0.5, generator=0), np.ones((50, 50))
    first, second = dropout.forward(x), dropout.forward(x)
    assert (first != second).any()
    np.testing.assert_array_equal(dropout.backward(x), second)


# Sequential


def small() -> Sequential:
    return Sequential(Conv2d(1, 2, 3, generator=0), ReLU(), Flatten(), Linear(2 * 16, 3, generator=1))


def test_sequential_has_named_and_indexed_children() -> None:
    conv, act = Conv2d(1, 2, 3), ReLU()
    model = Sequential({"conv": conv, "act": act})
    assert model[0] is model["conv"] is conv
    assert model[-1] is act
    assert list(model) == [conv, act]
    assert len(model) == 2
    assert list(model.params) == ["conv.weight", "conv.bias"]
    assert isinstance(model[1:], Sequential)
    assert model[1:]["act"] is act
    with pytest.raises(IndexError):
        model[2]
    with pytest.raises(KeyError):
        model["pool"]


def test_a_slice_shares_the_layers() -> None:
    model, x = small(), np.random.default_rng(0).standard_normal((2, 1, 6, 6)).astype(np.float32)
    np.testing.assert_array_equal(model[2:].forward(model[:2].forward(x)), model.forward(x))
    model[:1].params["0.weight"][...] = 0
    assert not model.params["0.weight"].any()


def test_an_empty_sequential_is_the_identity() -> None:
    x = np.ones((2, 3))
    model = Sequential()
    assert model.forward(x) is x
    assert model.backward(x) is x
    assert model.output_shape((2, 3)) == (2, 3)


def test_the_same_layer_twice_is_refused() -> None:
    act = ReLU()
    with pytest.raises(ValueError, match="same layer object twice"):
        Sequential(act, Linear(2, 2), act)
    with pytest.raises(ValueError, match="same layer object twice"):
        Sequential(act, Sequential(Linear(2, 2), act))


@pytest.mark.parametrize("layers", [(1,), (ReLU,), ({"a.b": ReLU()},), ({"": ReLU()},), ({1: ReLU()},)])
def test_children_that_are_no_layers_and_bad_names_are_refused(layers: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="layer"):
        Sequential(*layers)


def test_errors_say_which_layer() -> None:
    model = Sequential(Sequential(ReLU(), Linear(3, 2, generator=0)), ReLU())
    message = r"layer '0' \(Sequential\): layer '1' \(Linear\): `input` \(of shape \(2, 4\)\)"
    with pytest.raises(ValueError, match=message):
        model.forward(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=message):
        model.output_shape((2, 4))
    with pytest.raises(RuntimeError, match=r"layer '1' \(ReLU\): backward needs a forward"):
        model.backward(np.ones((2, 2), np.float32))
    with pytest.raises(TypeError, match=r"layer '1' \(Linear\): `input`"):
        model.forward(np.ones((2, 3)))


def test_train_and_eval_reach_all_children() -> None:
    model = Sequential(Dropout(), Sequential(Dropout()))
    assert not any(layer.training for layer in model.eval().modules())
    assert all(layer.training for layer in model.train().modules())


def test_summary_shows_shapes_parameters_and_multiply_adds() -> None:
    lines = models.lenet5().summary((1, 1, 28, 28)).splitlines()
    assert lines[2].split() == ["0", "Conv2d", "(1,", "6,", "28,", "28)", "156", "117,600"]
    assert lines[-1].split() == ["total", "61,706", "416,520"]
    assert len({len(line) for line in lines}) == 1
    with pytest.raises(ValueError, match=r"layer '7' \(Linear\)"):
        models.lenet5().summary((1, 1, 32, 32))


def test_repr_shows_the_children() -> None:
    assert repr(Sequential(ReLU(), Sequential(Flatten()))).splitlines() == [
        "Sequential(",
        "  (0): ReLU()",
        "  (1): Sequential(",
        "    (0): Flatten()",
        "  )",
        ")",
    ]


@pytest.mark.parametrize("make", [models.lenet5, models.mnist_cnn])
def test_whole_networks_agree_with_pytorch(make: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model = make(dtype=np.float64, generator=0)
    theirs = torch.nn.Sequential(*[torch_layer(layer) for layer in model])
    x = np.random.default_rng(0).standard_normal((4, 1, 28, 28))
    compare_layer(model, theirs, x)


def torch_layer(layer: Any) -> Any:
    import torch

    return eval(f"torch.nn.{layer!r}", {"torch": torch})  # our reprs are PyTorch's constructor calls


def test_gradcheck_of_a_whole_network_finds_no_fault() -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 28, 28))
    assert gradcheck(models.lenet5(generator=0), x).checked > 1000


# Losses


@pytest.mark.parametrize("make", [MSELoss, CrossEntropyLoss])
def test_losses_keep_the_contract(make: type[Loss]) -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((4, 3)), rng.dirichlet(np.ones(3), 4)
    criterion = make()
    with pytest.raises(RuntimeError, match="needs a forward"):
        criterion.backward()
    loss = criterion(x, t)
    assert loss.shape == ()
    with pytest.raises(ValueError, match="`grad_output`"):
        criterion.backward(np.ones(4))
    with pytest.raises(TypeError, match="`grad_output`"):
        criterion.backward(np.ones((), np.float32))
    gradient = criterion.backward()
    with pytest.raises(RuntimeError, match="one forward serves one backward"):
        criterion.backward()
    criterion(x, t)
    assert_close(criterion.backward(np.asarray(2.0)), 2 * gradient)
    gradcheck(criterion, (x, t))
    assert criterion(x.astype(np.float32), t.astype(np.float32)).dtype == np.float32


def test_unreduced_losses_take_a_gradient_for_each_element() -> None:
    rng = np.random.default_rng(0)
    x, t, g = rng.standard_normal((4, 3)), rng.integers(0, 3, 4), rng.standard_normal(4)
    criterion = CrossEntropyLoss(reduction="none", label_smoothing=0.1)
    assert criterion(x, t).shape == (4,)
    weighted = criterion.backward(g)
    criterion(x, t)
    assert_close(weighted, g[:, None] * criterion.backward())
    gradcheck(criterion, (x, t))


def test_cross_entropy_loss_with_weights_and_ignored_targets_passes_gradcheck() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((4, 3, 2)), rng.integers(0, 3, (4, 2))
    criterion = CrossEntropyLoss(np.array([1.0, 0.3, 2.0], np.float32), ignore_index=1)
    assert gradcheck(criterion, (x, t)).checked == x.size


@pytest.mark.parametrize("options", [{"reduction": "all"}, {"label_smoothing": 2.0}, {"ignore_index": 1.5}])
def test_losses_refuse_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"`{next(iter(options))}`"):
        CrossEntropyLoss(**options)


@pytest.mark.parametrize(
    ("frozen", "call", "computed"),
    [
        (False, "backward", ["output", "weight"]),
        (False, "backward_params", ["weight"]),
        (True, "backward", ["output"]),
        (True, "backward_params", []),
    ],
)
def test_a_transposed_convolution_computes_the_gradients_that_are_wanted(
    frozen: bool, call: str, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = tc.ConvTranspose2d(2, 3, 3, stride=2, generator=0).requires_grad_(not frozen)
    y = layer(np.ones((2, 2, 4, 4), np.float32))
    found: list[str] = []

    def recorded(wanted: str, *rest: Any) -> Any:
        found.append(wanted)
        return algorithms.pick(wanted, *rest)

    monkeypatch.setattr(conv_transpose2d, "pick", recorded)
    getattr(layer, call)(y)
    assert found == computed
    assert sorted(layer.grads) == ([] if frozen else ["bias", "weight"])
    assert all(grad.any() for grad in layer.grads.values())

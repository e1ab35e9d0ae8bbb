"""ONNX files: the checker takes them, and onnxruntime computes from them what the model computes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv
from tests import drawn
from tests.hypothesis_or_skip import HealthCheck, assume, given, settings, st
from tests.test_layer_contract import CASES, Case
from tinyconv import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GradientLayer,
    GradientStep,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    MaxUnpool2d,
    Objective,
    ReflectionPad2d,
    ReLU,
    Residual,
    Sequential,
    Shared,
    Softmax,
    Softplus,
    Tanh,
    Unflatten,
    Upsample,
    export_onnx,
)
from tinyconv.arrays import Array
from tinyconv.convert.onnx_file import JOINS
from tinyconv.convert.onnx_layers import FORMS
from tinyconv.models import lenet5, mnist_cnn

onnx = pytest.importorskip("onnx", reason="onnx makes the files")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the files")

REFUSED = {"GradientLayer", "GradientStep", "ConvTranspose2d, dilated"}
EXPORTABLE = {name: case for name, case in CASES.items() if name not in REFUSED and "user" not in name}
UNKNOWN_TO_EVALUATOR = {
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConstantPad2d",
}  # groups there, negative padding
exportable = pytest.mark.parametrize("case", EXPORTABLE.values(), ids=list(EXPORTABLE))
few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def normal(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run(path: Path, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(["output"], {"input": x})
    return np.asarray(output)


def run_by_definition(path: Path, x: Array) -> Array:
    from onnx.reference import ReferenceEvaluator

    (output,) = ReferenceEvaluator(str(path)).run(["output"], {"input": x})
    return np.asarray(output)


def assert_same(found: Array, expected: Array) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    largest = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def trained(layer: Layer, shape: tuple[int, ...]) -> Layer:
    """The layer with parameters and running statistics that are not those of its beginning."""
    dtype: Any = np.float32
    for param in layer.params.values():
        dtype = param.dtype
        param += normal(param.shape, 1, dtype) / 4
    layer.train().forward(2 * normal(shape, 2, dtype))
    return layer


@pytest.mark.parametrize("make", [lenet5, mnist_cnn])
def test_the_networks_give_the_same_in_onnxruntime(make: Any, tmp_path: Path) -> None:
    model = trained(make(generator=0), (4, 1, 28, 28))
    export_onnx(model, (1, 1, 28, 28), tmp_path / "model.onnx")
    for batch in (1, 2, 7):
        x = normal((batch, 1, 28, 28))
        assert_same(run(tmp_path / "model.onnx", x), model.predict(x))


@exportable
def test_every_layer_gives_the_same_in_onnxruntime(case: Case, tmp_path: Path) -> None:
    layer = trained(case.make().to(np.float32), case.shape)
    export_onnx(layer, case.shape, tmp_path / "layer.onnx")
    for batch in (1, 2, 7):
        x = normal((batch, *case.shape[1:]))
        assert_same(run(tmp_path / "layer.onnx", x), layer.predict(x))


@pytest.mark.parametrize("name", sorted(EXPORTABLE.keys() - UNKNOWN_TO_EVALUATOR))
def test_every_layer_of_float64_gives_the_same_by_onnxs_own_evaluator(name: str, tmp_path: Path) -> None:
    case = EXPORTABLE[name]
    first = LayerNorm(case.shape[-1], dtype=np.float64)  # so that every model has float64 parameters
    layer = trained(Sequential(first, case.make()), case.shape)
    export_onnx(layer, case.shape, tmp_path / "layer.onnx")
    x = normal(case.shape, dtype=np.float64)
    assert_same(run_by_definition(tmp_path / "layer.onnx", x), layer.predict(x))


# Where ONNX's operators or runtimes differ from PyTorch
PECULIAR = {
    "max-pool, ceil_mode with a window dropped": (MaxPool2d(2, 3, 1, ceil_mode=True), (1, 2, 6, 7)),
    "max-pool, ceil_mode and dilation": (MaxPool2d(3, (2, 3), 1, 2, ceil_mode=True), (1, 2, 9, 10)),
    "average, ceil_mode with padding counted": (AvgPool2d(3, 2, 1, ceil_mode=True), (1, 2, 6, 8)),
    "average, padding not counted": (AvgPool2d(3, 2, 1, count_include_pad=False), (1, 2, 7, 8)),
    "average, divided by a negative number": (AvgPool2d(3, 2, 1, True, True, -2), (1, 2, 6, 8)),
    "adaptive average of unequal windows": (AdaptiveAvgPool2d((3, 5)), (1, 2, 7, 4)),
    "same padding, one more after": (Conv2d(2, 4, (2, 4), padding="same", dilation=(1, 3)), (1, 2, 9, 9)),
    "same padding of a sequence": (Conv1d(2, 4, 4, padding="same", groups=2), (1, 2, 9)),
    "circular padding": (Conv2d(2, 3, 3, padding=(1, 3), padding_mode="circular"), (1, 2, 5, 5)),
    "transposed, padding and output padding": (ConvTranspose2d(2, 3, 4, 3, 1, (2, 0)), (1, 2, 5, 4)),
    "reflected and cut": (ReflectionPad2d((2, -1, -2, 3)), (1, 2, 6, 6)),
    "nearest-exact": (Upsample(scale_factor=(1.7, 0.6), mode="nearest-exact"), (1, 2, 5, 6)),
    "nearest in three dimensions": (Upsample((3, 4, 9)), (1, 2, 5, 4, 3)),
    "softmax over the batch": (Softmax(0), (1, 5)),
    "linear over several dimensions": (Linear(4, 3), (1, 2, 5, 4)),
    "softplus beyond the threshold": (Softplus(2.0, 0.5), (1, 40)),
    "group norm of a sequence": (GroupNorm(2, 6), (1, 6, 4)),
    "nothing": (Sequential(), (1, 3)),
    "dropout alone": (Dropout(), (1, 3)),
}


@pytest.mark.parametrize("name", PECULIAR)
def test_peculiarities(name: str, tmp_path: Path) -> None:
    layer, shape = PECULIAR[name]
    export_onnx(layer, shape, tmp_path / "layer.onnx")
    for batch in (1, 2, 7):
        x = normal((batch, *shape[1:]))
        assert_same(run(tmp_path / "layer.onnx", x), layer.predict(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", drawn.LAYERS)
@given(data=st.data())
@few
def test_drawn_layers_give_the_same_or_are_refused(name: str, data: st.DataObject, tmp_path: Path) -> None:
    config = data.draw(drawn.layers(name))
    layer = getattr(tinyconv, config.name)(*config.args, **config.options)
    path = tmp_path / "layer.onnx"
    path.unlink(missing_ok=True)
    try:
        export_onnx(trained(layer, config.shape), config.shape, path)
    except ValueError:  # no batch, or arguments that do not fit the drawn shape
        assert not path.exists()
        assume(False)
    for batch in (2, 3):
        x = normal((batch, *config.shape[1:]))
        assert_same(run(path, x), layer.predict(x))


# The file


def test_the_file_has_the_states_names_and_values_and_an_open_batch(tmp_path: Path) -> None:
    model = trained(mnist_cnn(generator=0), (4, 1, 28, 28))
    export_onnx(model, [5, 1, 28, 28], tmp_path / "cnn.onnx")
    loaded = onnx.load(tmp_path / "cnn.onnx")
    onnx.checker.check_model(loaded, full_check=True)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
    state = model.state_dict()
    del state["3.num_batches_tracked"]  # evaluation does not need it
    assert state.keys() <= stored.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(stored[name], value, strict=True)
    ends = [
        (value.name, value.type.tensor_type.shape.dim)
        for value in (*loaded.graph.input, *loaded.graph.output)
    ]
    assert [(name, [d.dim_param or d.dim_value for d in dims]) for name, dims in ends] == [
        ("input", ["batch", 1, 28, 28]),
        ("output", ["batch", 10]),
    ]


def test_equal_models_give_equal_files_in_either_mode(tmp_path: Path) -> None:
    export_onnx(lenet5(generator=0), (1, 1, 28, 28), tmp_path / "training.onnx")
    export_onnx(lenet5(generator=0).eval(), (7, 1, 28, 28), tmp_path / "evaluation.onnx")
    assert (tmp_path / "training.onnx").read_bytes() == (tmp_path / "evaluation.onnx").read_bytes()


def test_dropout_is_left_out(tmp_path: Path) -> None:
    model = Sequential(Linear(3, 4), Dropout(), Sequential(Tanh(), Dropout()))
    export_onnx(model, (1, 3), tmp_path / "model.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node] == ["Gemm", "Tanh"]


def test_nested_residuals(tmp_path: Path) -> None:
    inner = Residual(Sequential(Conv2d(2, 2, 3, padding=1), ReLU()))
    model = Sequential(Conv2d(1, 2, 1), Residual(Sequential(inner, BatchNorm2d(2)), Conv2d(2, 2, 1)))
    trained(model, (3, 1, 5, 5))
    export_onnx(model, (1, 1, 5, 5), tmp_path / "model.onnx")
    x = normal((3, 1, 5, 5))
    assert_same(run(tmp_path / "model.onnx", x), model.predict(x))


# What is refused


class Mine(ReLU):
    pass


REFUSED_LAYERS: dict[str, Callable[[], Layer]] = {
    r"layer '1.0' \(Mine\): export_onnx does not have an ONNX form of this": Mine,
    r"layer '1.0' \(MaxUnpool2d\): export_onnx does not have an ONNX form of this": lambda: MaxUnpool2d(2),
    r"layer '1.0' \(GradientLayer\): export_onnx does not have an ONNX form of this": lambda: GradientLayer(
        Tanh()
    ),
    r"layer '1.0.body' \(Mine\): export_onnx does not have an ONNX form of this": lambda: Residual(Mine()),
    r"layer '1.0' \(MaxPool2d\): `return_indices`": lambda: MaxPool2d(2, return_indices=True),
    r"layer '1.0' \(Flatten\): must take a batch of any length": lambda: Flatten(0),
    r"layer '1.0' \(Unflatten\): must take a batch of any length": lambda: Unflatten(0, (-1, 2)),
    r"layer '1.0' \(LayerNorm\): must take a batch of any length": lambda: LayerNorm((4, 2, 6, 6)),
    r"layer '1.0' \(Conv2d\): `input`": lambda: Conv2d(3, 2, 3),
    r"layer '1.0' \(Conv1d\): the input .* must have 3 dimensions": lambda: Conv1d(3, 2, 3),
    r"layer '1.0' \(ConvTranspose2d\): `output_padding` \(=\(2, 2\)\) must be less": lambda: ConvTranspose2d(
        2, 1, 2, output_padding=2, dilation=3
    ),
}


@pytest.mark.parametrize("message", REFUSED_LAYERS)
def test_a_layer_without_an_onnx_form_is_refused_with_its_place(message: str, tmp_path: Path) -> None:
    model = Sequential(ReLU(), Sequential(REFUSED_LAYERS[message]()))
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        export_onnx(model, (4, 2, 6, 6), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_every_layer_has_a_form_or_is_known_to_have_none() -> None:
    public = {getattr(tinyconv, name) for name in vars(tinyconv)["__all__"]}
    layers = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Layer)}
    without = {Layer, MaxUnpool2d, GradientLayer, GradientStep, Objective}
    assert layers - {Sequential, Shared, *JOINS} == {*FORMS} | without & layers


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(TypeError, match=r"`model` \(=3\) must be a Layer"):
        export_onnx(3, (1, 2), path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`input_shape` \(=0\) must be at least 1"):
        export_onnx(ReLU(), (0, 2), path)
    with pytest.raises(ValueError, match=r"`input_shape` \(=\(\)\)"):
        export_onnx(ReLU(), (), path)
    with pytest.raises(ValueError, match=r"onnx refuses the graph of `model`: .*axis"):
        export_onnx(Softmax(2), (1, 2), path)
    with pytest.raises(TypeError, match="one dtype, not of float32 and float64"):
        export_onnx(Sequential(Linear(2, 2), Linear(2, 2, dtype=np.float64)), (1, 2), path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")

    def full(*given: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(ReLU(), (1, 2), path)
    assert [(file, file.read_bytes()) for file in tmp_path.iterdir()] == [(path, b"before")]


def test_without_onnx_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"^export_onnx needs the package onnx: pip install tinyconv\[onnx\]$"
    ):
        export_onnx(ReLU(), (1, 2), tmp_path / "model.onnx")

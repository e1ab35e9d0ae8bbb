"""ONNX files: the checker takes them, and onnxruntime computes from them what the model computes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import tinyconv
from tests import drawn
from tests.test_layer_contract import CASES, Case
from tinyconv import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    MaxUnpool2d,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    Tanh,
    Unflatten,
    export_onnx,
)
from tinyconv.arrays import Array
from tinyconv.convert.onnx_layers import FORMS
from tinyconv.models import lenet5, mnist_cnn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

REFUSED = {"GradientLayer", "GradientStep", "ConvTranspose2d, dilated"}
EXPORTABLE = {name: case for name, case in CASES.items() if name not in REFUSED}
exportable = pytest.mark.parametrize("case", EXPORTABLE.values(), ids=list(EXPORTABLE))
few = settings(
    max_examples=20,
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
    for param in layer.params.values():
        param += normal(param.shape, 1).astype(param.dtype) / 4
    layer.train().forward(normal(shape, 2).astype(next(iter(layer.params.values()), np.float32(0)).dtype) * 2)
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


@exportable
def test_every_layer_of_float64_gives_the_same_by_onnxs_own_evaluator(case: Case, tmp_path: Path) -> None:
    first = LayerNorm(case.shape[-1], dtype=np.float64)  # so that every model has float64 parameters
    layer = trained(Sequential(first, case.make()), case.shape)
    export_onnx(layer, case.shape, tmp_path / "layer.onnx")
    x = normal(case.shape, dtype=np.float64)
    assert_same(run_by_definition(tmp_path / "layer.onnx", x), layer.predict(x))


@pytest.mark.parametrize("name", drawn.LAYERS)
@given(data=st.data())
@few
def test_drawn(name: str, data: st.DataObject, tmp_path: Path) -> None:
    config = data.draw(drawn.layers(name))
    layer = getattr(tinyconv, config.name)(*config.args, **config.options)
    shape = config.shape
    try:
        layer = trained(layer, shape)
        export_onnx(layer, shape, tmp_path / "layer.onnx")
    except ValueError as error:
        print(error)
        assume(False)
    for batch in (2, 3):
        x = normal((batch, *shape[1:]))
        assert_same(run(tmp_path / "layer.onnx", x), layer.predict(x))

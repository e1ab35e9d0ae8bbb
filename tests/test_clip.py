"""Clipping of gradients, compared with torch.nn.utils."""

import math
from typing import Any

import numpy as np
import pytest

from tests import strict_arrays
from tests.compare import assert_close
from tinyconv import Linear, Sequential
from tinyconv.arrays import Array, moved
from tinyconv.training import ClipGradNorm
from tinyconv.training.clip import clip_grad_norm_, clip_grad_value_


def with_grads(dtype: Any = np.float64, scale: float = 1.0) -> Sequential:
    model = Sequential(Linear(3, 4, dtype=dtype, generator=0), Linear(4, 2, dtype=dtype, generator=1))
    rng = np.random.default_rng(2)
    for grad in model.grads.values():
        grad[...] = scale * rng.standard_normal(grad.shape)
    return model


def theirs(model: Sequential) -> Any:
    """Parameters of PyTorch with the same gradients."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    params = []
    for grad in model.grads.values():
        params.append(torch.nn.Parameter(torch.zeros(grad.shape, dtype=torch.tensor(grad).dtype)))
        params[-1].grad = torch.tensor(grad)
    return torch.nn.utils, params


def assert_same_grads(model: Sequential, params: Any) -> None:
    for (name, grad), param in zip(model.grads.items(), params, strict=True):
        assert_close(grad, param.grad.numpy(), name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.1, 1e3, math.inf])
def test_the_norm_is_clipped_as_by_pytorch(dtype: Any, norm_type: float, max_norm: float) -> None:
    model = with_grads(dtype)
    utils, params = theirs(model)
    expected = utils.clip_grad_norm_(params, max_norm, norm_type)
    total = clip_grad_norm_(model, max_norm, norm_type)
    assert isinstance(total, np.ndarray)
    assert_close(total, expected.numpy())
    assert_same_grads(model, params)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("norm_type", [2.0, math.inf])
def test_gradients_that_are_not_finite_or_overflow_are_clipped_as_by_pytorch(
    bad: float, norm_type: float
) -> None:
    model = with_grads(np.float32)
    model.grads["1.bias"][0] = bad
    utils, params = theirs(model)
    expected = utils.clip_grad_norm_(params, 1.0, norm_type)
    np.testing.assert_array_equal(clip_grad_norm_(model, 1.0, norm_type), expected.numpy())
    assert_same_grads(model, params)


def test_a_norm_that_is_not_finite_is_an_error_where_asked_for() -> None:
    model = with_grads()
    clip_grad_norm_(model, 1e9, error_if_nonfinite=True)
    model.grads["1.bias"][0] = np.nan
    before = {name: grad.copy() for name, grad in model.grads.items()}
    with pytest.raises(RuntimeError, match="the gradients' norm of order 2 is nan"):
        clip_grad_norm_(model, 1.0, error_if_nonfinite=True)
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, before[name])


def test_a_model_without_parameters_has_the_norm_0() -> None:
    assert clip_grad_norm_(Sequential(), 1.0) == 0
    clip_grad_value_(Sequential(), 1.0)


@pytest.mark.parametrize("clip_value", [0.0, 0.3, math.inf])
def test_values_are_clipped_as_by_pytorch(clip_value: float) -> None:
    model = with_grads(np.float32)
    model.grads["1.bias"][...] = [np.nan, -np.inf]
    utils, params = theirs(model)
    utils.clip_grad_value_(params, clip_value)
    clip_grad_value_(model, clip_value)
    assert_same_grads(model, params)


def test_wrong_arguments_are_refused_by_name() -> None:
    model = with_grads()
    for call in (
        lambda: clip_grad_norm_(model, -1.0),
        lambda: clip_grad_norm_(model, math.nan),
        lambda: clip_grad_norm_(model, 1.0, norm_type=0),
        lambda: clip_grad_norm_(model, 1.0, norm_type=-1),
        lambda: clip_grad_value_(model, -1.0),
    ):
        with pytest.raises(ValueError, match=r"`(max_norm|norm_type|clip_value)` \(="):
            call()


def test_on_a_gpu_nothing_is_read() -> None:
    here = with_grads()
    totals: list[Array] = [clip_grad_norm_(here, 0.5, norm_type) for norm_type in (2.0, 3.0, math.inf)]
    clip_grad_value_(here, 0.1)
    with strict_arrays.installed() as cupy:
        there = with_grads().to("cuda")
        before = strict_arrays.reads
        results = [clip_grad_norm_(there, 0.5, norm_type) for norm_type in (2.0, 3.0, math.inf)]
        clip_grad_value_(there, 0.1)
        assert strict_arrays.reads == before
        assert all(isinstance(total, cupy.ndarray) for total in results)
        np.testing.assert_allclose([moved(total, np) for total in results], totals)
        for name, grad in there.grads.items():
            np.testing.assert_allclose(moved(grad, np), here.grads[name])


def test_a_norm_of_order_0_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="`norm_type`"):
        ClipGradNorm(1.0, norm_type=0.0)

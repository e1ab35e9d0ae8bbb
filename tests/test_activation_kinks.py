"""Activations where PyTorch has to choose: at kinks, at infinities and NaN, and of options out of range."""

from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.compare import both_refuse
from tinyconv import gradcheck
from tinyconv.arrays import Array

INF = np.inf
# So many that PyTorch computes all in vectors: for a NaN among the last few it has other gradients.
PLACES = np.tile(
    [-INF, -800, -40, -3, -2.5, -1.5, -1, -0.0, 0, 0.5, 1, 3, 5, 6, 7, 19, 21, 800, INF, np.nan], 16
)
WEIGHTS = (0.3, 0.0, -2.0)
CASES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "relu6": ("relu6", ()),
    "hardtanh": ("hardtanh", ()),
    "hardtanh, other ends": ("hardtanh", (-1.5, 0.5)),
    "hardtanh, no room": ("hardtanh", (1, 1)),
    "hardsigmoid": ("hardsigmoid", ()),
    "hardswish": ("hardswish", ()),
    "selu": ("selu", ()),
    "mish": ("mish", ()),
    **{f"prelu, {w}": ("prelu", (np.array([w]),)) for w in WEIGHTS},
}


def gradients(f: Any, args: tuple[Any, ...], x: Array, g: Array) -> list[Array]:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    tensors = [torch.tensor(x, requires_grad=True)]
    given = [torch.tensor(a, requires_grad=True) if isinstance(a, np.ndarray) else a for a in args]
    tensors += [a for a in given if isinstance(a, torch.Tensor)]
    y = f(tensors[0], *given)
    return [t.detach().numpy() for t in (y, *torch.autograd.grad(y, tensors, torch.tensor(g)))]


@pytest.mark.parametrize(("name", "args"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("cotangent", [2.0, -0.5, np.nan])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_kinks_infinities_and_nan_are_pytorchs(
    name: str, args: tuple[Any, ...], cotangent: float, dtype: Any
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, g = PLACES.astype(dtype), np.full(len(PLACES), cotangent, dtype)
    args = tuple(a.astype(dtype) if isinstance(a, np.ndarray) else a for a in args)
    expected = gradients(getattr(torch.nn.functional, name), args, x, g)
    grads = getattr(F, f"{name}_backward")(g, x, *args)
    found = [getattr(F, name)(x, *args), *(grads if isinstance(grads, tuple) else (grads,))]
    rtol = 1e-7 if name == "hardsigmoid" or dtype == np.float32 else 1e-13
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours, theirs, rtol=10 * rtol, atol=rtol)


@pytest.mark.parametrize(("name", "args"), CASES.values(), ids=CASES)
def test_one_number_without_dimensions_is_an_array(name: str, args: tuple[Any, ...]) -> None:
    x = np.asarray(-0.25)
    y = getattr(F, name)(x, *args)
    assert isinstance(y, np.ndarray)
    assert y.shape == ()
    grads = getattr(F, f"{name}_backward")(np.asarray(2.0), x, *args)
    grad = grads[0] if isinstance(grads, tuple) else grads
    assert isinstance(grad, np.ndarray)
    assert grad.shape == ()
    row = getattr(F, f"{name}_backward")(np.array([2.0]), x[None], *args)
    assert grad == (row[0] if isinstance(row, tuple) else row)[0]


def test_every_channel_of_prelu_has_its_weight() -> None:
    x = np.array([[[-1.0, -2.0], [-1.0, 3.0], [4.0, -1.0]]])
    w, g = np.array([0.5, 0.25, -1.0]), np.array([[[1.0, 10.0], [1.0, 10.0], [1.0, 10.0]]])
    np.testing.assert_array_equal(F.prelu(x, w), [[[-0.5, -1.0], [-0.25, 3.0], [4.0, 1.0]]])
    dx, dw = F.prelu_backward(g, x, w)
    np.testing.assert_array_equal(dx, [[[0.5, 5.0], [0.25, 10.0], [1.0, -10.0]]])
    np.testing.assert_array_equal(dw, [-21.0, -1.0, -10.0])
    gradcheck(F.prelu, (x, w))


def test_a_frozen_prelu_has_no_gradient() -> None:
    layer = tc.PReLU(2).requires_grad_(False)
    layer(-np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(layer.backward(np.ones((3, 2), np.float32)), np.full((3, 2), 0.25))
    assert not layer.grads


def test_what_pytorch_refuses_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f, x, t = torch.nn.functional, np.zeros((2, 3)), torch.zeros(2, 3)
    both_refuse(lambda: F.hardtanh(x, 1, -1), lambda: f.hardtanh(t, 1, -1), r"`min_val` \(=1\) must not")
    both_refuse(lambda: F.hardtanh(x, 3), lambda: f.hardtanh(t, 3), r"`max_val` \(=1.0\)")
    with pytest.raises(AssertionError):
        torch.nn.Hardtanh(1, 1)
    with pytest.raises(ValueError, match=r"`max_val` \(=1\) must be above `min_val` \(=1\)"):
        tc.Hardtanh(1, 1)
    for shape in ((2,), (1, 1), (0,), (3, 1)):
        both_refuse(
            lambda shape=shape: F.prelu(x, np.zeros(shape)),  # type: ignore[misc]
            lambda shape=shape: f.prelu(t, torch.zeros(shape)),  # type: ignore[misc]
            r"`weight` \(of shape .*\) must have the shape \(1,\) or \(3,\)",
        )
    with pytest.raises(ValueError, match=r"`weight_dot` \(of shape \(3,\)\) must have the shape \(1,\)"):
        F.prelu_jvp(x, np.zeros(3), x, np.zeros(1))
    with pytest.raises(ValueError, match="`num_parameters`"):
        tc.PReLU(0)
    with pytest.raises(TypeError, match="`init`"):
        tc.PReLU(1, "0.25")  # type: ignore[arg-type]

"""Helpers: our operation and PyTorch's on the same data; the same values in other memory layouts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tinyconv.arrays import Array, as_logical, as_stored
from tinyconv.layers import Hardsigmoid, Layer

TOLERANCE = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-5}


def assert_close(actual: Any, expected: Any, what: str = "", scale: float = 0.0) -> None:
    """Shapes and dtypes equal; values within the dtype's tolerance of the largest expected, or of `scale`."""
    expected = np.asarray(expected)
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    tolerance = TOLERANCE.get(expected.dtype, 0)
    finite = np.abs(expected[np.isfinite(expected)], dtype=float) if expected.size else np.zeros(0)
    largest = finite.max(initial=scale)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * largest, err_msg=what)


def compare(
    ours: Callable[..., Any],
    ours_backward: Callable[..., Any],
    theirs: Callable[..., Any],
    arrays: Sequence[Array | None],
    **options: Any,
) -> None:
    """Compare values and gradients with respect to all `arrays` with PyTorch's."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    tensors = [None if a is None else torch.tensor(np.array(a, order="C")) for a in arrays]
    for tensor in tensors:
        if tensor is not None and tensor.is_floating_point():
            tensor.requires_grad_()
    expected = theirs(*tensors, **options)
    output = ours(*arrays, **options)
    assert_close(output, expected.detach().numpy(), "output")
    cotangent = np.random.default_rng(9).standard_normal(output.shape).astype(output.dtype)
    cotangent = np.asarray(cotangent)
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    expected_grads = torch.autograd.grad(expected, wanted, torch.tensor(cotangent))
    grads = ours_backward(cotangent, *arrays, **options)
    grads = [grad for grad in (grads if isinstance(grads, tuple) else (grads,)) if grad is not None]
    assert len(grads) == len(expected_grads)
    for i, (grad, expected_grad) in enumerate(zip(grads, expected_grads, strict=True)):
        assert_close(grad, expected_grad.numpy(), f"gradient {i}")


def both_refuse(ours: Callable[[], Any], theirs: Callable[[], Any], match: str) -> None:
    """Demand that PyTorch refuses, and that we refuse with a message that matches."""
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
        theirs()
    with pytest.raises((ValueError, TypeError), match=match):
        ours()


def compare_layer(layer: Layer, theirs: Any, x: Array) -> None:
    """Compare a layer's output, input gradient, parameter gradients and buffers with PyTorch's."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    if isinstance(layer, Hardsigmoid):
        x = x.astype(np.float32)  # PyTorch's slope is 1 / 6 in float32, whatever the dtype
    theirs.to(torch.float64 if x.dtype == np.float64 else torch.float32)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    theirs.train(layer.training)
    theirs.zero_grad()
    tensor = torch.tensor(np.array(x, order="C"), requires_grad=True)
    expected = theirs(tensor)
    output = layer.forward(x)
    assert_close(output, expected.detach().numpy(), "output")
    cotangent = np.random.default_rng(9).standard_normal(output.shape).astype(output.dtype)
    expected.backward(torch.tensor(cotangent))
    layer.zero_grad()
    assert_close(layer.backward(cotangent), tensor.grad.numpy(), "input gradient")
    named = dict(theirs.named_parameters())
    assert list(named) == list(layer.grads)
    # A bias before batch norm has the gradient 0, which rounding makes 1e-16 of the others.
    scale = max((float(p.grad.abs().max()) for p in named.values() if p.numel()), default=0.0)
    for name, grad in layer.grads.items():
        assert_close(grad, named[name].grad.numpy(), f"gradient of {name}", scale)
    for name, buffer in theirs.named_buffers():
        assert_close(layer.buffers[name], buffer.numpy(), name)


def layouts(x: Array) -> Iterator[tuple[str, Array]]:
    """The values of `x` in one memory layout after another."""
    yield "C order", np.ascontiguousarray(x)
    yield "Fortran order", np.asfortranarray(x)
    yield "stored", as_logical(np.ascontiguousarray(as_stored(x)))
    yield "batch last", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    reverse = tuple(slice(None, None, -1) for _ in x.shape)
    yield "reversed", np.ascontiguousarray(x[reverse])[reverse]
    wide = np.repeat(x, 2, axis=-1)
    yield "every second element", wide[..., ::2]
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen

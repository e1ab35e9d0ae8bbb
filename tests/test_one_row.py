"""Pooling and transposed convolution of sequences, which are images of height 1."""

import inspect
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare
from tinyconv.arrays import Array


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def test_signatures_are_those_of_images() -> None:
    for name in ("max_pool", "conv_transpose"):
        ours, theirs = (inspect.signature(getattr(F, f"{name}{n}")) for n in ("1d", "2d"))
        assert list(ours.parameters) == list(theirs.parameters)
    assert "divisor_override" not in inspect.signature(F.avg_pool1d).parameters


def test_special_values_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.array([[[1.0, np.nan, -np.inf, -np.inf, -np.inf, 2.0, 2.0, np.inf, 0.0]]])
    for window in ((2,), (3, 1, 1), (2, 3, 0, 2)):
        compare(
            F.max_pool1d,
            F.max_pool1d_backward,
            torch.nn.functional.max_pool1d,
            [x[0]],
            **dict(zip(("kernel_size", "stride", "padding", "dilation"), window, strict=False)),
        )
        _, ours = F.max_pool1d(x, *window, return_indices=True)
        _, theirs = torch.nn.functional.max_pool1d(torch.tensor(x), *window, return_indices=True)
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_indices_of_the_layer_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = normal(2, 3, 9)
    expected = torch.nn.MaxPool1d(3, 2, 1, return_indices=True)(torch.tensor(x))
    layer = tc.MaxPool1d(3, 2, 1, return_indices=True)
    for ours, theirs in zip(layer(x), expected, strict=True):
        assert_close(ours, theirs.numpy())
    assert layer.backward(normal(2, 3, 5)).shape == x.shape


def test_a_transposed_convolution_gives_the_wanted_length() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = tc.ConvTranspose1d(2, 3, 3, 2, dtype=np.float64, generator=0), normal(4, 2, 5)
    theirs = tc.to_torch(layer)
    for size in ((11,), (12,), (4, 3, 12)):
        assert_close(layer(x, size), theirs(torch.tensor(x), size).detach().numpy())
        assert layer.backward(layer(x, size)).shape == x.shape
    for wrong in ((10,), (13,), (11, 11)):
        both_refuse(lambda w=wrong: layer(x, w), lambda w=wrong: theirs(torch.tensor(x), w), "`output_size`")  # type: ignore[misc]


def test_what_pytorch_refuses_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    refused: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
        ("max_pool1d", ((5,), 2), {}, "input"),
        ("max_pool1d", ((1, 2, 3, 4), 2), {}, "input"),
        ("max_pool1d", ((2, 3, 4), (2, 2)), {}, "kernel_size"),
        ("max_pool1d", ((2, 3, 4), 2), {"padding": 2}, "padding"),
        ("max_pool1d", ((2, 3, 4), 5), {}, "kernel_size"),
        ("max_pool1d", ((2, 3, 4), 2), {"stride": 0}, "stride"),
        ("avg_pool1d", ((5,), 2), {}, "input"),
        ("avg_pool1d", ((2, 3, 4), 5), {}, "kernel_size"),
        ("avg_pool1d", ((2, 3, 4), 2), {"stride": (1, 1)}, "stride"),
    ]
    for name, (shape, size), options, argument in refused:
        both_refuse(
            lambda: getattr(F, name)(np.zeros(shape), size, **options),  # noqa: B023
            lambda: getattr(torch.nn.functional, name)(torch.zeros(shape), size, **options),  # noqa: B023
            f"`{argument}`",
        )
    kernel, f = np.zeros((2, 3, 3)), torch.nn.functional.conv_transpose1d
    wrong: list[tuple[tuple[int, ...], dict[str, Any]]] = [
        ((1, 3, 5), {}),
        ((1, 2, 5), {"output_padding": 1}),
        ((5,), {}),
    ]
    for shape, options in wrong:
        both_refuse(
            partial(F.conv_transpose1d, np.zeros(shape), kernel, **options),
            partial(f, torch.zeros(shape).double(), torch.tensor(kernel), **options),
            "`",
        )
    with pytest.raises(TypeError, match="divisor_override"):
        F.avg_pool1d(np.zeros((1, 4)), 2, divisor_override=3)
    with pytest.raises(ValueError, match=r"`input` .* must have the form \(N, C, L\) or \(C, L\)"):
        tc.MaxPool1d(2)(np.zeros((1, 2, 3, 4)))

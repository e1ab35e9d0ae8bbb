"""Adaptive max-pooling where PyTorch has to choose: equal values, NaN, infinities, and what it refuses."""

from functools import partial

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.compare import both_refuse, compare


@pytest.mark.parametrize("size", [(2, 3), (5, 1), (1, 7), (8, 8)])
def test_equal_values_nan_and_infinities_are_pytorchs(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.random.default_rng(0).integers(0, 3, (2, 2, 7, 5)).astype(np.float64)
    x[0, 0] = -np.inf
    x[0, 1, 3, 1:4] = np.nan
    x[1, 0, :, 2] = np.inf
    compare(
        F.adaptive_max_pool2d,
        F.adaptive_max_pool2d_backward,
        torch.nn.functional.adaptive_max_pool2d,
        [x],
        output_size=size,
    )
    expected = torch.nn.functional.adaptive_max_pool2d(torch.tensor(x), size, return_indices=True)
    for found in (F.adaptive_max_pool2d(x, size, True), tc.AdaptiveMaxPool2d(size, True)(x)):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy())


def test_what_pytorch_refuses_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f = torch.nn.functional.adaptive_max_pool2d
    wrong = [((1, 2, 0, 4), 2, "input"), ((4, 4), 2, "input"), ((1, 2, 4, 4), (2, 2, 2), "output_size")]
    wrong += [((1, 2, 4, 4), (2, -1), "output_size"), ((1, 0, 4, 4), 2, "input")]
    for shape, size, argument in wrong:
        both_refuse(
            partial(F.adaptive_max_pool2d, np.zeros(shape), size),  # type: ignore[arg-type]
            partial(f, torch.zeros(shape), size),
            f"`{argument}`",
        )

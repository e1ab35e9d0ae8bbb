"""Max-pooling: against PyTorch, plain loops and finite differences."""

from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare, layouts
from tinyconv import gradcheck, reference
from tinyconv.arguments import pair
from tinyconv.arrays import as_stored
from tinyconv.functional.pooling.geometry import pool_geometry

CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 6, 8), {"kernel_size": 2}),
    "size that does not divide": ((2, 2, 7, 5), {"kernel_size": 2}),
    "overlapping": ((2, 2, 7, 8), {"kernel_size": 3, "stride": 2}),
    "overlapping in one direction": ((2, 2, 7, 8), {"kernel_size": (2, 3), "stride": (2, 1)}),
    "gaps": ((1, 2, 8, 9), {"kernel_size": 2, "stride": 3}),
    "padding": ((2, 2, 5, 6), {"kernel_size": (3, 2), "stride": 2, "padding": 1}),
    "dilation": ((1, 2, 8, 9), {"kernel_size": (3, 2), "stride": 1, "dilation": (2, 3), "padding": 1}),
    "ceil_mode": ((2, 2, 7, 6), {"kernel_size": (2, 4), "stride": (2, 3), "ceil_mode": True}),
    "ceil_mode, last window dropped": (
        (1, 1, 3, 5),
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    ),
    "ceil_mode, padding, dilation": (
        (1, 2, 7, 7),
        {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True},
    ),
    "unbatched": ((3, 6, 6), {"kernel_size": 2}),
    "batch of one": ((1, 2, 4, 4), {"kernel_size": 2}),
    "batch of none": ((0, 2, 4, 4), {"kernel_size": 2}),
    "300 taps": ((1, 1, 20, 20), {"kernel_size": (15, 20), "stride": 1}),
}
cases = pytest.mark.parametrize("case", CASES, ids=str)


def make(case: str) -> tuple[Any, dict[str, Any]]:
    shape, options = CASES[case]
    return np.random.default_rng(0).standard_normal(shape), options


@cases
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_max_pool2d_agrees_with_pytorch(case: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, options = make(case)
    x = x.astype(dtype)
    compare(F.max_pool2d, F.max_pool2d_backward, torch.nn.functional.max_pool2d, [x], **options)
    _, expected = torch.nn.functional.max_pool2d(torch.tensor(x), **options, return_indices=True)
    output, indices = F.max_pool2d(x, **options, return_indices=True)
    assert_close(output, F.max_pool2d(x, **options))
    assert_close(indices, expected.numpy(), "indices")


@cases
def test_max_pool2d_agrees_with_plain_loops(case: str) -> None:
    x, options = make(case)
    if x.ndim == 3:
        pytest.skip("the plain loops take batches")
    loops = {key: pair(key, value, 0) for key, value in options.items() if key != "ceil_mode"}
    kernel = loops.pop("kernel_size")
    loops.setdefault("stride", kernel)
    output, where = reference.max_pool2d(x, kernel, ceil_mode=options.get("ceil_mode", False), **loops)
    ours, indices = F.max_pool2d(x, **options, return_indices=True)
    assert_close(ours, output)
    assert_close(indices, where)
    g = np.random.default_rng(1).standard_normal(output.shape)
    assert_close(F.max_pool2d_backward(g, x, **options), reference.max_pool2d_backward(g, x, where))


@cases
def test_max_pool2d_backward_agrees_with_finite_differences(case: str) -> None:
    x, options = make(case)
    gradcheck(partial(F.max_pool2d, **options), x)


@cases
def test_every_memory_layout_pools_the_same(case: str) -> None:
    x, options = make(case)
    y = F.max_pool2d(x, **options)
    g = np.random.default_rng(1).standard_normal(y.shape)
    grad = F.max_pool2d_backward(g, x, **options)
    for (name, x_), (_, g_) in zip(layouts(x), layouts(g), strict=True):
        assert_close(F.max_pool2d(x_, **options), y, name)
        assert_close(F.max_pool2d_backward(g_, x_, **options), grad, name)


@cases
def test_ties_nan_and_infinities_are_resolved_as_in_pytorch(case: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    shape, options = CASES[case]
    values = [0.0, 1.0, np.nan, np.inf, -np.inf]
    rng = np.random.default_rng(0)
    for chosen in (values[:2], values[:3], values[3:], values[4:], values):
        x = rng.choice(chosen, shape)
        expected, positions = torch.nn.functional.max_pool2d(torch.tensor(x), **options, return_indices=True)
        output, indices = F.max_pool2d(x, **options, return_indices=True)
        np.testing.assert_array_equal(output, expected.numpy())
        np.testing.assert_array_equal(indices, positions.numpy())


def test_infinite_gradients_stay_at_their_maxima() -> None:
    x = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    grad = F.max_pool2d_backward(np.array([[[np.inf]]]), x, 2)
    np.testing.assert_array_equal(grad, [[[0, 0], [0, np.inf]]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, -0.0], ids=str)
def test_gradients_arrive_bit_by_bit(special: float, dtype: Any) -> None:
    x = np.random.default_rng(0).permutation(64).reshape(1, 1, 8, 8).astype(dtype)
    g = np.full((1, 1, 4, 4), special, dtype)
    positions = F.max_pool2d(x, 2, return_indices=True)[1].ravel()
    expected = np.zeros(64, dtype)
    expected[positions] = special
    bits = f"i{g.itemsize}"
    grad = np.ascontiguousarray(F.max_pool2d_backward(g, x, 2))
    np.testing.assert_array_equal(grad.view(bits).ravel(), expected.view(bits))


@cases
def test_max_pool2d_is_in_the_memory_format_and_keeps_little(case: str) -> None:
    x, options = make(case)
    output, winners = F.max_pool2d_saved(x, **options)
    grad = F.max_pool2d_saved_backward(output, winners, x.shape, **options)
    tangent = F.max_pool2d_saved_jvp(x, winners, **options)
    for result in (output, winners, grad, tangent, *F.max_pool2d(x, **options, return_indices=True)):
        batch = result if x.ndim == 4 else result[None]
        assert as_stored(batch).flags.c_contiguous
    assert winners.dtype == (np.uint8 if case != "300 taps" else np.uint16)
    assert not np.shares_memory(output, x)


def test_equal_options_share_one_geometry_and_bools_are_not_taken_for_ones() -> None:
    first = pool_geometry((2, 3, 8, 8), 2, None, 0, 1, True)
    assert pool_geometry((2, 3, 8, 8), [2, 2], (), (0,), (1, 1), True) is first
    assert pool_geometry((3, 8, 8), 2).input_shape == (1, 3, 8, 8)
    assert pool_geometry((1, 3, 8, 8), (2, 1)).kernel_size == (2, 1)
    with pytest.raises(TypeError, match="`kernel_size`"):
        pool_geometry((1, 3, 8, 8), (2, True))


REFUSED: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "2 dimensions": ((4, 4), {"kernel_size": 2}, "form"),
    "kernel too large": ((1, 1, 2, 2), {"kernel_size": 3}, "larger than the padded input"),
    "padding over half": ((1, 1, 4, 4), {"kernel_size": 2, "padding": 2}, "at most half"),
    "padding over half of a dilated kernel": (
        (1, 1, 8, 8),
        {"kernel_size": 3, "padding": 2, "dilation": 3},
        "at most half",
    ),
    "stride 0": ((1, 1, 4, 4), {"kernel_size": 2, "stride": 0}, "`stride`"),
    "dilation 0": ((1, 1, 4, 4), {"kernel_size": 2, "dilation": 0}, "`dilation`"),
    "kernel 0": ((1, 1, 4, 4), {"kernel_size": 0}, "`kernel_size`"),
    "three kernel sizes": ((1, 1, 4, 4), {"kernel_size": (1, 2, 3)}, "`kernel_size`"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_max_pool2d_refuses_what_pytorch_refuses(case: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    shape, options, match = REFUSED[case]
    both_refuse(
        lambda: F.max_pool2d(np.zeros(shape), **options),
        lambda: torch.nn.functional.max_pool2d(torch.zeros(shape), **options),
        match,
    )


def test_output_sizes_agree_with_pytorch_for_all_small_geometries() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    for index in np.ndindex(7, 3, 3, 2, 2, 2):
        size, kernel, stride, padding, dilation = (int(i) + 1 for i in index[:5])
        options = {
            "kernel_size": kernel,
            "stride": stride,
            "padding": padding - 1,
            "dilation": dilation,
            "ceil_mode": bool(index[5]),
        }
        try:
            theirs = torch.nn.functional.max_pool2d(torch.zeros(1, 1, size, size), **options).shape
        except RuntimeError:
            with pytest.raises(ValueError, match="`"):
                pool_geometry((1, 1, size, size), **options)  # type: ignore[arg-type]
        else:
            geometry = pool_geometry((1, 1, size, size), **options)  # type: ignore[arg-type]
            assert geometry.output_size == theirs[2:]

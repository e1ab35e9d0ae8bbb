"""Convolution, unfold and fold: against PyTorch, plain loops, finite differences and scipy."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.signal

import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare, layouts
from tinyconv import gradcheck, reference
from tinyconv.arguments import pair
from tinyconv.arrays import Array
from tinyconv.functional.conv import columns, windows
from tinyconv.functional.conv.algorithms import INPUT, NAMES, OUTPUT, TABLE, WEIGHT, Algorithm, pick
from tinyconv.functional.conv.geometry import conv_geometry, window_geometry

# name: (input shape, weight shape, options)
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 6, 7), (4, 3, 3, 3), {}),
    "1x1": ((2, 3, 5, 5), (4, 3, 1, 1), {}),
    "stride that does not divide": ((2, 2, 8, 9), (3, 2, 3, 2), {"stride": (3, 2)}),
    "padding": ((2, 2, 5, 5), (3, 2, 3, 3), {"padding": (2, 1)}),
    "padding wider than the kernel": ((1, 1, 3, 3), (1, 1, 2, 2), {"padding": 3}),
    "dilation": ((1, 2, 9, 8), (2, 2, 3, 2), {"dilation": (2, 3), "padding": 1}),
    "groups": ((2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "stride": 2, "padding": 1}),
    "depthwise": ((2, 3, 6, 6), (3, 1, 3, 3), {"groups": 3}),
    "depthwise, two outputs a channel": ((2, 3, 6, 6), (6, 1, 3, 3), {"groups": 3, "dilation": 2}),
    "same": ((2, 2, 6, 5), (2, 2, 3, 5), {"padding": "same"}),
    "same, even kernel": ((2, 2, 6, 5), (2, 2, 4, 2), {"padding": "same"}),
    "same, dilated even kernel": ((1, 1, 7, 7), (1, 1, 2, 4), {"padding": "same", "dilation": (1, 3)}),
    "valid": ((1, 2, 5, 5), (2, 2, 3, 3), {"padding": "valid", "stride": 2}),
    "1xN kernel": ((2, 2, 4, 9), (3, 2, 1, 5), {"padding": (0, 2)}),
    "Nx1 kernel": ((2, 2, 9, 4), (3, 2, 5, 1), {}),
    "kernel as large as the input": ((2, 2, 4, 3), (5, 2, 4, 3), {}),
    "stride larger than the kernel": ((1, 2, 8, 8), (2, 2, 2, 2), {"stride": 3}),
    "batch of one": ((1, 2, 5, 5), (3, 2, 3, 3), {"padding": 1}),
    "batch of none": ((0, 2, 5, 5), (3, 2, 3, 3), {"padding": 1}),
    "unbatched": ((2, 5, 5), (3, 2, 3, 3), {"padding": 1, "stride": 2}),
}
cases = pytest.mark.parametrize("case", CASES, ids=str)
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def make(case: str, dtype: Any = np.float64) -> tuple[Array, Array, Array, dict[str, Any]]:
    shape, weight_shape, options = CASES[case]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal(weight_shape)
    b = rng.standard_normal(weight_shape[0])
    return x.astype(dtype), w.astype(dtype), b.astype(dtype), options


@pytest.fixture(params=["by shape", *sorted({*OUTPUT, *INPUT, *WEIGHT})], autouse=True)
def algorithm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file runs with each algorithm, wherever that one supports the shapes."""
    before = {wanted: dict(table) for wanted, table in TABLE.items()}
    for table in TABLE.values():
        if request.param in table:
            preferred = table[request.param]._replace(is_faster=table[request.param].supports)
            others = {name: other for name, other in table.items() if name != request.param}
            _refill(table, {request.param: preferred, **others})
    yield
    for wanted, contents in before.items():
        _refill(TABLE[wanted], contents)


def _refill(table: dict[str, Algorithm], contents: dict[str, Algorithm]) -> None:
    table.clear()
    table.update(contents)
    pick.cache_clear()


@cases
@dtypes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_conv2d_agrees_with_pytorch(case: str, dtype: Any, bias: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, w, b, options = make(case, dtype)
    compare(F.conv2d, F.conv2d_backward, torch.nn.functional.conv2d, [x, w, b if bias else None], **options)


@cases
def test_conv2d_agrees_with_plain_loops(case: str) -> None:
    x, w, b, options = make(case)
    if x.ndim == 3 or isinstance(options.get("padding"), str):
        pytest.skip("the plain loops take batches and numbers")
    loops: dict[str, Any] = {key: pair(key, value, 0) for key, value in options.items() if key != "groups"}
    loops["groups"] = options.get("groups", 1)
    y = F.conv2d(x, w, b, **options)
    assert_close(y, reference.conv2d(x, w, b, **loops))
    g = np.random.default_rng(1).standard_normal(y.shape)
    expected = reference.conv2d_backward(g, x, w, **loops)
    for grad, loop_grad in zip(F.conv2d_backward(g, x, w, b, **options), expected, strict=True):
        assert_close(grad, loop_grad)


@cases
def test_conv2d_backward_agrees_with_finite_differences(case: str) -> None:
    x, w, b, options = make(case)
    found = gradcheck(partial(F.conv2d, **options), (x, w, b))
    assert found.checked == x.size + w.size + b.size


@cases
def test_input_and_weight_gradients_agree_with_torch_nn_grad(case: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, w, _, options = make(case)
    if x.ndim == 3 or isinstance(options.get("padding"), str):
        pytest.skip("torch.nn.grad takes batches and numbers")
    g = np.random.default_rng(1).standard_normal(F.conv2d(x, w, **options).shape)
    xt, wt, gt = torch.tensor(x), torch.tensor(w), torch.tensor(g)
    if len(x):
        expected = torch.nn.grad.conv2d_input(x.shape, wt, gt, **options)
        assert_close(F.conv2d_input(x.shape, w, g, **options), expected.numpy())
    expected = torch.nn.grad.conv2d_weight(xt, w.shape, gt, **options)
    assert_close(F.conv2d_weight(x, w.shape, g, **options), expected.numpy())


@cases
def test_the_three_maps_are_one_trilinear_form(case: str) -> None:
    x, w, _, options = make(case)
    y = F.conv2d(x, w, **options)
    g = np.random.default_rng(1).standard_normal(y.shape)
    form = (g * y).sum()
    np.testing.assert_allclose((x * F.conv2d_input(x.shape, w, g, **options)).sum(), form, rtol=1e-11)
    np.testing.assert_allclose((w * F.conv2d_weight(x, w.shape, g, **options)).sum(), form, rtol=1e-11)


@cases
def test_every_memory_layout_gives_the_same_convolution(case: str) -> None:
    x, w, b, options = make(case)
    y = F.conv2d(x, w, b, **options)
    g = np.random.default_rng(1).standard_normal(y.shape)
    expected = F.conv2d_backward(g, x, w, b, **options)
    variants = zip(layouts(x), layouts(w), layouts(g), strict=True)
    for (name, x_), (_, w_), (_, g_) in variants:
        assert_close(F.conv2d(x_, w_, b, **options), y, name)
        for grad, expected_grad in zip(F.conv2d_backward(g_, x_, w_, b, **options), expected, strict=True):
            assert_close(grad, expected_grad, name)


def test_a_broadcast_input_is_convolved_like_its_copy() -> None:
    x = np.broadcast_to(np.random.default_rng(0).standard_normal((1, 1, 5, 1)), (3, 2, 5, 6))
    w = np.random.default_rng(1).standard_normal((2, 2, 3, 3))
    assert_close(F.conv2d(x, w), F.conv2d(x.copy(), w))
    g = np.broadcast_to(np.ones(()), (3, 2, 3, 4))
    assert_close(F.conv2d_weight(x, w.shape, g), F.conv2d_weight(x.copy(), w.shape, g.copy()))


@pytest.mark.parametrize("block_bytes", [1, 300, 5000])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    for case in ("padding", "groups", "stride that does not divide"):
        x, w, b, options = make(case)
        y = F.conv2d(x, w, b, **options)
        g = np.random.default_rng(1).standard_normal(y.shape)
        expected = F.conv2d_backward(g, x, w, b, **options)
        with monkeypatch.context() as patch:
            for module in (columns, windows):
                patch.setattr(module, "BLOCK_BYTES", block_bytes)
            assert_close(F.conv2d(x, w, b, **options), y)
            for grad, expected_grad in zip(F.conv2d_backward(g, x, w, b, **options), expected, strict=True):
                assert_close(grad, expected_grad)


@pytest.mark.parametrize("nbytes", [0, 1, 100_000, 1 << 20, 3 << 20])
def test_blocks_of_rows_cover_each_row_once(nbytes: int) -> None:
    blocks = windows.blocks(slice(2, 15), nbytes)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(2, 15))
    assert all((b.stop - b.start) * nbytes <= 1 << 20 or b.stop - b.start == 1 for b in blocks)


def test_convolutions_are_in_the_memory_format() -> None:
    x, w, b, _ = make("plain")
    assert F.conv2d(x, w, b).transpose(2, 3, 1, 0).flags.c_contiguous
    assert F.conv2d_input(x.shape, w, F.conv2d(x, w)).transpose(2, 3, 1, 0).flags.c_contiguous
    assert F.conv2d_weight(x, w.shape, F.conv2d(x, w)).flags.c_contiguous
    assert F.unfold(x, 2).transpose(2, 1, 0).flags.c_contiguous
    assert F.fold(F.unfold(x, 2), x.shape[2:], 2).transpose(2, 3, 1, 0).flags.c_contiguous
    assert F.conv1d(x[:, :, 0], w[:, :, 0]).transpose(2, 1, 0).flags.c_contiguous


def test_equal_arrays_in_equal_layouts_give_equal_bits() -> None:
    x, w, b, _ = make("plain", np.float32)
    for (_, first), (_, second) in zip(layouts(x), layouts(x.copy()), strict=True):
        np.testing.assert_array_equal(F.conv2d(first, w, b), F.conv2d(second, w, b))


def test_conv2d_agrees_with_scipy_correlate() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 7, 8)), rng.standard_normal((3, 3, 2))
    expected = scipy.signal.correlate(x, w, mode="valid")
    assert_close(F.conv2d(x, w[None]), expected)


def test_large_convolutions_agree_with_pytorch_in_float32() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 32, 26, 26)).astype(np.float32)
    w = (rng.standard_normal((64, 32, 3, 3)) / 17).astype(np.float32)
    compare(F.conv2d, F.conv2d_backward, torch.nn.functional.conv2d, [x, w, None])


REFUSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], str]] = {
    "input with 2 dimensions": ((5, 5), (1, 1, 3, 3), {}, r"`input` \(of shape \(5, 5\)\)"),
    "weight with 3 dimensions": ((1, 1, 5, 5), (1, 3, 3), {}, r"`weight` \(of shape \(1, 3, 3\)\)"),
    "channels": ((1, 3, 5, 5), (1, 2, 3, 3), {}, "must have 2 channels"),
    "channels in groups": ((1, 3, 5, 5), (2, 1, 3, 3), {"groups": 2}, "must have 2 channels"),
    "outputs in groups": ((1, 4, 5, 5), (3, 2, 3, 3), {"groups": 2}, r"divisible by `groups` \(=2\)"),
    "kernel too large": ((1, 1, 2, 5), (1, 1, 3, 3), {}, r"`kernel_size` .*larger than the padded input"),
    "dilated kernel too large": ((1, 1, 5, 5), (1, 1, 3, 3), {"dilation": 3}, "padded input"),
    "stride 0": ((1, 1, 5, 5), (1, 1, 3, 3), {"stride": 0}, r"`stride` \(=0\) must be at least 1"),
    "negative padding": ((1, 1, 5, 5), (1, 1, 3, 3), {"padding": -1}, r"`padding` \(=-1\)"),
    "dilation 0": ((1, 1, 5, 5), (1, 1, 3, 3), {"dilation": (1, 0)}, r"`dilation` \(=\(1, 0\)\)"),
    "groups 0": ((1, 1, 5, 5), (1, 1, 3, 3), {"groups": 0}, r"`groups` \(=0\)"),
    "float stride": ((1, 1, 5, 5), (1, 1, 3, 3), {"stride": 1.5}, r"`stride` \(=1.5\)"),
    "same with stride": ((1, 1, 5, 5), (1, 1, 3, 3), {"padding": "same", "stride": 2}, "'same'"),
    "unknown padding": ((1, 1, 5, 5), (1, 1, 3, 3), {"padding": "full"}, r"`padding` \(='full'\)"),
    "no outputs": ((1, 1, 5, 5), (1, 1, 0, 3), {}, r"`kernel_size`"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_conv2d_refuses_what_pytorch_refuses(case: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    shape, weight_shape, options, match = REFUSED[case]
    both_refuse(
        lambda: F.conv2d(np.zeros(shape), np.zeros(weight_shape), **options),
        lambda: torch.nn.functional.conv2d(torch.zeros(shape), torch.zeros(weight_shape), **options),
        match,
    )


def test_conv2d_refuses_dtypes_that_differ_or_are_not_floating() -> None:
    x, w, b, _ = make("plain")
    with pytest.raises(TypeError, match=r"`input` \(of dtype float64\) must have the dtype of `weight`"):
        F.conv2d(x, w.astype(np.float32))
    with pytest.raises(TypeError, match=r"`bias` \(of dtype float32\)"):
        F.conv2d(x, w, b.astype(np.float32))
    with pytest.raises(TypeError, match="`input` must be of dtype float32 or float64, got int64"):
        F.conv2d(x.astype(np.int64), w)
    with pytest.raises(TypeError, match=r"numpy.ndarray"):
        F.conv2d(x.tolist(), w)
    with pytest.raises(ValueError, match=r"`bias` \(of shape \(3,\)\) must have the shape \(4,\)"):
        F.conv2d(x, w, b[:3])


def test_gradient_maps_refuse_a_gradient_of_another_shape() -> None:
    x, w, _, _ = make("plain")
    with pytest.raises(ValueError, match=r"`grad_output` \(of shape \(2, 4, 3, 3\)\)"):
        F.conv2d_input(x.shape, w, np.zeros((2, 4, 3, 3)))
    with pytest.raises(ValueError, match="`grad_output`"):
        F.conv2d_weight(x, w.shape, np.zeros((2, 4, 3, 3)))


UNFOLDED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 5, 6), {"kernel_size": 3}),
    "stride": ((2, 2, 7, 6), {"kernel_size": (2, 3), "stride": (2, 3)}),
    "padding": ((1, 2, 4, 4), {"kernel_size": (3, 2), "padding": (1, 2)}),
    "dilation": ((2, 1, 7, 8), {"kernel_size": (2, 3), "dilation": (3, 2), "padding": 1}),
    "unbatched": ((2, 5, 5), {"kernel_size": 2, "stride": 2}),
    "batch of none": ((0, 2, 5, 5), {"kernel_size": 2}),
}
unfolded = pytest.mark.parametrize("case", UNFOLDED, ids=str)


@unfolded
@dtypes
def test_unfold_and_fold_agree_with_pytorch(case: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    shape, options = UNFOLDED[case]
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if case != "batch of none":  # refused by PyTorch's unfold
        compare(F.unfold, F.unfold_backward, torch.nn.functional.unfold, [x], **options)
        options = {"output_size": shape[-2:], **options}
        compare(
            F.fold,
            F.fold_backward,
            torch.nn.functional.fold,
            [F.unfold(x, **UNFOLDED[case][1])],
            **options,
        )
    else:
        assert F.unfold(x, **options).shape == (0, 8, 16)
        assert F.fold(F.unfold(x, **options), (5, 5), **options).shape == shape


@unfolded
def test_unfold_and_fold_agree_with_plain_loops(case: str) -> None:
    shape, options = UNFOLDED[case]
    if len(shape) == 3:
        pytest.skip("the plain loops take batches")
    loops = {key: pair(key, value, 0) for key, value in options.items()}
    kernel = loops.pop("kernel_size")
    x = np.random.default_rng(0).standard_normal(shape)
    columns = F.unfold(x, **options)
    assert_close(columns, reference.unfold(x, kernel, **loops))
    size = (shape[2], shape[3])
    assert_close(F.fold(columns, size, **options), reference.fold(columns, size, kernel, **loops))


@unfolded
def test_unfold_and_fold_backward_agree_with_finite_differences(case: str) -> None:
    shape, options = UNFOLDED[case]
    x = np.random.default_rng(0).standard_normal(shape)
    gradcheck(partial(F.unfold, **options), x)
    gradcheck(partial(F.fold, output_size=shape[-2:], **options), F.unfold(x, **options))


@unfolded
def test_every_memory_layout_unfolds_and_folds_the_same(case: str) -> None:
    shape, options = UNFOLDED[case]
    x = np.random.default_rng(0).standard_normal(shape)
    columns = F.unfold(x, **options)
    image = F.fold(columns, shape[-2:], **options)
    for (name, x_), (_, columns_) in zip(layouts(x), layouts(columns), strict=True):
        assert_close(F.unfold(x_, **options), columns, name)
        assert_close(F.fold(columns_, shape[-2:], **options), image, name)


def test_convolution_is_a_product_with_the_unfolded_image() -> None:
    x, w, b, _ = make("plain")
    columns = F.unfold(x, 3)
    product = w.reshape(4, -1) @ columns + b[:, None]
    assert_close(F.conv2d(x, w, b), product.reshape(2, 4, 4, 5))


def test_fold_refuses_columns_that_do_not_fit() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    for shape, size, match in [
        ((1, 5, 9), (4, 4), "KH"),
        ((1, 4, 8), (4, 4), "9 columns"),
        ((4,), 3, "form"),
    ]:
        both_refuse(
            lambda shape=shape, size=size: F.fold(np.zeros(shape), size, 2),  # type: ignore[misc]
            lambda shape=shape, size=size: torch.nn.functional.fold(torch.zeros(shape), size, 2),  # type: ignore[misc]
            match,
        )
    both_refuse(
        lambda: F.unfold(np.zeros((1, 1, 2, 2)), 3),
        lambda: torch.nn.functional.unfold(torch.zeros(1, 1, 2, 2), 3),
        "kernel_size",
    )


def test_taps_of_a_window_outside_the_image_are_empty() -> None:
    taps = window_geometry((1, 1, 1, 1), 3, 1, 1).taps
    seen = [(i, j) for i, j, _, (rows, cols) in taps if rows.stop > rows.start and cols.stop > cols.start]
    assert seen == [(1, 1)]


def test_geometries_are_cached_and_checked_each_time() -> None:
    shapes = (2, 3, 8, 8), (4, 3, 3, 3)
    geometry = conv_geometry(*shapes, 1, 1)
    assert conv_geometry(*shapes, (1, 1), [1, 1]) is geometry
    assert geometry.output_shape == (2, 4, 8, 8)
    assert geometry.weight_shape == shapes[1]
    for wrong in (True, 1.0, (1, True), (1.0, 1)):
        with pytest.raises(TypeError, match="`stride`"):
            conv_geometry(*shapes, wrong, 1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="`dilation`"):
            conv_geometry(*shapes, 1, 1, wrong)  # type: ignore[arg-type]


def test_the_turned_convolution_gives_the_gradient_with_respect_to_the_image() -> None:
    x, w, _, _ = make("plain")
    geometry = conv_geometry(x.shape, w.shape, 1, (1, 2))
    g = np.random.default_rng(1).standard_normal(geometry.output_shape)
    turned = geometry.turned
    assert turned.output_shape == x.shape
    y = np.empty(x.shape)
    columns.conv2d(turned, g, geometry.turned_weight(w), None, y)
    assert_close(y, F.conv2d_input(x.shape, w, g, padding=(1, 2)))


@pytest.mark.parametrize(
    ("table", "name", "weight_size", "input_size", "padding", "groups"),
    [
        ("output", "windows", (6, 1, 5, 5), (64, 1, 28, 28), 2, 1),
        ("output", "windows", (16, 6, 5, 5), (64, 6, 14, 14), 0, 1),
        ("output", "columns", (16, 6, 5, 5), (1, 6, 14, 14), 0, 1),
        ("output", "windows", (32, 1, 3, 3), (64, 1, 28, 28), 0, 1),
        ("output", "winograd", (64, 32, 3, 3), (32, 32, 26, 26), 0, 1),
        ("output", "winograd", (128, 128, 3, 3), (16, 128, 28, 28), 1, 1),
        ("output", "winograd", (128, 128, 3, 3), (1, 128, 28, 28), 1, 1),
        ("output", "winograd", (32, 32, 5, 5), (16, 32, 28, 28), 2, 1),
        ("output", "columns", (256, 256, 3, 3), (1, 256, 14, 14), 1, 1),
        ("output", "columns", (256, 256, 5, 5), (4, 256, 7, 7), 2, 1),
        ("output", "depthwise", (128, 1, 3, 3), (8, 128, 28, 28), 1, 128),
        ("output", "depthwise", (128, 1, 3, 3), (64, 128, 28, 28), 1, 128),
        ("output", "windows", (256, 1, 3, 3), (64, 128, 28, 28), 1, 128),
        ("weight", "depthwise", (128, 1, 3, 3), (1, 128, 28, 28), 1, 128),
        ("input", "windows", (16, 6, 5, 5), (64, 6, 14, 14), 0, 1),
        ("input", "turned", (16, 6, 5, 5), (1, 6, 14, 14), 0, 1),
        ("input", "columns", (256, 256, 3, 3), (1, 256, 14, 14), 1, 1),
        ("input", "turned", (128, 1, 3, 3), (16, 128, 28, 28), 1, 128),
        ("input", "windows", (32, 1, 3, 3), (32, 1, 28, 28), 0, 1),
        ("input", "winograd", (64, 32, 3, 3), (32, 32, 26, 26), 0, 1),
        ("weight", "columns", (16, 6, 5, 5), (1, 6, 14, 14), 0, 1),
        ("weight", "windows", (16, 6, 5, 5), (32, 6, 14, 14), 0, 1),
        ("weight", "winograd", (64, 32, 3, 3), (32, 32, 26, 26), 0, 1),
    ],
)
def test_shapes_decide_which_algorithm_runs(
    request: pytest.FixtureRequest,
    table: str,
    name: str,
    weight_size: tuple[int, ...],
    input_size: tuple[int, ...],
    padding: int,
    groups: int,
) -> None:
    if "by shape" not in request.node.name:
        pytest.skip("an algorithm is preferred")
    geometry = conv_geometry(input_size, weight_size, 1, padding, 1, groups)
    assert pick(table, geometry, None, np) is TABLE[table][name].run


@pytest.mark.parametrize(
    ("table", "name", "samples", "channels", "groups", "options"),
    [
        ("output", "residues", 16, 64, 1, {"dilation": 2}),
        ("output", "columns", 1, 64, 1, {"dilation": 2}),
        ("weight", "residues", 16, 64, 1, {"dilation": 2}),
        ("input", "residues", 16, 64, 1, {"stride": 2}),
        ("input", "columns", 16, 4, 1, {"stride": 2}),  # the parts would be small
        ("input", "residues", 16, 4, 4, {"stride": 2}),
        ("output", "windows", 16, 64, 1, {"stride": 2}),
    ],
)
def test_large_dilated_and_strided_convolutions_are_computed_by_residues(
    request: pytest.FixtureRequest,
    table: str,
    name: str,
    samples: int,
    channels: int,
    groups: int,
    options: dict[str, Any],
) -> None:
    if "by shape" not in request.node.name:
        pytest.skip("an algorithm is preferred")
    weight_size = (channels, channels // groups, 3, 3)
    geometry = conv_geometry((samples, channels, 16, 16), weight_size, **options, groups=groups)
    assert pick(table, geometry, None, np) is TABLE[table][name].run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("windows", {"dilation": (2, 3), "stride": (3, 2), "padding": 2}),
        ("windows", {"padding": 4}),  # wider than the kernel
        ("windows", {"groups": 3, "dilation": 2, "padding": (5, 0)}),
        ("winograd", {"dilation": (2, 3), "padding": 2}),
    ],
    ids=str,
)
def test_an_algorithm_asked_for_by_name_also_computes_the_parts(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((5, 6, 11, 13)), rng.standard_normal((9, 6 // options.get("groups", 1), 3, 3))
    y = F.conv2d(x, w, **options, algorithm="columns")
    g = rng.standard_normal(y.shape)
    assert_close(F.conv2d(x, w, **options, algorithm=name), y)
    found = F.conv2d_backward(g, x, w, **options, algorithm=name)[:2]
    expected = F.conv2d_backward(g, x, w, **options, algorithm="columns")[:2]
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted)


def test_an_algorithm_can_be_asked_for_by_name() -> None:
    x, w, b, _ = make("plain")
    g = F.conv2d(x, w, b)
    for name in NAMES:
        assert_close(F.conv2d(x, w, b, algorithm=name), g)
        assert_close(F.conv2d_input(x.shape, w, g, algorithm=name), F.conv2d_input(x.shape, w, g))
        assert_close(F.conv2d_weight(x, w.shape, g, algorithm=name), F.conv2d_weight(x, w.shape, g))
    for function in (F.conv2d, F.conv_transpose2d):
        kernel = w[:, :, :2] if function is F.conv2d else w.swapaxes(0, 1)[:, :, :2]
        with pytest.raises(ValueError, match=r"`algorithm` \(='winograd'\) needs .* It does not support"):
            function(x, kernel, algorithm="winograd")
        with pytest.raises(ValueError, match="`algorithm`"):
            function(x, kernel, algorithm="fastest")
    with pytest.raises(ValueError, match=r"`algorithm` \(='winograd'\) needs a 3x3 or 5x5 kernel"):
        F.conv2d_input(x.shape, w, F.conv2d(x, w, stride=2), stride=2, algorithm="winograd")
    with pytest.raises(ValueError, match="`algorithm`"):  # a batch without samples is checked, too
        F.conv2d(x[:0], w, algorithm="fastest")
    assert_close(F.conv1d(x[:, :, 0], w[:, :, 0], algorithm="columns"), F.conv1d(x[:, :, 0], w[:, :, 0]))

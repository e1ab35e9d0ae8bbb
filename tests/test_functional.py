"""Linear, activations, batch norm, losses, dropout, flatten: against PyTorch, loops, differences."""

from collections.abc import Iterator
from functools import partial
from inspect import signature
from itertools import product
from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare, layouts
from tinyconv import gradcheck, reference
from tinyconv.arrays import Array, as_stored

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# The contract

WITHOUT_BACKWARD = {
    "a part of an operation's backward": {
        f"{op}_{part}" for op in ("conv1d", "conv2d", "linear") for part in ("input", "weight", "bias")
    },
    "a view whose inverse is its backward": {"hwio_to_oihw", "oihw_to_hwio", "nchw_to_nhwc", "nhwc_to_nchw"},
}


def test_every_operation_has_a_backward_that_takes_what_it_was_given() -> None:
    functions = {name: value for name, value in vars(F).items() if callable(value)}
    # The second order has an order of its own, and `op_saved_backward` takes what `op_saved` returns.
    operations = {
        name
        for name in functions
        if not name.endswith(("_backward", "_jvp", "_saved")) and not name.startswith("_")
    }
    for reason, exceptions in WITHOUT_BACKWARD.items():
        assert exceptions <= operations, reason
        operations -= exceptions
    assert len(operations) > 35
    for name in operations:
        first, *others = signature(functions[f"{name}_backward"]).parameters.values()
        given = signature(functions[name]).parameters.values()
        assert first.name == "grad_output", name
        assert [(p.name, p.kind, p.default) for p in others] == [
            (p.name, p.kind, p.default) for p in given
        ], name
    for name in functions:
        if name.endswith("_saved"):
            assert next(iter(signature(functions[f"{name}_backward"]).parameters)) == "grad_output", name
            assert name.removesuffix("_saved") in operations


# Linear

LINEAR = {
    "batch": ((4, 5), (3, 5)),
    "one sample": ((5,), (3, 5)),
    "three dimensions": ((2, 4, 5), (3, 5)),
    "batch of none": ((0, 5), (3, 5)),
    "1-D weight": ((4, 5), (5,)),
    "1-D weight, one sample": ((5,), (5,)),
}


@pytest.mark.parametrize("case", LINEAR, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@dtypes
def test_linear_agrees_with_pytorch(case: str, bias: bool, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    shape, weight_shape = LINEAR[case]
    x, w = normal(*shape).astype(dtype), normal(*weight_shape, seed=1).astype(dtype)
    if bias and len(weight_shape) == 1:
        pytest.skip("refused")
    b = normal(*weight_shape[:-1], seed=2).astype(dtype) if bias else None
    compare(F.linear, F.linear_backward, torch.nn.functional.linear, [x, w, b])


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_linear_agrees_with_differences_and_in_every_layout(case: str) -> None:
    shape, weight_shape = LINEAR[case]
    x, w = normal(*shape), normal(*weight_shape, seed=1)
    gradcheck(F.linear, (x, w, None if w.ndim == 1 else normal(*weight_shape[:-1], seed=2)))
    for (name, x_), (_, w_) in zip(layouts(x), layouts(w), strict=True):
        assert_close(F.linear(x_, w_), F.linear(x, w), name)


def test_linear_agrees_with_plain_loops() -> None:
    x, w, b, g = normal(4, 5), normal(3, 5, seed=1), normal(3, seed=2), normal(4, 3, seed=3)
    assert_close(F.linear(x, w, b), reference.linear(x, w, b))
    for grad, expected in zip(F.linear_backward(g, x, w, b), reference.linear_backward(g, x, w), strict=True):
        assert_close(grad, expected)


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_each_gradient_of_linear_takes_what_that_of_conv2d_takes(case: str) -> None:
    shape, weight_shape = LINEAR[case]
    x, w = normal(*shape), normal(*weight_shape, seed=1)
    g = normal(*F.linear(x, w).shape, seed=2)
    dx, dw, _ = F.linear_backward(g, x, w)
    assert_close(F.linear_input(x.shape, w, g), dx)
    assert_close(F.linear_weight(x, w.shape, g), dw)
    for part in ("input", "weight", "bias"):
        ours, conv = (list(signature(getattr(F, f"{op}_{part}")).parameters) for op in ("linear", "conv2d"))
        assert ours == conv[: len(ours)]
    with pytest.raises(ValueError, match=r"`grad_output` \(of shape \(7,\)\)"):
        F.linear_input(x.shape, w, np.zeros(7))
    with pytest.raises(ValueError, match=r"`input` \(of shape \(9,\)\) must have 5 features"):
        F.linear_weight(np.zeros(9), w.shape, g)
    with pytest.raises(
        TypeError, match=r"`grad_output` \(of dtype float32\) must have the dtype of `weight`"
    ):
        F.linear_input(x.shape, w, g.astype(np.float32))


@pytest.mark.parametrize("weight_size", [(3, 0), (0,), (0, 0)])
def test_linear_of_no_features_is_the_bias(weight_size: tuple[int, ...]) -> None:
    x, weight = np.zeros((5, 0)), np.zeros(weight_size)
    bias = np.arange(float(weight_size[0])) if len(weight_size) == 2 else None
    y = F.linear(x, weight, bias)
    np.testing.assert_array_equal(y, np.zeros((5, *weight_size[:-1])) + (0 if bias is None else bias))
    grad_x, grad_weight, _ = F.linear_backward(np.ones_like(y), x, weight, bias)
    assert (grad_x.shape, grad_weight.shape) == (x.shape, weight_size)


def test_linear_refuses_what_pytorch_refuses() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    for x_shape, w_shape, b_shape in [
        ((2, 4), (3, 5), None),
        ((2, 5), (3, 5), (4,)),
        ((), (3, 5), None),
        ((2, 5), (5,), ()),
    ]:
        arrays = [None if shape is None else np.zeros(shape) for shape in (x_shape, w_shape, b_shape)]
        tensors = [None if a is None else torch.tensor(a) for a in arrays]
        both_refuse(
            partial(F.linear, *arrays),  # type: ignore[arg-type]
            partial(torch.nn.functional.linear, *tensors),
            "`(input|bias)`",
        )


# Activations


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0, 2)], ids=str)
@dtypes
def test_relu_agrees_with_pytorch(shape: tuple[int, ...], dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.asarray(normal(*shape), dtype)
    compare(F.relu, F.relu_backward, torch.nn.functional.relu, [x])


def test_relu_at_zero_nan_and_infinities_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0]
    x, g = (np.array(a) for a in zip(*product(special, special), strict=True))
    tensor = torch.tensor(x, requires_grad=True)
    output = torch.relu(tensor)
    output.backward(torch.tensor(g))
    np.testing.assert_array_equal(F.relu(x), output.detach().numpy())
    np.testing.assert_array_equal(F.relu_backward(g, x), tensor.grad.numpy())


def test_relu_agrees_with_loops_and_differences() -> None:
    x, g = normal(3, 4), normal(3, 4, seed=1)
    assert_close(F.relu(x), reference.relu(x))
    assert_close(F.relu_backward(g, x), reference.relu_backward(g, x))
    assert gradcheck(F.relu, x).kinks == ()


@pytest.mark.parametrize(
    ("shape", "dim"), [((4,), 0), ((3, 4), 1), ((3, 4), -2), ((2, 3, 4), 1), ((0, 3), 1)]
)
@dtypes
def test_log_softmax_agrees_with_pytorch(shape: tuple[int, ...], dim: int, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = normal(*shape).astype(dtype)
    compare(F.log_softmax, F.log_softmax_backward, torch.nn.functional.log_softmax, [x], dim=dim)
    gradcheck(partial(F.log_softmax, dim=dim), x)


@pytest.mark.parametrize("values", [[1e4, -1e4, 0], [np.inf, 0, 0], [-np.inf, 0, 1], [-np.inf] * 3])
@dtypes
def test_log_softmax_of_extreme_values_is_pytorchs(values: list[float], dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.array(values, dtype)
    expected = torch.log_softmax(torch.tensor(x), 0).numpy()
    np.testing.assert_allclose(F.log_softmax(x, 0), expected, rtol=1e-6)


def test_log_softmax_converts_to_dtype_first_and_refuses_a_wrong_dim() -> None:
    x = normal(3, 4).astype(np.float32)
    assert_close(F.log_softmax(x, 1, dtype=np.float64), F.log_softmax(x.astype(np.float64), 1))
    with pytest.raises(ValueError, match=r"`dim` \(=2\)"):
        F.log_softmax(x, 2)


# Batch norm

BATCH_NORM: dict[str, dict[str, Any]] = {
    "training": {"training": True},
    "training, other momentum and eps": {"training": True, "momentum": 0.7, "eps": 0.1},
    "evaluation": {"training": False},
}


@pytest.mark.parametrize("case", BATCH_NORM, ids=str)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "no running"])
@dtypes
def test_batch_norm_agrees_with_pytorch(
    case: str, shape: tuple[int, ...], affine: bool, running: bool, dtype: Any
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    options = BATCH_NORM[case]
    if not running and not options["training"]:
        pytest.skip("refused")
    x = (normal(*shape) * 2 + 3).astype(dtype)
    w, b = (normal(3, seed=i).astype(dtype) if affine else None for i in (1, 2))
    stats = [normal(3, seed=3).astype(dtype), normal(3, seed=4).astype(dtype) ** 2 + 0.5]
    ours: list[Any] = [s.copy() if running else None for s in stats]
    theirs = [torch.tensor(s) if running else None for s in stats]

    def forward(x: Any, w: Any, b: Any, **options: Any) -> Any:
        return F.batch_norm(x, ours[0], ours[1], w, b, **options)

    def backward(g: Any, x: Any, w: Any, b: Any, **options: Any) -> Any:
        return F.batch_norm_backward(g, x, ours[0], ours[1], w, b, **options)

    def torchs(x: Any, w: Any, b: Any, **options: Any) -> Any:
        return torch.nn.functional.batch_norm(x, *theirs, w, b, **options)

    compare(forward, backward, torchs, [x, w, b], **options)
    for mine, expected in zip(ours, theirs, strict=True):
        if expected is not None:
            assert_close(mine, expected.numpy(), "running statistics")


def test_batch_norm_agrees_with_loops_and_differences() -> None:
    x, w, b, g = normal(3, 2, 2, 3), normal(2, seed=1), normal(2, seed=2), normal(3, 2, 2, 3, seed=3)
    norm = partial(F.batch_norm, running_mean=None, running_var=None, training=True)
    assert_close(norm(x, weight=w, bias=b), reference.batch_norm(x, w, b))
    backward = partial(F.batch_norm_backward, running_mean=None, running_var=None, training=True)
    grads = backward(g, x, weight=w, bias=b)
    for grad, expected in zip(grads, reference.batch_norm_backward(g, x, w), strict=True):
        assert_close(grad, expected)
    assert gradcheck(partial(F.batch_norm, training=True), (x, None, None, w, b)).checked == x.size + 4


def test_every_memory_layout_is_normalised_the_same() -> None:
    x, g = normal(3, 2, 4, 5), normal(3, 2, 4, 5, seed=1)
    w, b = normal(2, seed=2), normal(2, seed=3)
    y = F.batch_norm(x, None, None, w, b, training=True)
    grads = F.batch_norm_backward(g, x, None, None, w, b, training=True)
    for (name, x_), (_, g_) in zip(layouts(x), layouts(g), strict=True):
        assert_close(F.batch_norm(x_, None, None, w, b, training=True), y, name)
        for grad, expected in zip(
            F.batch_norm_backward(g_, x_, None, None, w, b, training=True), grads, strict=True
        ):
            assert_close(grad, expected, name)
    assert as_stored(y).flags.c_contiguous


def test_batch_norm_of_values_far_from_zero_keeps_its_digits() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = (normal(16, 2, 8, 8) + 1000).astype(np.float32)
    expected = torch.nn.functional.batch_norm(torch.tensor(x, dtype=torch.float64), None, None, training=True)
    np.testing.assert_allclose(F.batch_norm(x, None, None, training=True), expected.numpy(), atol=2e-3)


def test_batch_norm_refuses_what_pytorch_refuses() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ones = np.ones(3)
    refused: list[tuple[tuple[int, ...], list[Any], dict[str, Any], str]] = [
        ((1, 3), [None, None], {"training": True}, "more than one value per channel"),
        ((2, 3), [None, None], {"training": False}, "must be given"),
        ((2, 4), [ones, ones], {"training": False}, "`running_mean`"),
        ((2, 3), [None, None, np.ones(4)], {"training": True}, "`weight`"),
    ]
    for shape, arrays, options, match in refused:
        tensors = [None if a is None else torch.tensor(a) for a in arrays]
        both_refuse(
            partial(F.batch_norm, np.zeros(shape), *arrays, **options),
            partial(
                torch.nn.functional.batch_norm, torch.zeros(shape, dtype=torch.float64), *tensors, **options
            ),
            match,
        )


# Losses


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 4), (0, 2)], ids=str)
@dtypes
def test_mse_loss_agrees_with_pytorch(reduction: str, shape: tuple[int, ...], dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, t = np.asarray(normal(*shape), dtype), np.asarray(normal(*shape, seed=1), dtype)
    compare(F.mse_loss, F.mse_loss_backward, torch.nn.functional.mse_loss, [x, t], reduction=reduction)


def test_mse_loss_agrees_with_loops_and_differences() -> None:
    x, t = normal(3, 4), normal(3, 4, seed=1)
    assert_close(F.mse_loss(x, t), reference.mse_loss(x, t))
    assert_close(F.mse_loss_backward(np.ones(()), x, t)[0], reference.mse_loss_backward(x, t))
    gradcheck(F.mse_loss, (x, t))


def test_mse_loss_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"`target` \(of shape \(3, 1\)\) must have the shape \(3, 4\)"):
        F.mse_loss(np.zeros((3, 4)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"`reduction` \(='average'\) must be one of"):
        F.mse_loss(np.zeros(3), np.zeros(3), "average")


def cross_entropy_cases() -> Iterator[Any]:
    for shape in [(5,), (4, 5), (4, 5, 3), (2, 5, 3, 2), (0, 5)]:
        for kind, weighted, smoothing in product(("indices", "probabilities"), (False, True), (0.0, 0.3)):
            yield pytest.param(shape, kind, weighted, smoothing, id=f"{shape}-{kind}-{weighted}-{smoothing}")


@pytest.mark.parametrize(("shape", "kind", "weighted", "smoothing"), list(cross_entropy_cases()))
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@dtypes
def test_cross_entropy_agrees_with_pytorch(
    shape: tuple[int, ...], kind: str, weighted: bool, smoothing: float, reduction: str, dtype: Any
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    class_dim = min(1, len(shape) - 1)
    target = np.asarray(rng.integers(0, 5, shape[:class_dim] + shape[class_dim + 1 :]))
    if kind == "probabilities":
        target = rng.dirichlet(np.ones(5), size=target.shape).astype(dtype)
        target = np.moveaxis(target, -1, class_dim)
    weight = rng.random(5).astype(dtype) if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    if kind == "indices":
        options["ignore_index"] = 2
    compare(
        lambda x, t, **options: F.cross_entropy(x, t, weight, **options),
        lambda g, x, t, **options: F.cross_entropy_backward(g, x, t, weight, **options),
        lambda x, t, **options: torch.nn.functional.cross_entropy(
            x, t, None if weight is None else torch.tensor(weight), **options
        ),
        [x, target],
        **options,
    )


def test_cross_entropy_agrees_with_loops_and_differences() -> None:
    x, t, w = normal(6, 4), np.array([0, 3, 1, 1, 2, 0]), np.array([0.5, 1.0, 2.0, 0.1])
    assert_close(F.cross_entropy(x, t, w), reference.cross_entropy(x, t, w))
    grad, _ = F.cross_entropy_backward(np.ones(()), x, t, w)
    assert_close(grad, reference.cross_entropy_backward(x, t, w))
    gradcheck(partial(F.cross_entropy, weight=w, label_smoothing=0.2), (x, t))


def test_every_memory_layout_has_the_same_cross_entropy() -> None:
    x, t = normal(4, 5, 3), np.random.default_rng(1).integers(0, 5, (4, 3))
    for name, x_ in layouts(x):
        assert_close(F.cross_entropy(x_, t), F.cross_entropy(x, t), name)


def test_cross_entropy_takes_every_integer_dtype() -> None:
    x = normal(3, 4)
    expected = F.cross_entropy(x, np.array([0, 1, 3]))
    for dtype in (np.uint8, np.int8, np.int32, np.uint64):
        assert_close(F.cross_entropy(x, np.array([0, 1, 3], dtype)), expected)


def test_all_targets_ignored_give_a_nan_mean_and_a_zero_gradient() -> None:
    x, t = normal(3, 4), np.full(3, -100)
    assert np.isnan(F.cross_entropy(x, t))
    assert F.cross_entropy(x, t, reduction="sum") == 0
    grad, _ = F.cross_entropy_backward(np.ones(()), x, t)
    assert not grad.any()


@pytest.mark.parametrize("values", [[1e4, -1e4, 0.0], [-np.inf, 0.0, 1.0], [0.0, -1e4, -np.inf]])
@dtypes
def test_cross_entropy_of_extreme_logits_is_pytorchs(values: list[float], dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.array([values], dtype)
    for target in range(3):
        tensor = torch.tensor(x, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(tensor, torch.tensor([target]))
        expected.backward()
        t = np.array([target])
        np.testing.assert_allclose(F.cross_entropy(x, t), expected.detach().numpy(), rtol=1e-6)
        grad, _ = F.cross_entropy_backward(np.ones((), dtype), x, t)
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-6)


def test_cross_entropy_refuses_what_pytorch_refuses() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.zeros((2, 3))
    refused: list[tuple[Any, Any, dict[str, Any], str]] = [
        (x, np.array([0, 3]), {}, "class index 3"),
        (x, np.array([0, -1]), {}, "class index -1"),
        (x, np.array([0]), {}, "`target`"),
        (x, np.zeros((2, 4)), {}, "`target`"),
        (x, np.array([0, 1]), {"label_smoothing": 1.5}, r"`label_smoothing` \(=1.5\)"),
        (x, np.array([0, 1]), {"reduction": "all"}, "`reduction`"),
        (np.zeros(()), np.array(0), {}, "`input`"),
    ]
    for logits, target, options, match in refused:
        both_refuse(
            partial(F.cross_entropy, logits, target, **options),
            partial(torch.nn.functional.cross_entropy, torch.tensor(logits), torch.tensor(target), **options),
            match,
        )
    with pytest.raises(TypeError, match="`target` must be of an integer or floating dtype, got bool"):
        F.cross_entropy(x, np.array([True, False]))
    with pytest.raises(ValueError, match=r"`weight` \(of shape \(2,\)\)"):
        F.cross_entropy(x, np.array([0, 1]), np.ones(2))


# Dropout and flatten


@dtypes
def test_dropout_zeroes_a_share_p_and_scales_the_rest(dtype: Any) -> None:
    x = np.ones((100, 100), dtype)
    y = F.dropout(x, 0.3, generator=0)
    assert y.dtype == dtype
    assert set(np.unique(y)) == {0, dtype(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 0.02
    assert F.dropout(x, 0.3, training=False) is x


def test_dropout_of_equal_generators_drops_equal_positions_in_every_layout() -> None:
    x = normal(4, 3, 5)
    y = F.dropout(x, 0.5, generator=1)
    for name, x_ in layouts(x):
        assert_close(F.dropout(x_, 0.5, generator=1), y, name)
    assert_close(F.dropout(x.astype(np.float32), 0.5, generator=1) == 0, y == 0)


def test_dropout_with_p_one_is_zero_and_with_p_zero_is_the_input() -> None:
    x = normal(4, 3)
    assert not F.dropout(x, 1.0, generator=0).any()
    assert_close(F.dropout(x, 0.0, generator=0), x)
    assert F.dropout(np.ones(()), 0.5, generator=0).shape == ()
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="`p`"):
            F.dropout(x, p)


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("operator", ["dropout", "dropout2d"])
def test_dropout_backward_drops_what_forward_dropped(operator: str, p: float) -> None:
    forward, backward = getattr(F, operator), getattr(F, f"{operator}_backward")
    x, g = normal(4, 3, 2, 5), normal(4, 3, 2, 5, seed=1)
    factor = forward(np.ones_like(x), p, generator=7)
    assert set(np.unique(factor)) <= {0.0, 1 / (1 - p) if p < 1 else 0.0}
    assert_close(backward(g, x, p, generator=7), g * factor)
    for _, g_ in layouts(g):
        assert_close(backward(g_, x, p, True, False, np.random.default_rng(7)), g * factor)
    assert backward(g.astype(np.float32), x.astype(np.float32), p, generator=7).dtype == np.float32
    assert backward(g, x, p, training=False) is g
    for options in (
        {"p": p, "generator": 7},
        {"p": p, "generator": np.random.default_rng(7)},
        {"training": False},
    ):
        assert gradcheck(partial(forward, **options), x).checked == x.size


@pytest.mark.parametrize("backward", [F.dropout_backward, F.dropout2d_backward])
def test_dropout_backward_refuses_what_cannot_be_the_gradient(backward: Any) -> None:
    x = normal(4, 3, 2)
    with pytest.raises(ValueError, match=r"`generator` \(=None\) must be the seed passed to forward"):
        backward(x, x, 0.5)
    with pytest.raises(
        ValueError, match=r"`grad_output` \(of shape \(3, 2\)\) must have the shape \(4, 3, 2\)"
    ):
        backward(x[0], x, 0.5, generator=0)
    with pytest.raises(ValueError, match="`p`"):
        backward(x, x, 1.5, training=False)
    with pytest.raises(TypeError, match="dtype"):
        backward(x.astype(np.float32), x, 0.5, generator=0)


def test_dropout_backward_uses_forwards_mask() -> None:
    x, g = normal(4, 3), normal(4, 3, seed=1)
    y, mask = F.dropout_saved(x, 0.5, generator=0)
    assert_close(y, x * mask)
    assert_close(F.dropout_saved_backward(g, mask), g * mask)


@pytest.mark.parametrize(
    ("shape", "dims"), [((2, 3, 4, 5), (1, -1)), ((2, 3, 4), (0, 1)), ((), (0, -1)), ((0, 2), (1, 1))]
)
def test_flatten_agrees_with_pytorch(shape: tuple[int, ...], dims: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    compare(
        lambda x: F.flatten(x, *dims),
        lambda g, x: F.flatten_backward(g, x, *dims),
        lambda x: torch.flatten(x, *dims),
        [np.asarray(normal(*shape))],
    )


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5)], ids=str)
def test_flatten_and_unflatten_give_the_memory_format_whatever_they_are_given(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape, dtype=float)).reshape(shape)
    rows = x.reshape(shape[0], -1) if x.size else x.reshape(0, 60)
    for (name, x_), (_, rows_) in zip(layouts(x), layouts(rows), strict=True):
        for flat in (F.flatten(x_, 1), F.unflatten_backward(x_, rows, 1, shape[1:])):
            np.testing.assert_array_equal(flat, rows, name)
            assert as_stored(flat).flags.c_contiguous, name
        for image in (F.unflatten(rows_, 1, shape[1:]), F.flatten_backward(rows_, x, 1)):
            np.testing.assert_array_equal(image, x, name)
            assert as_stored(image).flags.c_contiguous, name


def test_flatten_refuses_wrong_dimensions() -> None:
    with pytest.raises(ValueError, match=r"`start_dim` \(=3\)"):
        F.flatten(np.zeros((2, 3)), 3)
    with pytest.raises(ValueError, match="must not come after"):
        F.flatten(np.zeros((2, 3)), 1, 0)

"""What the walk over PyTorch's samples does not reach: extreme values, refusals, second arguments, views."""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.compare import assert_close, both_refuse, compare_layer, layouts
from tinyconv import gradcheck
from tinyconv.arrays import Array, as_stored

dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
EXTREME = [1e4, -1e4, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 90.0, -90.0, 750.0, -750.0]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


# Extreme values: PyTorch's result, no warning (warnings are errors), no NaN where PyTorch has none


def assert_as_safe(actual: Array, expected: Any) -> None:
    """PyTorch's values where it has a number; where it has NaN, anything."""
    expected = expected.detach().numpy()
    known = ~np.isnan(expected)
    assert not np.isnan(actual[known]).any()
    tolerance = 1e-10 if expected.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(actual[known], expected[known], rtol=tolerance, atol=1e-30)


ELEMENTWISE: dict[str, dict[str, Any]] = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 2.0},
    "sigmoid": {},
    "tanh": {},
    "silu": {},
    "softplus": {"beta": 2.0, "threshold": 10.0},
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@dtypes
def test_activations_of_extreme_values_are_pytorchs(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, options = np.array(EXTREME, dtype), ELEMENTWISE[name]
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(tensor, **options)
    (grad,) = torch.autograd.grad(expected.sum(), tensor)
    assert_as_safe(getattr(F, name)(x, **options), expected)
    ours = getattr(F, f"{name}_backward")(np.ones_like(x), x, **options)
    np.testing.assert_allclose(ours[np.isfinite(x)], grad.numpy()[np.isfinite(x)], rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@dtypes
def test_gelu_of_extreme_values_is_pytorchs(approximate: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.array([*EXTREME, 1e15, -1e15], dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.gelu(tensor, approximate=approximate)
    (grad,) = torch.autograd.grad(expected.sum(), tensor)
    assert_as_safe(F.gelu(x, approximate), expected)
    assert_as_safe(F.gelu_backward(np.ones_like(x), x, approximate), grad)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@dtypes
def test_softmax_of_extreme_values_is_pytorchs(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    pairs = np.array([[a, b, 0.5] for a in EXTREME for b in EXTREME], dtype)
    tensor = torch.tensor(pairs, requires_grad=True)
    g = normal(*pairs.shape).astype(dtype)
    expected = getattr(torch.nn.functional, name)(tensor, dim=1)
    (grad,) = torch.autograd.grad(expected, tensor, torch.tensor(g))
    assert_as_safe(getattr(F, name)(pairs, 1), expected)
    ours = getattr(F, f"{name}_backward")(g, pairs, 1)
    known = ~np.isnan(grad.numpy())
    np.testing.assert_allclose(ours[known], grad.numpy()[known], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pos_weight", [None, 3.0])
@dtypes
def test_bce_with_logits_of_extreme_values_is_pytorchs(pos_weight: float | None, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, t = (np.array(a, dtype) for a in zip(*[(x, t) for x in EXTREME for t in (0, 0.3, 1)], strict=True))
    weight = None if pos_weight is None else np.array([pos_weight], dtype)
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        tensor,
        torch.tensor(t),
        reduction="none",
        pos_weight=None if weight is None else torch.tensor(weight),
    )
    (grad,) = torch.autograd.grad(expected.sum(), tensor)
    ours = partial(F.binary_cross_entropy_with_logits, reduction="none", pos_weight=weight)
    assert_as_safe(ours(x, t), expected)
    g = np.ones_like(x)
    ours_grad, _ = F.binary_cross_entropy_with_logits_backward(g, x, t, None, "none", weight)
    np.testing.assert_allclose(ours_grad, grad.numpy(), rtol=1e-5, atol=1e-7)


@dtypes
def test_bce_of_certain_probabilities_is_pytorchs(dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    probabilities = [0.0, 1.0, 1e-30, 1e-13, 0.5, 1 - 1e-7]
    x, t = (
        np.array(a, dtype) for a in zip(*[(x, t) for x in probabilities for t in (0, 0.3, 1)], strict=True)
    )
    tensor = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy(tensor, torch.tensor(t), reduction="none")
    (grad,) = torch.autograd.grad(expected.sum(), tensor)
    assert_as_safe(F.binary_cross_entropy(x, t, reduction="none"), expected)
    assert_as_safe(F.binary_cross_entropy_backward(np.ones_like(x), x, t, reduction="none")[0], grad)


def test_nll_of_impossible_classes_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, t = np.array([[-np.inf, 0.0], [-1.0, -np.inf]]), np.array([1, 1])
    expected = torch.nn.functional.nll_loss(torch.tensor(x), torch.tensor(t), reduction="none")
    np.testing.assert_array_equal(F.nll_loss(x, t, reduction="none"), expected.numpy())


# Losses against differences, with options


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_every_losss_gradients_agree_with_differences(reduction: str) -> None:
    x, t, w = normal(4, 3), normal(4, 3, seed=1), np.array([0.5, 2.0, 1.0])
    p, q = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-t))
    classes = np.array([0, 2, 1, 2])
    gradcheck(partial(F.l1_loss, reduction=reduction), (x, t))
    gradcheck(partial(F.smooth_l1_loss, reduction=reduction, beta=0.7), (x, t))
    gradcheck(partial(F.huber_loss, reduction=reduction, delta=0.7), (x, t))
    gradcheck(partial(F.kl_div, reduction=reduction), (x, q))
    gradcheck(partial(F.kl_div, reduction=reduction, log_target=True), (x, t))
    gradcheck(partial(F.hinge_embedding_loss, reduction=reduction), (x, np.sign(t).astype(int)))
    gradcheck(partial(F.binary_cross_entropy, reduction=reduction, weight=w), (p, q))
    gradcheck(
        partial(F.binary_cross_entropy_with_logits, reduction=reduction, weight=w, pos_weight=w[::-1]), (x, q)
    )
    gradcheck(partial(F.nll_loss, reduction=reduction, weight=w, ignore_index=1), (x, classes))
    for criterion, target in (
        (tc.L1Loss(reduction=reduction), t),
        (tc.SmoothL1Loss(reduction=reduction, beta=0.7), t),
        (tc.BCEWithLogitsLoss(w, reduction=reduction, pos_weight=w), q),
        (tc.NLLLoss(w, ignore_index=1, reduction=reduction), classes),
    ):
        assert gradcheck(criterion, (x, target)).checked == x.size


# Second arguments: the size of a transposed convolution, the indices of an unpooling


@pytest.mark.parametrize("output_size", [(7, 10), (8, 10), (8, 11), (2, 3, 7, 12)], ids=str)
def test_output_size_of_a_transposed_convolution_is_pytorchs(output_size: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = normal(2, 4, 4, 4)
    layer = tc.ConvTranspose2d(4, 3, 3, (2, 3), (1, 1), dtype=np.float64, generator=0)
    theirs = torch.nn.ConvTranspose2d(4, 3, 3, (2, 3), (1, 1)).double()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor, list(output_size))
    output = layer(x, output_size)
    assert_close(output, expected.detach().numpy())
    g = normal(*output.shape, seed=1)
    expected.backward(torch.tensor(g))
    assert_close(layer.backward(g), tensor.grad.numpy())
    assert_close(layer.grads["weight"], theirs.weight.grad.numpy())


def test_an_output_size_that_the_stride_cannot_reach_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, theirs = tc.ConvTranspose2d(4, 3, 3, 2), torch.nn.ConvTranspose2d(4, 3, 3, 2)
    x = np.zeros((1, 4, 4, 4), np.float32)
    for size in ((8, 9), (9, 11), (9,)):
        both_refuse(
            partial(layer.forward, x, size), partial(theirs, torch.tensor(x), list(size)), "`output_size`"
        )


def test_unpooling_goes_back_to_where_pooling_found_the_maxima() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = normal(2, 3, 7, 6)
    pool = tc.MaxPool2d(3, 2, 1, return_indices=True)
    unpool = tc.MaxUnpool2d(3, 2, 1)
    values, indices = pool(x)
    output = unpool(values, indices, x.shape)
    tensor = torch.tensor(values, requires_grad=True)
    expected = torch.nn.MaxUnpool2d(3, 2, 1)(tensor, torch.tensor(indices), x.shape)
    assert_close(output, expected.detach().numpy())
    g = normal(*output.shape, seed=1)
    expected.backward(torch.tensor(g))
    assert_close(unpool.backward(g), tensor.grad.numpy())
    assert pool.backward(values).shape == x.shape
    for name, values_ in layouts(values):
        assert_close(unpool(values_, indices, x.shape), output, name)
    assert unpool(values[0], indices[0], x.shape[1:]).shape == x.shape[1:]
    assert unpool(values[:0], indices[:0]).shape == unpool.output_shape(values[:0].shape)


def test_unpooling_of_windows_that_do_not_overlap_agrees_with_differences() -> None:
    values, indices = F.max_pool2d(normal(2, 3, 6, 4), 2, return_indices=True)
    gradcheck(partial(F.max_unpool2d, indices=indices, kernel_size=2), values)


def test_unpooling_refuses_indices_that_do_not_fit() -> None:
    x, indices = np.zeros((1, 1, 2, 2)), np.array([[[[0, 1], [2, 16]]]])
    for wrong, match in (
        (indices, "`indices` has the value 16"),
        (-indices, "`indices` has the value -1"),
        (indices[..., :1], r"`indices` \(of shape"),
        (indices.astype(np.int32), "`indices` must be of dtype int64"),
    ):
        with pytest.raises((ValueError, TypeError), match=match):
            F.max_unpool2d(x, wrong, 2)
    with pytest.raises(ValueError, match="`output_size`"):
        F.max_unpool2d(x, indices, 2, output_size=(7, 4))


# Refusals that PyTorch's error inputs do not list


def test_what_pytorch_refuses_of_the_new_operators_is_refused() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    image = np.zeros((1, 2, 4, 4))
    kernel = np.zeros((2, 2, 3, 3))
    refused: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
        ("pad", (image, (1,)), {}, "pad"),
        ("pad", (image, (1, 1) * 5), {}, "pad"),
        ("pad", (image, (-2, -3)), {}, "pad"),
        ("pad", (image, (1, 1)), {"mode": "mirror"}, "mode"),
        ("pad", (image, (1, 1)), {"mode": "reflect"}, "input"),
        ("pad", (image, (4, 0, 0, 0)), {"mode": "reflect"}, "pad"),
        ("pad", (image, (5, 0, 0, 0)), {"mode": "circular"}, "pad"),
        ("pad", (image, (1, 1, 1, 1)), {"mode": "reflect", "value": 1.0}, "value"),
        ("interpolate", (image,), {}, "size"),
        ("interpolate", (image, 3), {"scale_factor": 2.0}, "size"),
        ("interpolate", (image, 0), {}, "size"),
        ("interpolate", (image, (3,)), {}, "size"),
        ("interpolate", (image,), {"scale_factor": 0.1}, "scale_factor"),
        ("interpolate", (image[0, 0], 3), {}, "input"),
        ("interpolate", (image[:, :0], 3), {}, "input"),
        ("interpolate", (image, 3), {"recompute_scale_factor": True}, "recompute_scale_factor"),
        ("interpolate", (image, 3), {"align_corners": False}, "align_corners"),
        ("interpolate", (image, 3), {"mode": "linear"}, "input"),
        ("interpolate", (image[0], 3), {"mode": "bilinear"}, "input"),
        ("conv_transpose2d", (image, kernel), {"output_padding": 1}, "output_padding"),
        ("conv_transpose2d", (image, kernel[:1]), {}, "input"),
        ("conv_transpose2d", (image, kernel), {"padding": 4}, "padding"),
        ("conv_transpose2d", (image, kernel), {"groups": 3}, "input"),
        ("conv_transpose2d", (image, kernel), {"stride": 0}, "stride"),
        ("conv_transpose2d", (image, kernel, np.zeros(3)), {}, "bias"),
        ("conv1d", (image, kernel[..., 0]), {}, "input"),
        ("conv2d", (image[:, :, :0], kernel[..., :1, :1]), {"padding": 1}, "input"),
        ("unfold", (image[:, :0], 2), {}, "input"),
        ("conv1d", (image[0], kernel[..., 0]), {"stride": (1, 1)}, "stride"),
        ("avg_pool2d", (image, 5), {}, "kernel_size"),
        ("layer_norm", (image, ()), {}, "normalized_shape"),
        ("layer_norm", (image, (3,)), {}, "input"),
        ("layer_norm", (image, 4), {}, "normalized_shape"),
        ("layer_norm", (image, (4,), np.ones(3)), {}, "weight"),
        ("group_norm", (image[:, :, 0, 0], 2), {}, "input"),
        ("group_norm", (image, 2, np.ones(3)), {}, "weight"),
        ("smooth_l1_loss", (image, image), {"beta": -1.0}, "beta"),
        ("binary_cross_entropy", (image + 2, image), {}, "input"),
        ("binary_cross_entropy", (image, image + np.nan), {}, "target"),
        ("binary_cross_entropy", (image, image, np.ones(3)), {}, "weight"),
        ("binary_cross_entropy_with_logits", (image, image[0]), {}, "target"),
        ("binary_cross_entropy_with_logits", (image, image), {"pos_weight": np.ones(3)}, "pos_weight"),
        ("nll_loss", (image[0, 0], np.array([0, 1, 2, 4])), {}, "target"),
        ("nll_loss", (image[0, 0], image[0, 0]), {}, "target"),
        ("softmax", (image, 4), {}, "dim"),
        ("dropout2d", (image[0, 0, 0],), {}, "input"),
    ]
    for name, args, options, argument in refused:
        theirs, tensors = getattr(torch.nn.functional, name), [to_tensor(torch, a) for a in args]
        keywords = {key: to_tensor(torch, value) for key, value in options.items()}
        both_refuse(
            partial(getattr(F, name), *args, **options),
            partial(quietly, theirs, *tensors, **keywords),
            f"`{argument}`",
        )


def to_tensor(torch: Any, value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call, without PyTorch's warnings."""
    with warnings.catch_warnings(action="ignore"):
        return call(*args, **kwargs)


def test_unflatten_refuses_sizes_that_do_not_fit() -> None:
    for sizes in ((2, 4), (-1, -1), (-1, 4), (), (0, -1)):
        with pytest.raises(ValueError, match="`sizes`"):
            F.unflatten(np.zeros((2, 6)), 1, sizes)
    with pytest.raises(ValueError, match="`dim`"):
        F.unflatten(np.zeros((2, 6)), 2, (2, 3))
    with pytest.raises(TypeError, match="`sizes`"):
        F.unflatten(np.zeros((2, 6)), 1, 6)  # type: ignore[arg-type]


# Residual


def block(channels: int, stride: int, seed: int) -> tc.Residual:
    """A ResNet's basic block, which doubles the channels where it strides."""
    options: dict[str, Any] = {"bias": False, "dtype": np.float64}
    inner = channels * stride
    body = tc.Sequential(
        tc.Conv2d(channels, inner, 3, stride, 1, generator=seed, **options),
        tc.BatchNorm2d(inner, dtype=np.float64),
        tc.ReLU(),
        tc.Conv2d(inner, inner, 3, 1, 1, generator=seed + 1, **options),
        tc.BatchNorm2d(inner, dtype=np.float64),
    )
    if stride == 1:
        return tc.Residual(body)
    shortcut = tc.Sequential(
        tc.Conv2d(channels, inner, 1, stride, generator=seed + 2, **options),
        tc.BatchNorm2d(inner, dtype=np.float64),
    )
    return tc.Residual(body, shortcut)


def test_a_small_resnet_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, channels: int, stride: int) -> None:
            super().__init__()
            inner = channels * stride
            self.body = nn.Sequential(
                nn.Conv2d(channels, inner, 3, stride, 1, bias=False),
                nn.BatchNorm2d(inner),
                nn.ReLU(),
                nn.Conv2d(inner, inner, 3, 1, 1, bias=False),
                nn.BatchNorm2d(inner),
            )
            if stride > 1:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(channels, inner, 1, stride, bias=False), nn.BatchNorm2d(inner)
                )

        def forward(self, x: Any) -> Any:
            return self.body(x) + (self.shortcut(x) if hasattr(self, "shortcut") else x)

    ours = tc.Sequential(
        tc.Conv2d(3, 4, 3, padding=1, dtype=np.float64, generator=9),
        block(4, 1, 0),
        tc.ReLU(),
        block(4, 2, 5),
        tc.ReLU(),
        tc.AdaptiveAvgPool2d(1),
        tc.Flatten(),
        tc.Linear(8, 5, dtype=np.float64, generator=8),
    )
    theirs = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        Block(4, 1),
        nn.ReLU(),
        Block(4, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    assert list(theirs.state_dict()) == list(ours.state_dict())
    compare_layer(ours, theirs, normal(3, 3, 8, 8))
    assert "Residual" in ours.summary((3, 3, 8, 8))
    gradcheck(ours[3], normal(2, 4, 4, 4))


def test_residual_refuses_shapes_that_differ_and_says_where_errors_arise() -> None:
    model = tc.Sequential(tc.Residual(tc.Conv2d(2, 2, 3)))
    x = np.zeros((1, 2, 5, 5), np.float32)
    for call in (partial(model.forward, x), partial(model.output_shape, x.shape)):
        with pytest.raises(
            ValueError, match=r"layer .0. \(Residual\): `body` and `shortcut` .*\(1, 2, 3, 3\)"
        ):
            call()
    with pytest.raises(ValueError, match=r"layer 'body' \(Conv2d\): `input` .* 2 channels"):
        tc.Residual(tc.Conv2d(2, 2, 3)).forward(x[:, :1])
    layer = tc.ReLU()
    with pytest.raises(ValueError, match=r"`shortcut` \(a ReLU\) is, or has, a layer that is here already"):
        tc.Residual(layer, layer)
    with pytest.raises(TypeError, match="`shortcut`"):
        tc.Residual(layer, "identity")  # type: ignore[arg-type]


# TensorFlow's layout


def test_layouts_are_views_and_their_own_inverses() -> None:
    images, kernels = normal(2, 5, 6, 3), normal(3, 4, 3, 8)
    assert F.nhwc_to_nchw(images).shape == (2, 3, 5, 6)
    assert F.hwio_to_oihw(kernels).shape == (8, 3, 3, 4)
    for there, back, array in (
        (F.nhwc_to_nchw, F.nchw_to_nhwc, images),
        (F.hwio_to_oihw, F.oihw_to_hwio, kernels),
    ):
        assert np.shares_memory(there(array), array)
        np.testing.assert_array_equal(back(there(array)), array)
        with pytest.raises(ValueError, match="must have the form"):
            there(array[0])


def test_the_layout_example_has_tensorflows_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    import tensorflow_layout as example

    image = np.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    sobel = np.array([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).reshape(3, 3, 1, 1)
    output = example.conv2d_nhwc(image, sobel)
    assert output.shape == (1, 1, 1, 1)
    assert output.item() == -8
    grad_image, grad_kernel = example.conv2d_nhwc_backward(np.ones_like(output), image, sobel)
    np.testing.assert_array_equal(grad_image[0, :, :, 0], sobel[:, :, 0, 0])
    np.testing.assert_array_equal(grad_kernel[:, :, 0, 0], image[0, :, :, 0])
    sys.modules.pop("tensorflow_layout")


# Corners that were wrong once


@pytest.mark.parametrize(("stride", "padding", "extra"), [(3, 1, 2), (5, 2, 4), (4, 1, 3)])
def test_a_transposed_convolution_whose_output_lies_beyond_its_reach_is_the_bias(
    stride: int, padding: int, extra: int
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, w, b = normal(2, 3, 1, 1), normal(3, 2, 1, 1, seed=1), normal(2, seed=2)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "output_padding": extra}
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    expected = torch.nn.functional.conv_transpose2d(*tensors, **options)
    assert_close(F.conv_transpose2d(x, w, b, **options), expected.detach().numpy())
    g = normal(*expected.shape, seed=3)
    grads = torch.autograd.grad(expected, tensors, torch.tensor(g))
    for ours, theirs in zip(F.conv_transpose2d_backward(g, x, w, b, **options), grads, strict=True):
        assert_close(ours, theirs.numpy())


def test_numpy_numbers_as_options_do_not_change_the_dtype() -> None:
    x, t, y = normal(3, 4).astype(np.float32), normal(3, 4, seed=1).astype(np.float32), np.array([0, 1, 3])
    half = np.float64(0.5)
    for result in (
        F.softplus(x, beta=half),
        F.softplus_backward(x, x, beta=half),
        F.leaky_relu(x, half),
        F.elu_backward_jvp(x, x, x, x, half),
        F.smooth_l1_loss(x, t, beta=half),
        *F.smooth_l1_loss_backward(np.ones((), np.float32), x, t, beta=half),
        F.cross_entropy(x, y, label_smoothing=half),
        F.layer_norm(x, (4,), eps=half),
    ):
        assert result.dtype == np.float32


def test_norms_of_float32_are_as_exact_in_every_layout() -> None:
    x = (10 + normal(2, 16, 60, 60)).astype(np.float32)
    exact = F.layer_norm(x.astype(np.float64), (16, 60, 60)), F.group_norm(x.astype(np.float64), 4)
    for name, x_ in layouts(x):
        assert abs(F.layer_norm(x_, (16, 60, 60)) - exact[0]).max() < 5e-6, name
        assert abs(F.group_norm(x_, 4) - exact[1]).max() < 5e-6, name


@pytest.mark.parametrize("options", [{"scale_factor": 1.3}, {"scale_factor": 2.3}, {"size": 7}], ids=str)
def test_images_that_keep_or_double_their_size_are_resized_as_in_pytorch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    for length in (2, 3, 4, 7):
        x = normal(1, 2, length, length)
        expected = torch.nn.functional.interpolate(torch.tensor(x), mode="nearest", **options)
        assert_close(F.interpolate(x, **options), expected.numpy())


def test_gradients_that_do_not_fit_are_refused() -> None:
    image, columns, x = normal(1, 1, 3, 3), normal(1, 4, 4), normal(2, 2, 3)
    for call in (
        partial(F.unfold_backward, normal(5, 4, 4), image, 2),
        partial(F.fold_backward, normal(5, 7, 9, 9), columns, 3, 2),
        partial(F.flatten_backward, normal(4, 3), x, 1),
        partial(F.unflatten_backward, normal(4, 3), x, 2, (3, 1)),
        partial(F.max_pool2d_backward, normal(1, 1, 2, 2).astype(np.float32), image, 2, 1),
    ):
        with pytest.raises((ValueError, TypeError), match="`grad_output`"):
            call()


def test_lists_in_the_place_of_arrays_are_refused_by_name() -> None:
    calls: list[tuple[Any, str]] = [
        (lambda: F.relu([1.0]), "input"),  # type: ignore[arg-type]
        (lambda: F.nll_loss(normal(2, 3), [0, 1]), "target"),  # type: ignore[arg-type]
        (lambda: F.cross_entropy(normal(3), 1), "target"),  # type: ignore[arg-type]
        (lambda: F.batch_norm([1.0], None, None), "input"),  # type: ignore[arg-type]
    ]
    for call, name in calls:
        with pytest.raises(TypeError, match=f"`{name}`"):
            call()
    with pytest.raises(ValueError, match=r"`target` \(of shape \(1,\)\) must have the shape \(\)"):
        F.cross_entropy(normal(3), np.array([1]))


def test_padding_by_nothing_is_a_copy_and_nan_a_value() -> None:
    x = normal(2, 3, 4)
    for mode in ("constant", "reflect", "replicate", "circular"):
        assert not np.shares_memory(F.pad(x, (0, 0), mode), x)
    assert np.isnan(F.pad(x, (1, 0), value=np.nan)[..., 0]).all()


def test_huge_strides_and_dilations_of_one_position_are_taken() -> None:
    x, w = normal(1, 1, 3, 3), normal(1, 1, 1, 1, seed=1)
    assert F.conv2d(x, w, stride=2**62).shape == (1, 1, 1, 1)
    assert_close(F.conv2d(x, w, dilation=2**62), F.conv2d(x, w))
    for call in (partial(F.leaky_relu, x, 10**400), partial(F.interpolate, x, scale_factor=float("inf"))):
        with pytest.raises(ValueError, match=r"`(negative_slope|scale_factor)`"):
            call()


def test_an_overridden_forward_is_what_a_call_runs() -> None:
    class Negative(tc.ConvTranspose2d):
        def forward(self, x: Array, output_size: Any = None) -> Array:
            return -super().forward(x, output_size)

    layer, x = Negative(1, 1, 1, generator=0), np.ones((1, 1, 2, 2), np.float32)
    assert_close(layer(x), -tc.ConvTranspose2d(1, 1, 1, generator=0)(x))


def test_a_pooling_with_indices_predicts_no_joined_pair() -> None:
    pool, x = tc.MaxPool2d(2, return_indices=True), np.ones((4, 1, 2, 2), np.float32)
    with pytest.raises(ValueError, match="returns several"):
        pool.predict(x, batch_size=2)


# The memory format

IMAGES: dict[str, Callable[[Array], Array]] = {
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "avg_pool2d_backward": lambda x: F.avg_pool2d_backward(x, normal(2, 3, 8, 12), 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
    "adaptive_avg_pool2d_backward": lambda x: F.adaptive_avg_pool2d_backward(x, normal(2, 3, 9, 7), (4, 6)),
    "max_unpool2d": lambda x: F.max_unpool2d(
        x, F.max_pool2d(normal(2, 3, 8, 12), 2, return_indices=True)[1], 2
    ),
    "interpolate": lambda x: F.interpolate(x, (5, 3)),
    "interpolate_backward": lambda x: F.interpolate_backward(x, normal(2, 3, 9, 3), (4, 6)),
    "dropout": lambda x: F.dropout_saved(x, generator=0)[1],
    "constant pad": lambda x: F.pad(x, (1, 2, -1, 0)),
    "constant pad_backward": lambda x: F.pad_backward(x, normal(2, 3, 5, 3), (1, 2, -1, 0)),
    "no pad": lambda x: F.pad(x, (0, 0, 0, 0), "circular"),
    "reflected pad": lambda x: F.pad(x, (1, 2, -1, 0), "reflect"),
    "reflected pad_backward": lambda x: F.pad_backward(x, normal(2, 3, 5, 3), (1, 2, -1, 0), "reflect"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_functions_of_images_produce_the_memory_format_whatever_they_are_given(name: str) -> None:
    x = normal(2, 3, 4, 6)
    expected = IMAGES[name](x)
    for layout, x_ in layouts(x):
        result = IMAGES[name](x_)
        assert_close(result, expected, layout)
        assert as_stored(result).flags.c_contiguous, layout


@pytest.mark.parametrize("function", [F.relu, lambda x: F.relu_backward(x, x)], ids=["relu", "relu_backward"])
def test_relu_keeps_the_layout_of_its_input(function: Callable[[Array], Array]) -> None:
    x = normal(2, 3, 4, 5)
    for layout, x_ in list(layouts(x))[:4]:
        assert function(x_).strides == x_.copy(order="K").strides, layout

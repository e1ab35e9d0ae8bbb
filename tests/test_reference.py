"""The operators against the plain loops of `tinyconv.reference`: values and gradients.

conv2d, max_pool2d, linear, relu and batch_norm are compared beside their other tests.
"""

from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.compare import assert_close
from tinyconv import reference
from tinyconv.arrays import Array

Case = tuple[str, tuple[Any, ...], dict[str, Any]]  # operator, arguments, options


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def uniform(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape)


def classes(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 3, shape)


def shares(*shape: int) -> Array:
    """Probabilities of the classes, axis 1."""
    weights = uniform(*shape, seed=1)
    return np.asarray(weights / weights.sum(1, keepdims=True))


def weighted(x_shape: tuple[int, ...], w_shape: tuple[int, ...], channels: int) -> tuple[Array, Array, Array]:
    """Input, weight and bias of a convolution."""
    return normal(*x_shape), normal(*w_shape, seed=1), normal(channels, seed=2)


SEQUENCES = weighted((2, 4, 9), (6, 2, 3), 6)  # two groups
IMAGES = normal(2, 3, 7, 6)
POINTS = np.append(normal(3, 5) * 3, [0.0, -0.0, 1.0, -1.0, 40.0, -40.0])
CORNERS = np.append(POINTS, [3.0, -3.0, 6.0, 0.5])

CASES: dict[str, Case] = {
    "conv1d": ("conv1d", weighted((2, 3, 8), (4, 3, 3), 4), {}),
    "conv1d, strided": ("conv1d", SEQUENCES, {"stride": 2, "padding": 3, "groups": 2}),
    "conv1d, dilated": ("conv1d", SEQUENCES, {"padding": 1, "dilation": 3, "groups": 2}),
    "conv_transpose2d": ("conv_transpose2d", weighted((2, 3, 4, 3), (3, 2, 3, 2), 2), {}),
    "conv_transpose2d, strided": (
        "conv_transpose2d",
        weighted((2, 4, 3, 4), (4, 3, 3, 2), 6),
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2},
    ),
    "conv_transpose2d, output padding beyond the stride": (
        "conv_transpose2d",
        weighted((1, 2, 3, 4), (2, 2, 2, 3), 2),
        {"padding": (2, 1), "output_padding": (2, 1), "dilation": (3, 2)},
    ),
    "conv_transpose2d, gaps": (
        "conv_transpose2d",
        weighted((2, 2, 3, 3), (2, 1, 1, 2), 1),
        {"stride": (3, 4)},
    ),
    "avg_pool2d": ("avg_pool2d", (IMAGES, (2, 3), (2, 3)), {}),
    "avg_pool2d, overlapping": ("avg_pool2d", (IMAGES, (3, 3), (1, 2)), {"padding": (1, 0)}),
    "avg_pool2d, pixels counted": (
        "avg_pool2d",
        (IMAGES, (3, 2), (2, 2)),
        {"padding": (1, 1), "count_include_pad": False},
    ),
    "avg_pool2d, ceil_mode": ("avg_pool2d", (IMAGES, (2, 4), (2, 3)), {"padding": (0, 1), "ceil_mode": True}),
    "avg_pool2d, ceil_mode, pixels counted": (
        "avg_pool2d",
        (IMAGES, (4, 4), (3, 3)),
        {"padding": (2, 1), "ceil_mode": True, "count_include_pad": False},
    ),
    "avg_pool2d, ceil_mode, last window dropped": (
        "avg_pool2d",
        (normal(1, 1, 3, 5), (2, 2), (3, 3)),
        {"padding": (1, 1), "ceil_mode": True},
    ),
    "avg_pool2d, divisor": (
        "avg_pool2d",
        (IMAGES, (3, 3), (2, 2)),
        {"padding": (1, 1), "ceil_mode": True, "divisor_override": 5},
    ),
    "avg_pool1d": ("avg_pool1d", (normal(2, 3, 9), 3, 2, 1), {}),
    "adaptive_avg_pool2d, smaller": ("adaptive_avg_pool2d", (IMAGES, (3, 4)), {}),
    "adaptive_avg_pool2d, larger": ("adaptive_avg_pool2d", (IMAGES, (9, 6)), {}),
    "adaptive_avg_pool2d, one": ("adaptive_avg_pool2d", (IMAGES, (1, 1)), {}),
    "leaky_relu": ("leaky_relu", (POINTS,), {}),
    "leaky_relu, steep": ("leaky_relu", (POINTS,), {"negative_slope": 0.3}),
    "elu": ("elu", (POINTS,), {}),
    "elu, alpha": ("elu", (POINTS,), {"alpha": 1.7}),
    "gelu": ("gelu", (POINTS,), {}),
    "gelu, tanh": ("gelu", (POINTS,), {"approximate": "tanh"}),
    "sigmoid": ("sigmoid", (POINTS,), {}),
    "tanh": ("tanh", (POINTS,), {}),
    "silu": ("silu", (POINTS,), {}),
    "softplus": ("softplus", (POINTS,), {}),
    "softplus, beta": ("softplus", (POINTS,), {"beta": 2.0, "threshold": 3.0}),
    "relu6": ("relu6", (CORNERS,), {}),
    "hardtanh": ("hardtanh", (CORNERS,), {}),
    "hardtanh, other ends": ("hardtanh", (CORNERS,), {"min_val": -3.0, "max_val": 0.5}),
    "hardsigmoid": ("hardsigmoid", (CORNERS,), {}),
    "hardswish": ("hardswish", (CORNERS,), {}),
    "selu": ("selu", (POINTS,), {}),
    "mish": ("mish", (POINTS,), {}),
    "prelu": ("prelu", (normal(2, 3, 4), normal(3, seed=1)), {}),
    "prelu, one weight": ("prelu", (normal(2, 3, 4), normal(1, seed=1)), {}),
    "softmax": ("softmax", (normal(2, 3, 4), 1), {}),
    "softmax, last axis, large": ("softmax", (normal(3, 4) + 1000, -1), {}),
    "log_softmax": ("log_softmax", (normal(2, 3, 4), 1), {}),
    "log_softmax, first axis, far apart": ("log_softmax", (normal(3, 4) * 300, 0), {}),
    "layer_norm": ("layer_norm", (normal(4, 5), (5,), normal(5, seed=1), normal(5, seed=2)), {}),
    "layer_norm, two axes": (
        "layer_norm",
        (normal(2, 3, 2, 4), (2, 4), normal(2, 4, seed=1), normal(2, 4, seed=2)),
        {"eps": 0.1},
    ),
    "group_norm": ("group_norm", (normal(2, 6, 3, 2), 3, normal(6, seed=1), normal(6, seed=2)), {}),
    "group_norm, one group": (
        "group_norm",
        (normal(3, 4, 5), 1, normal(4, seed=1), normal(4, seed=2)),
        {"eps": 0.1},
    ),
    "normalize": ("normalize", (IMAGES,), {}),
    "normalize, last axis, sum": ("normalize", (normal(3, 4), 1.0, -1), {}),
    "normalize, cubes, some short": (
        "normalize",
        (normal(5, 3) * [[1], [3], [0.1], [0.2], [2]], 3.0),
        {"eps": 0.6},
    ),
    "pixel_shuffle": ("pixel_shuffle", (normal(2, 18, 3, 2), 3), {}),
    "pixel_unshuffle": ("pixel_unshuffle", (normal(2, 3, 4, 6), 2), {}),
    "pad": ("pad", (IMAGES, (1, 2, 0, 3)), {"value": 1.5}),
    "pad, cropping": ("pad", (IMAGES, (-1, 2, 3, -2, 1, -1)), {}),
    "interpolate": ("interpolate", (IMAGES, (14, 18)), {}),
    "interpolate, other sizes": ("interpolate", (IMAGES, (3, 11)), {}),
    "interpolate, scale": ("interpolate", (IMAGES, None, (2.5, 0.6)), {}),
    "interpolate, exact": ("interpolate", (IMAGES, (3, 11)), {"mode": "nearest-exact"}),
    "interpolate, exact, scale": ("interpolate", (IMAGES, None, (2.5, 0.6)), {"mode": "nearest-exact"}),
    "interpolate, linear": ("interpolate", (normal(2, 3, 5), (8,)), {"mode": "linear"}),
    "interpolate, bilinear": ("interpolate", (IMAGES, (3, 11)), {"mode": "bilinear"}),
    "interpolate, bilinear, scale": ("interpolate", (IMAGES, None, (2.5, 0.6)), {"mode": "bilinear"}),
    "interpolate, bilinear, aligned": (
        "interpolate",
        (IMAGES, (1, 11)),
        {"mode": "bilinear", "align_corners": True},
    ),
    "interpolate, trilinear": ("interpolate", (normal(1, 2, 2, 3, 4), (4, 2, 5)), {"mode": "trilinear"}),
    "interpolate, sequences": ("interpolate", (normal(2, 3, 5), (8,)), {}),
    "interpolate, volumes": ("interpolate", (normal(1, 2, 2, 3, 4), (4, 2, 5)), {}),
    "flatten": ("flatten", (IMAGES,), {}),
    "flatten, last axes": ("flatten", (IMAGES, 1, -1), {}),
    "flatten, middle axes": ("flatten", (IMAGES, -3, 2), {}),
    "unflatten": ("unflatten", (normal(2, 12, 3), 1, (2, 3, 2)), {}),
    "unflatten, last axis": ("unflatten", (normal(2, 6), -1, (3, 2)), {}),
    "unfold": ("unfold", (IMAGES, (2, 3)), {}),
    "unfold, every option": ("unfold", (IMAGES, (2, 3), (2, 1), (1, 2), (3, 2)), {}),
    "fold": ("fold", (normal(2, 18, 24), (7, 6), (2, 3)), {}),
    "fold, every option": ("fold", (normal(2, 18, 12), (7, 6), (2, 3), (2, 1), (1, 2), (3, 2)), {}),
}
for mode in ("reflect", "replicate", "circular"):
    CASES[f"pad, {mode}"] = ("pad", (IMAGES, (3, 2, 0, 4)), {"mode": mode})
    CASES[f"pad, {mode}, cropping"] = ("pad", (IMAGES, (-1, 2, 3, -2)), {"mode": mode})
BIASED = {"conv1d", "conv_transpose2d", "layer_norm", "group_norm"}  # the last argument is the bias

MAPS, SHARES = normal(2, 3, 2, 2), shares(2, 3, 2, 2)
IGNORED = np.where(np.arange(8).reshape(2, 2, 2) % 3, classes(2, 2, 2), -100)
PAIR = normal(4, 5), normal(4, 5, seed=1)
LOSSES: dict[str, Case] = {
    "mse_loss": ("mse_loss", (normal(4, 5), normal(4, 5, seed=1)), {}),
    "l1_loss": ("l1_loss", (POINTS, np.append(POINTS[:3], POINTS[3:][::-1])), {}),
    "smooth_l1_loss": ("smooth_l1_loss", (normal(4, 5), normal(4, 5, seed=1)), {}),
    "smooth_l1_loss, beta": ("smooth_l1_loss", (normal(4, 5), normal(4, 5, seed=1)), {"beta": 0.3}),
    "huber_loss": ("huber_loss", (normal(4, 5), normal(4, 5, seed=1)), {}),
    "huber_loss, delta": ("huber_loss", (normal(4, 5), normal(4, 5, seed=1)), {"delta": 0.3}),
    "kl_div": ("kl_div", (normal(4, 5), shares(4, 5)), {}),
    "kl_div, log_target": ("kl_div", (normal(4, 5), normal(4, 5, seed=1)), {"log_target": True}),
    "hinge_embedding_loss": ("hinge_embedding_loss", (normal(4, 5), np.sign(normal(4, 5, seed=1))), {}),
    "hinge_embedding_loss, margin": (
        "hinge_embedding_loss",
        (normal(4, 5), np.sign(normal(4, 5, seed=1))),
        {"margin": -0.2},
    ),
    "margin_ranking_loss": ("margin_ranking_loss", (*PAIR, np.sign(normal(4, 5, seed=2))), {}),
    "margin_ranking_loss, margin": (
        "margin_ranking_loss",
        (*PAIR, np.sign(normal(4, 5, seed=2))),
        {"margin": 0.7},
    ),
    "cosine_embedding_loss": ("cosine_embedding_loss", (*PAIR, np.array([1.0, -1, -1, 1])), {}),
    "cosine_embedding_loss, margin": (
        "cosine_embedding_loss",
        (*PAIR, np.array([1.0, -1, -1, -1])),
        {"margin": -0.3},
    ),
    "triplet_margin_loss": ("triplet_margin_loss", (*PAIR, normal(4, 5, seed=2)), {}),
    "triplet_margin_loss, every option": (
        "triplet_margin_loss",
        (*PAIR, normal(4, 5, seed=2)),
        {"margin": 3.0, "p": 1.5, "eps": 0.1, "swap": True},
    ),
    "nll_loss": ("nll_loss", (normal(5, 3), classes(5)), {}),
    "nll_loss, weight": ("nll_loss", (normal(5, 3), classes(5), uniform(3)), {}),
    "nll_loss, ignored": ("nll_loss", (MAPS, IGNORED), {}),
    "nll_loss, maps": ("nll_loss", (normal(2, 3, 2, 4), classes(2, 2, 4), uniform(3)), {"ignore_index": 1}),
    "cross_entropy": ("cross_entropy", (normal(5, 3), classes(5)), {}),
    "cross_entropy, far apart": ("cross_entropy", (normal(5, 3) * 300, classes(5)), {}),
    "cross_entropy, maps": ("cross_entropy", (MAPS, classes(2, 2, 2), uniform(3)), {"ignore_index": 1}),
    "cross_entropy, ignored": ("cross_entropy", (MAPS, IGNORED, uniform(3)), {"label_smoothing": 0.3}),
    "cross_entropy, smoothed": ("cross_entropy", (normal(5, 3), classes(5)), {"label_smoothing": 0.3}),
    "cross_entropy, soft": ("cross_entropy", (normal(5, 3), shares(5, 3)), {}),
    "cross_entropy, soft maps": ("cross_entropy", (MAPS, SHARES, uniform(3)), {"label_smoothing": 0.3}),
    "binary_cross_entropy": ("binary_cross_entropy", (uniform(3, 4), uniform(3, 4, seed=1)), {}),
    "binary_cross_entropy, weight": (
        "binary_cross_entropy",
        (uniform(3, 4), uniform(3, 4, seed=1), uniform(4, seed=2)),
        {},
    ),
    "binary_cross_entropy_with_logits": (
        "binary_cross_entropy_with_logits",
        (POINTS, uniform(*POINTS.shape)),
        {},
    ),
    "binary_cross_entropy_with_logits, weights": (
        "binary_cross_entropy_with_logits",
        (normal(3, 4), uniform(3, 4, seed=1), uniform(3, 1, seed=2)),
        {"pos_weight": 3 * uniform(4, seed=3)},
    ),
}


def loop_gradients(operator: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The gradients of a loss by its input and, if it has one, by its target."""
    grads = getattr(reference, f"{operator}_backward")(*args, **options)
    if operator == "mse_loss":
        return grads, -grads
    if operator == "cross_entropy" and args[1].dtype == float:
        return grads, reference.cross_entropy_target_backward(*args, **options)
    return grads


def assert_all_close(grads: Any, expected: Any) -> None:
    """Compare one gradient, or several; those that we do not give are None."""
    grads = [grad for grad in (grads if isinstance(grads, tuple) else (grads,)) if grad is not None]
    expected = expected if isinstance(expected, tuple) else (expected,)
    for i, (grad, expected_grad) in enumerate(zip(grads, expected, strict=True)):
        assert_close(grad, expected_grad, f"gradient {i}")


@pytest.mark.parametrize(("operator", "args", "options"), CASES.values(), ids=CASES)
def test_agrees_with_plain_loops(operator: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    y = getattr(F, operator)(*args, **options)
    assert_close(y, getattr(reference, operator)(*args, **options))
    g = normal(*y.shape, seed=9)
    grads = getattr(F, f"{operator}_backward")(g, *args, **options)
    loop_args = args[:-1] if operator in BIASED else args
    assert_all_close(grads, getattr(reference, f"{operator}_backward")(g, *loop_args, **options))


@pytest.mark.parametrize(("operator", "args", "options"), LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_loss_agrees_with_plain_loops(
    reduction: str, operator: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    options = {**options, "reduction": reduction}
    y = getattr(F, operator)(*args, **options)
    assert_close(y, getattr(reference, operator)(*args, **options))
    g = np.asarray(normal(*y.shape, seed=9))
    grads = getattr(F, f"{operator}_backward")(g, *args, **options)
    assert_all_close(grads, loop_gradients(operator, args, {**options, "g": g}))


@pytest.mark.parametrize(("operator", "mask_axes"), [("dropout", 4), ("dropout2d", 2)])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_agrees_with_plain_loops(operator: str, mask_axes: int, p: float) -> None:
    y, mask = getattr(F, f"{operator}_saved")(IMAGES, p, generator=0)
    kept = mask.reshape(IMAGES.shape[:mask_axes]) != 0
    assert_close(y, getattr(reference, operator)(IMAGES, kept, p))
    g = normal(*y.shape, seed=9)
    grad = getattr(F, f"{operator}_backward")(g, IMAGES, p, generator=0)
    assert_close(grad, getattr(reference, f"{operator}_backward")(g, kept, p))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((2, 2), (2, 2), (0, 0), None),
        ((2, 3), (2, 3), (0, 0), (7, 8)),
        ((3, 3), (2, 2), (1, 1), (7, 6)),
        ((2, 2), (3, 4), (0, 0), (7, 6)),
    ],
)
def test_max_unpool2d_agrees_with_plain_loops(kernel: Any, stride: Any, padding: Any, size: Any) -> None:
    x, where = reference.max_pool2d(IMAGES, kernel, stride, padding)
    args = x, where, kernel, stride, padding, size
    y = F.max_unpool2d(*args)
    assert_close(y, reference.max_unpool2d(*args))
    g = normal(*y.shape, seed=9)
    assert_close(F.max_unpool2d_backward(g, *args), reference.max_unpool2d_backward(g, where))


def test_instance_norm_agrees_with_plain_loops() -> None:
    x, w, b = normal(2, 3, 4, 2), normal(3, seed=1), normal(3, seed=2)
    assert_close(F.instance_norm(x, None, None, w, b, eps=0.1), reference.instance_norm(x, w, b, 0.1))
    g = normal(*x.shape, seed=9)
    grads = F.instance_norm_backward(g, x, None, None, w, b, eps=0.1)
    assert_all_close(grads, reference.instance_norm_backward(g, x, w, 0.1))


@pytest.mark.parametrize("window", [(2, 2), (3, 1, 1), (3, 2, 0, 3)])
def test_max_pool1d_agrees_with_plain_loops(window: Any) -> None:
    x = normal(2, 3, 9)
    y, where = F.max_pool1d(x, *window, return_indices=True)
    expected, expected_where = reference.max_pool1d(x, *window)
    assert_close(y, expected)
    np.testing.assert_array_equal(where, expected_where)
    g = normal(*y.shape, seed=9)
    assert_close(F.max_pool1d_backward(g, x, *window), reference.max_pool1d_backward(g, x, where))


@pytest.mark.parametrize("options", [(), (2,), (2, 1, 1, 2, 3), (1, 2, 1, 2, 2)])
def test_conv_transpose1d_agrees_with_plain_loops(options: Any) -> None:
    x, w, b = weighted((2, 4, 5), (4, 3, 3), 3 if len(options) < 4 else 6)
    y = F.conv_transpose1d(x, w, b, *options)
    assert_close(y, reference.conv_transpose1d(x, w, b, *options))
    g = normal(*y.shape, seed=9)
    grads = F.conv_transpose1d_backward(g, x, w, b, *options)
    assert_all_close(grads, reference.conv_transpose1d_backward(g, x, w, *options))


@pytest.mark.parametrize("size", [(3, 4), (9, 6), (1, 1), (2, 7)])
def test_adaptive_max_pool2d_agrees_with_plain_loops(size: Any) -> None:
    x = IMAGES.round(1)  # with equal values
    x[0, :, 2, 1:4] = x[1, 0, 0, 0] = np.nan
    y, where = F.adaptive_max_pool2d(x, size, return_indices=True)
    expected, expected_where = reference.adaptive_max_pool2d(x, size)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(where, expected_where)
    g = normal(*y.shape, seed=9)
    grad = F.adaptive_max_pool2d_backward(g, x, size)
    assert_close(grad, reference.adaptive_max_pool2d_backward(g, x, where))

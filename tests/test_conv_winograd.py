"""Winograd's filtering: against the definition and the columns, adjointness, rounding, rules of shapes."""

from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.compare import assert_close
from tinyconv.arrays import Array, empty_stored, formatted
from tinyconv.functional.conv import winograd
from tinyconv.functional.conv.geometry import Geometry, conv_geometry, output_size

Pads = tuple[tuple[int, int], tuple[int, int]]
ONE = ((1, 1), (1, 1))


def geometry_of(size: tuple[int, ...], w: Array, padding: Pads) -> Geometry:
    kernel = w.shape[2], w.shape[3]
    shape = output_size(size[2:], kernel, (1, 1), padding, (1, 1))
    return Geometry(size, len(w), kernel, (1, 1), padding, (1, 1), 1, shape)


def draw(
    seed: int,
    n: int,
    c: int,
    o: int,
    size: tuple[int, int],
    padding: Pads,
    dtype: Any = np.float64,
    k: int = 3,
) -> tuple[Array, Array, Array, Array]:
    """An image, a kernel, a bias and a cotangent."""
    rng = np.random.default_rng(seed)
    shape = output_size(size, (k, k), (1, 1), padding, (1, 1))
    shapes = (n, c, *size), (o, c, k, k), (o,), (n, o, *shape)
    x, w, b, g = (rng.standard_normal(s).astype(dtype) for s in shapes)
    return x, w, b, g


def pad(x: Array, padding: Pads) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def output(x: Array, w: Array, b: Array | None, padding: Pads) -> Array:
    geometry = geometry_of(x.shape, w, padding)
    y = empty_stored(geometry.output_shape, x.dtype)
    winograd.conv2d(geometry, formatted(x), w, b, y)
    return y


def maps(x: Array, w: Array, g: Array, padding: Pads) -> tuple[Array, Array, Array]:
    """The three maps."""
    geometry = geometry_of(x.shape, w, padding)
    dx, grads = empty_stored(x.shape, x.dtype), formatted(g)
    winograd.conv2d_input(geometry, w, grads, dx)
    return output(x, w, None, padding), dx, winograd.conv2d_weight(geometry, formatted(x), grads)


def exact(x: Array, w: Array, g: Array, padding: Pads) -> tuple[Array, Array, Array]:
    """The three maps of a padded image, by definition: a sum over the taps."""
    image = pad(x, padding)
    y, dx, dw = np.zeros_like(g), np.zeros_like(image), np.zeros_like(w)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            seen = np.s_[:, :, i : i + g.shape[2], j : j + g.shape[3]]
            y += np.einsum("nchw,oc->nohw", image[seen], w[:, :, i, j])
            dx[seen] += np.einsum("nohw,oc->nchw", g, w[:, :, i, j])
            dw[:, :, i, j] = np.einsum("nchw,nohw->oc", image[seen], g)
    (top, _), (left, _) = padding
    return y, dx[:, :, top : top + x.shape[2], left : left + x.shape[3]], dw


def random_case(seed: int) -> dict[str, Any]:
    """Shapes of 3x3 and 5x5 kernels, of few samples, whose tiles are rows of a product, and of more."""
    rng, k = np.random.default_rng(seed), 3 + 2 * (seed % 2)
    around = rng.integers(0, k, (2, 2))
    size = tuple(int(max(s, k - p.sum())) for s, p in zip(rng.integers(1, 14, 2), around, strict=True))
    n, c, o = (int(v) for v in rng.integers(1, [2 * winograd.FEW, 6, 6]))
    padding = tuple((int(before), int(after)) for before, after in around)
    return {"seed": seed, "n": n, "c": c, "o": o, "size": size, "padding": padding, "k": k}


@pytest.mark.parametrize("seed", range(60))
def test_all_three_maps_of_random_shapes(seed: int) -> None:
    case = random_case(seed)
    x, w, _, g = draw(**case)
    expected = exact(x, w, g, case["padding"])
    for actual, wanted, name in zip(maps(x, w, g, case["padding"]), expected, ("y", "dx", "dw"), strict=True):
        assert_close(actual, wanted, name)


@pytest.mark.parametrize("size", [(1, 13), (4, 4), (5, 8), (7, 6), (13, 1)], ids=str)
def test_agrees_with_the_columns(size: tuple[int, int]) -> None:
    x, w, b, g = draw(0, 3, 4, 5, size, ONE)
    assert_close(output(x, w, b, ONE), F.conv2d(x, w, b, padding=1, algorithm="columns"))
    _, dx, dw = maps(x, w, g, ONE)
    assert_close(dx, F.conv2d_input(x.shape, w, g, padding=1, algorithm="columns"))
    assert_close(dw, F.conv2d_weight(x, w.shape, g, padding=1, algorithm="columns"))


@pytest.mark.parametrize("seed", range(10))
def test_the_gradients_are_the_transposes(seed: int) -> None:
    case = random_case(seed)
    x, w, _, g = draw(**case)
    y, dx, dw = maps(x, w, g, case["padding"])
    scale = np.abs(y * g).sum()
    for product in ((x * dx).sum(), (w * dw).sum()):
        np.testing.assert_allclose(product, (y * g).sum(), rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("channels", [8, 64, 128])
def test_rounding_in_float32(channels: int, k: int) -> None:
    x, w, _, g = draw(1, 2, channels, channels, (12, 11), ONE, np.float32, k)
    expected = exact(x.astype(np.float64), w.astype(np.float64), g.astype(np.float64), ONE)
    for actual, wanted in zip(maps(x, w, g, ONE), expected, strict=True):
        assert actual.dtype == np.float32
        assert np.abs(actual - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_nothing_handed_out_or_in_is_written() -> None:
    x, w, _, g = draw(2, 2, 3, 4, (7, 6), ONE)
    for array in (x, w, g):
        array.setflags(write=False)
    first = maps(x, w, g, ONE)
    copies = [array.copy() for array in first]
    maps(*draw(3, 2, 3, 4, (7, 6), ONE)[:2], g, ONE)
    for array, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_arrays_that_lie_otherwise() -> None:
    x, w, _, g = draw(4, 2, 3, 4, (7, 6), ONE)
    expected = maps(x, w, g, ONE)
    turned = maps(np.asfortranarray(x), np.asfortranarray(w), g[..., ::-1].copy()[..., ::-1], ONE)
    for actual, wanted in zip(turned, expected, strict=True):
        assert_close(actual, wanted)


def test_batch_of_none() -> None:
    x, w, _, g = draw(5, 0, 3, 4, (7, 6), ONE)
    y = F.conv2d(x, w, padding=1, algorithm="winograd")
    assert y.shape == g.shape
    assert F.conv2d_input(x.shape, w, g, padding=1, algorithm="winograd").shape == x.shape
    assert_close(F.conv2d_weight(x, w.shape, g, padding=1, algorithm="winograd"), np.zeros_like(w))


def test_supports_3x3_and_5x5_kernels_that_move_by_one() -> None:
    shapes = (16, 64, 28, 28), (64, 64, 3, 3)
    assert winograd.supports(conv_geometry(*shapes, padding=1))
    assert winograd.supports(conv_geometry(shapes[0], (64, 64, 5, 5)))
    assert winograd.supports_input(conv_geometry(*shapes, padding=2))
    assert not winograd.supports_input(conv_geometry(*shapes, padding=3))
    assert not winograd.supports(conv_geometry(shapes[0], (64, 32, 3, 3), groups=2))
    assert not winograd.supports(conv_geometry(shapes[0], (64, 64, 3, 5)))
    assert not winograd.supports(conv_geometry(*shapes, stride=(1, 2)))
    assert not winograd.supports(conv_geometry(*shapes, dilation=(2, 1)))


def test_is_faster_for_many_channels_full_tiles_and_enough_of_them() -> None:
    for rule in (winograd.is_faster, winograd.is_faster_input):
        assert rule(conv_geometry((16, 128, 28, 28), (128, 128, 3, 3), padding=1))
        assert rule(conv_geometry((16, 256, 14, 14), (256, 256, 3, 3), padding=1))
        assert rule(conv_geometry((1, 64, 56, 56), (64, 64, 3, 3), padding=1))
        assert rule(conv_geometry((64, 32, 14, 14), (32, 32, 5, 5), padding=2))
        assert not rule(conv_geometry((64, 1, 28, 28), (32, 1, 3, 3), padding=1))
        assert not rule(conv_geometry((64, 512, 2, 2), (512, 512, 3, 3), padding=1))
        assert not rule(conv_geometry((1, 256, 14, 14), (256, 256, 3, 3), padding=1))


def test_the_gradient_with_respect_to_the_image_is_judged_by_the_tiles_of_the_image() -> None:
    geometry = conv_geometry(
        (64, 16, 2, 2), (16, 16, 3, 3), padding=2
    )  # 4x4 outputs, a full tile, of 2x2 pixels
    assert winograd.is_faster(geometry)
    assert not winograd.is_faster_input(geometry)


@pytest.mark.parametrize("size", [(9, 8), (16, 17)], ids=str)
@pytest.mark.parametrize("n", [2, 20])
def test_blocks_and_parts_of_any_size_give_the_same_values(
    n: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, b, g = draw(6, n, 3, 5, size, ONE)
    expected = *maps(x, w, g, ONE), output(x, w, b, ONE)
    for name, values in (
        ("BLOCK_BYTES", (1, 10_000, 100_000)),
        ("SUM_BYTES", (1, 10_000, 100_000)),
        ("LEAST_TERMS", (1, 100)),
        ("TOTAL_BYTES", (1, 20_000)),
        ("KERNEL_BYTES", (1_000, 5_000)),
    ):
        for value in values:
            with monkeypatch.context() as patch:
                patch.setattr(winograd, name, value)
                for actual, wanted in zip((*maps(x, w, g, ONE), output(x, w, b, ONE)), expected, strict=True):
                    assert_close(actual, wanted, f"{name} {value}")

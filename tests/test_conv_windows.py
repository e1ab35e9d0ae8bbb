"""Windows and columns: the three maps for any stride, dilation, padding and groups, in blocks of any size."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.compare import layouts
from tests.hypothesis_or_skip import given, settings, st
from tinyconv import reference
from tinyconv.arrays import Array, empty_stored, formatted
from tinyconv.functional.conv import algorithms, columns, depthwise, residues, windows
from tinyconv.functional.conv.geometry import Geometry, output_size


def normal(*shape: int, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@st.composite
def geometries(
    draw: st.DrawFn, turned: bool = False, channels_per_group: int = 3, most_groups: int = 3
) -> Geometry:
    """Any stride, dilation and groups; padding that may differ on all four sides and be wide.

    Those that can be `turned` have no stride, and no more padding than the kernel reaches over.
    """

    def pair(*values: int) -> tuple[int, int]:
        return draw(st.sampled_from(values)), draw(st.sampled_from(values))

    groups = draw(st.sampled_from((1, 2, 3, most_groups)))
    kernel_size, stride, dilation = pair(1, 2, 3, 5), pair(1, 1, 2, 3, 4, 9), pair(1, 1, 2, 3, 4)
    padding = pair(0, 1, 2, 5), pair(0, 1, 2, 5)
    if turned:
        stride, reaches = (1, 1), [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
        (top, bottom), (left, right) = (
            (min(a, r), min(b, r)) for (a, b), r in zip(padding, reaches, strict=True)
        )
        padding = (top, bottom), (left, right)
    least = [
        max(1, d * (k - 1) + 1 - sum(pads)) for k, d, pads in zip(kernel_size, dilation, padding, strict=True)
    ]
    more = pair(*range(10))
    size = least[0] + more[0], least[1] + more[1]
    channels, outputs = groups * draw(st.integers(1, channels_per_group)), groups * draw(st.integers(1, 3))
    shape = draw(st.sampled_from((0, 1, 2, 5))), channels, *size
    outer = output_size(size, kernel_size, stride, padding, dilation)
    return Geometry(shape, outputs, kernel_size, stride, padding, dilation, groups, outer)


def run(wanted: str, geometry: Geometry, name: str, *arrays: Array | None) -> Array:
    """One of the maps by the algorithm `name`."""
    call = algorithms.pick(wanted, geometry, name, np)
    if wanted == "weight":
        weight: Array = call(geometry, *arrays)
        return weight
    out = empty_stored(geometry.output_shape if wanted == "output" else geometry.input_shape, np.float64)
    out[...] = np.nan
    call(geometry, *arrays, out)
    return out


def assert_agrees_with_plain_loops(geometry: Geometry, name: str) -> None:
    """All maps of an algorithm, on weights in other memory layouts too."""
    (n, c, h, w), padding, groups = geometry.input_shape, geometry.padding, geometry.groups
    x, weight, bias = normal(n, c, h, w), normal(*geometry.weight_shape), normal(geometry.out_channels)
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    options = (geometry.stride, (0, 0), geometry.dilation, groups)
    output = reference.conv2d(padded, weight, bias, *options)
    g = normal(*output.shape)
    image, by_weight, _ = reference.conv2d_backward(g, padded, weight, *options)
    (top, _), (left, _) = padding
    image = image[:, :, top : top + h, left : left + w]
    x, g = formatted(x), formatted(g)
    for _, w_ in layouts(weight):
        found = [
            (run("output", geometry, name, x, w_, bias), output),
            (run("output", geometry, name, x, w_, None), output - bias[:, None, None]),
            (run("weight", geometry, name, x, g), by_weight),
        ]
        if name in algorithms.INPUT:
            found.append((run("input", geometry, name, w_, g), image))
        for actual, expected in found:
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("module", [windows, columns], ids=["windows", "columns"])
@settings(max_examples=50, deadline=None)
@given(geometry=geometries(), nbytes=st.sampled_from((1, 500, 1 << 20)))
def test_drawn_convolutions_agree_with_plain_loops(module: Any, geometry: Geometry, nbytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", nbytes)
        assert_agrees_with_plain_loops(geometry, module.__name__.rpartition(".")[2])


@pytest.mark.parametrize("small_kernels", [True, False], ids=["small kernels", "no small kernels"])
@settings(max_examples=20, deadline=None)
@given(geometry=geometries())
def test_products_in_parts_agree_with_plain_loops(small_kernels: bool, geometry: Geometry) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "small_kernels", lambda: small_kernels)
        patch.setattr(windows, "SMALL_PRODUCT", 100)
        patch.setattr(windows, "LEAST_ROWS", 1)
        patch.setattr(windows, "M_PART", 2)
        patch.setattr(windows, "K_PART", 4)
        assert_agrees_with_plain_loops(geometry, "windows")


@settings(max_examples=50, deadline=None)
@given(geometry=geometries(channels_per_group=1, most_groups=4), values=st.sampled_from((1, 40, 1 << 18)))
def test_drawn_depthwise_convolutions_agree_with_plain_loops(geometry: Geometry, values: int) -> None:
    geometry = replace(geometry, out_channels=geometry.groups)
    if geometry.groups == 1:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depthwise, "PART_VALUES", values)
        patch.setattr(depthwise, "SHORT_ROW", values)
        assert_agrees_with_plain_loops(geometry, "depthwise")


@settings(max_examples=50, deadline=None)
@given(geometries(turned=True))
def test_drawn_turned_convolutions_agree_with_columns(geometry: Geometry) -> None:
    weight, g = normal(*geometry.weight_shape), formatted(normal(*geometry.output_shape))
    expected = run("input", geometry, "columns", weight, g)
    np.testing.assert_allclose(run("input", geometry, "turned", weight, g), expected, rtol=1e-11, atol=1e-11)


@settings(max_examples=100, deadline=None)
@given(geometries())
def test_parts_have_each_output_once_and_no_stride_or_dilation_that_they_should_not_have(
    geometry: Geometry,
) -> None:
    outputs, pixels = np.zeros(geometry.output_size, int), np.zeros(geometry.input_shape[2:], int)
    for plain, seeing, _, _ in residues.undilated(geometry):
        assert plain.dilation == (1, 1)
        outputs[seeing[2:]] += 1
        for part in residues.unstrided(plain):
            assert windows.supports_input(part.geometry)
    assert (outputs == 1).all()
    if geometry.dilation == (1, 1):
        for part in residues.unstrided(geometry):
            pixels[part.pixels[2:]] += 1
        assert (pixels <= 1).all()

"""Windows and columns: the three maps for any stride, dilation, padding and groups, in blocks of any size."""

from typing import Any

import numpy as np
import pytest

from tests.compare import layouts
from tests.hypothesis_or_skip import given, settings, st
from tinyconv import reference
from tinyconv.arrays import Array
from tinyconv.functional.conv import algorithms, columns, depthwise, windows
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


def assert_agrees_with_plain_loops(geometry: Geometry, module: Any) -> None:
    """All maps of a module, on data in other memory layouts too."""
    (n, c, h, w), padding, groups = geometry.input_shape, geometry.padding, geometry.groups
    x, weight, bias = normal(n, c, h, w), normal(*geometry.weight_shape), normal(geometry.out_channels)
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    options = (geometry.stride, (0, 0), geometry.dilation, groups)
    output = reference.conv2d(padded, weight, bias, *options)
    g = normal(*output.shape)
    image, by_weight, _ = reference.conv2d_backward(g, padded, weight, *options)
    (top, _), (left, _) = padding
    image = image[:, :, top : top + h, left : left + w]
    for (_, x_), (_, w_), (_, g_) in zip(layouts(x), layouts(weight), layouts(g), strict=True):
        found = [
            (module.conv2d(geometry, x_, w_, bias), output),
            (module.conv2d(geometry, x_, w_, None), output - bias[:, None, None]),
            (module.conv2d_weight(geometry, x_, g_), by_weight),
        ]
        if module is not depthwise:
            found.append((module.conv2d_input(geometry, w_, g_), image))
        for actual, expected in found:
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("module", [windows, columns], ids=["windows", "columns"])
@settings(max_examples=50, deadline=None)
@given(geometry=geometries(), nbytes=st.sampled_from((1, 500, 1 << 20)))
def test_drawn_convolutions_agree_with_plain_loops(module: Any, geometry: Geometry, nbytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", nbytes)
        assert_agrees_with_plain_loops(geometry, module)


@settings(max_examples=50, deadline=None)
@given(geometry=geometries(channels_per_group=1, most_groups=4), values=st.sampled_from((1, 40, 1 << 15)))
def test_drawn_depthwise_convolutions_agree_with_plain_loops(geometry: Geometry, values: int) -> None:
    if not depthwise.supports(geometry):
        assert geometry.groups == 1
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depthwise, "BLOCK_VALUES", values)
        assert_agrees_with_plain_loops(geometry, depthwise)


@settings(max_examples=50, deadline=None)
@given(geometries(turned=True))
def test_drawn_turned_convolutions_agree_with_columns(geometry: Geometry) -> None:
    assert algorithms.supports_turned(geometry)
    weight, g = normal(*geometry.weight_shape), normal(*geometry.output_shape)
    expected = columns.conv2d_input(geometry, weight, g)
    actual = algorithms.conv2d_input_turned(geometry, weight, g)
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


def test_residues_name_each_output_once() -> None:
    for stride in range(1, 7):
        for dilation in range(1, 7):
            seen = {}
            for outputs, residue, first, step in windows.residues(stride, dilation):
                for place, output in enumerate(range(40)[outputs]):
                    seen[output] = (first + place * step) * dilation + residue
            assert seen == {output: output * stride for output in range(40)}

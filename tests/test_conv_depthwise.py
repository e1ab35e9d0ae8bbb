"""Depthwise convolution with band matrices: the three maps against plain loops."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compare import layouts
from tinyconv import reference
from tinyconv.arrays import Array
from tinyconv.functional.conv import depthwise as conv_depthwise
from tinyconv.functional.conv.conv_rules import Shapes, pays_depthwise
from tinyconv.functional.conv.depthwise import (
    conv2d_depthwise,
    conv2d_input_depthwise,
    conv2d_weight_depthwise,
)
from tinyconv.functional.conv.unfold import Window

PLAIN = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))


class Case(NamedTuple):
    """A window over `channels` images of `size`, and the outputs of each channel."""

    window: Window
    size: tuple[int, int]
    batch: int = 2
    channels: int = 3
    outputs: int = 1


CASES = {
    "plain": Case(PLAIN, (8, 5)),
    "cut-off tile": Case(PLAIN, (7, 5)),
    "less than a tile": Case(PLAIN, (2, 3)),
    "two outputs a channel": Case(PLAIN, (6, 6), outputs=2),
    "batch of one": Case(PLAIN, (9, 6), batch=1),
    "batch of none": Case(PLAIN, (6, 6), batch=0),
    "stride that does not divide": Case(PLAIN._replace(stride=(3, 2)), (11, 9)),
    "stride larger than the kernel": Case(Window((1, 2), (5, 3), ((0, 0), (0, 0)), (1, 1)), (13, 8)),
    "dilation": Case(PLAIN._replace(dilation=(2, 3)), (9, 8)),
    "stride and dilation": Case(PLAIN._replace(stride=(2, 2), dilation=(3, 2)), (12, 9)),
    "padding of each side": Case(PLAIN._replace(padding=((0, 2), (3, 1))), (6, 5)),
    "windows in the padding alone": Case(PLAIN._replace(padding=((5, 4), (4, 6))), (3, 2)),
    "no window sees a pixel": Case(Window((1, 1), (20, 20), ((9, 0), (9, 0)), (1, 1)), (6, 6)),
    "1xN kernel, one row": Case(Window((1, 5), (1, 1), ((0, 0), (2, 2)), (1, 1)), (1, 9)),
    "Nx1 kernel": Case(Window((4, 1), (1, 1), ((2, 1), (0, 0)), (1, 1)), (7, 3)),
}


@st.composite
def drawn_cases(draw: st.DrawFn) -> Case:
    def pair(*values: int) -> tuple[int, int]:
        return draw(st.sampled_from(values)), draw(st.sampled_from(values))

    padding = (pair(0, 1, 2, 5), pair(0, 1, 2, 5))
    window = Window(pair(1, 2, 3, 4), pair(1, 1, 2, 3, 9), padding, pair(1, 1, 2, 3))
    least = [
        max(1, d * (k - 1) + 1 - sum(pads))
        for k, d, pads in zip(window.kernel, window.dilation, window.padding, strict=True)
    ]
    more = pair(*range(7))
    counts = st.integers(1, 3)
    return Case(window, (least[0] + more[0], least[1] + more[1]), draw(counts), draw(counts), draw(counts))


def normal(*shape: int, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def assert_agrees_with_plain_loops(case: Case, dtype: Any = np.float64, tolerance: float = 1e-12) -> None:
    """All three maps, on data in other memory layouts too."""
    (kernel, stride, pads, dilation), (h, w), n, c, m = case
    x, weight, bias = normal(n, c, h, w), normal(c * m, 1, *kernel), normal(c * m)
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    output = reference.conv2d(padded, weight, bias, stride, (0, 0), dilation, c)
    g = normal(*output.shape)
    image, by_weight, _ = reference.conv2d_backward(g, padded, weight, stride, (0, 0), dilation, c)
    image = image[:, :, pads[0][0] :, pads[1][0] :][:, :, :h, :w]
    for (_, x_), (_, g_) in zip(layouts(x.astype(dtype)), layouts(g.astype(dtype)), strict=True):
        weight_, bias_ = weight.astype(dtype), bias.astype(dtype)
        for actual, expected in (
            (conv2d_depthwise(x_, weight_, bias_, case.window, c, output.shape), output),
            (conv2d_depthwise(x_, weight_, None, case.window, c, output.shape), output - bias[:, None, None]),
            (conv2d_input_depthwise(x.shape, weight_, g_, case.window, c), image),
            (conv2d_weight_depthwise(x_, weight.shape, g_, case.window, c), by_weight),
        ):
            assert actual.shape == expected.shape
            assert actual.dtype == dtype
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * 100)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_agrees_with_plain_loops(case: Case) -> None:
    assert_agrees_with_plain_loops(case)


@settings(max_examples=60, deadline=None)
@given(drawn_cases())
def test_drawn_cases_agree_with_plain_loops(case: Case) -> None:
    assert_agrees_with_plain_loops(case)


def test_float32_agrees_with_plain_loops() -> None:
    assert_agrees_with_plain_loops(Case(PLAIN, (9, 7), outputs=2), np.float32, 1e-5)


@pytest.mark.parametrize("block_bytes", [1, 2000])
def test_blocks_of_channels_agree_with_plain_loops(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_depthwise, "BLOCK_BYTES", block_bytes)
    assert_agrees_with_plain_loops(
        Case(PLAIN._replace(padding=((0, 1), (1, 0))), (7, 6), channels=5, outputs=2)
    )


def test_the_rule_knows_shapes_only() -> None:
    size = (1, 8, 5, 5)
    assert pays_depthwise(Shapes((4, 1, 3, 3), PLAIN, 4, size))
    assert pays_depthwise(Shapes((8, 1, 3, 3), PLAIN, 4, size))
    assert not pays_depthwise(Shapes((8, 2, 3, 3), PLAIN, 4, size))  # groups of two channels
    assert not pays_depthwise(Shapes((6, 1, 5, 5), PLAIN, 1, size))  # one channel, and no groups
    assert not pays_depthwise(Shapes((4, 1, 3, 3), PLAIN._replace(dilation=(9, 1)), 4, size))
    assert pays_depthwise(Shapes((4, 1, 3, 3), PLAIN._replace(dilation=(1, 9)), 4, size))

"""The sliders of docs/explanations/window.html, in a real browser: its numbers are the library's."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import tinyconv.functional as F
from tests.test_web_browser import CHROMIUM
from tinyconv.arrays import Array

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FILE = Path(__file__).parent.parent / "docs" / "explanations" / "window.html"
CELLS = """name => {
  const cells = [...document.querySelectorAll(`figure[data-grid="${name}"] g[data-value]`)];
  return cells.map(cell => [cell.dataset.row, cell.dataset.column, cell.dataset.value]);
}"""


@pytest.fixture(scope="module")
def page() -> Iterator["Page"]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.set_content(f"<body>{FILE.read_text(encoding='utf-8')}</body>")
        yield tab
        chromium.close()


def grid(page: "Page", name: str) -> Array:
    """The numbers of a grid; an empty cell is NaN."""
    cells = page.evaluate(CELLS, name)
    array = np.full((1 + max(int(c[0]) for c in cells), 1 + max(int(c[1]) for c in cells)), np.nan)
    for row, column, value in cells:
        array[int(row), int(column)] = float(value or "nan")
    return array


def slide(page: "Page", name: str, value: int) -> None:
    page.locator(f'[name="tcw-{name}"]').evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def show(page: "Page", mode: str, stride: int, padding: int) -> None:
    page.check(f'[value="{mode}"]')
    slide(page, "stride", stride)
    slide(page, "padding", padding)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_windows_add_up_to_the_gradients(page: "Page", stride: int, padding: int) -> None:
    show(page, "send", stride, padding)
    x, w, g = (grid(page, name) for name in ("x", "w", "g"))
    x = x[padding : padding + 5, padding : padding + 5]
    assert F.conv2d(x[None, None], w[None, None], None, stride, padding).shape[2:] == g.shape
    for last in range(g.size):
        slide(page, "step", last + 1)
        sent = np.where(np.arange(g.size).reshape(g.shape) <= last, g, 0)[None, None]
        grad_x = F.conv2d_input((1, 1, 5, 5), w[None, None], sent, stride, padding)[0, 0]
        grad_w = F.conv2d_weight(x[None, None], (1, 1, 3, 3), sent, stride, padding)[0, 0]
        found = grid(page, "grad_x")[padding : padding + 5, padding : padding + 5]
        np.testing.assert_array_equal(found, grad_x)
        np.testing.assert_array_equal(grid(page, "grad_w"), grad_w)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_weights_that_reach_a_pixel_give_its_gradient(page: "Page", stride: int, padding: int) -> None:
    show(page, "receive", stride, padding)
    w, g = grid(page, "w"), grid(page, "g")
    grad_x = F.conv2d_input((1, 1, 5, 5), w[None, None], g[None, None], stride, padding)[0, 0]
    np.testing.assert_array_equal(grid(page, "grad_x"), grad_x)
    for number in range(25):
        slide(page, "step", number + 1)
        assert np.nansum(g * grid(page, "met")) == grad_x.reshape(-1)[number]
    if (stride, padding) == (1, 0):
        slide(page, "step", 13)
        np.testing.assert_array_equal(grid(page, "met"), w[::-1, ::-1])

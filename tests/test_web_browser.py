"""The page of `tinyconv draw` in a real browser: Chromium, driven by Playwright."""

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.test_web_server import decoded, started
from tinyconv.arrays import Array
from tinyconv.models import lenet5
from tinyconv.training import save_weights
from tinyconv.web.passes import network_pass

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
expect = playwright.expect
if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
Points = list[tuple[float, float]]
SEVEN: Points = [(7, 7), (20, 7), (13, 22)]
ONE: Points = [(14, 5), (14, 23)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    process, found = started("--port", "0")
    with process:
        yield found
        process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


Opens = Callable[..., "Page"]


@pytest.fixture
def opens(browser: "Browser", address: str) -> Iterator[Opens]:
    """Opens a tab; there must be no error in it, and no request to elsewhere."""
    wrong: list[str] = []
    contexts = []

    def open_tab(width: int = 1300, height: int = 900, dark: bool = False) -> "Page":
        scheme: Any = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda one: None if one.url.startswith((address, "data:")) else wrong.append(one.url)
        )
        page.goto(address)
        page.wait_for_selector("#layers article")
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert wrong == []


def draw(page: "Page", points: Points) -> None:
    """Draw a stroke with the mouse, through points in pixels of the drawing."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    side = box["width"] / 28
    (x, y), *rest = [(box["x"] + side * column, box["y"] + side * row) for column, row in points]
    page.mouse.move(x, y)
    page.mouse.down()
    for column, row in rest:
        page.mouse.move(column, row, steps=12)
    page.mouse.up()


def drawn(page: "Page", points: Points, digit: int) -> None:
    """Draw a digit, and wait until it has been centred and is read."""
    with page.expect_response(lambda answer: answer.url.endswith("/pass"), timeout=10_000):
        draw(page, points)
    page.wait_for_timeout(900)  # it is centred when the pen rests
    page.wait_for_selector(f'#loss[data-best="{digit}"]')


def shown(page: "Page", mode: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose a mode; what was asked for it, and the answer."""
    asked = f'"mode":"{mode}"'
    with page.expect_response(lambda answer: asked in (answer.request.post_data or "")) as caught:
        page.check(f"input[value='{mode}']")
    return json.loads(caught.value.request.post_data or ""), caught.value.json()


def pixels(sent: str) -> Array:
    return np.frombuffer(base64.b64decode(sent), "<f4").reshape(1, 1, 28, 28)


def normalized(sent: str) -> Array:
    """The network's input for the drawing that was sent."""
    return ((pixels(sent) - 0.1307) / 0.3081).astype(np.float32)


def total(page: "Page") -> float:
    """The sum that the formula ends with."""
    return float(page.locator("#formula").get_attribute("data-total") or "nan")


def test_a_drawn_seven_is_read_and_its_gradients_are_the_library_s(opens: Opens) -> None:
    page = opens()
    drawn(page, SEVEN, 7)
    assert "reads 7" in page.locator("#loss").inner_text()
    page.click("#classes li:nth-child(4) button")  # the gradient of the loss of class 3
    sent, answer = shown(page, "backward")
    assert sent["target"] == 3
    expected = network_pass(lenet5(pretrained=True), normalized(sent["pixels"]), 3)
    for found, gradient in zip(answer["layers"], expected.gradients, strict=True):
        np.testing.assert_allclose(decoded(found), gradient, rtol=1e-3, atol=1e-5 * np.abs(gradient).max())
    np.testing.assert_array_equal(decoded(answer["params"]["0.weight"]), expected.grads["0.weight"])
    assert page.locator('#layers article[data-layer="0"] figure:visible').count() == 3  # w, its gradient, y


def test_what_is_pointed_at_shows_its_terms(opens: Opens) -> None:
    page = opens()
    drawn(page, SEVEN, 7)
    forward = shown(page, "backward") and shown(page, "forward")[1]
    maps = page.locator('#layers article[data-layer="0"] figure:visible canvas').nth(1)
    maps.hover(
        position={"x": 4 * 12 + 2, "y": 4 * 9 + 2}
    )  # cells of 4 pixels: row 9, column 12 of the first map
    page.wait_for_selector("#formula[data-total]")
    text = page.locator("#formula").inner_text()
    assert "y[o,p,q] = b[o] + Σ over c,i,j of w[o,c,i,j] · x[c, p·s+i" in text
    assert "y[0, 9, 12] = " in text
    value = decoded(forward["layers"][1])[0, 0, 9, 12]
    assert total(page) == pytest.approx(float(value), rel=1e-5)
    assert page.locator("#list").inner_text().count("w[0, 0,") == 12
    page.locator('#layers article[data-layer="0"] figure:visible canvas').nth(0).hover(
        position={"x": 25, "y": 25}
    )
    expect(page.locator("#formula")).to_contain_text("w[0, 0, 2, 2] = ")
    expect(page.locator("#formula")).to_contain_text("multiplies the 784 values of x")
    backward = shown(page, "backward")[1]
    page.locator("#pad").hover(position={"x": 100, "y": 100})
    expect(page.locator("#formula")).to_contain_text("∂x[0,")
    place = re.search(r"∂x\[0, (\d+), (\d+)\]", page.locator("#formula").inner_text())
    assert place is not None
    gradient = decoded(backward["layers"][0])[0, 0, int(place[1]), int(place[2])]
    assert total(page) == pytest.approx(float(gradient), rel=1e-4, abs=1e-12)
    assert "∂y[" in page.locator("#list").inner_text()


def test_a_kernel_s_weight_and_the_second_order_have_terms_as_well(opens: Opens) -> None:
    page = opens()
    drawn(page, SEVEN, 7)
    page.click("#classes li:nth-child(4) button")
    sent, answer = shown(page, "second order")
    direction = (pixels(sent["stroke"]) / 0.3081).astype(np.float32)
    expected = network_pass(lenet5(pretrained=True), normalized(sent["pixels"]), 3, "loss", direction)
    product = expected.gradients_dot[0]
    assert np.abs(product).max() > 0
    np.testing.assert_allclose(
        decoded(answer["layers"][0]), product, rtol=1e-3, atol=1e-5 * float(np.abs(product).max())
    )
    page.locator('#layers article[data-layer="0"] figure:visible canvas').nth(1).hover(
        position={"x": 25, "y": 25}
    )
    page.wait_for_selector("#formula[data-total]")
    assert "∂ẇ[0, 0, 2, 2] = " in page.locator("#formula").inner_text()
    assert total(page) == pytest.approx(float(expected.grads_dot["0.weight"][0, 0, 2, 2]), rel=1e-3)


def test_a_gradient_step_moves_the_prediction_and_reset_takes_it_back(opens: Opens) -> None:
    page = opens()
    drawn(page, SEVEN, 7)

    def share() -> float:
        return float(page.locator("#classes li:nth-child(3) button span:last-child").inner_text().split()[0])

    before = share()
    page.click("#classes li:nth-child(3) button")
    page.fill("#lr", "0.02")
    for _ in range(6):
        with page.expect_response(lambda answer: answer.url.endswith("/pass")):
            page.click("#step")
    page.wait_for_timeout(200)
    assert share() > before + 1
    with page.expect_response(lambda answer: answer.url.endswith("/pass")):
        page.click("#reset")
    page.wait_for_timeout(200)
    assert share() == before


def test_a_network_is_trained_live_and_then_drawn_on(opens: Opens) -> None:
    page = opens()
    drawn(page, SEVEN, 7)
    page.click("#tab-train")
    page.click("#start")
    expect(page.locator("#progress")).to_have_attribute("data-step", re.compile("[2-9].|..."), timeout=60_000)
    page.click("#pause")
    page.wait_for_selector('#progress[data-phase="paused"]', timeout=60_000)
    step = int(page.locator("#progress").get_attribute("data-step") or 0)
    page.click("#one")
    page.wait_for_selector(f'#progress[data-step="{step + 1}"]')
    page.locator("#rate").focus()
    with page.expect_response(
        lambda answer: answer.url.endswith("/training") and answer.request.method == "POST"
    ):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#losses polyline").count() == page.locator("#accuracies polyline").count() == 1
    page.click("#use")
    expect(page.locator("#weights")).to_contain_text("steps of training")
    expect(page.locator("#draw")).to_be_visible()


def test_two_tabs_do_not_disturb_one_another(opens: Opens) -> None:
    one, other = opens(), opens()
    drawn(one, SEVEN, 7)
    drawn(other, ONE, 1)
    one.click("#classes li:nth-child(3) button")
    with one.expect_response(lambda answer: answer.url.endswith("/pass")):
        one.click("#step")
    first, second = shown(one, "backward")[1], shown(other, "backward")[1]
    assert np.argmax(second["probabilities"]) == 1
    assert first["version"] != second["version"]
    assert np.argmax(first["probabilities"]) != 1


def test_weights_of_one_s_own_are_loaded(opens: Opens, tmp_path: Path) -> None:
    page = opens()
    save_weights(lenet5(generator=3), tmp_path / "own.safetensors")
    page.set_input_files("#file", tmp_path / "own.safetensors")
    expect(page.locator("#weights")).to_have_text("own.safetensors")


def test_wrong_weights_are_refused_with_a_message(browser: "Browser", address: str, tmp_path: Path) -> None:
    page = browser.new_context().new_page()
    page.goto(address)
    page.wait_for_selector("#layers article")
    (tmp_path / "wrong.safetensors").write_bytes(b"no weights")
    page.set_input_files("#file", tmp_path / "wrong.safetensors")
    page.wait_for_selector("#error:visible")
    assert "the file is not a complete safetensors file" in page.locator("#error").inner_text()
    page.context.close()


def test_the_keyboard_draws_and_points(opens: Opens) -> None:
    page = opens()
    page.focus("#pad")
    for _ in range(9):
        page.keyboard.press("ArrowUp")
    for _ in range(16):
        page.keyboard.press("Shift+ArrowDown")
    page.wait_for_timeout(900)
    page.wait_for_selector('#loss[data-best="1"]')
    page.locator('#layers article[data-layer="0"] figure:visible canvas').nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#formula")).to_contain_text("y[0, 1, 1] = ")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_and_the_dark(opens: Opens, dark: bool) -> None:
    page = opens(375, 700, dark)
    drawn(page, SEVEN, 7)
    shown(page, "backward")
    for view in ("draw", "train"):
        page.click(f"#tab-{view}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 375
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(13, 16, 20)") == dark

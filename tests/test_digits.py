"""`find_digit` on digits of MNIST that were scaled, coloured and put on backgrounds at random."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tinyconv.arrays import Array
from tinyconv.data import load_mnist, normalize
from tinyconv.data.digits import find_digit, find_largest
from tinyconv.models import lenet5

MNIST = load_mnist(Path(__file__).parent.parent / "examples" / "data" / "mnist")
MODEL = lenet5(pretrained=True)
DIGITS = np.random.default_rng(0).permutation(len(MNIST.test_images))


def read(images: list[Array]) -> Array:
    """The digits that the network sees in what `find_digit` makes of `images`; -1 where it finds none."""
    answers = np.full(len(images), -1)
    for number, image in enumerate(images):
        with contextlib.suppress(ValueError):
            answers[number] = MODEL.predict(normalize(find_digit(image))[None]).argmax()
    return answers


def share_read(images: list[Array]) -> float:
    """The share of right answers, where image i shows digit DIGITS[i]."""
    return float((read(images) == MNIST.test_labels[DIGITS[: len(images)]]).mean())


def scaled(number: int, size: int) -> Array:
    """Test digit `number` as (size, size), 0 to 1."""
    image = MNIST.test_images[DIGITS[number]] / 255
    coverage: Array = ndimage.zoom(image, size / 28, order=1, grid_mode=True, mode="grid-constant")
    return coverage


def placed(coverage: Array, shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """`coverage` somewhere in a picture of `shape`."""
    top, left = (rng.integers(0, length - len(coverage) + 1) for length in shape)
    picture = np.zeros(shape)
    picture[top : top + len(coverage), left : left + len(coverage)] = coverage
    return picture


def blended(coverage: Array, ink: Array, paper: Array) -> Array:
    """(H, W, 3): the colour `ink` where `coverage` is 1, `paper` where it is 0."""
    picture: Array = paper + coverage[:, :, None] * (ink - paper)
    return picture


def as_bytes(picture: Array) -> Array:
    pixels: Array = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    return pixels


def two_colours(rng: np.random.Generator) -> tuple[Array, Array]:
    while True:
        ink, paper = rng.random(3), rng.random(3)
        if np.linalg.norm(ink - paper) > 0.35:
            return ink, paper


def uneven_light(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Light from one side, and darker corners; twice as bright in one place as in another."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    light: Array = 1 - 0.2 * (np.cos(angle) * x + np.sin(angle) * y) - 0.1 * (x * x + y * y)
    return light[:, :, None]


def random_picture(number: int, kind: str, rng: np.random.Generator) -> Array:
    size = int(np.exp(rng.uniform(np.log(20), np.log(300))))
    height, width = (int(size * factor) for factor in rng.uniform(1, 4, 2))
    coverage = placed(scaled(number, size), (height, width), rng)
    if kind == "light on dark":
        return as_bytes(coverage)
    if kind == "dark on light":
        return as_bytes(1 - coverage)
    if kind == "colours":
        return as_bytes(blended(coverage, *two_colours(rng)))
    picture = blended(coverage, rng.uniform(0, 0.2, 3), rng.uniform(0.6, 0.9, 3))
    picture *= uneven_light(coverage.shape, rng)
    return as_bytes(picture + rng.normal(0, 0.03, picture.shape))


@pytest.mark.parametrize("kind", ["light on dark", "dark on light", "colours", "photograph"])
def test_digits_of_any_size_place_and_colour_are_read(kind: str) -> None:
    rng = np.random.default_rng(1)
    assert share_read([random_picture(number, kind, rng) for number in range(100)]) >= 0.97


def test_an_image_of_mnist_stays_nearly_as_it_is() -> None:
    images = MNIST.test_images[DIGITS[:100]]
    found = np.array([find_digit(image) for image in images])
    assert found.dtype == np.uint8
    assert found.shape == (100, 28, 28)
    assert np.median(np.abs(found.astype(float) - images).mean(axis=(1, 2))) < 1
    assert share_read(list(images)) >= 0.96


def test_the_digit_is_scaled_into_20_by_20_around_its_centre_of_mass() -> None:
    rng = np.random.default_rng(2)
    for number in range(20):
        found = find_digit(random_picture(number, "colours", rng))
        rows, columns = (np.flatnonzero((found > 127).any(axis=axis)) for axis in (1, 0))
        assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
        np.testing.assert_allclose(ndimage.center_of_mass(found), (14, 14), atol=0.8)


def test_an_upright_stroke_keeps_its_shape() -> None:
    picture = np.zeros((200, 100), np.uint8)
    picture[20:180, 40:60] = 255
    found = find_digit(picture)
    assert (found > 127).any(axis=1).sum() == 20
    np.testing.assert_allclose(found[10:18].sum(axis=1) / 255, 2.5, rtol=0.05)


def test_polarity_makes_no_difference() -> None:
    picture = random_picture(0, "dark on light", np.random.default_rng(3))
    np.testing.assert_allclose(find_digit(picture), find_digit(255 - picture), atol=1)


@pytest.mark.parametrize("margin", [0, 10])
def test_a_digit_that_fills_the_picture_is_read(margin: int) -> None:
    images = []
    for number in range(50):
        coverage = scaled(number, 200)
        rows, columns = (np.flatnonzero((coverage > 0.4).any(axis=axis)) for axis in (1, 0))
        tight = coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        images.append(as_bytes(1 - np.pad(tight, margin)))
    assert share_read(images) >= 0.9


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("ink", [0, 255])
def test_a_digit_is_read_from_its_opacity_whatever_colour_hides_behind(ink: int, hidden: int) -> None:
    images, holes = [], []
    for number in range(20):
        opacity = as_bytes(scaled(number, 60))
        colour = np.where(opacity > 0, np.uint8(ink), np.uint8(hidden))
        images.append(np.stack([colour, colour, colour, opacity], axis=-1))
        colour = np.where(opacity < 255, np.uint8(ink), np.uint8(hidden))
        holes.append(np.stack([colour, colour, colour, 255 - opacity], axis=-1))
    assert share_read(images) >= 0.95
    assert share_read(holes) >= 0.95


def test_faint_blurred_and_noisy_digits_are_read() -> None:
    rng = np.random.default_rng(4)
    digits = [np.pad(scaled(number, 120), 30) for number in range(60)]
    faint = [0.5 + 0.08 * digit for digit in digits[:20]]
    blurred = [1 - ndimage.gaussian_filter(digit, 4) for digit in digits[:40]][20:]
    noisy = [0.7 - 0.6 * digit + rng.normal(0, 0.12, digit.shape) for digit in digits[40:]]
    assert share_read([as_bytes(picture) for picture in faint + blurred + noisy]) >= 0.95


def test_thin_strokes_are_widened() -> None:
    picture = np.full((900, 700), 255, np.uint8)
    picture[100:800, 350] = 0
    found = find_digit(picture)
    assert found.max() > 200
    assert 1.5 < found.sum() / 255 / 20 < 2.5
    assert read([picture]) == [1]


def test_a_frame_and_specks_are_not_part_of_the_digit() -> None:
    picture = np.pad(as_bytes(1 - scaled(0, 100)), 40, constant_values=255)
    expected = find_digit(picture)
    picture[:4], picture[-4:], picture[:, :4], picture[:, -4:] = 0, 0, 0, 0
    picture[20:23, 20:23] = picture[60:62, 45:47] = 0
    np.testing.assert_allclose(find_digit(picture), expected, atol=8)


def test_the_pieces_of_a_digit_stay_together() -> None:
    picture = np.zeros((100, 100), np.uint8)
    picture[20:80, 30:40] = picture[20:80, 50:60] = 255
    found = find_digit(picture) > 127
    assert ndimage.label(found)[1] == 2


def test_no_digit_of_mnist_is_taken_for_two() -> None:
    counts = [find_largest(image).digits for image in MNIST.test_images[DIGITS[:500]]]
    assert counts == [1] * 500


def test_a_three_of_two_halves_is_one_digit() -> None:
    three = np.zeros((60, 60), np.uint8)
    three[10:30, 25:45] = three[32:52, 10:50] = 255
    assert find_largest(three).digits == 1


def test_a_five_of_two_strokes_is_one_digit() -> None:
    five = np.zeros((100, 80), np.uint8)
    five[10:18, 35:70] = 255  # the bar
    five[25:90, 20:28] = five[50:58, 20:60] = five[50:90, 52:60] = five[82:90, 20:60] = 255
    assert ndimage.label(five)[1] == 2
    found = find_largest(five)
    assert found.digits == 1
    assert ndimage.label(found.image > 127)[1] == 2


def test_digits_beside_and_above_one_another_are_counted_and_the_largest_is_found() -> None:
    for axis in (0, 1):
        counts = []
        for number in range(0, 60, 2):
            large, small = scaled(number, 60), np.pad(scaled(number + 1, 44), 8)
            pair = np.concatenate([large, small], axis)
            counts.append(find_largest(as_bytes(pair)).digits)
        assert np.mean(np.array(counts) == 2) >= (0.7, 0.9)[axis]
    two = np.zeros((60, 120), np.uint8)
    two[10:50, 20:30] = two[10:50, 20:40] = 255
    alone = find_digit(two)
    two[15:45, 80:90] = 255
    found = find_largest(two)
    assert found.digits == 2
    np.testing.assert_array_equal(found.image, alone)


def test_a_large_picture_with_a_small_digit_is_read() -> None:
    rng = np.random.default_rng(5)
    coverage = placed(scaled(0, 80), (3000, 4000), rng)
    assert share_read([np.where(coverage > 0.5, np.uint8(30), np.uint8(200))]) == 1


def test_floating_pixels_give_the_same_as_bytes() -> None:
    picture = random_picture(0, "photograph", np.random.default_rng(6))
    for dtype in (np.float32, np.float64):
        floating = (picture / 255).astype(dtype)
        np.testing.assert_allclose(find_digit(floating), find_digit(picture), atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (7, 3), (50, 60, 3), (50, 60, 4)])
def test_pictures_without_contrast_are_refused(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(7)
    for picture in (np.zeros(shape, np.uint8), rng.integers(120, 123, shape).astype(np.uint8)):
        with pytest.raises(ValueError, match="no digit found"):
            find_digit(picture)


def test_noise_and_dots_are_refused() -> None:
    noise = as_bytes(np.random.default_rng(8).normal(0.5, 0.02, (300, 300, 3)))
    dots = np.zeros((60, 60), np.uint8)
    dots[20:23, 20:22] = 255
    for picture in (noise, dots):
        with pytest.raises(ValueError, match="no digit found"):
            find_digit(picture)


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (np.zeros((28, 28), int), TypeError, "uint8 or floating"),
        (np.zeros(28), ValueError, "shape"),
        (np.zeros((2, 28, 28)), ValueError, "shape"),
        (np.zeros((0, 28)), ValueError, "shape"),
        (np.full((28, 28), np.nan), ValueError, "finite"),
    ],
)
def test_wrong_arrays_are_refused(pixels: Array, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"`pixels`.*{message}"):
        find_digit(pixels)


def test_any_picture_gives_an_image_or_an_error() -> None:
    rng, found = np.random.default_rng(9), []
    for _ in range(200):
        shape = (*rng.integers(1, 40, 2), rng.choice([3, 4]))
        picture = rng.integers(0, 256, shape).astype(np.uint8)
        picture[rng.random(shape) < rng.random()] = 0
        with contextlib.suppress(ValueError):
            found.append(find_digit(picture))
    assert all(image.shape == (28, 28) and image.any() for image in found)
    assert found

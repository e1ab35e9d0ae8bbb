"""Augmentation: what it does to images, and where its random numbers come from."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tests import strict_arrays
from tests.forking import needs_workers
from tests.trainers import parts
from tinyconv import CrossEntropyLoss, Flatten, Linear, Sequential, Trainer, optim
from tinyconv.arrays import Array
from tinyconv.data import (
    Compose,
    DataLoader,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    affine,
    gaussian_noise,
    normalize,
    random_affine,
)

DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
both = partial(random_affine, degrees=15, translate=2)


def noisy(images: Array, generator: np.random.Generator) -> Array:
    return gaussian_noise(both(images, generator), generator, sigma=0.1)


def digits(count: int = 6, dtype: Any = np.uint8) -> Array:
    """Smooth blobs, with an empty border."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 28, 28))
    images[:, 10:18, 10:18] = rng.uniform(0, 1, (count, 8, 8))
    images = ndimage.gaussian_filter(images, (0, 1, 1))
    images /= images.max()
    result: Array = (images * (255 if dtype == np.uint8 else 1)).astype(dtype)
    return result


# Images


@DTYPES
@pytest.mark.parametrize("augment", [both, gaussian_noise, noisy])
def test_shape_and_dtype_stay_and_the_images_are_not_written_to(
    augment: Callable[..., Array], dtype: Any
) -> None:
    for images in (digits(dtype=dtype), digits(dtype=dtype).reshape(2, 3, 28, 28), digits(dtype=dtype)[:0]):
        before = images.copy()
        result = augment(images, np.random.default_rng(0))
        assert (result.shape, result.dtype) == (images.shape, images.dtype)
        np.testing.assert_array_equal(images, before)
        assert not len(images) or (result != images).any()


@DTYPES
def test_no_strength_changes_nothing(dtype: Any) -> None:
    images = digits(dtype=dtype)
    np.testing.assert_allclose(random_affine(images, 0), images, atol=1e-6)
    np.testing.assert_array_equal(gaussian_noise(images, 0, sigma=0), images)


@DTYPES
def test_whole_shifts_move_to_the_right_and_down(dtype: Any) -> None:
    images = digits(2, dtype)
    shifted = affine(images, [0, 0], [(3, 0), (-2, 5)])
    np.testing.assert_allclose(shifted[0], np.roll(images[0], 3, axis=1), atol=1e-6)
    np.testing.assert_allclose(shifted[1], np.roll(images[1], (5, -2), axis=(0, 1)), atol=1e-6)


def test_a_quarter_of_a_pixel_is_one_on_the_bilinear_surface() -> None:
    row, column = np.arange(28.0)[:, None], np.arange(28.0)
    shifted = affine((3 * row + 5 * column + row * column)[None], [0], [(0.25, 0.5)])[0, 10:18, 10:18]
    row, column = row[10:18] - 0.5, column[10:18] - 0.25
    np.testing.assert_allclose(shifted, 3 * row + 5 * column + row * column)


def test_bytes_are_rounded() -> None:
    images = np.array([[[0, 3, 7, 7]]], np.uint8)
    assert affine(images, [0], [(0.25, 0)]).tolist() == [[[0, 2, 6, 7]]]  # 0, 2.25, 6, 7
    assert affine(images, [0], [(-0.25, 0)]).tolist() == [[[1, 4, 7, 7]]]  # 0.75, 4, 7, 7


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 1, 27, 27)])
def test_a_right_angle_turns_clockwise(shape: tuple[int, ...]) -> None:
    images = digits(2, np.float64)[:, : shape[-1], : shape[-1]].reshape(shape)
    turned = affine(images, [90, 180], np.zeros((2, 2)))
    np.testing.assert_allclose(turned[0], np.rot90(images[0], -1, axes=(-2, -1)), atol=1e-9)
    np.testing.assert_allclose(turned[1], np.rot90(images[1], 2, axes=(-2, -1)), atol=1e-9)


def test_small_rotations_are_those_of_scipy_and_come_before_the_shift() -> None:
    images = digits(1, np.float64)
    turned = affine(images, [10], [(2, 1)])[0]
    expected = ndimage.rotate(images[0], -10, reshape=False, order=1, mode="nearest")
    np.testing.assert_allclose(turned, np.roll(expected, (1, 2), axis=(0, 1)), atol=1e-6)


def test_channels_move_together_and_images_apart() -> None:
    images = np.repeat(digits(1, np.float32)[:, None], 2, axis=1).repeat(3, axis=0)
    moved = both(images, 0)
    np.testing.assert_array_equal(moved[:, 0], moved[:, 1])
    assert np.abs(moved[0] - moved[1]).max() > 0.1


@DTYPES
def test_values_stay_in_range_and_the_border_goes_on(dtype: Any) -> None:
    images = digits(dtype=dtype)
    top, low = images.max(), images.max() // 2 if dtype == np.uint8 else dtype(0.5)
    moved = random_affine(np.maximum(images, low), 0, degrees=180, translate=20)
    rounding = 0 if dtype == np.uint8 else 1e-6
    assert low - rounding <= moved.min() <= low
    assert moved.max() <= top + rounding


def test_the_strengths_are_the_largest_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts: list[Array] = []
    monkeypatch.setattr("tinyconv.data.augment.affine", lambda images, *drawn: amounts.extend(drawn))
    random_affine(np.zeros((2000, 1, 1)), 0, degrees=10, translate=3)
    angle, translate = amounts
    assert 9.9 < angle.max() <= 10
    assert -10 <= angle.min() < -9.9
    assert (translate.min(axis=0) < -2.9).all()
    assert (translate.max(axis=0) > 2.9).all()
    assert np.abs(translate).max() <= 3
    correlations = np.corrcoef([angle, *translate.T])
    assert np.abs(correlations - np.eye(3)).max() < 0.1


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint8, 255), (np.float32, 1), (np.float64, 1)])
def test_noise_has_the_given_deviation(dtype: Any, unit: int) -> None:
    images = np.full((5, 40, 40), unit // 2, dtype)
    noise = gaussian_noise(images, 0, sigma=0.05).astype(float) / unit - unit // 2 / unit
    assert abs(noise.mean()) < 0.002
    assert noise.std() == pytest.approx(0.05, rel=0.05)


def test_noise_keeps_bytes_between_0_and_255() -> None:
    black_and_white = np.array([[[0, 255]] * 50], np.uint8)
    result = gaussian_noise(black_and_white, 0, sigma=0.2)
    assert result[..., 0].max() < 255 * 0.8  # would be 255 where a negative value had wrapped around
    assert result[..., 1].min() > 255 * 0.2


@pytest.mark.parametrize("augment", [both, gaussian_noise])
def test_equal_seeds_give_equal_images(augment: Callable[..., Array]) -> None:
    np.testing.assert_array_equal(augment(digits(), 3), augment(digits(), np.random.default_rng(3)))
    assert (augment(digits(), 3) != augment(digits(), 4)).any()


def test_wrong_arguments_are_named() -> None:
    images = digits(2)
    with pytest.raises(ValueError, match=r"`degrees` \(=-1\)"):
        random_affine(images, 0, degrees=-1)
    with pytest.raises(ValueError, match=r"`translate` \(=-1\)"):
        random_affine(images, 0, translate=-1)
    with pytest.raises(ValueError, match=r"`sigma` \(=-1\)"):
        gaussian_noise(images, 0, sigma=-1)
    with pytest.raises(ValueError, match="`angle`"):
        affine(images, [1, 2, 3], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="`translate`"):
        affine(images, [1, 2], np.zeros(2))
    with pytest.raises(ValueError, match=r"`degrees` \(=-1\)"):
        RandomAffine(-1)
    for augment in (both, gaussian_noise):
        with pytest.raises(ValueError, match="`images`"):
            augment(images[0], 0)
        with pytest.raises(TypeError, match=r"`images`.* int64"):
            augment(images.astype(np.int64), 0)


@DTYPES
@pytest.mark.parametrize("shape", [(7, 9, 6), (7, 3, 9, 6)])
def test_a_crop_is_a_rectangle_of_the_padded_image(shape: tuple[int, ...], dtype: Any) -> None:
    images = (np.random.default_rng(0).random(shape) * 250 + 1).astype(dtype)
    before, augment = images.copy(), RandomCrop((8, 5), padding=2)
    cropped = augment(images, augment.draw(7, 1))
    np.testing.assert_array_equal(images, before)
    assert (cropped.shape, cropped.dtype) == ((*shape[:-2], 8, 5), dtype)
    padded = np.zeros((*shape[:-2], 13, 10), dtype)
    padded[..., 2:-2, 2:-2] = images
    for image, crop in zip(padded, cropped, strict=True):
        places = [(i, j) for i in range(6) for j in range(6)]
        assert sum(np.array_equal(image[..., i : i + 8, j : j + 5], crop) for i, j in places) == 1


def test_crops_are_everywhere_alike_and_channels_are_cut_together() -> None:
    count = 5000
    numbers = np.arange(20.0).reshape(4, 5)[None, None] + np.array([0.0, 100.0])[:, None, None]
    images = np.broadcast_to(numbers, (count, 2, 4, 5))
    augment = RandomCrop((2, 2))
    cropped = augment(images, augment.draw(count, 0))
    np.testing.assert_array_equal(cropped[:, 0] + 100, cropped[:, 1])
    corners, counts = np.unique(cropped[:, 0, 0, 0], return_counts=True)
    assert corners.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    np.testing.assert_allclose(counts, count / 12, rtol=0.2)
    whole_images = RandomCrop((4, 5))
    np.testing.assert_array_equal(whole_images(images, whole_images.draw(count, 0)), images)
    last = augment(images[:1], np.array([[1 - 2**-53, 0.0]]))
    assert last[0, 0].tolist() == [[10, 11], [15, 16]]


@DTYPES
@pytest.mark.parametrize("shape", [(400, 5, 6), (400, 3, 5, 6)])
def test_a_share_of_the_images_is_mirrored(shape: tuple[int, ...], dtype: Any) -> None:
    images = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    before = images.copy()
    for p, low, high in ((0.0, 0, 0), (0.3, 90, 150), (1.0, 400, 400)):
        augment = RandomHorizontalFlip(p)
        found = augment(images, augment.draw(400, 0))
        assert found.dtype == dtype
        mirrored = [np.array_equal(a, b[..., ::-1]) for a, b in zip(found, images, strict=True)]
        same = [np.array_equal(a, b) for a, b in zip(found, images, strict=True)]
        assert [not one for one in mirrored] == same
        assert low <= sum(mirrored) <= high
        np.testing.assert_array_equal(images, before)


def test_composed_augmentations_are_done_one_after_the_other() -> None:
    class Added:
        def draw(self, count: int, generator: np.random.Generator) -> Array:
            return generator.integers(1, 9, (count, 1, 1, 1), dtype=np.uint8)

        def __call__(self, images: Array, amounts: Array) -> Array:
            added: Array = images + amounts
            return added

    images = digits(6).reshape(2, 3, 28, 28)
    steps: list[Any] = [Added(), RandomCrop(20, padding=1), RandomHorizontalFlip(), RandomAffine(20, 3)]
    augment = Compose(steps)
    rng, expected = np.random.default_rng(5), images
    drawn = [step.draw(2, rng) for step in steps]
    for step, own in zip(steps, drawn, strict=True):
        expected = step(expected, own)
    np.testing.assert_array_equal(augment(images, augment.draw(2, 5)), expected)
    assert augment(images[:0], augment.draw(0, 5)).shape == (0, 3, 20, 20)
    nothing = Compose([])
    np.testing.assert_array_equal(nothing(images, nothing.draw(2, 5)), images)


def test_wrong_crops_and_flips_are_named() -> None:
    images = digits(2)
    makes: list[tuple[Callable[[], object], str]] = [
        (lambda: RandomCrop(0), "`size`"),
        (lambda: RandomCrop(3, padding=-1), "`padding`"),
        (lambda: RandomHorizontalFlip(1.5), "`p`"),
        (lambda: Compose([RandomCrop(3), gaussian_noise]), "`transforms`.*method `draw`"),
        (lambda: RandomCrop((20, 31), 1)(images, np.zeros((2, 2))), r"`size` \(=\(20, 31\)\).* \(30, 30\)"),
        (lambda: RandomCrop(20)(images, np.zeros((1, 2))), "`amounts`"),
        (lambda: RandomHorizontalFlip()(images, np.zeros(1)), "`amounts`"),
    ]
    for augment in (RandomCrop(20), RandomHorizontalFlip()):
        makes.append((lambda own=augment: own(images[0], own.draw(28, 0)), "`images`"))  # type: ignore[misc]
        makes.append((lambda own=augment: own(images.astype(int), own.draw(2, 0)), "`images`"))  # type: ignore[misc]
    for make, message in makes:
        with pytest.raises((ValueError, TypeError), match=message):
            make()


# Batches

CROPPED = Compose([RandomCrop(28, padding=3), RandomHorizontalFlip(), RandomAffine(15, 2)])
AUGMENTS = pytest.mark.parametrize("augment", [noisy, RandomAffine(15, 2), RandomCrop(20), CROPPED])


def batches(size: int = 8, **arguments: Any) -> DataLoader:
    defaults: dict[str, Any] = {"shuffle": True, "generator": 1, "augment": noisy}
    return DataLoader((digits(21), np.arange(21)), size, **(defaults | arguments))


def whole(parts: list[Any]) -> Array:
    """The inputs of an epoch, put together from the workers' parts."""
    inputs: list[Array] = []
    for own, _ in parts[0]:
        inputs += [own, *(part[0] for other in parts[1:] if (part := next(other, None)) is not None)]
    return np.concatenate(inputs)


@AUGMENTS
def test_equal_seeds_give_equal_epochs_and_each_epoch_is_another(augment: Any) -> None:
    one, same = batches(augment=augment), batches(augment=augment)
    first = whole(parts(one, 1))
    np.testing.assert_array_equal(first, whole(parts(same, 1)))
    second = whole(parts(one, 1))
    np.testing.assert_array_equal(second, whole(parts(same, 1)))
    unshuffled = batches(shuffle=False, augment=augment)
    assert (whole(parts(unshuffled, 1)) != whole(parts(unshuffled, 1))).mean() > 0.1


@AUGMENTS
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_the_images_do_not_depend_on_the_number_of_workers(workers: int, augment: Any) -> None:
    found = whole(parts(batches(augment=augment), workers))
    np.testing.assert_array_equal(found, whole(parts(batches(augment=augment), 1)))


@AUGMENTS
def test_the_images_do_not_depend_on_the_size_of_batches(augment: Any) -> None:
    five, all_at_once = batches(5, augment=augment), batches(21, augment=augment)
    np.testing.assert_array_equal(whole(parts(five, 1)), whole(parts(all_at_once, 1)))


@AUGMENTS
def test_the_images_do_not_depend_on_the_order_in_which_workers_take_them(augment: Any) -> None:
    taken = [list(part) for part in reversed(parts(batches(augment=augment), 2))]
    together = [np.concatenate([pair[0][0], pair[1][0]]) for pair in zip(*reversed(taken), strict=True)]
    np.testing.assert_array_equal(np.concatenate(together), whole(parts(batches(augment=augment), 1)))


@pytest.mark.parametrize("augment", [both, RandomAffine(15, 2)])
def test_no_two_samples_are_given_the_same_numbers(augment: Any) -> None:
    same = np.repeat(digits(1), 16, axis=0)
    both_parts = parts(DataLoader((same, np.arange(16)), 8, augment=augment, generator=0), 2)
    assert len(np.unique(whole(both_parts), axis=0)) == 16


def test_transform_follows_augment() -> None:
    (x, y), *_ = batches(transform=normalize)
    (plain, labels), *_ = batches()
    np.testing.assert_array_equal(x, normalize(plain))
    np.testing.assert_array_equal(y, labels)


def test_an_augmentation_leaves_the_order_of_the_first_epoch_alone() -> None:
    augments = (None, noisy, RandomAffine(15, 2))
    targets = [[y.tolist() for _, y in batches(augment=augment)] for augment in augments]
    assert targets[0] == targets[1] == targets[2]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("augment", [None, noisy, RandomAffine(15, 2), CROPPED])
def test_an_epoch_goes_on_after_the_batches_that_it_skips(count: int, augment: Any) -> None:
    interrupted, resumed = batches(augment=augment), batches(augment=augment)
    whole(parts(interrupted, 1))
    state = interrupted.generator.bit_generator.state
    expected = whole(parts(interrupted, count))
    resumed.generator.bit_generator.state = state
    np.testing.assert_array_equal(whole(parts(resumed, count, skip=2)), expected[16:])
    np.testing.assert_array_equal(whole(parts(resumed, count)), whole(parts(interrupted, count)))


def test_the_numbers_of_an_epoch_are_drawn_at_its_start_and_follow_their_samples() -> None:
    class Marks:
        def draw(self, count: int, generator: np.random.Generator) -> Array:
            drawn.append(generator.integers(1000, size=count))
            return drawn[-1]

        def __call__(self, inputs: Array, numbers: Array) -> Array:
            return np.stack([inputs, numbers], axis=1)

    drawn: list[Array] = []
    loader = DataLoader((np.arange(10), np.arange(10)), 4, True, drop_last=True, generator=0, augment=Marks())
    for _ in range(2):
        seen = [(x[:, 0], y, x[:, 1]) for x, y in loader]
        inputs, targets, numbers = (np.concatenate(column) for column in zip(*seen, strict=True))
        np.testing.assert_array_equal(inputs, targets)
        np.testing.assert_array_equal(numbers, drawn[-1])
    assert len(drawn) == 2
    assert len(np.unique(np.concatenate(drawn))) > 10


def test_skipped_batches_are_not_made() -> None:
    made: list[int] = []

    def record(images: Array, generator: np.random.Generator) -> Array:
        made.append(len(images))
        return images

    list(parts(batches(augment=record), 1, skip=2)[0])
    assert made == [1] * 5
    assert list(parts(batches(), 1, skip=4)[0]) == []
    with pytest.raises(ValueError, match="`skip`"):
        parts(batches(), 1, skip=-1)


@needs_workers
@pytest.mark.parametrize(("augment", "side", "size"), [(noisy, 28, 8), (RandomCrop(20), 20, 20)])
def test_workers_train_on_the_images_of_one_process(augment: Any, side: int, size: int) -> None:
    """Also where one has no image of the last batch, and the images are cut."""

    def trained(workers: int) -> Array:
        model = Sequential(Flatten(), Linear(side * side, 21, generator=0))
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model, lr=0.1), workers=workers)
        trainer.fit(batches(size, augment=augment, transform=normalize), epochs=2)
        return model.params["1.weight"]

    np.testing.assert_array_equal(trained(2), trained(2))
    np.testing.assert_allclose(trained(2), trained(1), rtol=1e-4, atol=1e-5)


def test_on_a_gpu_only_augmented_batches_are_moved() -> None:
    expected = list(batches(transform=normalize))
    with strict_arrays.installed() as cupy:
        moving = batches(transform=normalize)
        moving.move(cupy)
        for (x, y), (expected_x, expected_y) in zip(moving, expected, strict=True):
            assert isinstance(x, cupy.ndarray)
            np.testing.assert_allclose(cupy.asnumpy(x), expected_x, rtol=1e-6)
            np.testing.assert_array_equal(cupy.asnumpy(y), expected_y)

"""Augmentation: random shifts, crops, flips, rotations and noise, so that images differ in each epoch.

`DataLoader(augment=...)` calls a `RandomAffine`, `RandomCrop`, `RandomHorizontalFlip` or a `Compose` of them
with whole batches, and a function of images and a generator with one sample at a time:

>>> import numpy as np
>>> from functools import partial
>>> from tinyconv.data import DataLoader
>>> images, labels = np.zeros((6, 28, 28), np.uint8), np.arange(6)
>>> augment = RandomAffine(degrees=10, translate=2)
>>> loader = DataLoader((images, labels), batch_size=4, generator=0, augment=augment)
>>> [x.shape for x, y in loader]
[(4, 28, 28), (2, 28, 28)]
>>> loader.augment = partial(gaussian_noise, sigma=0.2)
>>> [x.shape for x, y in loader]
[(4, 28, 28), (2, 28, 28)]
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyconv.arguments import Generator, IntOrPair, check_ndim, check_shape, given, integer, number, pair
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array

__all__ = ["Compose", "RandomAffine", "RandomCrop", "RandomHorizontalFlip", "affine"]
__all__ += ["gaussian_noise", "random_affine"]

_SCALES = {np.dtype(np.uint8): 255.0, np.dtype(np.float32): 1.0, np.dtype(np.float64): 1.0}


def affine(
    images: Array, angle: Array | Sequence[float], translate: Array | Sequence[Sequence[float]]
) -> Array:
    """Rotate each image about its centre, then shift it; outside, the border's pixels are repeated.

    Between pixels the image is interpolated bilinearly.

    Args:
        images: (N, H, W) or (N, C, H, W); uint8, float32 or float64; on the CPU. All are moved at once, with
            temporary arrays of some 40 bytes a pixel.
        angle: (N,), degrees clockwise.
        translate: (N, 2), pixels to the right and down, which may be fractions.

    Returns:
        New images of the shape and dtype of `images`; uint8 ones are rounded.

    Raises:
        TypeError: `images` of another dtype.
        ValueError: `images` of another shape; not one angle and one pair for each image.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.functional.affine.html

    >>> images = np.array([[[1, 2], [3, 4]], [[1, 2], [3, 4]]], np.uint8)
    >>> affine(images, [90.0, 0.0], [(0.0, 0.0), (1.0, 0.0)]).tolist()  # one is turned, one is shifted
    [[[3, 1], [4, 2]], [[1, 1], [3, 3]]]
    """
    _scale(images)
    radians, shifts = np.deg2rad(np.asarray(angle)), np.asarray(translate)
    check_shape("angle", radians, (len(images),), "for as many `images`")
    check_shape("translate", shifts, (len(images), 2), "for as many `images`")
    height, width = images.shape[-2:]
    dtype = np.float64 if images.dtype == np.float64 else np.float32
    cos, sin = np.cos(radians).astype(dtype), np.sin(radians).astype(dtype)
    # from rows and columns of the output to those of the input: back by the shift, then by the angle
    row = (np.arange(height)[:, None, None] - (height - 1) / 2 - shifts[:, 1]).astype(dtype)
    column = (np.arange(width)[:, None] - (width - 1) / 2 - shifts[:, 0]).astype(dtype)
    top, down = _split(cos * row - sin * column, height)
    left, right = _split(sin * row + cos * column, width)
    moved = _interpolated(images, top * (width + 1) + left, down, right)
    if images.dtype == np.uint8:
        moved = moved.round(out=moved).astype(np.uint8)
    return moved.transpose(3, 0, 1, 2).reshape(images.shape)


def _split(place: Array, size: int) -> tuple[Array, Array]:
    """The index of the pixel before each `place`, which is relative to the centre, and the way beyond it."""
    place += (size - 1) / 2
    place.clip(0, size - 1, out=place)
    index = np.floor(place)
    return index.astype(np.intp), place - index


def _interpolated(images: Array, index: Array, down: Array, right: Array) -> Array:
    """The values (C, H, W, N) `down` and `right` of the pixels `index`, for images with a border added."""
    count, channels, (height, width) = len(images), math.prod(images.shape[1:-2]), images.shape[-2:]
    bordered = np.zeros((channels, height + 1, width + 1, count), down.dtype)  # of pixels whose weight is 0
    bordered[:, :-1, :-1] = images.reshape(count, channels, height, width).transpose(1, 2, 3, 0)
    pixels, places = bordered.reshape(channels, -1), index * count + np.arange(count)
    corners = (0, 1, width + 1, width + 2)  # beside and below
    a, b, c, d = (pixels[:, corner * count :].take(places, axis=1) for corner in corners)
    a += right * (b - a)
    c += right * (d - c)
    a += down * (c - a)
    return a


class RandomAffine:
    """Rotate and shift each image by different random amounts, whole batches at once.

    As `augment` of a `DataLoader` it is several times as fast as `random_affine`, which is called per sample:
    the amounts for all samples of an epoch are drawn at its start.

    Args:
        degrees: angles are drawn uniformly from [-degrees, degrees].
        translate: shifts to the right and down are drawn uniformly from [-translate, translate], in pixels.

    Raises:
        ValueError, TypeError: a negative `degrees` or `translate`, or one that is not a number.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandomAffine.html

    >>> augment = RandomAffine(degrees=10, translate=2)
    >>> amounts = augment.draw(3, generator=0)
    >>> amounts.shape, augment(np.zeros((3, 28, 28), np.uint8), amounts).shape
    ((3, 3), (3, 28, 28))
    """

    def __init__(self, degrees: float = 0.0, translate: float = 0.0) -> None:
        self.degrees, self.translate = number("degrees", degrees, 0.0), number("translate", translate, 0.0)

    def draw(self, count: int, generator: Generator) -> Array:
        """Draw the amounts for `count` images: (count, 3), degrees and pixels to the right and down."""
        largest = (self.degrees, self.translate, self.translate)
        return as_generator(generator).uniform(-1, 1, (count, 3)) * largest

    def __call__(self, images: Array, amounts: Array) -> Array:
        """Move `images` by the `amounts` that were drawn for them; see `affine`."""
        return affine(images, amounts[:, 0], amounts[:, 1:])


class RandomCrop:
    """Pad images with zeros, and cut a rectangle out of each at a random place; whole batches at once.

    Args:
        size: height and width of the rectangle.
        padding: number of zeros that are added on each side before.

    Raises:
        ValueError, TypeError: `size` or `padding` is out of range or not an integer. Calling it raises
            ValueError for images that are smaller than `size` after the padding, or of another shape than
            (N, H, W) or (N, C, H, W), or for amounts of another number of images, and TypeError for another
            dtype than uint8, float32 and float64.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandomCrop.html

    >>> augment = RandomCrop(32, padding=4)
    >>> amounts = augment.draw(3, generator=0)
    >>> amounts.shape, augment(np.zeros((3, 1, 32, 32), np.uint8), amounts).shape
    ((3, 2), (3, 1, 32, 32))
    """

    def __init__(self, size: IntOrPair, padding: int = 0) -> None:
        self.size, self.padding = pair("size", size), integer("padding", padding, minimum=0)

    def draw(self, count: int, generator: Generator) -> Array:
        """Draw the places for `count` images: (count, 2), from 0 at the top and left to 1."""
        return as_generator(generator).random((count, 2))

    def __call__(self, images: Array, amounts: Array) -> Array:
        """Return new images, cut out at the places `amounts`, that were drawn for them."""
        _scale(images)
        check_shape("amounts", amounts, (len(images), 2), "for as many `images`")
        padded = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(self.padding, self.padding)] * 2)
        places = np.subtract(padded.shape[-2:], self.size) + 1
        if places.min() < 1:
            raise ValueError(f"`size` (={self.size}) must not exceed the padded images, {padded.shape[-2:]}")
        top, left = (amounts * places).astype(np.intp).T
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.size, (-2, -1))
        return windows[np.arange(len(images)), ..., top, left, :, :]


class RandomHorizontalFlip:
    """Mirror each image with probability `p`, left to right; whole batches at once.

    Raises:
        ValueError, TypeError: `p` is not a number from 0 to 1. Calling it raises ValueError for images of
            another shape than (N, H, W) or (N, C, H, W), or for amounts of another number of images, and
            TypeError for another dtype than uint8, float32 and float64.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.RandomHorizontalFlip.html

    >>> augment = RandomHorizontalFlip(p=1.0)
    >>> augment(np.arange(4.0).reshape(1, 2, 2), augment.draw(1, generator=0)).tolist()
    [[[1.0, 0.0], [3.0, 2.0]]]
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = number("p", p, 0.0, 1.0)

    def draw(self, count: int, generator: Generator) -> Array:
        """Draw numbers from 0 to 1 for `count` images, (count,): those below `p` are mirrored."""
        return as_generator(generator).random(count)

    def __call__(self, images: Array, amounts: Array) -> Array:
        """Return new images, mirrored where the `amounts` that were drawn for them are below `p`."""
        _scale(images)
        check_shape("amounts", amounts, (len(images),), "for as many `images`")
        return np.where((amounts < self.p).reshape(-1, *[1] * (images.ndim - 1)), images[..., ::-1], images)


class Compose:
    """Augment images by one after the other, whole batches at once.

    Args:
        transforms: augmentations with a method `draw`, see `DataLoader`.

    Raises:
        TypeError: one of the `transforms` does not have it.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.Compose.html

    >>> augment = Compose([RandomCrop(28, padding=2), RandomHorizontalFlip()])
    >>> augment(np.zeros((3, 28, 28)), augment.draw(3, generator=0)).shape
    (3, 28, 28)
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = list(transforms)
        if wrong := [one for one in self.transforms if not hasattr(one, "draw")]:
            raise TypeError(f"`transforms`: one ({given(wrong[0])}) does not have a method `draw`")

    def draw(self, count: int, generator: Generator) -> Array:
        """Draw what each of `transforms` does for `count` images: a structured array, (count,)."""
        rng = as_generator(generator)
        drawn = [one.draw(count, rng) for one in self.transforms]
        rows = np.empty(count, [(str(i), own.dtype, own.shape[1:]) for i, own in enumerate(drawn)])
        for name, own in zip(rows.dtype.names or (), drawn, strict=True):
            rows[name] = own
        return rows

    def __call__(self, images: Array, amounts: Array) -> Array:
        """Augment `images` by the `amounts` that were drawn for them."""
        for name, one in zip(amounts.dtype.names or (), self.transforms, strict=True):
            images = one(images, amounts[name])
        return images


def random_affine(images: Array, generator: Generator, degrees: float = 0.0, translate: float = 0.0) -> Array:
    """Rotate and shift each image by different random amounts.

    Args:
        images: as for `affine`.
        generator: a numpy.random.Generator or seed.
        degrees: angles are drawn uniformly from [-degrees, degrees].
        translate: shifts to the right and down are drawn uniformly from [-translate, translate], in pixels.

    Returns:
        New images of the shape and dtype of `images`.

    Raises:
        ValueError, TypeError: as `affine`; a negative `degrees` or `translate`.

    >>> images = np.full((8, 28, 28), 7, np.uint8)  # of one colour, which is repeated beyond the border
    >>> moved = random_affine(images, generator=0, degrees=10, translate=2)
    >>> moved.shape, np.unique(moved).tolist()
    ((8, 28, 28), [7])
    """
    augment = RandomAffine(degrees, translate)
    return augment(images, augment.draw(len(images), generator))


def gaussian_noise(images: Array, generator: Generator, sigma: float = 0.1) -> Array:
    """Add normally distributed noise to each pixel.

    Args:
        images: (N, H, W) or (N, C, H, W); uint8, float32 or float64; on the CPU.
        generator: a numpy.random.Generator or seed.
        sigma: standard deviation of the noise; for uint8 images in units of 255.

    Returns:
        New images of the shape and dtype of `images`; uint8 ones are rounded and clipped to 0 to 255.

    Raises:
        TypeError: `images` of another dtype.
        ValueError: `images` of another shape; a negative `sigma`.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.v2.GaussianNoise.html

    >>> images = np.zeros((10, 28, 28))
    >>> noisy = gaussian_noise(images, generator=0, sigma=0.5)
    >>> noisy.shape, float(noisy.std().round(1)), bool(images.any())
    ((10, 28, 28), 0.5, False)
    """
    scale = _scale(images) * number("sigma", sigma, 0.0)
    dtype = np.float64 if images.dtype == np.float64 else np.float32
    noisy = as_generator(generator).standard_normal(images.shape, dtype)
    noisy *= scale
    noisy += images
    if images.dtype != np.uint8:
        return noisy
    return noisy.round().clip(0, 255).astype(np.uint8)


def _scale(images: Array) -> float:
    """The value of 1 in the units of `images`, whose shape and dtype are checked."""
    check_ndim("images", images, (3, 4), "(N, H, W) or (N, C, H, W)")
    if images.dtype not in _SCALES:
        raise TypeError(f"`images` must be of dtype uint8, float32 or float64, got {images.dtype}")
    return _SCALES[images.dtype]

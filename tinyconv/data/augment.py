"""Augmentation: random shifts, rotations and noise, so that images differ in each epoch.

Each function takes a batch and a generator, as `DataLoader(augment=...)` calls it:

>>> import numpy as np
>>> from functools import partial
>>> from tinyconv.data import DataLoader
>>> images, labels = np.zeros((6, 28, 28), np.uint8), np.arange(6)
>>> augment = partial(random_affine, degrees=10, translate=2)
>>> loader = DataLoader((images, labels), batch_size=4, generator=0, augment=augment)
>>> [x.shape for x, y in loader]
[(4, 28, 28), (2, 28, 28)]
"""

import math
from collections.abc import Sequence

import numpy as np

from tinyconv.arguments import Generator, check_ndim, check_shape, number
from tinyconv.arguments import generator as as_generator
from tinyconv.arrays import Array

_SCALES = {np.dtype(np.uint8): 255.0, np.dtype(np.float32): 1.0, np.dtype(np.float64): 1.0}


def affine(
    images: Array, angle: Array | Sequence[float], translate: Array | Sequence[Sequence[float]]
) -> Array:
    """Rotate each image about its centre, then shift it; outside, the border's pixels are repeated.

    Between pixels the image is interpolated by a cubic spline, which blurs less than linear interpolation.

    Args:
        images: (N, H, W) or (N, C, H, W); uint8, float32 or float64; on the CPU.
        angle: (N,), degrees clockwise.
        translate: (N, 2), pixels to the right and down, which may be fractions.

    Returns:
        New images of the shape and dtype of `images`.

    Raises:
        TypeError: `images` of another dtype.
        ValueError: `images` of another shape; not one angle and one pair for each image.

    Source: https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.functional.affine.html
    """
    from scipy import ndimage

    _scale(images)
    radians, shifts = np.deg2rad(np.asarray(angle)), np.asarray(translate)
    check_shape("angle", radians, (len(images),), "for as many `images`")
    check_shape("translate", shifts, (len(images), 2), "for as many `images`")
    row, column = ((size - 1) / 2 for size in images.shape[-2:])
    output = np.empty_like(images)
    for image, moved, theta, (x, y) in zip(images, output, radians.tolist(), shifts.tolist(), strict=True):
        cos, sin = math.cos(theta), math.sin(theta)
        # from rows and columns of the output to those of the input: back by the shift, then by the angle
        matrix = [[cos, -sin], [sin, cos]]
        top, left = row + y, column + x
        offset = [row - cos * top + sin * left, column - sin * top - cos * left]
        for channel in np.ndindex(image.shape[:-2]):
            ndimage.affine_transform(
                image[channel], matrix, offset, output=moved[channel], order=3, mode="nearest"
            )
    return output


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
    """
    largest = (number("degrees", degrees, 0.0), *2 * (number("translate", translate, 0.0),))
    drawn = as_generator(generator).uniform(-1, 1, (len(images), 3)) * largest
    return affine(images, drawn[:, 0], drawn[:, 1:])


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

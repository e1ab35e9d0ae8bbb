"""Finding the digit in a picture, and centring it as in MNIST.

    background   a smooth surface of colours that most of the picture fits: paper, unevenly lit
    contrast     the distance of each pixel's colour from it, whatever the colour and polarity
    mark         the connected pixels with the most contrast, and the pieces beside them, but not other digits
    centring     strokes at least as wide as a thin pen's; the mark's bounding box scaled into 20 x 20, its
                 centre of mass moved to the centre of 28 x 28

Source of the last: http://yann.lecun.com/exdb/mnist/
"""

from typing import NamedTuple

import numpy as np

from tinyconv.arrays import Array

LONGEST_SIDE = 1000  # a larger picture is reduced by an integer factor
SMALLEST_DIGIT = 8  # pixels of its longer side, after that
LEAST_CONTRAST = 0.04  # black to white is sqrt(3)
BOX, SIDE, CENTRE = 20, 28, 14  # of MNIST's images: digit, image, and the pixel at the centre of mass
THIN_STROKE = 1.8  # pixels in the box of 20: nine of ten digits of MNIST have wider strokes
TALL = 0.6  # another digit's height, as a share of the largest one's; MNIST's separate strokes reach a half


class Found(NamedTuple):
    """The largest digit of a picture, as `find_digit` returns it, and the number of digits that it shows."""

    image: Array
    digits: int


def find_digit(pixels: Array) -> Array:
    """Find the digit in a picture, whatever its size, colour and polarity, and centre it as in MNIST.

    The digit must be upright, and at least a hundredth of the picture's longer side. Of several it is the
    largest, see `find_largest`. The background may be lit unevenly, but smoothly.

    Args:
        pixels: (H, W) grey, (H, W, 3) red, green and blue, or (H, W, 4) with opacity; uint8, or floating
            with white and opaque at 1.

    Returns:
        (28, 28) uint8, a light digit on 0: `normalize` turns it into input for a network.

    Raises:
        TypeError: `pixels` has another dtype.
        ValueError: `pixels` has another shape, or is not finite; nothing stands out from the background, or
            nothing of a digit's size.

    >>> picture = np.full((200, 300, 3), 255, np.uint8)
    >>> picture[50:150, 120:130] = 0, 0, 160  # a blue stroke on white
    >>> image = find_digit(picture)
    >>> image.shape, int((image > 127).any(axis=1).sum())
    ((28, 28), 20)
    """
    return find_largest(pixels).image


def find_largest(pixels: Array) -> Found:
    """Find the digit with most ink in a picture, as `find_digit` does, and count the digits.

    Another digit is a connected piece that is nearly as tall as the largest one, and makes with it something
    wider than a digit, or taller. So two strokes of one digit, as many a 5 has, count once, and "11" in
    narrow letters does, too. Digits that touch one another count as one.

    Args:
        pixels: as for `find_digit`.

    Returns:
        The largest digit's image, and the number of digits.

    Raises:
        TypeError, ValueError: as `find_digit`.

    >>> picture = np.zeros((40, 80), np.uint8)
    >>> picture[10:30, 10:20] = picture[10:30, 50:58] = 255
    >>> find_largest(picture).digits
    2
    """
    contrast = _denoised(_contrast(_colours(pixels)))
    mark, digits = _mark(contrast)
    size = _size(mark)
    if size < SMALLEST_DIGIT:
        raise ValueError("no digit found: nothing of a digit's size stands out from the background")
    around = tuple(_wider(part, 2) for part in _extent(mark))
    ink = _ink(contrast[around], mark[around])
    return Found(_centred(_thickened(ink, THIN_STROKE * size / BOX)), digits)


def _colours(pixels: Array) -> Array:
    """(H, W, channels) float32 of at most LONGEST_SIDE; where nothing is opaque, colours are 0."""
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise TypeError(f"`pixels` must be of dtype uint8 or floating, got {pixels.dtype}")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))) or pixels.size == 0:
        raise ValueError(f"`pixels` (of shape {pixels.shape}) must have the form (H, W), (H, W, 3 or 4)")
    if not np.isfinite(pixels).all():
        raise ValueError("`pixels` must be finite")
    white = 255 if pixels.dtype == np.uint8 else 1
    if pixels.ndim == 2:
        return np.repeat(_smaller(pixels[:, :, None]) / white, 3, axis=2)
    if pixels.shape[2] == 3:
        return _smaller(pixels) / white
    premultiplied = pixels.astype(np.float32)
    premultiplied[:, :, :3] *= premultiplied[:, :, 3:] / white
    return _smaller(premultiplied) / white


def _smaller(pixels: Array) -> Array:
    """The means over squares, so that no side is longer than LONGEST_SIDE."""
    height, width, channels = pixels.shape
    factor = -(-max(height, width) // LONGEST_SIDE)
    rows, columns = (min(factor, length) for length in (height, width))
    whole = pixels[: height // rows * rows, : width // columns * columns]
    squares = whole.reshape(height // rows, rows, width // columns, columns, channels)
    means: Array = squares.mean(axis=(1, 3), dtype=np.float32)
    return means


def _contrast(colours: Array) -> Array:
    """(H, W): the distance of each pixel from the background, in the direction of the largest difference."""
    residual = colours - _background(colours)
    distance = np.linalg.norm(residual, axis=2)
    direction = residual[distance >= distance.max() / 2].mean(axis=0)
    contrast: Array = residual @ (direction / max(float(np.linalg.norm(direction)), 1e-6))
    return contrast


def _background(colours: Array) -> Array:
    """A quadratic surface fitted to the colours, with larger weights for those near it.

    So the majority decides, or the pixels near the edges if a digit fills the picture.
    """
    height, width, channels = colours.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).astype(np.float32)
    step = 1 + max(height, width) // 100
    some_terms = terms[::step, ::step].reshape(-1, 6)
    some_colours = colours[::step, ::step].reshape(-1, channels)
    off_centre = np.abs(some_terms[:, 1:3]).max(axis=1)
    fitted = np.median(some_colours[off_centre > 0.85], axis=0)
    for _ in range(20):  # reweighted least squares
        distance = np.linalg.norm(some_colours - fitted, axis=1)
        weight = np.sqrt((0.3 + off_centre**4) / (distance**2 + 0.05**2))[:, None]
        surface = np.linalg.lstsq(some_terms * weight, some_colours * weight)[0]
        fitted = some_terms @ surface
    background: Array = terms @ surface
    return background


def _denoised(contrast: Array) -> Array:
    """`contrast`, smoothed as long as a digit could get lost in its noise."""
    from scipy import ndimage

    for _ in range(3):
        if 8 * _noise(contrast) > contrast.max():
            contrast = ndimage.gaussian_filter(contrast, 1)
    return contrast


def _noise(contrast: Array) -> float:
    """The background's standard deviation, from the values on the side opposite to the digit."""
    below = contrast[contrast < 0]
    return 1.5 * float(np.median(-below)) if below.size else 0.0


def _mark(contrast: Array) -> tuple[Array, int]:
    """The mask of the largest digit, and the number of digits."""
    from scipy import ndimage

    threshold = max(4 * _noise(contrast), contrast.max() / 4, LEAST_CONTRAST)
    labels, count = ndimage.label(contrast > threshold, np.ones((3, 3)))
    if count == 0:
        raise ValueError("no digit found: nothing stands out from the background")
    numbers = np.arange(1, count + 1)
    ink = ndimage.sum(contrast, labels, numbers)
    edge = np.isin(numbers, np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    main = numbers[np.argmax(np.where(edge, ink / 10, ink))]
    extents = ndimage.find_objects(labels)
    extent, reach = extents[main - 1], _size(labels == main) // 2
    large = numbers[(ink >= ink[main - 1] / 10) & ~edge & (numbers != main)]
    others = [number for number in large if _is_another(extents[number - 1], extent)]
    near = np.zeros(labels.shape, bool)
    near[tuple(_wider(part, reach) for part in extent)] = True
    pieces = np.setdiff1d(numbers[ink >= ink[main - 1] / 20], [*np.unique(labels[~near]), *others])
    mask: Array = np.isin(labels, pieces)
    mask &= contrast > np.percentile(contrast[mask], 90) / 2
    return mask, 1 + len(others)


def _is_another(extent: tuple[slice, slice], main: tuple[slice, slice]) -> bool:
    """Whether what reaches over `extent` is a digit of its own beside the one that reaches over `main`."""
    (height, width), (main_height, main_width) = _lengths(extent), _lengths(main)
    if height < TALL * main_height:
        return False
    rows, columns = (max(a.stop, b.stop) - min(a.start, b.start) for a, b in zip(extent, main, strict=True))
    overlap = width + main_width - columns  # below 0 where they are apart
    beside = columns > 0.9 * rows and overlap < min(width, main_width) / 2
    above = rows > 2 * columns and min(width / height, main_width / main_height) > 1 / 3
    return bool(beside or above)


def _lengths(extent: tuple[slice, slice]) -> tuple[int, int]:
    rows, columns = extent
    return rows.stop - rows.start, columns.stop - columns.start


def _extent(mask: Array) -> tuple[slice, slice]:
    """The rows and columns of the bounding box of `mask`."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _size(mask: Array) -> int:
    """The longer side of the bounding box of `mask`."""
    return int(max(_lengths(_extent(mask))))


def _wider(part: slice, by: int) -> slice:
    return slice(max(part.start - by, 0), part.stop + by)


def _ink(contrast: Array, mark: Array) -> Array:
    """1 on the mark, less on its soft edges, 0 elsewhere."""
    from scipy import ndimage

    ink: Array = np.clip(contrast / np.percentile(contrast[mark], 90), 0, 1)
    ink[~ndimage.binary_dilation(mark, np.ones((3, 3)))] = 0
    return ink


def _thickened(ink: Array, width: float) -> Array:
    """`ink`, with its strokes widened to `width` pixels if they are thinner on average."""
    from scipy import ndimage

    ink = np.pad(ink, int(width) + 2)
    mark = (ink > 0.5).astype(np.int8)
    perimeter = np.abs(np.diff(mark, axis=0)).sum() + np.abs(np.diff(mark, axis=1)).sum()
    found = 2 * mark.sum() / (perimeter * np.pi / 4)  # counting along the axes lengthens it by 4/pi
    if found >= width:
        return ink
    distance = ndimage.distance_transform_edt(mark == 0)
    wider: Array = np.maximum(ink, np.clip(1 + (width - found) / 2 - distance, 0, 1))
    return wider


def _centred(ink: Array) -> Array:
    """(28, 28) uint8: `ink` scaled into MNIST's box, and moved by whole pixels to its centre of mass."""
    from scipy import ndimage

    scale = _size(ink > 0.5) / BOX
    smooth = ndimage.gaussian_filter(ink, max(scale - 1, 0) / 2)
    box = np.array([part.start for part in _extent(ink > 0.5)]) - 0.5  # its corner
    place = np.round(CENTRE + 0.5 - (np.array(ndimage.center_of_mass(ink)) - box) / scale)
    first = box + (0.5 - place) * scale
    image: Array = ndimage.affine_transform(
        255 * smooth, np.diag([scale, scale]), first, (SIDE, SIDE), order=1
    )
    return image.round().astype(np.uint8)

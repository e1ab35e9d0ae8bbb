"""Grids of images and scatters of points: what is drawn where, and what is refused."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyconv.arrays import Array
from tinyconv.plots.grids import image_grid, scatter


def pixels(images: Array, columns: int) -> Array:
    """What `image_grid` draws, NaN where it draws nothing."""
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    (axes,) = image_grid(images, columns).axes
    (drawn,) = axes.images
    return np.ma.filled(np.ma.asarray(drawn.get_array()), np.nan)


def test_images_stand_row_by_row_with_lines_between_them() -> None:
    images = np.arange(1.0, 6)[:, None, None] * np.ones((2, 3))
    table = pixels(images, columns=2)
    assert table.shape == (3 * 2 + 2, 2 * 3 + 1)
    for i, image in enumerate(images):
        y, x = i // 2 * 3, i % 2 * 4
        np.testing.assert_array_equal(table[y : y + 2, x : x + 3], image)
    assert np.isnan(table[2]).all()
    assert np.isnan(table[:, 3]).all()
    assert np.isnan(table[6:, 4:]).all()


def test_a_channel_of_one_may_be_there_and_any_dtype() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 5, 5), np.uint8)
    np.testing.assert_array_equal(pixels(images, 3), pixels(images[:, 0].astype(float), 3))


def test_points_are_drawn_in_a_colour_for_each_label() -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    points, labels = np.random.default_rng(0).normal(size=(9, 2)), np.array([7, 0, 3] * 3)
    (axes,) = scatter(points, labels).axes
    drawn = {group.get_label(): group for group in axes.collections}
    assert list(drawn) == ["0", "3", "7"]
    for label, group in drawn.items():
        np.testing.assert_array_equal(group.get_offsets(), points[labels == int(str(label))])
    colours = [np.asarray(group.get_facecolor()) for group in drawn.values()]
    assert len(np.unique(np.concatenate(colours), axis=0)) == 3


def test_pictures_go_to_their_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    image_grid(np.eye(4)[None], 1, tmp_path / "grid.png")
    scatter(np.eye(2), np.arange(2), tmp_path / "points.png")
    for name in ("grid.png", "points.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_other_shapes_are_refused() -> None:
    for shape in ((4, 4), (2, 3, 4, 4), (0, 4, 4)):
        message = f"`images` (of shape {shape}) must have the form (N, H, W) or (N, 1, H, W)"
        with pytest.raises(ValueError, match=re.escape(message)):
            image_grid(np.zeros(shape), 2)
    with pytest.raises(ValueError, match=r"`columns` \(=0\) must be at least 1"):
        image_grid(np.zeros((1, 2, 2)), 0)
    with pytest.raises(ValueError, match=r"`points` \(of shape \(3, 3\)\) must have the form \(N, 2\)"):
        scatter(np.zeros((3, 3)), np.zeros(3))
    with pytest.raises(ValueError, match=r"`labels` \(of shape \(2,\)\) must have the shape \(3,\)"):
        scatter(np.zeros((3, 2)), np.zeros(2))


def test_without_matplotlib_both_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ["matplotlib", *(module for module in sys.modules if module.startswith("matplotlib."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pictures need matplotlib"):
        image_grid(np.zeros((1, 2, 2)), 1)
    with pytest.raises(ImportError, match="pictures need matplotlib"):
        scatter(np.zeros((1, 2)), np.zeros(1))

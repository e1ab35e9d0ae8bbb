"""`python -m tinyconv predict` on image files, sound and unsound."""

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv
from tinyconv.__main__ import main
from tinyconv.arrays import Array
from tinyconv.data import load_mnist

Image = pytest.importorskip("PIL.Image", reason="reading images needs Pillow")

MNIST = load_mnist(Path(__file__).parent.parent / "examples" / "data" / "mnist")


def seven(size: int = 200) -> Array:
    """A dark seven on light ground, (size, size) uint8."""
    small = Image.fromarray(255 - MNIST.test_images[0])
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def answer(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed for an image that is read."""
    assert main(["predict", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that is printed for an image that is not."""
    assert main(["predict", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    match = re.fullmatch(r"python -m tinyconv predict: error: (.*)\n", printed.err)
    assert match is not None, printed.err
    assert path.name in match[1]
    return match[1]


def test_the_digit_and_its_probabilities_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(seven()).save(path)
    title, *rows = answer(path, capsys).splitlines()
    assert title == f"{path}: 7"
    found = [re.fullmatch(r"  (\d) +(\d+\.\d)%(?:  (#+))?", row) for row in rows]
    assert [match[1] for match in found if match] == list("0123456789")
    shares = [float(match[2]) for match in found if match]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert [len(match[3] or "") for match in found if match] == [round(0.4 * share) for share in shares]


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"]
)
def test_every_mode_is_read(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    if mode == "I;16":
        image = Image.fromarray(seven().astype(np.uint16) * 16)  # of 65536, a camera's 12 bits
    else:
        image = Image.fromarray(seven()).convert(mode)
    if mode in ("PA", "YCbCr", "CMYK", "P", "LA"):
        path = path.with_suffix({"P": ".gif", "LA": ".png", "PA": ".png"}.get(mode, ".jpg"))
    image = image.convert("P") if mode == "PA" else image
    image.save(path)
    assert ": 7\n" in answer(path, capsys)


def test_a_transparent_palette_and_16_bits_are_read_from_png(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    palette = Image.fromarray((seven() < 128).astype(np.uint8)).convert("P")
    palette.putpalette([255, 255, 255, 255, 255, 255])
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(seven().astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("palette.png", "deep.png"):
        assert ": 7\n" in answer(tmp_path / name, capsys)


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_exif_says_which_way_is_up(
    orientation: int, turned: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(seven(), turned).copy()).save(tmp_path / "a.jpg", exif=exif)
    assert ": 7\n" in answer(tmp_path / "a.jpg", capsys)


def test_a_large_jpeg_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.full((3000, 4000, 3), (200, 210, 190), np.uint8)
    picture[1000:1300, 2500:2800] = seven(300)[:, :, None]
    picture[1000:1300, 2500:2800] //= 2
    picture[1000:1300, 2500:2800] += 80
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    assert ": 7\n" in answer(tmp_path / "a.jpg", capsys)


def png(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels, and brings none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an image"),
        (b"hello", "is not an image"),
        (png(100, 100), "cannot be read as an image"),
        (png(12_000, 10_000), "decompression bomb"),
        (png(100_000, 100_000), "decompression bomb"),
    ],
)
def test_files_that_are_no_images_are_refused(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert message in refused(tmp_path / "a.png", capsys)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_cut_and_damaged_files_are_refused_or_read(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, rng = tmp_path / f"a.{suffix}", np.random.default_rng(0)
    Image.fromarray(seven(60)).save(path)
    whole = path.read_bytes()
    for length in rng.integers(0, int(0.9 * len(whole)), 15):
        path.write_bytes(whole[:length])
        refused(path, capsys)
    for position in rng.integers(0, len(whole), 30):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        code = main(["predict", str(path)])
        printed = capsys.readouterr()
        # What is read of a damaged picture may look like several digits.
        messages = [line for line in printed.err.splitlines() if "digits; the largest is read" not in line]
        assert (code, len(printed.out.splitlines()), len(messages)) in ((0, 11, 0), (2, 0, 1))


def test_empty_pictures_and_missing_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, picture in (("white", np.full((50, 60), 255)), ("grey", np.full((50, 60, 3), 120))):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / f"{name}.png")
        assert "no digit found" in refused(tmp_path / f"{name}.png", capsys)
    Image.new("RGBA", (50, 60), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert "no digit found" in refused(tmp_path / "clear.png", capsys)
    assert "No such file" in refused(tmp_path / "missing.png", capsys)
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", capsys)


def test_of_several_digits_the_largest_is_read_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.full((220, 500), 255, np.uint8)
    picture[10:210, 10:210] = seven(200)
    three = Image.fromarray(255 - MNIST.test_images[18])
    picture[60:200, 220:360] = np.asarray(three.resize((140, 140)))
    picture[60:200, 350:490] = np.asarray(three.resize((140, 140)))
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    assert main(["predict", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{path}: 7\n")
    assert printed.err == f"python -m tinyconv predict: warning: {path} shows 3 digits; the largest is read\n"


def test_a_bad_file_does_not_keep_the_others_from_being_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(seven()).save(tmp_path / "good.png")
    good, bad = str(tmp_path / "good.png"), str(tmp_path / "bad.png")
    assert main(["predict", good, bad, good]) == 2
    printed = capsys.readouterr()
    assert printed.out.count(f"{good}: 7\n") == 2
    assert len(printed.err.splitlines()) == 1


def test_weights_and_model_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(seven()).save(tmp_path / "a.png")
    tinyconv.save_weights(tinyconv.models.mnist_cnn(generator=0), tmp_path / "cnn.safetensors")
    command = ["predict", str(tmp_path / "a.png"), "--model", "cnn"]
    assert main([*command, "--weights", str(tmp_path / "cnn.safetensors")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11
    assert main(command) == 2
    assert re.search(r"--model cnn needs --weights", capsys.readouterr().err)


def test_without_pillow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modules: dict[str, Any] = {"PIL": None, "PIL.Image": None, "PIL.ImageOps": None}
    for name, module in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    assert main(["predict", str(tmp_path / "a.png")]) == 2
    assert re.search(r"Pillow: pip install '.*\[images\]'", capsys.readouterr().err)

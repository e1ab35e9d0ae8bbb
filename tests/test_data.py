"""IDX files and MNIST: right files, broken files, broken downloads."""

import gzip
import hashlib
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyconv.arrays import Array, as_stored
from tinyconv.data import load_mnist, normalize, read_idx
from tinyconv.data.mnist import FILES

FOLDER = Path(__file__).parent.parent / "examples" / "data" / "mnist"
NAMES = list(FILES)


def idx(array: Array, kind: int = 0x08) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(folder: Path, images: int = 3, labels: int = 3) -> Path:
    """A small data set in four files."""
    for name in NAMES:
        count, shape = (images, (images, 2, 2)) if "images" in name else (labels, (labels,))
        content = (
            np.arange(np.prod(shape), dtype=np.uint8).reshape(shape) if count else np.zeros(shape, np.uint8)
        )
        (folder / name).write_bytes(gzip.compress(idx(content)))
    return folder


def test_the_repositorys_files_are_the_canonical_ones() -> None:
    for name, md5 in FILES.items():
        assert hashlib.md5(gzip.decompress((FOLDER / name).read_bytes())).hexdigest() == md5
    data = load_mnist(FOLDER)
    assert [array.shape for array in data] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert {array.dtype for array in data} == {np.dtype(np.uint8)}
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.train_images[0].sum() == 27525
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")],
)
def test_every_idx_dtype_is_read_in_native_order(tmp_path: Path, kind: int, dtype: str) -> None:
    values = np.arange(-3, 3).reshape(3, 2).astype(dtype)
    (tmp_path / "file.gz").write_bytes(gzip.compress(idx(values, kind)))
    read = read_idx(tmp_path / "file.gz")
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, values)
    read[0] = 1  # writable


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an IDX file: it is empty"),
    "gzip of nothing": (gzip.compress(b""), "not an IDX file: it is empty"),
    "text": (b"<html>not found</html>", "not an IDX file: it starts with the bytes 3c 68 74 6d"),
    "plain, cut short": (GOOD[:-5], "must hold 12 bytes .* only 7"),
    "plain, too long": (GOOD + b"\x00", "must hold 12 bytes .* holds more"),
    "plain, header cut short": (GOOD[:7], "header is cut short"),
    "plain, half a magic number of gzip": (b"\x1f", "header is cut short"),
    "gzip's magic number alone": (b"\x1f\x8b", "not a whole gzip file"),
    "gzip within gzip": (
        gzip.compress(gzip.compress(GOOD)),
        "not an IDX file: it starts with the bytes 1f 8b",
    ),
    "gzip cut short": (gzip.compress(GOOD)[:-9], "not a whole gzip file"),
    "gzip with a flipped bit": (
        gzip.compress(GOOD)[:-6] + b"\x00" + gzip.compress(GOOD)[-5:],
        "not a whole gzip file",
    ),
    "gzip with a damaged body": (gzip.compress(GOOD)[:14] + b"\xff" * 30, "not a whole gzip file|not an IDX"),
    "wrong magic": (gzip.compress(b"\x01" + GOOD[1:]), "not an IDX file: it starts with the bytes 01"),
    "unknown dtype": (gzip.compress(GOOD[:2] + b"\x0a" + GOOD[3:]), "not an IDX file"),
    "no dimensions": (gzip.compress(b"\x00\x00\x08\x00\x01"), "not an IDX file"),
    "header cut short": (gzip.compress(GOOD[:9]), "header is cut short"),
    "magic cut short": (gzip.compress(GOOD[:3]), "header is cut short"),
    "too few bytes": (gzip.compress(GOOD[:-1]), "must hold 12 bytes .* only 11"),
    "too many bytes": (gzip.compress(GOOD + b"\x00"), "must hold 12 bytes .* holds more"),
    "huge sizes": (gzip.compress(b"\x00\x00\x08\x03" + b"\xff" * 12), "must hold .* only 0"),
    "labels for images": (gzip.compress(idx(np.arange(3, dtype=np.uint8))), "must hold images"),
    "floats for images": (gzip.compress(idx(np.zeros((3, 2, 2), np.float32), 0x0D)), "must hold images"),
}


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_broken_files_are_refused_by_name(tmp_path: Path, case: str) -> None:
    content, match = BROKEN[case]
    write(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        load_mnist(tmp_path)
    assert str(tmp_path / NAMES[2]) in str(caught.value)


def test_images_for_labels_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path)
    shutil.copy(tmp_path / NAMES[0], tmp_path / NAMES[1])
    with pytest.raises(ValueError, match="must hold labels") as caught:
        load_mnist(tmp_path)
    assert NAMES[1] in str(caught.value)


def test_unequal_numbers_of_images_and_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds 3 images, but .* holds 4 labels") as caught:
        load_mnist(write(tmp_path, labels=4))
    assert NAMES[0] in str(caught.value)


FORMS = {
    "zipped": "{}-{}.gz",
    "unzipped": "{}-{}",
    "zipped, with a dot": "{}.{}.gz",
    "unzipped, with a dot": "{}.{}",
}


def renamed(folder: Path, form: str, name: str) -> Path:
    """The file `name` of `folder`, zipped or not and named as `form` says."""
    stem, _, kind = name.removesuffix(".gz").partition("-idx")
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    path = folder / FORMS[form].format(stem, f"idx{kind}")
    path.write_bytes(content if path.suffix == ".gz" else gzip.decompress(content))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_files_are_read_zipped_or_not_with_a_dash_or_a_dot(tmp_path: Path, form: str) -> None:
    expected = load_mnist(write(tmp_path))
    for name in NAMES:
        renamed(tmp_path, form, name)
    for array, other in zip(load_mnist(tmp_path), expected, strict=True):
        np.testing.assert_array_equal(array, other)


def test_forms_may_be_mixed_and_content_counts_more_than_names(tmp_path: Path) -> None:
    expected = load_mnist(write(tmp_path))
    for name, form in zip(NAMES, FORMS, strict=True):
        renamed(tmp_path, form, name)
    plain = tmp_path / "train-images-idx3-ubyte.gz"
    plain.write_bytes(gzip.decompress(plain.read_bytes()))
    zipped = tmp_path / "train-labels-idx1-ubyte"
    zipped.write_bytes(gzip.compress(zipped.read_bytes()))
    for array, other in zip(load_mnist(tmp_path), expected, strict=True):
        np.testing.assert_array_equal(array, other)


def test_a_broken_file_of_another_form_is_refused_by_name(tmp_path: Path) -> None:
    path = renamed(write(tmp_path), "unzipped, with a dot", NAMES[2])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"must hold 12 bytes .* only 11") as caught:
        load_mnist(tmp_path)
    assert str(path) in str(caught.value)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whole data sets in the working folder, in TINYCONV_DATA and in the cache, which nothing should read."""
    for name in ("working", "environment", "cache/tinyconv/mnist"):
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name)
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("TINYCONV_DATA", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_misspelt_folder_is_refused_wherever_else_the_files_are(elsewhere: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist(elsewhere / "enviroment")
    message = str(caught.value)
    for part in (str(elsewhere / "enviroment"), "does not exist", "`root`", *NAMES):
        assert part in message


def test_a_root_that_is_a_file_is_refused(elsewhere: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        load_mnist(elsewhere / "environment" / NAMES[0])


def test_a_folder_without_the_files_is_refused_and_similar_names_are_said(elsewhere: Path) -> None:
    folder = elsewhere / "environment"
    (folder / "notes.txt").touch()
    for name in NAMES:
        (folder / name).rename(folder / name.replace("-", "_").upper())
    with pytest.raises(FileNotFoundError, match=r"holds none of .*`root`") as caught:
        load_mnist(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert all(name in message for name in NAMES)
    assert "it holds T10K_IMAGES_IDX3_UBYTE.GZ, " in message
    assert "notes" not in message


def test_of_many_similar_names_a_few_are_said(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"train-{number:03}.png").touch()
    with pytest.raises(FileNotFoundError, match=r"it holds train-000.png, .*, train-007.png, …; `root`"):
        load_mnist(tmp_path)


def test_a_folder_with_some_of_the_files_is_refused(elsewhere: Path) -> None:
    (elsewhere / "environment" / NAMES[3]).rename(elsewhere / "environment" / f"{NAMES[3]}.part")
    with pytest.raises(FileNotFoundError, match=f"{NAMES[3]} is missing .*it holds .*{NAMES[3]}.part, "):
        load_mnist(elsewhere / "environment")


def test_a_folder_of_the_environment_without_the_files_is_refused_by_name(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, reason in (("nowhere", "does not exist"), ("working", "is missing")):
        (elsewhere / "working" / NAMES[1]).unlink(missing_ok=True)
        monkeypatch.setenv("TINYCONV_DATA", str(elsewhere / folder))
        with pytest.raises(FileNotFoundError, match=f"{folder}.*{reason}.*TINYCONV_DATA must be a folder"):
            load_mnist()


def test_an_empty_root_is_not_left_out(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(elsewhere)
    with pytest.raises(FileNotFoundError, match="holds none of the files"):
        load_mnist("")


def test_folders_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {}
    for count, place in enumerate(("root", "environment", "cache/tinyconv/mnist"), 1):
        places[place] = tmp_path / place
        places[place].mkdir(parents=True)
        write(places[place], count, count)
    monkeypatch.setenv("TINYCONV_DATA", str(places["environment"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(load_mnist(places["root"]).train_images) == 1
    assert len(load_mnist().train_images) == 2
    monkeypatch.setenv("TINYCONV_DATA", "")
    assert len(load_mnist().train_images) == 3
    monkeypatch.delenv("TINYCONV_DATA")
    assert len(load_mnist().train_images) == 3


# Downloads: the package's urlretrieve is replaced, everything else runs.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYCONV_DATA", raising=False)
    return tmp_path / "cache" / "tinyconv" / "mnist"


def serve(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    urls: list[str] = []

    def urlretrieve(url: str, target: str) -> None:
        urls.append(url)
        answer(url, Path(target))

    monkeypatch.setattr("urllib.request.urlretrieve", urlretrieve)
    return urls


def copy_from_repository(url: str, target: Path) -> None:
    shutil.copy(FOLDER / url.rpartition("/")[2], target)


def test_files_are_downloaded_once_into_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = serve(monkeypatch, copy_from_repository)
    assert len(load_mnist().train_images) == 60000
    assert urls == [f"https://storage.googleapis.com/cvdf-datasets/mnist/{name}" for name in NAMES]
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)
    load_mnist()
    assert len(urls) == 4


def test_what_the_cache_holds_unzipped_is_not_downloaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = serve(monkeypatch, copy_from_repository)
    cache.mkdir(parents=True)
    for name in NAMES[:3]:
        shutil.copy(FOLDER / name, cache)
        renamed(cache, "unzipped", name)
    assert len(load_mnist().test_labels) == 10000
    assert [url.rpartition("/")[2] for url in urls] == NAMES[3:]


def test_the_second_mirror_serves_when_the_first_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(url: str, target: Path) -> None:
        if "googleapis" in url:
            raise OSError("unreachable")
        copy_from_repository(url, target)

    urls = serve(monkeypatch, answer)
    load_mnist()
    assert len(urls) == 8


def test_a_script_called_mnist_does_not_hide_the_package(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mnist", sys)
    serve(monkeypatch, copy_from_repository)
    assert len(load_mnist().test_labels) == 10000


def _cut_short(url: str, target: Path) -> None:
    target.write_bytes((FOLDER / url.rpartition("/")[2]).read_bytes()[:1000])


def _other_content(url: str, target: Path) -> None:
    target.write_bytes(gzip.compress(GOOD))


def _page(url: str, target: Path) -> None:
    target.write_text("<html>")


def _unreachable(url: str, target: Path) -> None:
    target.write_bytes(b"some bytes")
    raise OSError("timed out")


def _last_one_fails(url: str, target: Path) -> None:
    if NAMES[3] in url:
        raise OSError("gone")
    copy_from_repository(url, target)


@pytest.mark.parametrize("answer", [_cut_short, _other_content, _page, _unreachable, _last_one_fails])
def test_a_broken_download_says_why_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    serve(monkeypatch, answer)
    with pytest.raises(OSError, match="the download of MNIST failed") as caught:
        load_mnist()
    for mirror in ("storage.googleapis.com", "ossci-datasets"):
        assert mirror in str(caught.value)
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(url: str, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    serve(monkeypatch, answer)
    with pytest.raises(KeyboardInterrupt):
        load_mnist()
    assert list(cache.iterdir()) == []


# Normalisation


def test_normalize_scales_and_shifts_into_the_memory_format() -> None:
    images = np.array([[[0, 255]], [[51, 102]]], np.uint8)
    expected = (images[:, None] / 255 - 0.1307) / 0.3081
    assert normalize(images).dtype == np.float32
    np.testing.assert_allclose(normalize(images), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normalize(images, dtype=np.float64), expected, rtol=1e-12)
    assert as_stored(normalize(images)).flags.c_contiguous
    np.testing.assert_array_equal(normalize(images[0]), normalize(images)[0])
    assert normalize(images[:0]).shape == (0, 1, 1, 2)


def test_normalize_refuses_what_is_no_image() -> None:
    with pytest.raises(TypeError, match="uint8"):
        normalize(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="form"):
        normalize(np.zeros((2, 2, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="`std`"):
        normalize(np.zeros((2, 2), np.uint8), std=0)

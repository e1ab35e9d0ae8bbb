"""Weights and checkpoints in files: what is written comes back, and what is damaged is refused."""

import copy
import json
import multiprocessing
import os
import random
import re
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save, save_file

from tests import strict_arrays
from tinyconv import Linear, Sequential, load_weights, models, save_weights
from tinyconv.arrays import Array
from tinyconv.training import weights as module
from tinyconv.training.checkpoints import Checkpoints, read_checkpoint, write_checkpoint

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

NAME = "step-00000001.safetensors"


def some_arrays() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "model/0.weight": rng.standard_normal((2, 3)).astype(np.float32),
        "model/1.num_batches_tracked": np.asarray(7),
        "optimizer/0.weight.exp_avg": rng.standard_normal((3, 2)).T,
        "mask": np.array([True, False]),
        "nothing": np.zeros((0, 3)),
    }


def some_state() -> dict[str, Any]:
    return {"generator": np.random.default_rng(1).bit_generator.state, "epoch": 2, "losses": [0.5, 0.1]}


def assert_equal_arrays(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        assert actual[name].shape == array.shape
        np.testing.assert_array_equal(actual[name], array)


def raw(header: dict[str, Any], data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(*offsets: int, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def as_tensor(text: bytes) -> dict[str, Array]:
    return {"state": np.frombuffer(text, np.uint8)}


def signed(tensors: dict[str, Array], **changes: Any) -> bytes:
    """A checkpoint with a right checksum, whatever else it holds."""
    envelope = {"format": "tinyconv checkpoint", "version": 2, "state": {}, **changes}
    content = save({**as_tensor(json.dumps(envelope).encode()), **tensors}, {"sha256": "0" * 64})
    return content.replace(b"0" * 64, module._checksum(content, "0" * 64).encode(), 1)


# What is written comes back


def test_arrays_and_state_come_back_as_they_were(tmp_path: Path) -> None:
    arrays, state = some_arrays(), some_state()
    before = copy.deepcopy(arrays)
    write_checkpoint(tmp_path / NAME, arrays, state)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    read_arrays, read_state = read_checkpoint(tmp_path / NAME)
    assert_equal_arrays(read_arrays, before)
    assert read_state == state


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_a_generator_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    make = getattr(np.random, kind)
    generator = np.random.Generator(make(3))
    generator.random(5, dtype=np.float32)
    write_checkpoint(tmp_path / NAME, {}, {"generator": generator.bit_generator.state})
    other = np.random.Generator(make(4))
    other.bit_generator.state = read_checkpoint(tmp_path / NAME)[1]["generator"]
    np.testing.assert_array_equal(other.random(9, dtype=np.float32), generator.random(9, dtype=np.float32))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, some_arrays(), some_state())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_arrays_on_the_gpu_are_written_from_there(tmp_path: Path) -> None:
    with strict_arrays.installed() as cupy:
        write_checkpoint(tmp_path / NAME, {"x": cupy.asarray(np.arange(3.0))}, {})
    np.testing.assert_array_equal(read_checkpoint(tmp_path / NAME)[0]["x"], np.arange(3.0))


def test_any_safetensors_reader_takes_a_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / NAME, some_arrays(), some_state())
    tensors = load((tmp_path / NAME).read_bytes())
    assert json.loads(bytes(tensors.pop("state")))["state"] == some_state()
    assert_equal_arrays(tensors, some_arrays())


@pytest.mark.parametrize(
    ("arrays", "state", "error", "message"),
    [
        ({"model/w": np.array([1, np.nan])}, {}, ValueError, "'model/w' has values that are NaN"),
        ({"model/w": np.array([1, -np.inf], np.float32)}, {}, ValueError, "'model/w' has"),
        ({"state": np.zeros(1)}, {}, ValueError, "must not have the name 'state'"),
        ({"../x": np.zeros(1)}, {}, ValueError, "path"),
        ({"x": np.array([object()])}, {}, TypeError, "object"),
        ({"x": [1.0]}, {}, TypeError, "list"),
        ({}, {"x": {1, 2}}, TypeError, "`state` has {1, 2}"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path, arrays: Any, state: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_checkpoint(tmp_path / NAME, arrays, state)
    assert not list(tmp_path.iterdir())


# What is damaged is refused


def assert_refused(path: Path, content: bytes, message: str | None = None) -> None:
    path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is written over
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / NAME, some_arrays(), some_state())
    content = (tmp_path / NAME).read_bytes()
    for length in range(len(content)):
        assert_refused(tmp_path / NAME, content[:length])
    assert_refused(tmp_path / NAME, content + b"\0")


def test_a_flipped_bit_in_any_byte_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / NAME, some_arrays(), some_state())
    content = (tmp_path / NAME).read_bytes()
    for position in range(len(content)):
        for bit in (1 << position % 8, 0x20):  # 0x20 makes a small letter a capital one
            flipped = bytearray(content)
            flipped[position] ^= bit
            assert_refused(tmp_path / NAME, bytes(flipped))


def test_500_random_flips_in_the_checkpoint_of_a_network_are_refused(tmp_path: Path) -> None:
    model = models.lenet5(generator=0)
    write_checkpoint(tmp_path / NAME, {f"model/{k}": v for k, v in model.state_dict().items()}, some_state())
    content = (tmp_path / NAME).read_bytes()
    rng = random.Random(0)
    for _ in range(500):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        assert_refused(tmp_path / NAME, bytes(flipped))


PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")
FOREIGN = {
    "empty": (b"", "(?i)header ?too ?small"),
    "png": (PNG, "not a complete safetensors file"),
    "pickle": (
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.",
        "not a complete safetensors",
    ),
    "text": (b"epoch,loss\n1,0.5\n" * 9, "not a complete safetensors file"),
    "other safetensors": (save({"x": np.zeros(3)}), "not a tinyconv checkpoint"),
    "other metadata": (save({"x": np.zeros(3)}, {"format": "pt"}), "not a tinyconv checkpoint"),
    "no checksum": (
        save(as_tensor(b'{"format": "tinyconv checkpoint", "version": 2, "state": {}}')),
        "not a tinyconv checkpoint",
    ),
    "zeros as checksum": (save({"x": np.zeros(3)}, {"sha256": "0" * 64}), "checksum"),
    "version": (signed({}, version=1), "has the checkpoint format 1, but this tinyconv reads 2"),
    "format": (signed({}, format="other checkpoint"), "not a tinyconv checkpoint"),
    "no state": (signed({}, state=None), "state is not a JSON object"),
    "list as state": (signed({}, state=[1]), "state is not a JSON object"),
    "numbers for JSON": (signed({"state": np.zeros((2, 2))}), "not a tinyconv checkpoint"),
    "text for JSON": (signed(as_tensor(b"epoch 1")), "not a tinyconv checkpoint"),
    "list for JSON": (signed(as_tensor(b"[1]")), "not a tinyconv checkpoint"),
    "deep JSON": (signed(as_tensor(b"[" * 10**6)), "not a tinyconv checkpoint"),
    "NaN": (signed({"model/w": np.array([np.nan])}), "'model/w' has values that are NaN or infinite"),
    "infinity": (signed({"model/w": np.array([np.inf], np.float16)}), "'model/w' has"),
    "huge header": (struct.pack("<Q", 2**60) + b"{}", "(?i)header ?too ?large"),
    "deep header": (struct.pack("<Q", 10**6) + b"[" * 10**6, "not a complete safetensors file"),
    "overlap": (raw({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)), "not a complete safetensors file"),
    "gap": (raw({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "not a complete safetensors file"),
    "out of range": (raw({"a": entry(0, 1 << 40, shape=(1 << 38,))}, bytes(8)), "not a complete safetensors"),
    "backwards": (raw({"a": entry(4, 0)}, bytes(4)), "not a complete safetensors file"),
    "negative shape": (raw({"a": entry(0, 4, shape=(-1,))}, bytes(4)), "not a complete safetensors file"),
    "overflowing shape": (
        raw({"a": entry(0, 4, shape=(2**62, 4))}, bytes(4)),
        "not a complete safetensors file",
    ),
    "huge and empty": (raw({"a": entry(0, 0, shape=(2**64 - 1, 0))}), "cannot be read"),
    "unknown dtype": (raw({"a": entry(0, 4, dtype="PICKLE")}, bytes(4)), "PICKLE|InvalidHeader"),
    "bfloat16": (raw({"a": entry(0, 2, dtype="BF16")}, bytes(2)), "not have the dtype 'BF16'"),
}
PATHS = ["../../x", "/etc/x", "a/../../x", "./x", "a//x", "x/", "", "..", "C:\\x", "x\0", "x\n"]


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_and_hostile_files_are_refused(tmp_path: Path, name: str) -> None:
    content, message = FOREIGN[name]
    assert_refused(tmp_path / NAME, content, message)


@pytest.mark.parametrize("name", PATHS)
def test_names_that_look_like_paths_out_of_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    assert_refused(tmp_path / NAME, signed({name: np.zeros(1)}), "must not look like a path")
    with pytest.raises(ValueError, match="must not look like a path"):
        load_weights(Linear(1, 1), tmp_path / NAME)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_random_headers_end_with_an_error_that_names_the_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    values: list[Any] = [
        None,
        -1,
        0,
        4,
        2**64,
        1e300,
        "F32",
        "../x",
        [],
        [0, 4],
        [2**63, 0],
        {},
        entry(0, 4),
        True,
    ]
    keys = ["__metadata__", "a", "dtype", "shape", "data_offsets", "state"]
    for _ in range(300):
        header: Any = {rng.choice(keys): rng.choice(values) for _ in range(3)}
        header["b"] = {**entry(0, 4), rng.choice(keys): rng.choice(values)}
        assert_refused(tmp_path / NAME, raw(header, bytes(4)))


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - systems word it differently
        read_checkpoint(tmp_path)
    assert str(caught.value.filename) == str(tmp_path)


# Weights


def test_damaged_weights_are_refused_and_leave_the_model(tmp_path: Path) -> None:
    path, model = tmp_path / "weights", Linear(3, 2, generator=0)
    save_weights(model, path)
    content, before = path.read_bytes(), model.state_dict()
    refused = 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.unlink()
        path.write_bytes(flipped)
        try:
            load_weights(model, path)
        except ValueError as error:
            refused += str(path) in str(error)
        assert_equal_arrays(model.state_dict(), before)
    assert refused >= len(content) - len('"sha256"')  # without this key it is a file as PyTorch's, and whole


def test_weights_that_are_nan_are_neither_written_nor_read(tmp_path: Path) -> None:
    path, model = tmp_path / "weights", Sequential(Linear(2, 2, generator=0))
    before = model.state_dict()
    save_file({**before, "0.bias": np.array([0, np.nan], np.float32)}, path)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*'0.bias' has values that are NaN"):
        load_weights(model, path)
    assert_equal_arrays(model.state_dict(), before)
    model.params["0.weight"][1, 0] = np.inf
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} was not written.*'0.weight' has"):
        save_weights(model, path)


# Writing that fails


@pytest.mark.parametrize(
    "call", ["tempfile.mkstemp", "os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"]
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_checkpoint(tmp_path / NAME, {"x": np.zeros(3)}, {})

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="no space"):
        write_checkpoint(tmp_path / NAME, {"x": np.ones(3)}, {})
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert not read_checkpoint(tmp_path / NAME)[0]["x"].any()


def test_file_and_folder_are_flushed_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed, fsync = [], os.fsync

    def spy(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, (tmp_path / NAME).exists()))
        fsync(handle)

    monkeypatch.setattr("os.fsync", spy)
    write_checkpoint(tmp_path / NAME, {}, {})
    file, folder = (tmp_path / NAME).stat().st_ino, tmp_path.stat().st_ino
    assert flushed == [(file, False), (folder, True)][: 2 if os.name == "posix" else 1]


def in_child(function: Callable[[], None]) -> int | None:
    child = multiprocessing.get_context("fork").Process(target=function)
    child.start()
    child.join()
    return child.exitcode


@needs_fork
def test_a_full_disk_ends_with_an_error_and_the_old_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": np.zeros(3)}, {})

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))  # so much goes into a file
        with pytest.raises(OSError, match="File too large"):
            checkpoints.save(2, {"x": np.ones(1 << 16)}, {})

    assert in_child(fill) == 0
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert checkpoints.latest().state["step"] == 1


@needs_fork
def test_a_read_only_folder_ends_with_an_error_and_the_old_checkpoint() -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to the user "nobody"
    try:
        checkpoints = Checkpoints(folder)
        checkpoints.save(1, {"x": np.zeros(3)}, {})
        folder.chmod(0o555)

        def write() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)  # root may write anywhere
            with pytest.raises(PermissionError):
                checkpoints.save(2, {"x": np.ones(3)}, {})

        assert in_child(write) == 0
        assert [path.name for path in folder.iterdir()] == [NAME]
        assert checkpoints.latest().state["step"] == 1
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


# A folder of checkpoints


def filled(folder: Path, metrics: dict[int, float | None], keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, keep)
    for step, metric in metrics.items():
        checkpoints.save(step, {"x": np.full(3, step)}, {"epoch": step // 10}, metric)
    return checkpoints


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in checkpoints.paths()]


def test_the_last_few_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, {10: 0.5, 20: 0.9, 30: 0.9, 40: None, 50: 0.8, 60: np.nan})
    assert steps(checkpoints) == [20, 50, 60]
    assert steps(Checkpoints(tmp_path)) == [20, 50, 60]
    for one in (checkpoints, Checkpoints(tmp_path)):
        assert one.best().state == {"epoch": 2, "step": 20, "metric": 0.9}
        assert one.latest().path == tmp_path / "step-00000060.safetensors"
        np.testing.assert_array_equal(one.latest().arrays["x"], [60, 60, 60])
    Checkpoints(tmp_path, keep=1).save(70, {}, {}, metric=0.95)
    assert steps(checkpoints) == [70]


def test_without_metrics_there_is_a_latest_and_no_best(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, {10: None, 20: None, 30: None})
    assert steps(checkpoints) == [20, 30]
    with pytest.raises(FileNotFoundError, match="no checkpoint with a metric"):
        checkpoints.best()


def test_more_steps_than_eight_digits_are_in_order(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, {99_999_999: None, 100_000_000: None})
    assert checkpoints.latest().state["step"] == 100_000_000


@pytest.mark.parametrize("folder", ["", "none"])
def test_an_empty_or_missing_folder_holds_no_checkpoint(tmp_path: Path, folder: str) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / ".step-00000001.safetensors-x1").write_bytes(b"half")
    for wanted in (Checkpoints(tmp_path / folder).latest, Checkpoints(tmp_path / folder).best):
        with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
            wanted()


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_a_damaged_newest_checkpoint_is_refused_and_the_next_whole_one_offered(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, {10: 0.1, 20: 0.9, 30: 0.3, 40: 0.4}, keep=4)
    for path in checkpoints.paths()[2:]:
        damage(path)
    offered, newest = (re.escape(str(checkpoints.paths()[place])) for place in (1, 3))
    with pytest.raises(
        ValueError, match=f"{newest} .*damaged.*; the next older checkpoint is {offered}: pass it"
    ):
        Checkpoints(tmp_path).latest()
    with pytest.raises(ValueError, match="damaged"):
        Checkpoints(tmp_path).best()
    for path in checkpoints.paths():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no older one can be read"):
        checkpoints.latest()


def test_going_on_from_an_older_checkpoint_drops_the_later_ones(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, {10: 0.1, 20: 0.9, 30: 0.99}, keep=3)
    damage(checkpoints.paths()[-1])
    again = Checkpoints(tmp_path, keep=3)
    again.save(25, {}, {}, metric=0.5)
    assert steps(again) == [10, 20, 25]
    assert again.best().state["step"] == 20


def test_a_metric_that_is_no_number_is_refused_or_never_best(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path, {10: 0.1})
    with pytest.raises(TypeError, match="`metric`"):
        checkpoints.save(20, {}, {}, metric="high")  # type: ignore[arg-type]
    write_checkpoint(tmp_path / "step-00000020.safetensors", {}, {"metric": "high"})
    assert Checkpoints(tmp_path).best().state["step"] == 10


def save_forever(folder: Path) -> None:
    checkpoints = Checkpoints(folder, keep=2)
    step = int(checkpoints.latest().state["step"])
    while True:
        step += 1
        checkpoints.save(step, {"x": np.full(1 << 15, float(step))}, {"losses": [step]}, metric=step % 7)


@needs_fork
def test_a_process_killed_while_writing_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    rng, context = random.Random(0), multiprocessing.get_context("fork")
    filled(tmp_path, {0: -1})
    unfinished = 0
    for _ in range(20):
        before = Checkpoints(tmp_path).latest().state["step"]
        child = context.Process(target=save_forever, args=(tmp_path,))
        child.start()
        while child.is_alive() and not list(tmp_path.glob(f"step-*{before + 1}.*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        child.kill()
        child.join()
        _, arrays, state = Checkpoints(tmp_path).latest()
        assert state["step"] > before
        assert (arrays["x"] == state["step"]).all()
        assert Checkpoints(tmp_path).best().state["metric"] == min(6, state["step"])
        unfinished += len(list(tmp_path.glob(".*")))
    Checkpoints(tmp_path, keep=2).save(state["step"] + 1, {}, {})
    assert unfinished > 0  # some were killed while they wrote
    assert sorted(tmp_path.iterdir()) == Checkpoints(tmp_path).paths()
    assert steps(Checkpoints(tmp_path)) == [6, state["step"], state["step"] + 1]

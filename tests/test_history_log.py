"""The history of a run as lines in a file, and in TensorBoard."""

import importlib.util
import json
import math
import random
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyconv.training.log import HistoryLog


@pytest.fixture(autouse=True)
def without_tensorboard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tensorboard" not in request.node.name:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_bytes().splitlines()]


def opened(folder: Path, step: int = 0) -> HistoryLog:
    log = HistoryLog(folder)
    log.open(step)
    return log


def logged(folder: Path, first: int, last: int) -> None:
    """Each step, and an epoch after each third."""
    with closing(opened(folder, first - 1)) as log:
        for step in range(first, last + 1):
            log.write(step, loss=1 / step)
            if step % 3 == 0:
                log.write(step, epoch=step // 3, train_loss=0.5, validation_accuracy=None)


def test_each_record_is_a_line_that_others_can_read_at_once(tmp_path: Path) -> None:
    log = opened(tmp_path / "run")
    log.write(1, loss=0.5, lr=0.1, epoch=1)
    assert lines(tmp_path / "run") == [{"step": 1, "loss": 0.5, "lr": 0.1, "epoch": 1}]
    log.write(2, loss=math.nan, lr=math.inf, note="diverged")
    assert lines(tmp_path / "run")[1] == {"step": 2, "loss": None, "lr": None, "note": "diverged"}


def test_a_resumed_run_has_each_step_once_wherever_it_was_killed(tmp_path: Path) -> None:
    logged(tmp_path, 1, 9)
    whole = (tmp_path / "history.jsonl").read_bytes()
    rng = random.Random(0)
    for _ in range(30):
        killed = rng.randrange(len(whole) + 1)
        written = [json.loads(line)["step"] for line in whole[:killed].split(b"\n")[:-1]]
        checkpoint = rng.randrange(written[-1]) if written else 0
        (tmp_path / "history.jsonl").write_bytes(whole[:killed])
        logged(tmp_path, checkpoint + 1, 9)
        assert (tmp_path / "history.jsonl").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_a_cut_that_fails_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged(tmp_path, 1, 9)
    whole = (tmp_path / "history.jsonl").read_bytes()

    def fail(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        opened(tmp_path, 4)
    assert (tmp_path / "history.jsonl").read_bytes() == whole


def test_what_a_killed_process_left_of_a_cut_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".history.jsonl-x1y2").write_text('{"step": 1')
    logged(tmp_path, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


@pytest.mark.parametrize(
    "line", ["", "epoch,loss", "[1]", '{"loss": 1}', '{"step": "1"}', pytest.param("[" * 10**5, id="deep")]
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n' + line + '\n{"step": 2}\n')
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}, line 2, is not a JSON object with a step"):
        opened(tmp_path, 1)
    assert path.read_bytes() == before


def test_wrong_steps_and_values_are_refused_and_not_written(tmp_path: Path) -> None:
    log = opened(tmp_path)
    with pytest.raises(TypeError, match="`step`"):
        log.write(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`step`"):
        opened(tmp_path, -1)
    with pytest.raises(TypeError, match="float32"):
        log.write(1, loss=np.float32(1))  # type: ignore[arg-type]
    assert not log.path.exists()


def test_pandas_reads_it_in_one_line(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas reads the file")
    logged(tmp_path, 1, 6)
    table = pandas.read_json(tmp_path / "history.jsonl", lines=True)
    assert table["loss"].dropna().tolist() == pytest.approx([1 / step for step in range(1, 7)])
    assert table["epoch"].dropna().tolist() == [1, 2]


def test_tensorboard_shows_each_step_once_after_a_resumed_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX writes the events")
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard reads the events"
    )
    logged(tmp_path, 1, 6)
    logged(tmp_path, 5, 9)
    shown = events.EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in shown.Scalars("loss")] == list(range(1, 10))
    assert [event.value for event in shown.Scalars("loss")] == pytest.approx([1 / i for i in range(1, 10)])
    assert [event.value for event in shown.Scalars("epoch")] == [1, 2, 3]

"""`python -m tinyconv train`, killed, interrupted and resumed as a user would."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "data" / "mnist"
SMALL = ("--subset", "3000", "--epochs", "2", "--batch-size", "64", "--checkpoint-every", "3")


def run(*options: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tinyconv", "train", "--data", DATA, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, text=True, env=environment, stdout=pipe, stderr=pipe)


def finished(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def test_a_training_is_killed_and_resumed_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = finished(run(*SMALL, "--out", tmp_path / "whole"))
    folder, moments = tmp_path / "run", random.Random(0)
    process = run(*SMALL, "--out", tmp_path / "killed", "--checkpoint-dir", folder)
    for _ in range(3):
        before = len(list(folder.glob("step-*")))
        while len(list(folder.glob("step-*"))) <= min(before, 2) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.communicate()
        process = run("--resume", folder)
    resumed = finished(process)
    assert "going on after" in resumed
    expected = load_file(tmp_path / "whole" / "lenet.safetensors")
    found = load_file(tmp_path / "killed" / "lenet.safetensors")
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    accuracy = [line.split(" after")[0] for line in whole.splitlines() if line.startswith("test accuracy")]
    assert accuracy[0] in resumed
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 95))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX")
def test_ctrl_c_says_how_to_go_on_and_that_works(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = run("--epochs", "1", "--checkpoint-every", "3", "--out", tmp_path, "--checkpoint-dir", folder)
    while not list(folder.glob("step-*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted in the first epoch: to go on from the last checkpoint, run\n" in output
    python, *command = shlex.split(output.splitlines()[-1])
    assert python == "python"
    assert command == ["-m", "tinyconv", "train", "--resume", str(folder), "--data", str(DATA)]
    assert "going on after" in finished(run("--resume", folder))


def test_a_folder_of_another_run_or_of_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text("[]")
    for options, message in (
        (("--checkpoint-dir", tmp_path), "holds another run: --resume it"),
        (("--resume", tmp_path), "does not hold the options of a run"),
        (("--resume", tmp_path / "none"), "No such file"),
    ):
        process = run(*SMALL, *options)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert len(errors.splitlines()) == 1
        assert message in errors

"""`python -m tinyconv`: train, evaluate and summary; see also test_predict.py and test_vectors.py."""

import configparser
import errno
import gzip
import importlib
import io
import os
import re
import struct
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinyconv
from tinyconv.__main__ import main
from tinyconv.commands import errors
from tinyconv.data import load_mnist, normalize
from tinyconv.data.mnist import FILES
from tinyconv.models import lenet5, mnist_cnn

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "data" / "mnist"
QUOTE = '"' if os.name == "nt" else "'"  # of the system's shell


def printed_by(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command.split()) == 0
    printed = capsys.readouterr()
    return printed.out


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with code 2."""
    try:
        code: object = main(command.split())
    except SystemExit as error:
        code = error.code
    printed = capsys.readouterr()
    assert code == 2
    match = re.fullmatch(r"python -m tinyconv.*?: error: (.*)\n", printed.err)
    assert match is not None, printed.err
    return match[1]


def write_data(folder: Path, images: int, seed: int = 0) -> None:
    """A data set of random images, in MNIST's four files."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shape = (images, 28, 28) if "images" in name else (images,)
        values = rng.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8)
        header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        (folder / name).write_bytes(gzip.compress(header + values.tobytes()))


# Trained weights


def test_the_shipped_weights_read_mnist() -> None:
    data = load_mnist(DATA)
    model = lenet5(pretrained=True)
    found = model.predict(normalize(data.test_images)).argmax(axis=1)
    assert (found == data.test_labels).mean() >= 0.992


def test_the_shipped_weights_are_small_and_what_is_loaded() -> None:
    path = Path(tinyconv.__file__).parent / "weights" / "lenet5.safetensors"
    assert path.stat().st_size < 300_000
    state, model = load_file(path), lenet5(pretrained=True)
    assert list(model.state_dict()) == list(lenet5().state_dict())
    assert all((array == state[name]).all() for name, array in model.state_dict().items())


def test_the_shipped_weights_are_converted_and_replace_what_was_drawn() -> None:
    single, double = lenet5(pretrained=True), lenet5(pretrained=True, dtype=np.float64, generator=5)
    assert {array.dtype for array in double.params.values()} == {np.dtype(np.float64)}
    for name, array in double.params.items():
        np.testing.assert_array_equal(array, single.params[name])


# train


def test_train_finds_the_data_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path / "data", 40)
    monkeypatch.setenv("TINYCONV_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    assert "epoch 1/1" in printed_by("train --epochs 1", capsys)
    assert (tmp_path / "runs" / "lenet.safetensors").exists()


def test_a_resumed_run_is_extended_by_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path / "data", 40)
    data, run = f"--data {tmp_path / 'data'}", tmp_path / "run"
    printed_by(f"train {data} --epochs 1 --out {tmp_path / 'out'} --checkpoint-dir {run}", capsys)
    printed = printed_by(f"train {data} --resume {run} --epochs 3", capsys)
    assert re.findall(r"^epoch (\d/\d): ", printed, re.MULTILINE) == ["2/3", "3/3"]
    message = refused(f"train {data} --resume {run} --epochs 2", capsys)
    assert message == f"--epochs (=2) must be at least 3: the run in {run} can only be extended"
    assert "epochs 3" in printed_by(f"train {data} --resume {run}", capsys)


@pytest.mark.parametrize(
    ("option", "given", "own"),
    [
        ("--seed 5", "5", "4"),
        ("--model cnn", "cnn", "lenet"),
        ("--no-augment", "False", "True"),
        ("--batch-size 65", "65", "128"),
        ("--lr 0.5", "0.5", "0.01"),
        ("--subset 32", "32", "None"),
        ("--out elsewhere", "elsewhere", "runs"),
        ("--checkpoint-every 7", "7", "200"),
    ],
)
def test_an_option_that_contradicts_the_resumed_run_is_refused_by_name(
    option: str,
    given: str,
    own: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", 40)
    printed_by("train --data data --epochs 1 --seed 4 --checkpoint-dir run", capsys)
    name = option.split()[0].replace("--no-", "--")
    assert refused(f"train --data data --resume run {option}", capsys) == (
        f"{name} (={given}) contradicts the run in run, which has {own}: leave it out"
    )
    same = "--seed 4 --model lenet --batch-size 128 --lr 0.01 --out runs --checkpoint-every 200"
    printed_by(f"train --data data --resume run {same}", capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "interrupted in the first epoch: nothing was saved (with --checkpoint-dir it would be)"),
        (
            "--checkpoint-dir run",
            "interrupted in the first epoch: to go on from the beginning, as there is no checkpoint yet, run"
            f"\n    python -m tinyconv train --resume run --data {QUOTE}my data{QUOTE}",
        ),
    ],
)
def test_ctrl_c_in_the_first_epoch_says_what_was_saved(
    options: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tinyconv.Trainer, "fit", interrupted)
    write_data(tmp_path / "my data", 40)
    assert main(["train", "--data", "my data", *options.split()]) == 130
    printed = capsys.readouterr()
    assert printed.out.endswith(f"\n{message}\n")
    assert not list(Path("runs").iterdir())


def test_train_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path / "data", 40)
    (tmp_path / "file").touch()
    data = f"--data {tmp_path / 'data'}"
    assert "`lr`" in refused(f"train {data} --lr -1 --out {tmp_path}", capsys)
    assert "--epochs" in refused(f"train {data} --epochs 0", capsys)
    assert "file" in refused(f"train {data} --out {tmp_path / 'file'}", capsys)
    assert str(tmp_path / "none") in refused(f"train --data {tmp_path / 'none'}", capsys)
    (tmp_path / "data" / "train-images-idx3-ubyte.gz").write_bytes(b"")
    assert "train-images-idx3-ubyte.gz" in refused(f"train {data} --out {tmp_path}", capsys)


# evaluate


def test_evaluate_prints_loss_accuracy_and_the_errors_of_each_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    title, _, *rows = printed_by(f"evaluate --data {DATA}", capsys).splitlines()
    match = re.fullmatch(r"test loss (0\.0\d+), accuracy (99\.\d+)% of 10,000 images", title)
    assert match is not None
    cells = [row.replace(",", "").split() for row in rows]
    assert [row[0] for row in cells] == list("0123456789")
    assert sum(int(row[1]) for row in cells) == 10_000
    wrong = sum(int(row[2]) for row in cells)
    assert 100 - wrong / 100 == pytest.approx(float(match[2]))


def test_evaluate_takes_weights_of_either_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path / "data", 30)
    for name, model in (("lenet", lenet5(generator=0)), ("cnn", mnist_cnn(generator=0))):
        path = tmp_path / f"{name}.safetensors"
        tinyconv.save_weights(model, path)
        options = f"--model {name} --weights {path} --data {tmp_path / 'data'}"
        assert " of 30 images" in printed_by(f"evaluate {options}", capsys)


def test_evaluate_refuses_wrong_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    tinyconv.save_weights(lenet5(generator=0), path)
    command = f"evaluate --data {DATA} --weights {path}"
    assert "a.safetensors does not hold the weights" in refused(f"{command} --model cnn", capsys)
    path.write_bytes(path.read_bytes()[:-5])
    assert "a.safetensors is not a complete safetensors file" in refused(command, capsys)
    assert "none.safetensors" in refused(f"evaluate --weights {tmp_path / 'none.safetensors'}", capsys)
    assert "needs --weights" in refused("evaluate --model cnn", capsys)


def test_evaluate_refuses_a_folder_without_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYCONV_DATA", str(DATA))
    for folder in (tmp_path, tmp_path / "none"):
        assert f"{folder} holds none of" in refused(f"evaluate --data {folder}", capsys)
    write_data(tmp_path, 10)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte.gz is missing" in refused(f"evaluate --data {tmp_path}", capsys)


def test_evaluate_says_what_data_it_wants_where_it_cannot_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*args: object) -> None:
        raise OSError("the download of MNIST failed:\n  no route to host")

    monkeypatch.delenv("TINYCONV_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tinyconv.data.mnist._download", offline)
    monkeypatch.chdir(tmp_path)
    for command in ("evaluate", "train"):
        message = refused(command, capsys)
        assert message.startswith("the download of MNIST failed: no route to host; without a download, ")
        assert f"--data DIR must name a folder that holds {', '.join(FILES)} " in message


def test_evaluate_finds_the_data_of_the_checkout_that_it_is_run_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TINYCONV_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples" / "data").mkdir(parents=True)
    write_data(tmp_path / "examples" / "data" / "mnist", 30)
    write_data(tmp_path / "own", 20)
    assert " of 30 images" in printed_by("evaluate", capsys)
    assert " of 20 images" in printed_by("evaluate --data own", capsys)
    monkeypatch.setenv("TINYCONV_DATA", str(tmp_path / "own"))
    assert " of 20 images" in printed_by("evaluate", capsys)


# The others


def test_the_console_script_is_main_under_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, place = setup["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = place.partition(":")
    assert getattr(importlib.import_module(module), function) is main
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{name}", "fly"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith("tinyconv: error: ")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tinyconv {tinyconv.__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are POSIX's")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["summary", "--help", "summary --help", "--version"])
def test_a_pipe_that_nobody_reads_is_not_an_error(command: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tinyconv", *command.split()],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


class Unwritable(io.StringIO):
    """A stdout that is written to nowhere."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, "it is flushed")

    def fileno(self) -> int:
        return -1


@pytest.mark.parametrize(
    ("system", "number", "is_closed"),
    [
        ("posix", errno.EPIPE, True),
        ("posix", errno.EINVAL, False),
        ("posix", errno.ENOSPC, False),
        ("nt", errno.EINVAL, True),
        ("nt", errno.ENOSPC, False),
    ],
)
def test_only_the_error_of_a_closed_pipe_is_passed_over(
    system: str, number: int, is_closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[int] = []
    theirs = SimpleNamespace(name=system, devnull=os.devnull, O_WRONLY=os.O_WRONLY)
    theirs.open, theirs.dup2 = lambda *_: 0, lambda _, there: replaced.append(there)
    monkeypatch.setattr(errors, "os", theirs)
    monkeypatch.setattr(sys, "stdout", Unwritable(number))
    with nullcontext() if is_closed else pytest.raises(OSError, match="it is flushed"):
        errors.flush_output()
    assert replaced == [-1] * is_closed


@pytest.mark.parametrize(("model", "total"), [("lenet", "61,706"), ("cnn", "2,381,066")])
def test_summary_prints_the_table(model: str, total: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(rf"total +{total} ", printed_by(f"summary --model {model}", capsys))


@pytest.mark.parametrize("command", ["", "fly", "predict", "summary --model vgg", "evaluate --weights"])
def test_wrong_arguments_give_one_line_and_code_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(command, capsys)


@pytest.mark.parametrize("command", ["", "train", "evaluate", "predict", "summary", "vectors"])
def test_help_is_printed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert "usage: python -m tinyconv" in capsys.readouterr().out

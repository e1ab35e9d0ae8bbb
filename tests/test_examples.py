"""examples/mnist.py, `python -m tinyconv train` and the package's imports, as a user runs them."""

import gzip
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinyconv
from tinyconv.arrays import gpu_available
from tinyconv.data import load_mnist, normalize

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "data" / "mnist"
EXAMPLE = str(ROOT / "examples" / "mnist.py")
TRAIN = ("-m", "tinyconv", "train", "--data", str(DATA))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def run(*args: str, code: int = 0, cwd: Path = ROOT) -> str:
    """Run Python with `args`; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd, timeout=1800
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(*args: str, out: Path, code: int = 0) -> str:
    return run(*TRAIN, "--out", str(out), *args, code=code)


# The example


def test_the_example_trains_and_says_how_well(tmp_path: Path) -> None:
    printed = run(EXAMPLE, "--subset", "2000", "--epochs", "2", cwd=tmp_path)
    losses = re.findall(r"^epoch \d/2: training loss (\d\.\d+), [\d.]+ s$", printed, re.MULTILINE)
    assert len(losses) == 2
    assert float(losses[1]) < float(losses[0])
    accuracy = re.search(r"^test accuracy (\d+\.\d+)%$", printed, re.MULTILINE)
    assert accuracy is not None
    assert float(accuracy[1]) > 50
    assert not list(tmp_path.iterdir())


def test_the_examples_loop_is_the_trainers() -> None:
    mnist = runpy.run_path(EXAMPLE)
    data = load_mnist(DATA)
    images, labels = normalize(data.train_images[:640]), data.train_labels[:640]
    rng = np.random.default_rng(3)
    ours = mnist["lenet5"](rng)
    mnist["train"](ours, images, labels, 2, rng, tinyconv.training.Communicator())

    rng = np.random.default_rng(3)
    model = tinyconv.models.lenet5(generator=rng)
    optimizer = tinyconv.optim.AdamW(model, lr=0.005, weight_decay=0.1)
    schedule = tinyconv.optim.OneCycleLR(optimizer, 0.005, total_steps=20)
    trainer = tinyconv.Trainer(model, tinyconv.CrossEntropyLoss(), optimizer, schedule, progress=False)
    trainer.fit((images, labels), 2, generator=rng)
    for name, param in model.params.items():
        np.testing.assert_allclose(ours.params[name], param, rtol=1e-3, atol=1e-4, err_msg=name)
    test = normalize(data.test_images[:200]), data.test_labels[:200]
    assert mnist["accuracy"](ours, *test) == pytest.approx(trainer.evaluate(test).accuracy, abs=0.011)


@pytest.mark.slow
def test_the_example_reaches_its_accuracy() -> None:
    found = re.search(r"test accuracy (\d+\.\d+)%", run(EXAMPLE))
    assert found is not None
    assert float(found[1]) >= 99.1


# Training


@pytest.mark.parametrize(("model", "subset"), [("lenet", "2000"), ("cnn", "320")])
def test_train_reports_and_saves(tmp_path: Path, model: str, subset: str) -> None:
    printed = train("--model", model, "--subset", subset, "--epochs", "2", out=tmp_path)
    assert "multiply-adds" in printed
    assert len(re.findall(r"epoch \d/2: .*test loss .*accuracy \d+\.\d+%", printed)) == 2
    accuracy = re.search(r"test accuracy (\d+\.\d+)% after [\d.]+ s, training at [\d,]+ images/s", printed)
    assert accuracy is not None
    assert float(accuracy[1]) > 50
    written = [f"{model}.png"] * (find_spec("matplotlib") is not None) + [f"{model}.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == written
    make = {"lenet": tinyconv.models.lenet5, "cnn": tinyconv.models.mnist_cnn}[model]
    tinyconv.load_weights(make(), tmp_path / f"{model}.safetensors")


def test_equal_seeds_give_equal_weights_and_others_do_not(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        train("--subset", "256", "--epochs", "1", "--seed", seed, out=tmp_path / name)
        files.append(load_file(tmp_path / name / "lenet.safetensors"))
    first, same, other = files
    assert all((first[name] == same[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_help_explains_every_option() -> None:
    printed = run(*TRAIN, "--help")
    options = "--model --epochs --batch-size --lr --seed --data --out --device --subset"
    for option in options.split():
        assert option in printed


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX")
def test_interrupting_keeps_what_has_been_learnt(tmp_path: Path) -> None:
    command = [sys.executable, *TRAIN, "--out", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--epochs", "100", "--subset", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch 6"):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    accuracy = re.search(r"test accuracy (\d+\.\d+)%", rest)
    assert accuracy is not None
    assert float(accuracy[1]) > 60
    assert (tmp_path / "lenet.safetensors").exists()


@pytest.mark.skipif(gpu_available(), reason="there is a GPU")
def test_a_missing_gpu_gives_one_line_and_code_2(tmp_path: Path) -> None:
    printed = train("--device", "cuda", out=tmp_path, code=2)
    assert re.fullmatch(r"python -m tinyconv train: error: `device` \(='cuda'\) needs a GPU, .*\n", printed)


def test_wrong_files_and_arguments_give_one_line_and_code_2(tmp_path: Path) -> None:
    for name in tinyconv.data.mnist.FILES:
        (tmp_path / name).write_bytes(gzip.compress(b"nothing"))
    printed = train("--data", str(tmp_path), out=tmp_path / "out", code=2)
    assert re.fullmatch(
        r"python -m tinyconv train: error: .*train-images-idx3-ubyte\.gz is not an IDX file.*\n", printed
    )
    (tmp_path / "file").touch()
    assert "error" in train("--subset", "64", out=tmp_path / "file", code=2)
    assert "--epochs" in train("--epochs", "0", out=tmp_path, code=2)
    assert "`lr`" in train("--lr", "-1", out=tmp_path, code=2)
    assert "epoch 1, step" in train("--lr", "1e30", "--model", "cnn", "--subset", "640", out=tmp_path, code=2)


@pytest.mark.slow
def test_lenet_reaches_its_accuracy(tmp_path: Path) -> None:
    found = [
        re.search(r"test accuracy (\d+\.\d+)%", train("--seed", seed, out=tmp_path))
        for seed in ("0", "1", "2")
    ]
    assert np.median([float(match[1]) for match in found if match is not None]) >= 99.2


@pytest.mark.slow
def test_the_cnn_reaches_its_accuracy(tmp_path: Path) -> None:
    best = re.search(r"best after epoch \d: (\d+\.\d+)%", train("--model", "cnn", out=tmp_path))
    assert best is not None
    assert float(best[1]) >= 99.1


# Imports


def test_importing_tinyconv_imports_numpy_and_little_else() -> None:
    heavy = ("matplotlib", "cupy", "tqdm", "mnist", "torch", "onnx", "scipy", "safetensors", "threadpoolctl")
    code = f"import sys, tinyconv; print([m for m in {heavy!r} if m in sys.modules])"
    assert run("-c", code).strip() == "[]"


def test_the_public_names_exist_and_are_documented() -> None:
    for name in vars(tinyconv)["__all__"]:
        assert getattr(tinyconv, name).__doc__, name
    functions = {name: value for name, value in vars(tinyconv.functional).items() if callable(value)}
    assert len(functions) > 100
    for name, function in functions.items():
        assert function.__doc__, name


def test_imports_run_one_way() -> None:
    """arrays <- functional <- layers <- (optim, models, data) <- training, as the architecture says."""
    floors = [
        "files",
        "arrays",
        "arguments",
        "functional",
        "layers",
        "data",
        "optim",
        "models",
        "training",
        "gradients",
    ]
    allowed = {
        "arrays": {"gpu"},  # the door to cuBLAS: products.py alone
        "gpu": {"arrays"},
        "arguments": {"arrays"},
        "init": {"arrays", "arguments"},
        "signature": set(),
        "files": set(),
        "optional": set(),
        "functional": {"arrays", "arguments"},
        "layers": {"arrays", "arguments", "functional", "signature"},
        "data": {"arrays", "arguments"},
        "optim": {"arrays", "arguments", "layers", "signature"},
        "models": {"arrays", "arguments", "layers"},
        "training": {"arrays", "gpu", "arguments", "files", "layers", "data", "optim", "signature"},
        "convert": {"arrays", "arguments", "functional", "files", "layers", "optional", "signature"},
        "gradients": {"arrays", "arguments", "functional", "layers"},
        "testing": {"arrays", "gradients"},
        "reference": {"arrays"},
        "vectors": {"arrays", "arguments", "files", "functional", "gradients", "layers", "signature"},
        "recipes": {"arrays", "data", "files", "layers", "models", "optim", "training"},
        "commands": {
            *(
                "arguments",
                "arrays",
                "data",
                "functional",
                "layers",
                "models",
                "optional",
                "recipes",
                "training",
                "vectors",
            )
        },
        "web": {"arguments", "arrays", "data", "functional", "layers", "models", "optim", "training"},
        "__main__": {"commands"},
        "plots": {"arrays", "arguments", "files", "functional", "layers", "optional", "training"},
    }
    package = ROOT / "tinyconv"
    for path in package.rglob("*.py"):
        floor = path.relative_to(package).parts[0].removesuffix(".py")
        if floor == "__init__":
            continue
        imported = re.findall(
            r"^(?:from|import) tinyconv\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert set(imported) <= allowed[floor] | {floor}, path
    assert set(floors) <= set(allowed)


# Pictures


def test_the_report_is_drawn_for_ordinary_and_extreme_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from tinyconv.plots import training_report
    from tinyconv.training import Epoch, History

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (40, 8, 8), np.uint8)
    labels = rng.integers(0, 10, 40)
    right = np.eye(10, dtype=np.float32)[labels] * 9
    wrong = rng.standard_normal((40, 10)).astype(np.float32)
    epoch = Epoch(1, 3, 0.1, 1.0, 0.5, 0.9, 0.6, 1.0, 1.0)
    for number, (history, logits) in enumerate(
        [
            (History([epoch], [2.0, 1.0, 0.5]), wrong),
            (History([epoch], [2.0, 1.0, 0.5]), right),
            (History([], [2.0]), wrong),
            (History(), wrong),
            (History([Epoch(1, 1, 0.1, 1.0, None, None, None, 1.0, 1.0)], [1.0]), wrong),
        ]
    ):
        path = tmp_path / f"{number}.png"
        training_report(history, images, labels, logits, path)
        assert path.read_bytes().startswith(b"\x89PNG")

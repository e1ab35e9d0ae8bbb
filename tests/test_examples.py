"""The example, the README's script and the package's imports, as a user runs them."""

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinyconv
from tinyconv.arrays import gpu_available

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def run(*args: str, code: int = 0, cwd: Path = ROOT) -> str:
    """Run Python with `args`; returns what it printed."""
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd, timeout=1800
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def example(*args: str, out: Path, code: int = 0) -> str:
    return run(str(ROOT / "examples" / "mnist.py"), "--out", str(out), *args, code=code)


@pytest.mark.parametrize(("model", "subset"), [("lenet", "2000"), ("cnn", "320")])
def test_the_example_trains_reports_and_saves(tmp_path: Path, model: str, subset: str) -> None:
    printed = example("--model", model, "--subset", subset, "--epochs", "2", out=tmp_path)
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
        example("--subset", "256", "--epochs", "1", "--seed", seed, out=tmp_path / name)
        files.append(load_file(tmp_path / name / "lenet.safetensors"))
    first, same, other = files
    assert all((first[name] == same[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_help_explains_every_option() -> None:
    printed = run(str(ROOT / "examples" / "mnist.py"), "--help")
    options = "--model --epochs --batch-size --lr --seed --data --out --device --subset"
    for option in options.split():
        assert option in printed


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX")
def test_interrupting_keeps_what_has_been_learnt(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "mnist.py"), "--out", str(tmp_path)]
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
    printed = example("--device", "cuda", out=tmp_path, code=2)
    assert re.fullmatch(r"mnist.py: error: `device` \(='cuda'\) needs a GPU, .*\n", printed)


def test_wrong_files_and_arguments_give_one_line_and_code_2(tmp_path: Path) -> None:
    for name in tinyconv.data.mnist.FILES:
        (tmp_path / name).write_bytes(gzip.compress(b"nothing"))
    printed = example("--data", str(tmp_path), out=tmp_path / "out", code=2)
    assert re.fullmatch(r"mnist\.py: error: .*train-images-idx3-ubyte\.gz is not an IDX file.*\n", printed)
    (tmp_path / "file").touch()
    assert "error" in example("--subset", "64", out=tmp_path / "file", code=2)
    assert "--epochs" in example("--epochs", "0", out=tmp_path, code=2)
    assert "`lr`" in example("--lr", "-1", out=tmp_path, code=2)
    assert "epoch 1, step" in example(
        "--lr", "1e30", "--model", "cnn", "--subset", "640", out=tmp_path, code=2
    )


@pytest.mark.slow
def test_lenet_reaches_its_accuracy(tmp_path: Path) -> None:
    found = [
        re.search(r"test accuracy (\d+\.\d+)%", example("--seed", seed, out=tmp_path))
        for seed in ("0", "1", "2")
    ]
    assert np.median([float(match[1]) for match in found if match is not None]) >= 99.2


@pytest.mark.slow
def test_the_cnn_reaches_its_accuracy(tmp_path: Path) -> None:
    best = re.search(r"best after epoch \d: (\d+\.\d+)%", example("--model", "cnn", out=tmp_path))
    assert best is not None
    assert float(best[1]) >= 99.1


# README


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_training_script_is_short_and_runs() -> None:
    script = next(block for block in code_blocks("python") if "Trainer" in block)
    assert len(script.strip().splitlines()) < 15
    small = script.replace("mnist.train_images", "mnist.train_images[:2000]").replace(
        "mnist.train_labels", "mnist.train_labels[:2000]"
    )
    assert small != script
    accuracy = float(run("-c", small).split()[0])  # before the epoch's line, which goes to stderr
    assert accuracy > 0.5


def test_the_readmes_other_python_runs() -> None:
    for block in code_blocks("python"):
        if "Trainer" not in block:
            run("-c", block)


README_LAYER = next(block for block in code_blocks("python") if "class ReLU" in block)


@pytest.mark.parametrize(
    "operator", ["relu", "sigmoid", "tanh", "gelu", "softplus", "silu", "elu", "leaky_relu"]
)
def test_the_readmes_layer_is_a_pattern_for_every_activation(operator: str) -> None:
    code, count = re.subn(r"\brelu(?=\(|_backward\()", operator, README_LAYER)
    assert count == 2
    found: dict[str, Any] = {}
    exec(code, found)
    x = np.random.default_rng(1).normal(size=(4, 5)) * 2
    np.testing.assert_array_equal(found["ReLU"]().forward(x), getattr(tinyconv.functional, operator)(x))
    assert tinyconv.gradcheck(found["ReLU"](), x) == (20, ())


# Imports


def test_importing_tinyconv_imports_numpy_and_little_else() -> None:
    heavy = ("matplotlib", "cupy", "tqdm", "mnist", "torch", "onnx", "scipy", "safetensors", "threadpoolctl")
    code = f"import sys, tinyconv; print([m for m in {heavy!r} if m in sys.modules])"
    assert run("-c", code).strip() == "[]"


def test_the_public_names_exist_and_are_documented() -> None:
    for name in tinyconv.__all__:
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
        "signature": set(),
        "files": set(),
        "functional": {"arrays", "arguments"},
        "layers": {"arrays", "arguments", "functional", "signature"},
        "data": {"arrays", "arguments"},
        "optim": {"arrays", "arguments", "layers", "signature"},
        "models": {"arrays", "arguments", "layers"},
        "training": {"arrays", "gpu", "arguments", "files", "layers", "data", "optim"},
        "convert": {"arrays", "arguments", "functional", "files", "layers", "signature"},
        "gradients": {"arrays", "arguments", "functional", "layers"},
        "testing": {"arrays", "gradients"},
        "reference": {"arrays"},
        "vectors": {"arrays", "arguments", "files", "layers", "signature"},
        "recipes": {"data", "files", "layers", "models", "optim", "training"},
        "commands": {
            *(
                "arguments",
                "arrays",
                "data",
                "functional",
                "layers",
                "models",
                "recipes",
                "training",
                "vectors",
            )
        },
        "__main__": {"commands"},
        "plots": {"arrays", "arguments", "files", "functional", "layers", "training"},
    }
    package = ROOT / "tinyconv"
    for path in package.rglob("*.py"):
        floor = path.relative_to(package).parts[0].removesuffix(".py")
        if floor == "__init__":
            continue
        imported = re.findall(r"^(?:from|import) tinyconv\.(\w+)", path.read_text(), re.MULTILINE)
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

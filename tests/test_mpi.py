"""Ranks that mpiexec starts: the training of one process, and an end of all of them for every kind of end."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinyconv as tc
from tests.rank_runs import RUNS, result
from tests.test_ranks import assert_same
from tinyconv.data import DataLoader, load_mnist, normalize

ROOT = Path(__file__).parent.parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIEXEC is None,
    reason="needs mpi4py and an MPI (the package mpich brings one)",
)
# Open MPI wants to be asked for what MPICH does.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "true",
}
LIMIT = 240  # seconds


def command(size: int, *arguments: str) -> list[str]:
    return [str(MPIEXEC), "-n", str(size), sys.executable, "-m", "mpi4py", *arguments]


def mpiexec(size: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a Python program on so many ranks, to its end."""
    return subprocess.run(
        command(size, *arguments),
        cwd=ROOT,
        env=os.environ | OPEN_MPI,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all trainings of `rank_runs`, on two and on three ranks."""
    folder = tmp_path_factory.mktemp("mpi")
    for size in (2, 3):
        own = folder / str(size)
        own.mkdir()
        ended = mpiexec(size, "-m", "tests.rank_runs", str(own), *RUNS)
        assert ended.returncode == 0, ended.stderr
        assert len(list(own.glob("ended *"))) == size
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_ranks_train_as_one_process(name: str, runs: Path) -> None:
    expected = result(RUNS[name]())
    for size in (2, 3):
        ranks = [dict(np.load(runs / str(size) / f"{name} {rank}.npz")) for rank in range(size)]
        assert_same(ranks[0], expected)
        for other in ranks[1:]:
            for key, value in ranks[0].items():
                np.testing.assert_array_equal(other[key], value, err_msg=key)


LENET = """
import sys
import numpy as np
import tinyconv as tc
from tinyconv.data import DataLoader, load_mnist, normalize

communicator = tc.training.default_communicator()
mnist = load_mnist(sys.argv[1])
model = tc.models.lenet5(generator=0)
optimizer = tc.optim.SGD(model, lr=0.02, momentum=0.9)
images = normalize(mnist.train_images[:3200])
batches = DataLoader((images, mnist.train_labels[:3200]), 64, shuffle=True, generator=1)
trainer = tc.Trainer(model, tc.CrossEntropyLoss(), optimizer, communicator=communicator, progress=False)
trainer.fit(batches)
if communicator.rank == 0:
    np.save(sys.argv[2], trainer.history.step_losses)
"""


def test_lenet_has_the_losses_of_one_process(tmp_path: Path) -> None:
    data = ROOT / "examples" / "data" / "mnist"
    (tmp_path / "train.py").write_text(LENET)
    found = {}
    for size in (1, 2, 3):
        ended = mpiexec(size, str(tmp_path / "train.py"), str(data), str(tmp_path / f"{size}.npy"))
        assert ended.returncode == 0, ended.stderr
        found[size] = np.load(tmp_path / f"{size}.npy")
    mnist = load_mnist(data)
    model = tc.models.lenet5(generator=0)
    optimizer = tc.optim.SGD(model, lr=0.02, momentum=0.9)
    images = normalize(mnist.train_images[:3200])
    batches = DataLoader((images, mnist.train_labels[:3200]), 64, shuffle=True, generator=1)
    alone = tc.Trainer(model, tc.CrossEntropyLoss(), optimizer, progress=False)
    losses = np.array(alone.fit(batches).step_losses)
    assert len(losses) == 50
    np.testing.assert_array_equal(found[1], losses)
    for size in (2, 3):
        np.testing.assert_allclose(found[size], losses, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("program", [["examples/mnist.py"], ["-m", "tinyconv", "train"]], ids=" ".join)
def test_two_ranks_reach_the_accuracy_of_one(program: list[str], tmp_path: Path) -> None:
    options = ["--out", str(tmp_path)] if "train" in program else []
    ended = mpiexec(2, *program, *options)
    assert ended.returncode == 0, ended.stderr
    accuracies = re.findall(r"^test accuracy (\d+\.\d+)%", ended.stdout, re.MULTILINE)
    assert len(accuracies) == 1  # of the first rank alone
    assert float(accuracies[0]) >= 99.2


# However it ends, it ends on all ranks

ENDINGS = """
import os, signal, sys, time
import tinyconv as tc
from tests.rank_runs import data, loader, train, trainer
from tinyconv.training import Callback, MPICommunicator

communicator = MPICommunicator()
how, folder = sys.argv[1:]

class Fails(tc.Layer):
    count = 0
    def forward(self, x):
        self.count += 1
        if communicator.rank == 1 and self.count == 3:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("too hot")
        return self.save(x)
    def backward(self, grad_output):
        self.saved(grad_output)
        return grad_output
    def output_shape(self, input_shape):
        return input_shape

def slowly(x):
    open(f"{folder}/started {communicator.rank} {os.getpid()}", "w")
    time.sleep(0.1)
    return x

try:
    if how == "interrupted":
        for _ in range(50):
            train(loader(transform=slowly), communicator=communicator)
    elif how == "callback":
        class Fails(Callback):
            def on_epoch_end(self, run):
                raise OSError("the disk is full")
            def close(self):
                print("it is closed", file=sys.stderr)
        made = trainer(communicator=communicator)
        made.run.callbacks.append(Fails())
        made.fit(loader())
    elif how == "own samples":
        x, y = (array[communicator.rank::2][:20] for array in data())
        train((x, y), communicator=communicator)
    elif how == "close":
        class FailsToClose(Callback):
            def close(self):
                raise OSError("the disk is full")
        made = trainer(communicator=communicator)
        made.run.callbacks.append(FailsToClose())
        made.fit(loader())
    elif how == "own model":
        train(loader(), extra=(tc.ReLU(),) * communicator.rank, communicator=communicator)
    elif how == "own arguments":
        train(loader(), validation=None if communicator.rank else data(), communicator=communicator)
    elif how == "nan":
        x, y = data()
        x[27] = float("inf")
        train((x, y), communicator=communicator)
    else:
        train(loader(), extra=(Fails(),), communicator=communicator)
except (KeyboardInterrupt, FloatingPointError) as error:
    print(f"rank {communicator.rank}: {type(error).__name__}", flush=True)
    communicator.barrier()  # which all reach
    sys.exit(3)
"""


@pytest.fixture
def endings(tmp_path: Path) -> str:
    path = tmp_path / "endings.py"
    path.write_text(ENDINGS)
    return str(path)


def said(output: str) -> list[str]:
    """What the ranks have printed, which may be on one line."""
    return sorted(re.findall(r"rank \d: [A-Z]\w+?(?:Error|Interrupt)", output))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("error", "rank 1 of 2 failed, and ends all"),
        ("error", "ValueError: layer '4' (Sequential): layer '1' (Fails): too hot"),
        ("callback", "OSError: the disk is full"),
        ("callback", "it is closed"),
        ("killed", ""),
        ("close", "rank 0 of 2 failed, and ends all"),
        ("own samples", "ValueError: the data of rank 1 are not those of rank 0"),
        (
            "own model",
            "ValueError: rank 1 does not train what rank 0 trains: it is of another run, with model",
        ),
        ("own arguments", "to epoch 2, without validation, but rank 0 CrossEntropyLoss(), to epoch 2, with "),
    ],
)
def test_an_end_of_one_rank_is_the_end_of_all(how: str, message: str, endings: str, tmp_path: Path) -> None:
    ended = mpiexec(2, endings, how, str(tmp_path))
    assert ended.returncode not in (0, 3)
    assert message in ended.stderr


def test_a_loss_that_is_not_finite_is_the_same_error_on_all_ranks(endings: str, tmp_path: Path) -> None:
    ended = mpiexec(3, endings, "nan", str(tmp_path))
    assert said(ended.stdout) == [f"rank {rank}: FloatingPointError" for rank in range(3)]


@pytest.mark.parametrize("whom", ["mpiexec", "one rank"])
def test_an_interrupt_is_one_on_all_ranks(whom: str, endings: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(2, endings, "interrupted", str(tmp_path)),
        cwd=ROOT,
        env=os.environ | OPEN_MPI,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + LIMIT
    while len(started := list(tmp_path.glob("started *"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    one = next(int(path.name.split()[2]) for path in started if path.name.split()[1] == "1")
    os.kill(process.pid if whom == "mpiexec" else one, signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert said(out) == [f"rank {rank}: KeyboardInterrupt" for rank in range(2)], err


@pytest.mark.parametrize("when", ["before", "after"])
def test_workers_are_refused_where_mpi_runs(when: str, tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(f"""
from tests.rank_runs import loader, trainer
if {when == "before"}:
    from mpi4py import MPI
made = trainer(workers=2)
from mpi4py import MPI
made.fit(loader())
""")
    ended = mpiexec(1, str(script))
    assert "`workers` (=2) must be 1 where MPI runs" in ended.stderr


def test_the_examples_of_communicators_run() -> None:
    code = "import doctest, tinyconv.training.communicator as c; print(doctest.testmod(c, verbose=True))"
    ended = mpiexec(1, "-c", code)
    assert ended.stdout.strip().endswith("TestResults(failed=0, attempted=6)"), ended.stdout + ended.stderr
    assert "MPICommunicator(rank=0, size=1)" in ended.stdout


def test_the_command_trains_on_one_rank_too(tmp_path: Path) -> None:
    data = ROOT / "examples" / "data" / "mnist"
    options = ["--subset", "100", "--epochs", "1", "--data", str(data), "--out", str(tmp_path)]
    ended = mpiexec(1, "-m", "tinyconv", "train", *options)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "lenet.safetensors").exists()


def test_without_mpi4py_a_process_of_mpiexec_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'needs mpi4py: pip install "tinyconv\[mpi\]"'):
        tc.training.default_communicator()

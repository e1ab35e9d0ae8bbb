"""The autoencoder, the GANs and PyTorch's MNIST script: run as a user runs them, on a few images."""

import gzip
import importlib.util
import re
import struct
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinyconv as tc
from tinyconv.arrays import Array
from tinyconv.plots.grids import image_grid

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("autoencoder", "dcgan")


@pytest.fixture
def example(imported: Callable[[Path, str], ModuleType]) -> Callable[[str], ModuleType]:
    """Imports an example by its name."""
    return partial(imported, EXAMPLES)


@pytest.fixture
def run(
    example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs an example with a folder to write to and further arguments; returns what it printed."""

    def main(name: str, out: Path, *args: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", str(out), *args])
        example(name).main()
        return capsys.readouterr().out

    return main


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the first 1280 training images of MNIST, and the first 100 test images."""
    folder, mnist = tmp_path_factory.mktemp("few"), tc.data.load_mnist(EXAMPLES / "data" / "mnist")
    for name, array in zip(tc.data.mnist.FILES, mnist, strict=True):
        part = array[: 1280 if name.startswith("train") else 100]
        header = struct.pack(f">HBB{part.ndim}I", 0, 8, part.ndim, *part.shape)
        (folder / name).write_bytes(gzip.compress(header + part.tobytes(), 1))
    return str(folder)


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_autoencoder_learns_and_draws_two_pictures(
    run: Callable[..., str], few: str, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    printed = run("autoencoder", tmp_path, "--data", few, "--epochs", "3")
    losses = [float(loss) for loss in re.findall(r"^epoch \d/3: loss (\d\.\d{4}); ", printed, re.MULTILINE)]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]
    error = re.search(r"^test digits: mean squared error (0\.\d{4})$", printed, re.MULTILINE)
    assert error is not None
    assert float(error[1]) < 0.09  # 0.1 if every pixel were as bright as all are on average
    assert written(tmp_path) == ["autoencoder.safetensors", "codes.png", "reconstructions.png"]
    for name in ("codes.png", "reconstructions.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_dcgan_draws_after_each_epoch(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, few: str, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    drawn = []

    def watched(images: Array, columns: int, path: Path) -> None:
        image_grid(images, columns, path)
        drawn.append(images)

    monkeypatch.setattr("tinyconv.plots.grids.image_grid", watched)
    printed = run("dcgan", tmp_path, "--data", few, "--subset", "320", "--epochs", "2")
    form = r"^epoch \d/2: discriminator loss \d\.\d{3}, generator loss \d\.\d{3}; [\d.]+ s$"
    assert len(re.findall(form, printed, re.MULTILINE)) == 2
    first, last = drawn
    assert last.shape == (64, 1, 28, 28)
    assert np.isfinite(last).all()
    assert not np.allclose(first, last)
    assert written(tmp_path) == ["dcgan.png", "dcgan.safetensors"]
    assert (tmp_path / "dcgan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_without_matplotlib_weights_alone_are_written(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, few: str, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    run(name, tmp_path, "--data", few, "--subset", "64", "--epochs", "1")
    assert written(tmp_path) == [f"{name}.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_weights_and_others_do_not(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch, few: str, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        args = ("--data", few, "--subset", "192", "--epochs", "1", "--seed", seed)
        run(name, tmp_path / folder, *args)
    first, same, other = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in "abc")
    assert all((first[key] == same[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_arguments_and_files_end_it_with_code_2(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    for file in tc.data.mnist.FILES:
        (tmp_path / file).write_bytes(gzip.compress(b"nothing"))
    wrong = {
        "argument --epochs: 0 is less than 1": ("--epochs", "0"),
        "train-images-idx3-ubyte.gz is not an IDX file": ("--data", str(tmp_path)),
    }
    for message, args in wrong.items():
        with pytest.raises(SystemExit) as ended:
            run(name, tmp_path / "out", *args)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


# The two steps of the DCGAN


@pytest.fixture
def gan(example: Callable[[str], ModuleType]) -> Any:
    """A DCGAN in float64."""
    gan = example("dcgan").DCGAN(np.random.default_rng(0))
    gan.generator.to(np.float64)
    gan.discriminator.to(np.float64)
    return gan


def generators_loss(gan: Any, noise: Array) -> float:
    logits = gan.discriminator.forward(gan.generator.forward(noise))
    return float(np.logaddexp(0, -logits).mean())


def test_the_generators_gradient_is_that_of_its_loss_through_the_discriminator(gan: Any) -> None:
    noise, before = gan.noise(4).astype(np.float64), gan.generator.state_dict()
    judge = {name: param.copy() for name, param in gan.discriminator.params.items()}
    loss = gan.generator_step(gan.generator.forward(noise))
    assert all((judge[name] == param).all() for name, param in gan.discriminator.params.items())
    rng = np.random.default_rng(1)
    direction = {name: rng.standard_normal(grad.shape) for name, grad in gan.generator.grads.items()}
    expected = sum((grad * direction[name]).sum() for name, grad in gan.generator.grads.items())
    found = []
    for step in (0.0, 1e-8, -1e-8):  # so small that hardly an activation changes its sign
        for name, param in gan.generator.params.items():
            param[...] = before[name] + step * direction[name]
        found.append(generators_loss(gan, noise))
    assert loss == pytest.approx(found[0], rel=1e-12)
    assert (found[1] - found[2]) / 2e-8 == pytest.approx(expected, rel=1e-5)


def test_the_discriminators_steps_tell_the_images_apart_and_leave_the_generator(gan: Any) -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((2, 8, 1, 28, 28))
    before = {name: param.copy() for name, param in gan.generator.params.items()}
    losses = [gan.discriminator_step(real, fake) for _ in range(8)]
    assert losses[0] == pytest.approx(2 * np.log(2), rel=0.3)
    assert losses[-1] < 0.5 * losses[0]
    assert all((before[name] == param).all() for name, param in gan.generator.params.items())


def test_the_critics_gradients_with_the_penalty_are_pytorchs(example: Callable[[str], ModuleType]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch differentiates twice with a tape")
    module = example("wgan_gp")
    gan = module.WGAN(np.random.default_rng(0))
    gan.critic.to(np.float64)
    real, fake, between = (np.random.default_rng(seed).standard_normal((6, 2)) for seed in (1, 2, 3))
    loss = gan.critic_gradients(real, fake, between)
    theirs: Any = tc.to_torch(gan.critic)
    points = torch.tensor(between, requires_grad=True)
    (slopes,) = torch.autograd.grad(theirs(points).sum(), points, create_graph=True)
    penalty = ((slopes.norm(dim=1) - 1) ** 2).mean()
    expected = theirs(torch.tensor(fake)).mean() - theirs(torch.tensor(real)).mean() + module.LAMBDA * penalty
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for name, param in theirs.named_parameters():
        found = gan.critic.grads[name]
        if param.grad is not None:  # the last bias has no influence
            np.testing.assert_allclose(found, param.grad.numpy(), rtol=1e-5, atol=1e-9, err_msg=name)


def test_the_wgan_reaches_the_gaussians(
    run: Callable[..., str], example: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    printed = run("wgan_gp", tmp_path, "--steps", "150")
    found = re.findall(r"(\d+)% of the points are near one of the 8 centres, (\d) of which", printed)
    assert len(found) == 10
    assert int(found[-1][0]) > 20
    assert int(found[-1][1]) >= 5
    assert (tmp_path / "wgan_gp.png").read_bytes().startswith(b"\x89PNG")


def test_a_gradient_layer_runs_each_pass_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("forward", "backward", "jvp", "backward_jvp"):
        method = getattr(tc.Linear, name)

        def counted(self: Any, *args: Any, name: str = name, method: Any = method) -> Any:
            calls.append(name)
            return method(self, *args)

        monkeypatch.setattr(tc.Linear, name, counted)
    layer = tc.GradientLayer(tc.Sequential(tc.Linear(3, 4), tc.Tanh()))
    gradient = layer.forward(np.ones((2, 3), np.float32))
    layer.backward(gradient)
    assert calls == ["forward", "backward", "jvp", "backward_jvp"]


def test_pytorchs_mnist_example_prints_what_the_original_prints(
    example: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    few: str,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", few, "--epochs", "2", "--subset", "640", "--save-model"]
    monkeypatch.setattr(sys, "argv", ["pytorch_mnist.py", *arguments])
    example("pytorch_mnist").main()
    printed = capsys.readouterr().out
    assert re.search(r"^Train Epoch: 1 \[0/640 \(0%\)\]\tLoss: 2\.\d{6}$", printed, re.MULTILINE)
    right = re.findall(
        r"^Test set: Average loss: \d\.\d{4}, Accuracy: (\d+)/100 \(\d+%\)$", printed, re.MULTILINE
    )
    assert len(right) == 2
    assert int(right[1]) > 60
    saved = load_file(tmp_path / "mnist_cnn.safetensors")
    assert saved["7.weight"].shape == (128, 9216)


def test_pytorchs_mnist_example_takes_the_originals_steps(example: Callable[[str], ModuleType]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the original")
    module = example("pytorch_mnist")
    model = module.make_net(np.random.default_rng(0)).to(np.float64)
    for layer in model:
        if isinstance(layer, tc.Dropout):
            layer.p = 0.0  # whose numbers are drawn differently
    theirs: Any = tc.to_torch(model).train()
    x = np.random.default_rng(1).standard_normal((192, 1, 28, 28))
    labels = np.arange(192) % 10
    ours = tc.optim.Adadelta(model, lr=1.0)
    schedule = tc.optim.StepLR(ours, step_size=1, gamma=0.7)
    optimizer = torch.optim.Adadelta(theirs.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(2):
        losses = module.train(model, tc.data.DataLoader((x, labels), 64), ours, epoch, 100)
        schedule.step()
        expected = []
        for start in range(0, 192, 64):
            optimizer.zero_grad()
            output = theirs(torch.tensor(x[start : start + 64]))
            loss = torch.nn.functional.nll_loss(output, torch.tensor(labels[start : start + 64]))
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
        scheduler.step()
        np.testing.assert_allclose(losses, expected, rtol=1e-7)


# Full size: what docs/figures.md says of them


@pytest.mark.slow
def test_the_autoencoder_of_full_size(run: Callable[..., str], tmp_path: Path) -> None:
    error = re.search(r"mean squared error (0\.\d{4})$", run("autoencoder", tmp_path), re.MULTILINE)
    assert error is not None
    assert float(error[1]) < 0.042


@pytest.mark.slow
def test_lenet_reads_the_digits_of_the_dcgan_of_full_size(
    run: Callable[..., str], example: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    run("dcgan", tmp_path)
    rng = np.random.default_rng(1)
    generator = example("dcgan").make_generator(rng)
    tc.load_weights(generator, tmp_path / "dcgan.safetensors")
    images = generator.predict(rng.standard_normal((2000, 16, 1, 1), np.float32))
    x = ((images + 1) / 2 - 0.1307) / 0.3081  # as `normalize` does
    sure = tc.F.softmax(tc.models.lenet5(pretrained=True).predict(x.astype(np.float32)), 1).max(axis=1) > 0.9
    assert sure.mean() > 0.6


@pytest.mark.slow
def test_the_wgan_of_full_size(run: Callable[..., str], tmp_path: Path) -> None:
    found = re.findall(r"(\d+)% of the points are near one of the 8 centres, 8 of", run("wgan_gp", tmp_path))
    assert int(found[-1]) > 70


@pytest.mark.slow
def test_pytorchs_mnist_example_of_full_size(
    example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytorch_mnist.py"])
    example("pytorch_mnist").main()
    right = re.findall(r"Accuracy: (\d+)/10000", capsys.readouterr().out)
    assert len(right) == 14
    assert int(right[-1]) >= 9900

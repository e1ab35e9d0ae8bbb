"""A network whose layers take gradient steps, trained end to end: unrolled restoration of blurred digits.

A digit c was blurred and noised to y. Its restoration has a small energy, and each layer takes a step down:

    data step     x <- x - s * grad E(x)     E(x) = ||w * x - y||^2         "x, blurred by w, looks like y"
    prior step    x <- x - s * grad R(x)     R(x) = sum tanh(v * x + b)     "x looks like a digit"

from x = y, where * is the convolution that networks compute. The loss is the squared distance to c after the
last step. All kernels w and v, biases b and step sizes s are learnt, separately for each step; the network is
not told the blur. (For E with a factor 1/2 the step size is 2 s: MSELoss does not have the 1/2.)

The gradients inside are explicit, and so are the gradients of these gradients, which training needs. For a
data step, with r = w * x - y, with wT for conv2d_input, the transpose of w *, and with g the gradient of the
step's output:

    forward     x - 2 s * wT(r)
    backward    for x    g - 2 s * wT(w * g)
                for w    -2 s * (conv2d_weight(x, w * g) + conv2d_weight(g, r))
                for s    -<g, 2 wT(r)>
                for y    2 s * (w * g)

tc.GradientStep computes this for any energy that consists of layers: its backward is a product with the
energy's Hessian. The gradient with respect to y is written out in `Restorer.backward`.

    python examples/unrolled_restoration.py                     the answer, a training run and its gain
    python examples/unrolled_restoration.py --out digits.png    also a picture of the test digits
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import tinyconv as tc
import tinyconv.functional as F
from tinyconv.arrays import Array
from tinyconv.recipes import positive
from tinyconv.training import Callback, Run

NOISE, BATCH_SIZE, LR = 0.1, 32, 0.02
DATA = Path(__file__).parent / "data" / "mnist"
ANSWER = """\
Make each gradient step a layer: tc.GradientStep(energy, step_size), where the energy E(x; w) is any layer.
    forward:   y  = x - s * grad E(x)    by E's forward and backward
    backward:  dx = dy - s * H dy        with the Hessian H of E, by jvp and backward_jvp; also for w and s
Put the steps in a network, as `Restorer` does here, and train it like any other: tc.Trainer(model, ...).
Only the gradient with respect to a target of the energies remains to be written: see `Restorer.backward`.
"""


class Restorer(tc.Layer):
    """Alternate data steps and prior steps, from the blurred images y to the restored ones.

    The children are "data0", "prior0", "data1", and so on, each with a "step_size".

    Args:
        steps: number of data steps, and of prior steps.
        filters: number of kernels in each prior.
        dtype: float32 (default) or float64.
        generator: the generator that the kernels and biases are drawn from.
    """

    def __init__(
        self,
        steps: int,
        filters: int = 4,
        *,
        dtype: npt.DTypeLike = np.float32,
        generator: np.random.Generator,
    ) -> None:
        super().__init__()
        self.objectives = []
        for i in range(steps):
            blur = tc.Conv2d(1, 1, 5, padding=2, bias=False, dtype=dtype, generator=generator)
            objective = tc.Objective(blur, tc.MSELoss(reduction="sum"))
            kernels = tc.Conv2d(1, filters, 3, padding=1, dtype=dtype, generator=generator)
            self.objectives.append(objective)
            setattr(self, f"data{i}", tc.GradientStep(objective, 0.1, dtype=dtype))
            prior = tc.Sequential(kernels, tc.Tanh())
            setattr(self, f"prior{i}", tc.GradientStep(prior, 0.05, dtype=dtype))

    def forward(self, y: Array) -> Array:
        """Restore blurred images, (N, 1, H, W)."""
        for objective in self.objectives:
            objective.target = y
        x = y
        for step in self.children.values():
            x = step.forward(x)
        return x

    def backward(self, grad_output: Array) -> Array:
        """Return the gradient with respect to y, the first x and the target of every data step."""
        grad_x, grad_targets = grad_output, np.zeros_like(grad_output)
        for name, step in reversed(list(self.children.items())):
            if name.startswith("data"):
                weight, step_size = step.params["energy.model.weight"], step.params["step_size"]
                grad_targets += 2 * step_size * F.conv2d(grad_x, weight, padding=2)
            grad_x = step.backward(grad_x)
        return grad_x + grad_targets

    def output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the input."""
        return tuple(input_shape)


def blurred(clean: Array, rng: np.random.Generator) -> Array:
    """Return the images convolved with a 5x5 Gaussian of standard deviation 1, with noise added."""
    row = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    kernel = np.outer(row, row)[None, None] / row.sum() ** 2
    output: Array = F.conv2d(clean, kernel.astype(clean.dtype), padding=2)
    output += NOISE * rng.standard_normal(output.shape, clean.dtype)
    return output


def train(model: Restorer, y: Array, clean: Array, epochs: int, rng: np.random.Generator) -> list[float]:
    """Train `model` to restore `clean` from `y`, with a line after each epoch; return the steps' losses."""
    adam = tc.optim.Adam(model, LR)
    schedule = tc.optim.OneCycleLR(adam, LR, total_steps=epochs * -(-len(y) // BATCH_SIZE))
    bar = sys.stderr.isatty()  # a log file has the lines of ShowQuality
    trainer = tc.Trainer(model, tc.MSELoss(), adam, schedule, callbacks=[ShowQuality()], progress=bar)
    return trainer.fit((y, clean), epochs, batch_size=BATCH_SIZE, generator=rng).step_losses


class ShowQuality(Callback):
    """Prints a line after each epoch."""

    def on_epoch_end(self, run: Run) -> None:
        """Print the loss, and what it means for the images."""
        epoch = run.history.epochs[-1]
        quality = f"loss {epoch.train_loss:.4f}, {psnr(epoch.train_loss):.1f} dB"
        print(f"epoch {epoch.epoch}/{run.last_epoch}: {quality}, {epoch.seconds:.1f} s")


def psnr(squared_error: float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error, for pixels from 0 to 1."""
    return float(-10 * np.log10(squared_error))


def draw(path: str, **rows: Array) -> None:
    """Draw the first ten images of each array in a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 * len(rows)), layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(rows)), rows.items(), strict=True):
        axes.imshow(np.hstack(list(images[:10, 0])), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=110)
    print(f"picture: {path}")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Restore blurred MNIST digits by unrolled gradient steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=5, help="data steps, and as many prior steps")
    parser.add_argument("--epochs", type=positive, default=5, help="passes over the training images")
    parser.add_argument("--images", type=positive, default=3000, help="number of training images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kernels, the noise and the order")
    parser.add_argument(
        "--out",
        default=argparse.SUPPRESS,
        help="file for a picture (needs matplotlib); its ending is the format",
    )
    return parser.parse_args()


def main() -> None:
    """Print the answer, train, and compare the first 1,000 test digits before and after restoration."""
    args = arguments()
    print(ANSWER)
    rng = np.random.default_rng(args.seed)
    mnist = tc.data.load_mnist(DATA)
    clean = tc.data.normalize(mnist.train_images[: args.images], mean=0, std=1)
    test = tc.data.normalize(mnist.test_images[:1000], mean=0, std=1)
    y, test_y = blurred(clean, rng), blurred(test, rng)
    model = Restorer(args.steps, generator=rng)
    untrained = model.predict(test_y)
    train(model, y, clean, args.epochs, rng)
    restored = model.predict(test_y)
    print("\ntest digits, peak signal-to-noise ratio")
    images = {"blurred": test_y, "untrained network": untrained, "restored": restored}
    for name, found in images.items():
        print(f"{name:<20}{psnr(float(np.square(found - test).mean())):.2f} dB")
    if "out" in args:
        draw(args.out, clean=test, blurred=test_y, restored=restored)


if __name__ == "__main__":
    main()

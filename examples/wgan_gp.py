"""Train a WGAN-GP on eight Gaussians in the plane: a loss that contains a gradient, and is differentiated.

The generator G maps noise z to points. The critic D maps a point to a score, and is to have a slope of 1
wherever it is between real points x and generated ones. It minimises, in its parameters w,

    mean D(G(z)) - mean D(x) + LAMBDA * mean (|g| - 1)**2         g = gradient of D with respect to its input,
                                                                  at points m between x and G(z)

With v the gradient of the last term with respect to g, its gradient with respect to w is that of <g, v>, a
mixed second derivative of D. `tc.GradientLayer(D)` computes g in its forward. Its backward takes v, and adds
that gradient to those of D: by a jvp and a backward_jvp after the backward that gave g, without a second
forward.

    python examples/wgan_gp.py                 3,000 steps of the generator: half a minute
    python examples/wgan_gp.py --steps 300     a few seconds: a ring, not yet eight points

OUT/wgan_gp.png shows real and generated points (if matplotlib is installed).

Source: Gulrajani et al., https://arxiv.org/abs/1704.00028
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np

import tinyconv as tc
from tinyconv.arrays import Array
from tinyconv.optim import Adam
from tinyconv.recipes import positive

LATENT, WIDTH, BATCH_SIZE = 2, 64, 128
LAMBDA, CRITIC_STEPS, LR, BETAS = 0.1, 5, 0.001, (0.5, 0.9)
SPREAD = 0.05  # of each Gaussian, whose centres are on a circle of radius 1
CENTRES = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1).astype(np.float32)


def perceptron(inputs: int, outputs: int, rng: np.random.Generator) -> tc.Sequential:
    """Build a network of two hidden layers."""
    return tc.Sequential(
        tc.Linear(inputs, WIDTH, generator=rng),
        tc.LeakyReLU(0.2),
        tc.Linear(WIDTH, WIDTH, generator=rng),
        tc.LeakyReLU(0.2),
        tc.Linear(WIDTH, outputs, generator=rng),
    )


class WGAN:
    """A generator and a critic, with a training step for each."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.generator, self.critic = perceptron(LATENT, 2, rng), perceptron(2, 1, rng)
        self.slope = tc.GradientLayer(self.critic)
        self.generator_adam = Adam(self.generator, LR, BETAS)
        self.critic_adam = Adam(self.critic, LR, BETAS)

    def real(self, count: int = BATCH_SIZE) -> Array:
        """Return points of the eight Gaussians."""
        noise = self.rng.standard_normal((count, 2), np.float32)
        return CENTRES[self.rng.integers(0, 8, count)] + np.float32(SPREAD) * noise

    def noise(self, count: int = BATCH_SIZE) -> Array:
        """Return the generator's input for `count` points."""
        return self.rng.standard_normal((count, LATENT), np.float32)

    def critic_gradients(self, real: Array, fake: Array, between: Array) -> float:
        """Set the critic's gradients, and return its loss; `between` are the points m."""
        self.critic.zero_grad()
        loss = 0.0
        for points, sign in ((fake, 1), (real, -1)):
            scores = self.critic.forward(points)
            loss += sign * float(scores.mean())
            self.critic.backward_params(np.full_like(scores, sign / len(scores)))
        slopes = self.slope.forward(between)
        norms = np.sqrt((slopes**2).sum(axis=1, keepdims=True) + np.float32(1e-12))
        penalty = LAMBDA * float(((norms - 1) ** 2).mean())
        self.slope.backward(2 * LAMBDA / len(norms) * (norms - 1) / norms * slopes)  # adds to the gradients
        return loss + penalty

    def critic_step(self) -> float:
        """Train the critic on new points."""
        real, fake = self.real(), self.generator.predict(self.noise())
        share = self.rng.random((len(real), 1), np.float32)
        loss = self.critic_gradients(real, fake, share * real + (1 - share) * fake)
        self.critic_adam.step()
        return loss

    def generator_step(self) -> float:
        """Train the generator to make points with a high score."""
        self.generator_adam.zero_grad()
        scores = self.critic.forward(self.generator.forward(self.noise()))
        self.critic.requires_grad_(False)  # compute only the gradient with respect to the points
        grad_points = self.critic.backward(np.full_like(scores, -1 / len(scores)))
        self.critic.requires_grad_(True)
        self.generator.backward_params(grad_points)
        self.generator_adam.step()
        return -float(scores.mean())


def described(points: Array) -> str:
    """Return how near generated points are to the centres, and how many of these they reach."""
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=2)
    near = distances.min(axis=1) < 4 * SPREAD
    reached = np.bincount(distances.argmin(axis=1)[near], minlength=8) > len(points) / 80
    return (
        f"{near.mean():.0%} of the points are near one of the 8 centres, {reached.sum()} of which are reached"
    )


def train(gan: WGAN, steps: int) -> None:
    """Train, with a line for every tenth of the steps."""
    start, losses = time.perf_counter(), []
    for step in range(1, steps + 1):
        losses += [gan.critic_step() for _ in range(CRITIC_STEPS)]
        gan.generator_step()
        if step % max(1, steps // 10) == 0:
            found = described(gan.generator.predict(gan.noise(1000)))
            loss, seconds = np.mean(losses[-100:]), time.perf_counter() - start
            print(f"step {step}/{steps}: critic loss {loss:.3f}; {found}; {seconds:.1f} s", flush=True)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(
        description="Train a WGAN-GP on points in pure NumPy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--steps", type=positive, default=3000, help="steps of the generator")
    parser.add_argument("--seed", type=int, default=1, help="seed of the parameters and all points")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the picture")
    args = parser.parse_args()
    gan = WGAN(np.random.default_rng(args.seed))
    train(gan, args.steps)
    if importlib.util.find_spec("matplotlib"):
        from tinyconv.plots.grids import scatter

        args.out.mkdir(parents=True, exist_ok=True)
        points = np.concatenate([gan.real(1000), gan.generator.predict(gan.noise(1000))])
        scatter(points, np.repeat(["real", "generated"], 1000), args.out / "wgan_gp.png")


if __name__ == "__main__":
    main()

"""Train a DCGAN on MNIST: two networks compete, and one learns to draw digits.

The generator G maps noise z to images. The discriminator D maps an image to a logit, high for MNIST's and low
for G's. With the binary cross-entropy E of logits, each step has two parts, written out below:

    D minimises    E(D(x), 1) + E(D(G(z)), 0) in D's parameters
    G minimises    E(D(G(z)), 1) in G's parameters: D.backward returns the gradient with respect to the
                   images G(z), which G.backward takes

    python examples/dcgan.py                10 epochs: under six minutes on two idle cores
    python examples/dcgan.py --epochs 1     half a minute: strokes, and some digits

After each epoch OUT/dcgan.png shows G's images for the same 64 noise vectors (if matplotlib is installed); at
the end G's weights are saved to OUT/dcgan.safetensors. Both use the average of G's last weights.

Source: Radford et al., https://arxiv.org/abs/1511.06434; here the layers are smaller, the initial parameters
are PyTorch's, and the learning rate is higher at first and decreases.
"""

import argparse
import importlib.util
import time
from functools import partial
from pathlib import Path

import numpy as np

import tinyconv as tc
from tinyconv.arrays import Array
from tinyconv.data import DataLoader, load_mnist, normalize
from tinyconv.optim import Adam, CosineAnnealingLR
from tinyconv.recipes import positive
from tinyconv.training import WeightAverage

LATENT, CHANNELS = 16, 32
BATCH_SIZE, LR, BETAS = 64, 0.001, (0.5, 0.999)


def make_generator(rng: np.random.Generator) -> tc.Sequential:
    """Build the generator, from noise (N, 16, 1, 1) to images (N, 1, 28, 28) between -1 and 1."""
    c = CHANNELS
    return tc.Sequential(
        tc.ConvTranspose2d(LATENT, 2 * c, 7, bias=False, generator=rng),  # 7x7
        tc.BatchNorm2d(2 * c),
        tc.ReLU(),
        tc.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1, bias=False, generator=rng),  # 14x14
        tc.BatchNorm2d(c),
        tc.ReLU(),
        tc.ConvTranspose2d(c, 1, 4, stride=2, padding=1, generator=rng),  # 28x28
        tc.Tanh(),
    )


def make_discriminator(rng: np.random.Generator) -> tc.Sequential:
    """Build the discriminator, from images to logits (N, 1, 1, 1): the generator reversed."""
    c = CHANNELS
    return tc.Sequential(
        tc.Conv2d(1, c, 4, stride=2, padding=1, generator=rng),  # 14x14
        tc.LeakyReLU(0.2),
        tc.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False, generator=rng),  # 7x7
        tc.BatchNorm2d(2 * c),
        tc.LeakyReLU(0.2),
        tc.Conv2d(2 * c, 1, 7, generator=rng),  # 1x1
    )


class DCGAN:
    """A generator and a discriminator, with a training step for each."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.generator, self.discriminator = make_generator(rng), make_discriminator(rng)
        self.generator_adam = Adam(self.generator, LR, BETAS)
        self.discriminator_adam = Adam(self.discriminator, LR, BETAS)
        self.average = WeightAverage(self.generator, decay=0.998)  # better images than from the last weights
        self.criterion = tc.BCEWithLogitsLoss()

    def noise(self, count: int) -> Array:
        """Return the generator's input for `count` images."""
        return self.rng.standard_normal((count, LATENT, 1, 1), np.float32)

    def discriminator_step(self, real: Array, fake: Array) -> float:
        """Train the discriminator to tell images of MNIST, `real`, from those of the generator, `fake`."""
        self.discriminator_adam.zero_grad()
        loss = 0.0
        for images, target in ((real, 1), (fake, 0)):
            logits = self.discriminator.forward(images)
            loss += float(self.criterion.forward(logits, np.full_like(logits, target)))
            self.discriminator.backward_params(self.criterion.backward())  # adds to the gradients
        self.discriminator_adam.step()
        return loss

    def generator_step(self, fake: Array) -> float:
        """Train the generator to make its last images, `fake`, look real to the discriminator."""
        self.generator_adam.zero_grad()
        logits = self.discriminator.forward(fake)
        loss = float(self.criterion.forward(logits, np.full_like(logits, 1)))
        self.discriminator.requires_grad_(False)  # compute only the gradient with respect to the pixels
        grad_fake = self.discriminator.backward(self.criterion.backward())
        self.discriminator.requires_grad_(True)
        self.generator.backward_params(grad_fake)
        self.generator_adam.step()
        self.average.update()
        return loss


def train(gan: DCGAN, images: Array, epochs: int, out: Path) -> None:
    """Train, with a line and a picture after each epoch."""
    scale = partial(normalize, mean=0.5, std=0.5)  # to the range of Tanh, -1 to 1
    loader = DataLoader((images, images), BATCH_SIZE, shuffle=True, generator=gan.rng, transform=scale)
    schedules = [CosineAnnealingLR(adam, epochs) for adam in (gan.generator_adam, gan.discriminator_adam)]
    noise = gan.noise(64)
    for epoch in range(1, epochs + 1):
        start, losses = time.perf_counter(), []
        for real, _ in loader:
            fake = gan.generator.forward(gan.noise(len(real)))
            losses.append((gan.discriminator_step(real, fake), gan.generator_step(fake)))
        loss = np.mean(losses, axis=0)
        for schedule in schedules:
            schedule.step()
        print(
            f"epoch {epoch}/{epochs}: discriminator loss {loss[0]:.3f}, generator loss {loss[1]:.3f}; "
            f"{time.perf_counter() - start:.1f} s",
            flush=True,
        )
        if importlib.util.find_spec("matplotlib"):
            from tinyconv.plots.grids import image_grid

            image_grid(gan.average.module.predict(noise), 8, out / "dcgan.png")


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="Train a DCGAN on MNIST in pure NumPy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = Path(__file__).parent / "data" / "mnist"
    parser.add_argument("--epochs", type=positive, default=10, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=1, help="seed of the parameters, the noise and the order")
    parser.add_argument("--subset", type=positive, default=60000, help="train on the first SUBSET images")
    parser.add_argument("--data", type=Path, default=data, help="folder with the four IDX files")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for picture and weights")
    return parser


def main() -> None:
    """Run the example; exit with code 2 for wrong arguments and files."""
    parser = options()
    args = parser.parse_args()
    try:
        images = load_mnist(args.data).train_images[: args.subset]
        gan = DCGAN(np.random.default_rng(args.seed))
        args.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    train(gan, images, args.epochs, args.out)
    tc.save_weights(gan.average.module, args.out / "dcgan.safetensors")


if __name__ == "__main__":
    main()

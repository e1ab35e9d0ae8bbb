"""Train a convolutional autoencoder on MNIST: each digit is encoded as two numbers and decoded again.

The encoder maps each image to a code of two numbers, the decoder maps each code to an image, and both learn
to reconstruct the images. Labels are not used. The gradient flows back in reverse: the decoder's backward
returns the gradient with respect to the codes, which the encoder's backward takes.

    python examples/autoencoder.py               a minute on two idle cores
    python examples/autoencoder.py --epochs 2    already recognisable

If matplotlib is installed, OUT/reconstructions.png shows test digits with their reconstructions below, and
OUT/codes.png the codes of all test digits, coloured by digit. The weights are saved to
OUT/autoencoder.safetensors.
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
from tinyconv.functional import sigmoid
from tinyconv.recipes import positive

CHANNELS, HIDDEN, CODE = 16, 128, 2
BATCH_SIZE, LR = 128, 0.003
COLUMNS, SHOWN = 12, 60

scaled = partial(normalize, mean=0, std=1)  # pixels from 0 to 1


def make_encoder(rng: np.random.Generator) -> tc.Sequential:
    """Build the encoder, from images (N, 1, 28, 28) to codes (N, 2)."""
    c = CHANNELS
    return tc.Sequential(
        tc.Conv2d(1, c, 4, stride=2, padding=1, generator=rng),  # 14x14
        tc.ReLU(),
        tc.Conv2d(c, 2 * c, 4, stride=2, padding=1, generator=rng),  # 7x7
        tc.ReLU(),
        tc.Flatten(),
        tc.Linear(2 * c * 49, HIDDEN, generator=rng),
        tc.ReLU(),
        tc.Linear(HIDDEN, CODE, generator=rng),
        tc.BatchNorm1d(CODE, affine=False),  # codes of variance 1, so that they cannot diverge
    )


def make_decoder(rng: np.random.Generator) -> tc.Sequential:
    """Build the decoder, from codes to images as logits of the pixels: the encoder reversed."""
    c = CHANNELS
    return tc.Sequential(
        tc.Linear(CODE, HIDDEN, generator=rng),
        tc.ReLU(),
        tc.Linear(HIDDEN, 2 * c * 49, generator=rng),
        tc.ReLU(),
        tc.Unflatten(1, (2 * c, 7, 7)),
        tc.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1, generator=rng),  # 14x14
        tc.ReLU(),
        tc.ConvTranspose2d(c, 1, 4, stride=2, padding=1, generator=rng),  # 28x28
    )


def train(model: tc.Sequential, loader: DataLoader, epochs: int) -> None:
    """Train encoder and decoder, with a line after each epoch."""
    encoder, decoder = model["encoder"], model["decoder"]
    criterion = tc.BCEWithLogitsLoss()  # also for grey pixels: 0.3 is 30 % white
    adam = tc.optim.Adam(model, LR)
    schedule = tc.optim.OneCycleLR(adam, LR, total_steps=epochs * len(loader))
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), 0.0
        for images, _ in loader:
            adam.zero_grad()
            codes = encoder.forward(images)
            total += float(criterion.forward(decoder.forward(codes), images))
            grad_codes = decoder.backward(criterion.backward())
            encoder.backward_params(grad_codes)  # backward without the images' gradient
            adam.step()
            schedule.step()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}/{epochs}: loss {total / len(loader):.4f}; {seconds:.1f} s", flush=True)


def draw(images: Array, reconstructions: Array, codes: Array, labels: Array, out: Path) -> None:
    """Draw both pictures, if matplotlib is installed."""
    if importlib.util.find_spec("matplotlib"):
        from tinyconv.plots.grids import image_grid, scatter

        rows = [
            row[start : start + COLUMNS]
            for start in range(0, SHOWN, COLUMNS)
            for row in (images, reconstructions)
        ]
        image_grid(np.concatenate(rows), COLUMNS, out / "reconstructions.png")
        scatter(codes, labels, out / "codes.png")


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="Train a convolutional autoencoder on MNIST in pure NumPy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = Path(__file__).parent / "data" / "mnist"
    parser.add_argument("--epochs", type=positive, default=10, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=1, help="seed of the parameters and the images' order")
    parser.add_argument("--subset", type=positive, default=60000, help="train on the first SUBSET images")
    parser.add_argument("--data", type=Path, default=data, help="folder with the four IDX files")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for pictures and weights")
    return parser


def main() -> None:
    """Train, and reconstruct the test digits; exit with code 2 for wrong arguments and files."""
    parser = options()
    args = parser.parse_args()
    try:
        mnist = load_mnist(args.data)
        rng = np.random.default_rng(args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    model = tc.Sequential({"encoder": make_encoder(rng), "decoder": make_decoder(rng)})
    images, labels = mnist.train_images[: args.subset], mnist.train_labels[: args.subset]
    loader = DataLoader((images, labels), BATCH_SIZE, shuffle=True, generator=rng, transform=scaled)
    train(model, loader, args.epochs)
    tc.save_weights(model, args.out / "autoencoder.safetensors")

    test = scaled(mnist.test_images)
    codes = model["encoder"].predict(test)
    reconstructions = sigmoid(model["decoder"].predict(codes))
    print(f"test digits: mean squared error {np.square(reconstructions - test).mean():.4f}")
    draw(test, reconstructions, codes, mnist.test_labels, args.out)


if __name__ == "__main__":
    main()

"""Train LeNet-5 (or a larger CNN) on MNIST, and say how many test digits it reads.

    python examples/mnist.py                 LeNet-5, 5 epochs of AdamW with a one-cycle schedule
    python examples/mnist.py --model cnn     two 3x3 convolutions, 5 epochs of SGD
    python examples/mnist.py --device cuda   on a GPU, with CuPy (pip install ".[gpu]")

The weights go to OUT/MODEL.safetensors and, where matplotlib is installed, a picture of the run to
OUT/MODEL.png. Ctrl-C ends the training early and keeps what has been learnt.
"""

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import tinyconv as tc
from tinyconv.data import MNIST, Batches, load_mnist, normalize
from tinyconv.training import Epoch

DEFAULT_LR = {"lenet": 0.005, "cnn": 0.01}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Train a network on MNIST in pure NumPy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model",
        choices=("lenet", "cnn"),
        default="lenet",
        help="lenet: LeNet-5, 62 thousand parameters, trained by AdamW with weight decay 0.1 "
        "and a one-cycle learning rate; "
        "cnn: 2.4 million parameters, trained by SGD with momentum 0.9 and weight decay 1e-4",
    )
    parser.add_argument("--epochs", type=_positive, default=5, help="passes over the training images")
    parser.add_argument("--batch-size", type=_positive, default=64, help="images a step")
    parser.add_argument(
        "--lr",
        type=float,
        default=argparse.SUPPRESS,
        help="learning rate; for lenet its highest value (default: lenet 0.005, cnn 0.01)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the parameters and the order of the images")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(__file__).parent / "data" / "mnist",
        help="folder with the four IDX files (Fashion-MNIST's do as well)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for weights and picture")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: on a GPU, by CuPy")
    parser.add_argument(
        "--subset", type=_positive, default=argparse.SUPPRESS, help="train on the first SUBSET images only"
    )
    args = parser.parse_args()
    args.lr = getattr(args, "lr", DEFAULT_LR[args.model])
    args.subset = getattr(args, "subset", None)
    return args


def make_trainer(args: argparse.Namespace, steps_per_epoch: int, rng: np.random.Generator) -> tc.Trainer:
    """Model, loss, optimiser and schedule."""
    criterion = tc.CrossEntropyLoss()
    several = args.device == "cpu" and sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1
    where: dict[str, Any] = {"workers": 2 if several else 1, "device": args.device}
    if args.model == "lenet":
        model = tc.models.lenet5(generator=rng)
        adamw = tc.optim.AdamW(model, lr=args.lr, weight_decay=0.1)
        steps = args.epochs * steps_per_epoch
        schedule = tc.optim.OneCycleLR(adamw, args.lr, total_steps=steps)
        return tc.Trainer(model, criterion, adamw, schedule, **where)
    model = tc.models.mnist_cnn(generator=rng)
    sgd = tc.optim.SGD(model, lr=args.lr, momentum=0.9, weight_decay=1e-4)
    return tc.Trainer(model, criterion, sgd, **where)


def train(trainer: tc.Trainer, batches: Batches, test: Batches, epochs: int) -> None:
    """Train, with a line after each epoch; Ctrl-C ends the training but not the program."""

    def show(epoch: Epoch) -> None:
        print(
            f"epoch {epoch.epoch}/{epochs}: training loss {epoch.train_loss:.4f}, "
            f"accuracy {epoch.train_accuracy:.2%}; test loss {epoch.validation_loss:.4f}, "
            f"accuracy {epoch.validation_accuracy:.2%}; "
            f"{epoch.seconds:.1f} s, {epoch.images_per_second:,.0f} images/s",
            flush=True,
        )

    try:
        trainer.fit(batches, epochs, validation=test, on_epoch=show)
    except KeyboardInterrupt:
        print("\ninterrupted: going on with what has been learnt so far")


def report(trainer: tc.Trainer, data: MNIST, args: argparse.Namespace, seconds: float) -> None:
    """Print the result; write weights and picture."""
    epochs = trainer.history.epochs
    logits = trainer.model.to("cpu").predict(normalize(data.test_images))
    accuracy = float((logits.argmax(axis=1) == data.test_labels).mean())
    rate = float(np.median([epoch.images_per_second for epoch in epochs])) if epochs else 0.0
    print(f"test accuracy {accuracy:.2%} after {seconds:.1f} s, training at {rate:,.0f} images/s")
    if epochs:
        best = trainer.history.best
        print(f"best after epoch {best.epoch}: {best.validation_accuracy:.2%}")
    weights = args.out / f"{args.model}.safetensors"
    tc.save_weights(trainer.model, weights)
    print(f"weights: {weights}")
    if importlib.util.find_spec("matplotlib"):
        from tinyconv.plots import training_report

        picture = args.out / f"{args.model}.png"
        training_report(trainer.history, data.test_images, data.test_labels, logits, picture)
        print(f"picture: {picture}")


def main() -> None:
    """Run the example; wrong arguments and files end it with one line and exit code 2."""
    args = arguments()
    try:
        data = load_mnist(args.data)
        args.out.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(args.seed)
        images, labels = data.train_images[: args.subset], data.train_labels[: args.subset]
        batches = Batches(images, labels, args.batch_size, shuffle=True, generator=rng, transform=normalize)
        trainer = make_trainer(args, len(batches), rng)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(_failed(error))
    test = Batches(data.test_images, data.test_labels, 256, transform=normalize)
    print(trainer.model.summary((1, 1, 28, 28)))  # type: ignore[attr-defined]
    start = time.perf_counter()
    try:
        train(trainer, batches, test, args.epochs)
        report(trainer, data, args, time.perf_counter() - start)
    except (FloatingPointError, OSError, MemoryError) as error:
        sys.exit(_failed(error))


def _failed(error: Exception) -> int:
    print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
    return 2


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


if __name__ == "__main__":
    main()

"""How the two networks are trained on MNIST: the steps of examples/mnist.py and `python -m tinyconv train`.

An option is added in `add_options`, and read in the step that it changes.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv.data import MNIST, DataLoader, normalize, random_affine
from tinyconv.files import write_whole
from tinyconv.layers import CrossEntropyLoss
from tinyconv.models import lenet5, mnist_cnn
from tinyconv.optim import SGD, AdamW, OneCycleLR
from tinyconv.training import Epoch, Trainer, save_weights

MODELS = {"lenet": lenet5, "cnn": mnist_cnn}
DEFAULT_LR = {"lenet": 0.005, "cnn": 0.01, "cnn, augmented": 0.1}
INPUT_SHAPE = (1, 1, 28, 28)
OPTIONS = "options.json"  # of a run, beside its checkpoints
KEPT = (
    "model",
    "epochs",
    "augment",
    "batch_size",
    "lr",
    "seed",
    "workers",
    "out",
    "subset",
    "checkpoint_every",
)


def add_options(parser: argparse.ArgumentParser, data: Path | None = None) -> None:
    """Add the options of a training; `data` is the default of --data."""
    shown = "(default: %(default)s)"
    counts: dict[str, Any] = {"type": positive, "metavar": "N"}
    add_model_option(parser)
    epochs = "passes over the images (default: 5, with --augment 15)"
    parser.add_argument("--epochs", help=epochs, **counts)
    augment = "shift and rotate the images at random; the cnn then has its best recipe, see `make_trainer`"
    parser.add_argument("--augment", action="store_true", help=augment)
    parser.add_argument("--batch-size", default=64, help=f"images a step {shown}", **counts)
    lr = "learning rate, or its highest value (default: lenet 0.005, cnn 0.01, cnn with --augment 0.1)"
    parser.add_argument("--lr", type=float, help=lr)
    seed = f"of the parameters and the order of the images {shown}"
    parser.add_argument("--seed", type=_natural, default=1, metavar="N", help=seed)
    add_data_option(parser, data)
    out = f"folder for weights and picture {shown}"
    parser.add_argument("--out", type=Path, default=Path("runs"), help=out)
    device = f"cuda: on a GPU, by CuPy {shown}"
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=device)
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        metavar="DIR",
        help="write checkpoints there, after each epoch and every --checkpoint-every batches, and a history",
    )
    every = f"batches between two checkpoints {shown}"
    parser.add_argument("--checkpoint-every", default=200, help=every, **counts)
    resume = "go on with the run whose checkpoints are in DIR, with the options that it had"
    parser.add_argument("--resume", type=Path, metavar="DIR", help=resume)
    parser.add_argument("--subset", help="train on the first N images only", **counts)


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add --model."""
    parser.add_argument(
        "--model",
        choices=tuple(MODELS),
        default="lenet",
        help="lenet: LeNet-5, 62 thousand parameters, trained by AdamW with weight decay 0.1 "
        "and a one-cycle learning rate; "
        "cnn: 2.4 million parameters, trained by SGD with momentum 0.9 and weight decay 1e-4 "
        "(default: %(default)s)",
    )


def add_data_option(parser: argparse.ArgumentParser, data: Path | None = None) -> None:
    """Add --data, the folder of MNIST, with the default `data`."""
    default = "%(default)s" if data else "$TINYCONV_DATA, the user's cache folder, or downloaded there"
    help = f"folder with the four IDX files, zipped or not (Fashion-MNIST's do as well; default: {default})"
    parser.add_argument("--data", type=Path, default=data, help=help)


def with_all_options(args: argparse.Namespace) -> argparse.Namespace:
    """`args` with the defaults that depend on others; with --resume, as the options of that run were.

    Where the data are and which device there is, is as `args` says.

    Raises:
        ValueError, OSError: `args.resume` holds no options of a run.
    """
    if args.resume is not None and args.checkpoint_dir is not None:
        raise ValueError("--resume goes on writing to its folder: --checkpoint-dir must not be given as well")
    if args.epochs is None:
        args.epochs = 15 if args.augment else 5
    several = args.device == "cpu" and sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1
    args.workers = 2 if several else 1
    if args.resume is None:
        return args
    path = args.resume / OPTIONS
    try:
        kept = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} does not hold the options of a run: {error}") from error
    if not isinstance(kept, dict) or set(kept) != set(KEPT) or kept["model"] not in MODELS:
        raise ValueError(f"{path} does not hold the options of a run: {', '.join(KEPT)}")
    print("as the run began:", ", ".join(f"{name} {value}" for name, value in kept.items()))
    resumed = argparse.Namespace(**{**vars(args), **kept, "checkpoint_dir": args.resume})
    resumed.out = Path(resumed.out)
    return resumed


def _write_options(args: argparse.Namespace) -> None:
    path = args.checkpoint_dir / OPTIONS
    if path.exists():
        raise ValueError(f"{args.checkpoint_dir} holds another run: --resume it, or name another folder")
    args.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    kept = {name: getattr(args, name) for name in KEPT}
    write_whole(path, (json.dumps(kept, default=str, indent=1) + "\n").encode())


def make_batches(
    args: argparse.Namespace, data: MNIST, rng: np.random.Generator
) -> tuple[DataLoader, DataLoader]:
    """Batches of the training images, shuffled anew in each epoch, and of the test images."""
    images, labels = data.train_images[: args.subset], data.train_labels[: args.subset]
    augment = partial(random_affine, degrees=12, translate=2) if args.augment else None
    loader = DataLoader(
        (images, labels), args.batch_size, shuffle=True, generator=rng, transform=normalize, augment=augment
    )
    return loader, DataLoader((data.test_images, data.test_labels), 256, transform=normalize)


def make_trainer(args: argparse.Namespace, steps_per_epoch: int, rng: np.random.Generator) -> Trainer:
    """Model, loss, optimiser and schedule.

    The CNN with augmented images is trained longer, by a one-cycle learning rate, towards smoothed labels,
    and evaluated with averaged weights.
    """
    # A log file gets the lines of `fit`, and so none of the trainer's.
    where: dict[str, Any] = {
        "workers": args.workers,
        "device": args.device,
        "progress": sys.stderr.isatty(),
    }
    if args.checkpoint_dir is not None:
        where |= {"checkpoint_dir": args.checkpoint_dir, "checkpoint_every": args.checkpoint_every}
    best = args.model == "cnn" and args.augment
    lr = DEFAULT_LR["cnn, augmented" if best else args.model] if args.lr is None else args.lr
    model, criterion = MODELS[args.model](generator=rng), CrossEntropyLoss(label_smoothing=0.1 * best)
    if args.model == "lenet":
        adamw = AdamW(model, lr=lr, weight_decay=0.1)
        schedule = OneCycleLR(adamw, lr, total_steps=args.epochs * steps_per_epoch)
        return Trainer(model, criterion, adamw, schedule, **where)
    sgd = SGD(model, lr=lr, momentum=0.9, weight_decay=5e-4 if best else 1e-4)
    if not best:
        return Trainer(model, criterion, sgd, **where)
    schedule = OneCycleLR(sgd, lr, total_steps=args.epochs * steps_per_epoch)
    return Trainer(model, criterion, sgd, schedule, ema_decay=0.999, **where)


def fit(args: argparse.Namespace, trainer: Trainer, loader: DataLoader, test: DataLoader) -> float:
    """Print the network's table and train, with a line after each epoch.

    Ctrl-C ends the training, but not the program. Returns the seconds that it took.
    """

    def show(epoch: Epoch) -> None:
        print(
            f"epoch {epoch.epoch}/{args.epochs}: training loss {epoch.train_loss:.4f}, "
            f"accuracy {epoch.train_accuracy:.2%}; test loss {epoch.validation_loss:.4f}, "
            f"accuracy {epoch.validation_accuracy:.2%}; "
            f"{epoch.seconds:.1f} s, {epoch.images_per_second:,.0f} images/s",
            flush=True,
        )

    print(trainer.model.summary(INPUT_SHAPE))
    if args.resume is None and args.checkpoint_dir is not None:
        _write_options(args)
    if args.resume is not None:
        with suppress(FileNotFoundError):  # a run that was killed before its first checkpoint begins anew
            trainer.resume()
        print(f"going on after {trainer.steps:,} batches")
    start = time.perf_counter()
    try:
        trainer.fit(loader, args.epochs - len(trainer.history.epochs), validation=test, on_epoch=show)
    except KeyboardInterrupt:
        print("\ninterrupted: going on with what has been learnt so far")
    return time.perf_counter() - start


def report(args: argparse.Namespace, trainer: Trainer, data: MNIST, seconds: float) -> None:
    """Print the result; write weights, averaged ones if there are, and picture."""
    if trainer.average is not None:
        trainer.model.load_state_dict(trainer.average.module.state_dict())
    epochs = trainer.history.epochs
    logits = trainer.model.to("cpu").predict(normalize(data.test_images))
    accuracy = float((logits.argmax(axis=1) == data.test_labels).mean())
    rate = float(np.median([epoch.images_per_second for epoch in epochs])) if epochs else 0.0
    print(f"test accuracy {accuracy:.2%} after {seconds:.1f} s, training at {rate:,.0f} images/s")
    if epochs:
        best = trainer.history.best
        print(f"best after epoch {best.epoch}: {best.validation_accuracy:.2%}")
    weights = args.out / f"{args.model}.safetensors"
    save_weights(trainer.model, weights)
    print(f"weights: {weights}")
    if importlib.util.find_spec("matplotlib"):
        from tinyconv.plots import training_report

        picture = args.out / f"{args.model}.png"
        training_report(trainer.history, data.test_images, data.test_labels, logits, picture)
        print(f"picture: {picture}")


def positive(text: str) -> int:
    """The integer of at least 1 in `text`, as a type for argparse.

    Raises:
        ValueError: no integer.
        argparse.ArgumentTypeError: it is less than 1.
    """
    return _natural(text, 1)


def _natural(text: str, least: int = 0) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is less than {least}")
    return value

"""How the two networks are trained on MNIST: the steps of `python -m tinyconv train`.

An option is added in `add_options`, and read in the step that it changes. The options that several commands
have, --model, --weights and --data, are here with what reads them.
"""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv.arrays import available_cpus
from tinyconv.data import MNIST, DataLoader, RandomAffine, load_mnist, normalize
from tinyconv.data.mnist import FILES
from tinyconv.files import write_whole
from tinyconv.layers import CrossEntropyLoss, Sequential
from tinyconv.models import lenet5, mnist_cnn
from tinyconv.optim import SGD, AdamW, OneCycleLR, Optimizer
from tinyconv.training import (
    Callback,
    Checkpoints,
    HistoryLog,
    MPICommunicator,
    Run,
    Trainer,
    WeightAverage,
    load_weights,
    save_weights,
)

MODELS = {"lenet": lenet5, "cnn": mnist_cnn}
INPUT_SHAPE = (1, 1, 28, 28)
CHECKOUT = Path("examples/data/mnist")  # in the repository
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
# An option is None until `with_all_options`, which so knows what was given beside --resume.
DEFAULTS = {"model": "lenet", "seed": 1, "checkpoint_every": 200}
# benchmarks/RESULTS.md says how lenet's was chosen.
RECIPES: dict[str, dict[str, Any]] = {
    "lenet": {"augment": True, "epochs": 7, "batch_size": 128, "lr": 0.01},
    "cnn": {"augment": False, "epochs": 5, "batch_size": 64, "lr": 0.01},
    "cnn --augment": {"epochs": 15, "batch_size": 64, "lr": 0.1},
}


def add_options(parser: ArgumentParser) -> None:
    """Add the options of a training; `with_all_options` fills in their defaults."""
    counts: dict[str, Any] = {"type": positive, "metavar": "N"}
    add_model_option(parser)
    epochs = f"passes over the images (default: {_by_recipe('epochs')}); beside --resume, to extend that run"
    parser.add_argument("--epochs", help=epochs, **counts)
    augment = (
        "shift and rotate the images at random (default: only lenet's); the cnn then has its best recipe"
    )
    parser.add_argument("--augment", action=BooleanOptionalAction, help=f"{augment}, see `make_trainer`")
    parser.add_argument("--batch-size", help=f"images a step (default: {_by_recipe('batch_size')})", **counts)
    lr = f"learning rate, or its highest value (default: {_by_recipe('lr')})"
    parser.add_argument("--lr", type=float, help=lr)
    seed = f"of the parameters and the order of the images (default: {DEFAULTS['seed']})"
    parser.add_argument("--seed", type=_natural, metavar="N", help=seed)
    add_data_option(parser)
    parser.add_argument("--out", type=Path, help="folder for weights and picture (default: runs)")
    device = "cuda: on a GPU, by CuPy (default: cpu)"
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=device)
    where = "write checkpoints there, after each epoch and every --checkpoint-every batches, and a history"
    parser.add_argument("--checkpoint-dir", type=Path, metavar="DIR", help=where)
    every = f"batches between two checkpoints (default: {DEFAULTS['checkpoint_every']})"
    parser.add_argument("--checkpoint-every", help=every, **counts)
    resume = "go on with the run whose checkpoints are in DIR, with the options that it had"
    parser.add_argument("--resume", type=Path, metavar="DIR", help=resume)
    parser.add_argument("--subset", help="train on the first N images only", **counts)
    parser.set_defaults(**dict.fromkeys(DEFAULTS))


def _by_recipe(option: str) -> str:
    return "; ".join(f"{name} {recipe[option]}" for name, recipe in RECIPES.items())


def add_model_option(parser: ArgumentParser) -> None:
    """Add --model."""
    lenet = "62 thousand parameters, trained by AdamW with weight decay 0.1 and a one-cycle learning rate"
    cnn = "2.4 million parameters, trained by SGD with momentum 0.9 and weight decay 1e-4"
    help = f"lenet: LeNet-5, {lenet}; cnn: {cnn} (default: lenet)"
    parser.add_argument("--model", choices=tuple(MODELS), default="lenet", help=help)


def add_trained_model_options(parser: ArgumentParser) -> None:
    """Add --model and --weights, which `trained_model` takes."""
    add_model_option(parser)
    weights = "safetensors file (default: those that lenet comes with)"
    parser.add_argument("--weights", type=Path, metavar="FILE", help=weights)


def trained_model(args: Namespace) -> Sequential:
    """The model that `args` name, with its weights.

    Raises:
        ValueError: no weights for the cnn; a file that does not hold weights of this model.
        OSError: the file cannot be read.
    """
    if args.weights is None and args.model == "lenet":
        return lenet5(pretrained=True)
    if args.weights is None:
        raise ValueError(f"--model {args.model} needs --weights: only lenet comes with some")
    model = MODELS[args.model]()
    load_weights(model, args.weights)
    return model


def add_data_option(parser: ArgumentParser) -> None:
    """Add --data, the folder of MNIST, which `load_data` takes."""
    default = f"$TINYCONV_DATA, {CHECKOUT} if it is there, the user's cache folder, or downloaded to it"
    help = f"folder with the four IDX files, zipped or not (Fashion-MNIST's do as well; default: {default})"
    parser.add_argument("--data", type=Path, help=help)


def load_data(folder: Path | None) -> MNIST:
    """MNIST from `folder`; without one, from where the help of --data says.

    Raises:
        ValueError, OSError: as `load_mnist`; where the download fails, with what --data is to be.
    """
    named = folder is not None or os.environ.get("TINYCONV_DATA")
    if not named and all((CHECKOUT / name).is_file() for name in FILES):
        folder = CHECKOUT
    try:
        return load_mnist(folder)
    except OSError as error:
        if named:
            raise
        wanted = f"--data DIR must name a folder that holds {', '.join(FILES)}"
        raise OSError(f"{error}; without a download, {wanted} (a checkout has them in {CHECKOUT})") from error


def with_all_options(args: Namespace) -> Namespace:
    """`args` with all defaults; with --resume, as the options of that run were.

    Where the data are and which device there is, is as `args` says. The run may be given more epochs.

    Raises:
        ValueError, OSError: `args.resume` holds no options of a run, or some that contradict `args`.
    """
    if args.resume is not None and args.checkpoint_dir is not None:
        raise ValueError("--resume goes on writing to its folder: --checkpoint-dir must not be given as well")
    if args.resume is None:
        shares = args.model == "cnn"  # its large weights, among threads
        several = args.device == "cpu" and sys.platform == "linux" and available_cpus() > 1 and not shares
        return _with_defaults(Namespace(**vars(args), workers=2 if several else 1))
    kept = _kept_options(args.resume)
    resumed = _with_defaults(Namespace(**{**vars(args), **kept, "checkpoint_dir": args.resume}))
    _check_no_contradiction(args, resumed)
    print("as the run began:", ", ".join(f"{name} {value}" for name, value in kept.items()))
    resumed.epochs = args.epochs or resumed.epochs
    return resumed


def _with_defaults(args: Namespace) -> Namespace:
    """`args` with a value for each option, some of which depend on others."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    model = given.get("model", DEFAULTS["model"])
    best = model == "cnn" and given.get("augment", False)  # whether the cnn gets its best recipe
    recipe = RECIPES["cnn --augment" if best else model]
    filled = Namespace(**{**vars(args), **DEFAULTS, **recipe, **given}, best=best)
    filled.out = Path(filled.out or "runs")
    return filled


def _check_no_contradiction(args: Namespace, resumed: Namespace) -> None:
    """Check the options that are given beside --resume against the run's own."""
    for name in KEPT:
        given, own, run = getattr(args, name, None), getattr(resumed, name), f"the run in {args.resume}"
        option = f"--{name.replace('_', '-')} (={given})"
        if given is None or given == own:
            continue
        if name != "epochs":
            raise ValueError(f"{option} contradicts {run}, which has {own}: leave it out")
        if given < own:
            raise ValueError(f"{option} must be at least {own}: {run} can only be extended")


def _kept_options(folder: Path) -> dict[str, Any]:
    """The options of the run whose checkpoints are in `folder`."""
    path = folder / OPTIONS
    try:
        kept = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} does not hold the options of a run: {error}") from error
    if not isinstance(kept, dict) or set(kept) != set(KEPT) or kept["model"] not in MODELS:
        raise ValueError(f"{path} does not hold the options of a run: {', '.join(KEPT)}")
    return kept


def _keep_options(args: Namespace) -> None:
    """Write the options beside the checkpoints; those of a resumed run may have been extended."""
    path = args.checkpoint_dir / OPTIONS
    if args.resume is None and path.exists():
        raise ValueError(f"{args.checkpoint_dir} holds another run: --resume it, or name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: getattr(args, name) for name in KEPT}
    write_whole(path, (json.dumps(kept, default=str, indent=1) + "\n").encode())


def make_batches(args: Namespace, data: MNIST, rng: np.random.Generator) -> tuple[DataLoader, DataLoader]:
    """Batches of the training images, shuffled anew in each epoch, and of the test images."""
    images, labels = data.train_images[: args.subset], data.train_labels[: args.subset]
    augment = RandomAffine(degrees=12, translate=2) if args.augment else None
    loader = DataLoader(
        (images, labels), args.batch_size, shuffle=True, generator=rng, transform=normalize, augment=augment
    )
    return loader, DataLoader((data.test_images, data.test_labels), 256, transform=normalize)


def make_trainer(args: Namespace, steps_per_epoch: int, rng: np.random.Generator) -> Trainer:
    """Model, loss, optimiser and schedule.

    The CNN with augmented images is trained longer, by a one-cycle learning rate, towards smoothed labels,
    and evaluated with averaged weights.
    """
    best, lr = args.best, args.lr
    model, criterion = MODELS[args.model](generator=rng), CrossEntropyLoss(label_smoothing=0.1 * best)
    if args.model == "lenet":
        optimizer: Optimizer = AdamW(model, lr=lr, betas=(0.9, 0.99), weight_decay=0.1)
    else:
        optimizer = SGD(model, lr=lr, momentum=0.9, weight_decay=5e-4 if best else 1e-4)
    schedule: OneCycleLR | None = None
    callbacks: list[Callback] = [ShowEpoch()]
    if args.model == "lenet" or best:
        steps, rising = args.epochs * steps_per_epoch, 0.15 if args.model == "lenet" else 0.3
        schedule = OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rising)
    if best:
        callbacks.append(WeightAverage(model, 0.999))
    if args.checkpoint_dir is not None:
        folder, every = args.checkpoint_dir, args.checkpoint_every
        callbacks += [HistoryLog(folder), Checkpoints(folder, every=every)]
    with_mpi = isinstance(args.communicator, MPICommunicator)
    return Trainer(
        model,
        criterion,
        optimizer,
        schedule,
        callbacks=callbacks,
        workers=1 if with_mpi else args.workers,
        communicator=args.communicator if with_mpi else None,
        device=args.device,
        progress=sys.stderr.isatty(),  # a log file gets the lines of ShowEpoch
    )


class ShowEpoch(Callback):
    """Print a line after each epoch."""

    def on_epoch_end(self, run: Run) -> None:
        """Print the record of the epoch."""
        epoch = run.history.epochs[-1]
        training = f"training loss {epoch.train_loss:.4f}, accuracy {epoch.train_accuracy:.2%}"
        tested = f"test loss {epoch.validation_loss:.4f}, accuracy {epoch.validation_accuracy:.2%}"
        speed = f"{epoch.seconds:.1f} s, {epoch.images_per_second:,.0f} images/s"
        print(f"epoch {epoch.epoch}/{run.last_epoch}: {training}; {tested}; {speed}", flush=True)


def fit(args: Namespace, trainer: Trainer, loader: DataLoader, test: DataLoader) -> float:
    """Print the network's table and train, with a line after each epoch.

    Ctrl-C ends the training, but not the program, and says what there is of it. Returns the seconds that it
    took.
    """
    print(trainer.model.summary(INPUT_SHAPE))
    if args.resume is not None:
        if Checkpoints(args.resume).paths():  # a run that was killed before its first begins anew
            trainer.resume()
        print(f"going on after {trainer.run.steps:,} batches")
    if args.checkpoint_dir is not None and args.communicator.rank == 0:
        _keep_options(args)
    start = time.perf_counter()
    try:
        trainer.fit(loader, args.epochs - len(trainer.history.epochs), validation=test)
    except KeyboardInterrupt:
        print(f"\n{_interrupted(args, trainer)}")
    return time.perf_counter() - start


def _interrupted(args: Namespace, trainer: Trainer) -> str:
    """What is left of a training that Ctrl-C has ended, and how it can go on."""
    epochs, folder = trainer.history.epochs, args.checkpoint_dir
    if folder is None:
        if epochs:
            return "interrupted: going on with what has been learnt so far"
        return "interrupted in the first epoch: nothing was saved (with --checkpoint-dir it would be)"
    command = ["python", "-m", "tinyconv", "train", "--resume", str(folder)]
    if args.data is not None:
        command += ["--data", str(args.data)]
    if args.device == "cuda":
        command += ["--device", "cuda"]
    start = "the beginning, as there is no checkpoint yet"
    if Checkpoints(folder).paths():
        start = "the last checkpoint"
    first = "" if epochs else " in the first epoch"
    joined = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    return f"interrupted{first}: to go on from {start}, run\n    {joined}"


def report(args: Namespace, trainer: Trainer, data: MNIST, seconds: float) -> None:
    """Print the result; write weights, averaged ones if there are, and picture; on the first rank alone."""
    if args.communicator.rank:
        return
    if trainer.run.evaluated is not trainer.model:
        trainer.model.load_state_dict(trainer.run.evaluated.state_dict())
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
        raise ArgumentTypeError(f"{value} is less than {least}")
    return value

"""Train LeNet-5 on MNIST: the layers, the loss, the loop and the evaluation, written out.

    python examples/mnist.py
    mpiexec -n 4 python -m mpi4py examples/mnist.py     (on four processes, or machines; see docs/training.md)

There is no autograd behind `model.backward`: it calls the backward of each layer, from the last to the first,
and each of these is a function in tinyconv/functional/ that is written out beside its forward.

`tc.Trainer` has this loop in `fit`, and adds what a longer run needs: worker processes that share each batch,
a progress bar, checkpoints from which a killed run goes on bit by bit, validation and early stopping, clipped
and accumulated gradients, averaged weights, a GPU. `python -m tinyconv train` trains this network with it.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import tinyconv as tc
from tinyconv.arrays import Array, one_blas_thread
from tinyconv.training import Communicator

DATA = Path(__file__).parent / "data" / "mnist"


def lenet5(rng: np.random.Generator) -> tc.Sequential:
    """LeNet-5 with ReLU and max-pooling; `rng` draws its 61,706 parameters."""
    return tc.Sequential(
        tc.Conv2d(1, 6, 5, padding=2, generator=rng),  # (N, 1, 28, 28) -> (N, 6, 28, 28)
        tc.ReLU(),
        tc.MaxPool2d(2),  # (N, 6, 14, 14)
        tc.Conv2d(6, 16, 5, generator=rng),  # (N, 16, 10, 10)
        tc.ReLU(),
        tc.MaxPool2d(2),  # (N, 16, 5, 5)
        tc.Flatten(),  # (N, 400)
        tc.Linear(400, 120, generator=rng),
        tc.ReLU(),
        tc.Linear(120, 84, generator=rng),
        tc.ReLU(),
        tc.Linear(84, 10, generator=rng),  # a score for each digit
    )


def train(
    model: tc.Sequential,
    images: Array,
    labels: Array,
    epochs: int,
    rng: np.random.Generator,
    ranks: Communicator,
) -> None:
    """Show all images to the model `epochs` times, in an order that `rng` draws, 64 at a time."""
    batches = tc.data.DataLoader((images, labels), 64, shuffle=True, generator=rng)
    criterion = tc.CrossEntropyLoss(reduction="sum")
    optimizer = tc.optim.AdamW(model, lr=0.005, weight_decay=0.1)
    schedule = tc.optim.OneCycleLR(optimizer, max_lr=0.005, total_steps=epochs * len(batches))
    for epoch in range(1, epochs + 1):
        start, losses = time.perf_counter(), []
        model.train()
        for x, y in batches.part(ranks.rank, ranks.size):  # this process's part of each batch
            sums = np.array([criterion(model(x), y), len(y)])
            optimizer.zero_grad()
            model.backward(criterion.backward())  # adds to the gradients of all parameters
            ranks.allreduce(sums, *model.grads.values())  # with those of the other parts, if there are any
            for grad in model.grads.values():
                grad /= sums[1]  # of the batch's mean, as all divide by its number of images
            optimizer.step()
            schedule.step()
            losses.append(sums[0] / sums[1])
        seconds = time.perf_counter() - start
        if ranks.rank == 0:
            print(f"epoch {epoch}/{epochs}: training loss {np.mean(losses):.4f}, {seconds:.1f} s", flush=True)


def accuracy(model: tc.Sequential, images: Array, labels: Array) -> float:
    """The share of `images` whose highest score is that of their label."""
    return float((model.predict(images).argmax(axis=1) == labels).mean())


def main() -> None:
    """Load the data, train, evaluate."""
    parser = argparse.ArgumentParser(description="Train LeNet-5 on MNIST, in a loop that is written out.")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the images (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="of parameters and order (default: 1)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with MNIST's four IDX files")
    parser.add_argument("--subset", type=int, help="train on the first images only")
    args = parser.parse_args()
    ranks = tc.training.default_communicator()
    rng = np.random.default_rng(args.seed)  # so that all processes have the same parameters and orders
    mnist = tc.data.load_mnist(args.data)
    model = lenet5(rng)
    images = tc.data.normalize(mnist.train_images[: args.subset])
    with one_blas_thread():  # its own threads would wait for each other wherever another program runs
        train(model, images, mnist.train_labels[: args.subset], args.epochs, rng, ranks)
    correct = accuracy(model, tc.data.normalize(mnist.test_images), mnist.test_labels)
    if ranks.rank == 0:
        print(f"test accuracy {correct:.2%}")


if __name__ == "__main__":
    main()

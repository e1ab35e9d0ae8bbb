"""PyTorch's MNIST example, line by line in tinyconv: a CNN, Adadelta, two dropouts, log_softmax and nll_loss.

The original is https://github.com/pytorch/examples/blob/main/mnist/main.py. Network, optimiser, schedule,
loss and options are the same. What differs: a network is a list of layers, `loss.backward()` is two calls,
that of the loss and that of the model, and batches are NumPy arrays.

    python examples/pytorch_mnist.py --epochs 1     about a minute on two cores
    python examples/pytorch_mnist.py                14 epochs, as there
"""

import argparse
from pathlib import Path

import numpy as np

import tinyconv as tc
from tinyconv.data import DataLoader, load_mnist, normalize
from tinyconv.optim import Adadelta, Optimizer, StepLR
from tinyconv.recipes import positive


def make_net(rng: np.random.Generator) -> tc.Sequential:
    """Build the original's network, from images (N, 1, 28, 28) to log-probabilities (N, 10)."""
    return tc.Sequential(
        tc.Conv2d(1, 32, 3, generator=rng),
        tc.ReLU(),
        tc.Conv2d(32, 64, 3, generator=rng),
        tc.ReLU(),
        tc.MaxPool2d(2),
        tc.Dropout(0.25, generator=rng),
        tc.Flatten(),
        tc.Linear(9216, 128, generator=rng),
        tc.ReLU(),
        tc.Dropout(0.5, generator=rng),
        tc.Linear(128, 10, generator=rng),
        tc.LogSoftmax(dim=1),
    )


def train(
    model: tc.Sequential, train_loader: DataLoader, optimizer: Optimizer, epoch: int, log_interval: int
) -> list[float]:
    """Train for an epoch, with a line for every `log_interval` batches; return the losses."""
    model.train()
    criterion, losses = tc.NLLLoss(), []
    for batch_idx, (data, target) in enumerate(train_loader):
        optimizer.zero_grad()
        output = model.forward(data)
        losses.append(float(criterion.forward(output, target)))
        model.backward_params(criterion.backward())
        optimizer.step()
        if batch_idx % log_interval == 0:
            done, share = batch_idx * train_loader.batch_size, batch_idx / len(train_loader)
            print(
                f"Train Epoch: {epoch} [{done}/{train_loader.samples} ({share:.0%})]\tLoss: {losses[-1]:.6f}",
                flush=True,
            )
    return losses


def test(model: tc.Sequential, test_loader: DataLoader) -> None:
    """Print the loss and the accuracy of the test images."""
    criterion = tc.NLLLoss(reduction="sum")  # sum up batch loss
    test_loss, correct = 0.0, 0
    for data, target in test_loader:
        output = model.predict(data)  # in evaluation mode
        test_loss += float(criterion.forward(output, target))
        correct += int((output.argmax(axis=1) == target).sum())
    count = test_loader.samples
    print(
        f"\nTest set: Average loss: {test_loss / count:.4f}, Accuracy: {correct}/{count} "
        f"({correct / count:.0%})\n",
        flush=True,
    )


def options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="PyTorch's MNIST example in tinyconv.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    folder = Path(__file__).parent / "data" / "mnist"
    parser.add_argument("--batch-size", type=positive, default=64, help="images a training step")
    parser.add_argument("--test-batch-size", type=positive, default=1000, help="images a test batch")
    parser.add_argument("--epochs", type=positive, default=14, help="passes over the training images")
    parser.add_argument("--lr", type=float, default=1.0, help="learning rate")
    parser.add_argument("--gamma", type=float, default=0.7, help="factor of the learning rate after an epoch")
    parser.add_argument("--seed", type=int, default=1, help="of the parameters, the dropouts and the order")
    parser.add_argument("--log-interval", type=positive, default=10, help="batches between two lines")
    parser.add_argument("--subset", type=positive, default=60000, help="train on the first SUBSET images")
    parser.add_argument("--save-model", action="store_true", help="write mnist_cnn.safetensors")
    parser.add_argument("--data", type=Path, default=folder, help="folder with the four IDX files")
    return parser


def main() -> None:
    """Run the example; exit with code 2 for wrong arguments and files."""
    parser = options()
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    try:
        mnist = load_mnist(args.data)
        model = make_net(rng)
        optimizer = Adadelta(model, lr=args.lr)
        scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    images, labels = mnist.train_images[: args.subset], mnist.train_labels[: args.subset]
    train_loader = DataLoader(
        (images, labels), args.batch_size, shuffle=True, generator=rng, transform=normalize
    )
    test_set = mnist.test_images, mnist.test_labels
    test_loader = DataLoader(test_set, args.test_batch_size, transform=normalize)
    for epoch in range(1, args.epochs + 1):
        train(model, train_loader, optimizer, epoch, args.log_interval)
        test(model, test_loader)
        scheduler.step()
    if args.save_model:
        tc.save_weights(model, "mnist_cnn.safetensors")


if __name__ == "__main__":
    main()

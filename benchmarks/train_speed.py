"""Training speed beside PyTorch eager: one epoch on MNIST, round by round.

    python benchmarks/train_speed.py --model lenet --batch-size 128

Both start from the same uint8 images and do the same work: gather a shuffled batch, normalise it,
forward, cross-entropy, backward, SGD with momentum, and read the loss of each step.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import interleave, machine, table, write_json
from networks import pytorch_network

ROOT = Path(__file__).parent.parent


def tinyconv_peer(model: str, batch_size: int, images: int, workers: int) -> Callable[[], float]:
    """Set tinyconv up."""
    import tinyconv as tc
    from tinyconv.data import Batches, load_mnist, normalize

    data = load_mnist(ROOT / "examples" / "data" / "mnist")
    network = {"lenet": tc.models.lenet5, "cnn": tc.models.mnist_cnn}[model](generator=0)
    optimizer = tc.optim.SGD(network, lr=0.01, momentum=0.9)
    trainer = tc.Trainer(network, tc.CrossEntropyLoss(), optimizer, workers=workers, progress=False)
    batches = Batches(
        data.train_images[:images],
        data.train_labels[:images],
        batch_size,
        shuffle=True,
        generator=0,
        transform=normalize,
    )

    def run_round() -> float:
        start = time.perf_counter()
        trainer.fit(batches)
        return time.perf_counter() - start

    return run_round


def pytorch_peer(model: str, batch_size: int, images: int, threads: int) -> Callable[[], float]:
    """Set PyTorch up."""
    import torch
    from torch import nn

    from tinyconv.data import load_mnist

    torch.set_num_threads(threads)
    data = load_mnist(ROOT / "examples" / "data" / "mnist")
    pixels = torch.from_numpy(data.train_images[:images])
    labels = torch.from_numpy(data.train_labels[:images].astype(np.int64))
    network = pytorch_network(model)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def run_round() -> float:
        start = time.perf_counter()
        for chosen in torch.randperm(len(pixels)).split(batch_size):  # type: ignore[no-untyped-call]
            x = ((pixels[chosen].float() / 255 - 0.1307) / 0.3081)[:, None]
            optimizer.zero_grad()
            loss = criterion(network(x), labels[chosen])
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - start

    return run_round


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", choices=("lenet", "cnn"), default="lenet")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=60_000, help="images an epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs that are counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    options: dict[str, object] = {key: getattr(args, key) for key in ("model", "batch_size", "images")}
    seconds = interleave(
        {
            f"tinyconv, {args.threads} workers": (tinyconv_peer, options | {"workers": args.threads}),
            "tinyconv": (tinyconv_peer, options | {"workers": 1}),
            "PyTorch eager": (pytorch_peer, options | {"threads": args.threads}),
        },
        args.rounds,
        args.threads,
    )
    facts = machine(("numpy", "torch"))
    title = f"{args.model}, batch {args.batch_size}, {args.images:,} images an epoch, {args.threads} threads"
    print(table(title, seconds, args.images, "PyTorch eager"))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if args.json:
        write_json(args.json, {"machine": facts, "options": options, "seconds": seconds})


if __name__ == "__main__":
    main()

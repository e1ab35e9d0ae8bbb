"""Peak memory of a process that trains, beside PyTorch's.

    python benchmarks/memory.py

Each trains on random images in a process of its own; what is measured is the peak of the whole process, its
imports included.
"""

import argparse
import json
import resource
import subprocess
import sys

import numpy as np
from networks import pytorch_network

BATCHES = {"lenet": 128, "cnn": 64}
STEPS = 20


def tinyconv_steps(model: str) -> None:
    """Train with tinyconv."""
    import tinyconv as tc

    rng, batch = np.random.default_rng(0), BATCHES[model]
    network = {"lenet": tc.models.lenet5, "cnn": tc.models.mnist_cnn}[model](generator=0)
    criterion, optimizer = tc.CrossEntropyLoss(), tc.optim.SGD(network, lr=0.01, momentum=0.9)
    for _ in range(STEPS):
        x = rng.standard_normal((batch, 1, 28, 28), np.float32)
        criterion(network(x), rng.integers(0, 10, batch))
        network.zero_grad()
        network.backward_params(criterion.backward())
        optimizer.step()


def pytorch_steps(model: str) -> None:
    """Train with PyTorch."""
    import torch

    network = pytorch_network(model)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        criterion(
            network(torch.randn(BATCHES[model], 1, 28, 28)), torch.randint(10, (BATCHES[model],))
        ).backward()
        optimizer.step()


def main() -> None:
    """Run each in a process of its own and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    steps = {"tinyconv": tinyconv_steps, "PyTorch": pytorch_steps}
    if args.child:
        steps[args.child[0]](args.child[1])
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit))
        return
    for model in BATCHES:
        command = [sys.executable, __file__, "--child"]
        peaks = {name: json.loads(subprocess.check_output([*command, name, model])) for name in steps}
        ratio = peaks["tinyconv"] / peaks["PyTorch"]
        listed = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
        print(f"{model}, batch {BATCHES[model]}: {listed}: {ratio:.2f} of PyTorch's")


if __name__ == "__main__":
    main()

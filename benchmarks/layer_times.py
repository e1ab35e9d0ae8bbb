"""Profile of a training step: each layer's forward and backward, on one BLAS thread.

    python benchmarks/layer_times.py --model lenet --batch-size 64

Each of two workers has half of a batch and one BLAS thread, so this is the profile of training at twice the
batch size with two workers. The numbers are medians of many steps; the clock's own cost is part of each.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import machine
from threadpoolctl import threadpool_limits

import tinyconv as tc
from tinyconv.data import normalize

MODELS = {"lenet": tc.models.lenet5, "cnn": tc.models.mnist_cnn}


def clocked(owner: Any, method: str, times: list[float]) -> None:
    """Replace `owner.method` by one that appends its seconds to `times`."""
    call: Callable[..., Any] = getattr(owner, method)

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        times.append(time.perf_counter() - start)
        return result

    setattr(owner, method, timed)


def measure(model: str, batch_size: int, steps: int) -> dict[str, list[float]]:
    """Return the seconds of each part of each step."""
    rng, network = np.random.default_rng(0), MODELS[model](generator=0)
    criterion, optimizer = tc.CrossEntropyLoss(), tc.optim.SGD(network, lr=0.01, momentum=0.9)
    x = normalize(rng.integers(0, 256, (batch_size, 28, 28), np.uint8))
    labels = rng.integers(0, 10, batch_size)
    times: dict[str, list[float]] = defaultdict(list)
    for name, layer in network.children.items():
        clocked(layer, "forward", times[f"{name} {type(layer).__name__} forward"])
    clocked(criterion, "forward", times["loss forward"])
    clocked(criterion, "backward", times["loss backward"])
    for name, layer in reversed(list(network.children.items())):
        for method in ("backward", "backward_params"):
            clocked(layer, method, times[f"{name} {type(layer).__name__} backward"])
    clocked(optimizer, "zero_grad", times["gradients to zero"])
    clocked(optimizer, "step", times["optimiser"])
    for _ in range(steps):
        start = time.perf_counter()
        criterion(network(x), labels)
        optimizer.zero_grad()
        network.backward_params(criterion.backward())
        optimizer.step()
        times["the whole step"].append(time.perf_counter() - start)
    return {name: took[len(took) // 5 :] for name, took in times.items()}  # the first fifth warms up


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=tuple(MODELS), default="lenet")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=250)
    args = parser.parse_args()
    with threadpool_limits(1, user_api="blas"):
        times = measure(args.model, args.batch_size, args.steps)
    total = statistics.median(times["the whole step"])
    for name, took in times.items():
        median = statistics.median(took)
        print(f"{name:32}{1e6 * median:8.0f} us{median / total:7.1%}")
    print(machine())


if __name__ == "__main__":
    main()

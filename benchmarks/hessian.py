"""Cost of a Hessian-vector product relative to a gradient, for both networks.

    python benchmarks/hessian.py

The gradient is with respect to the input and all parameters; the product is with a vector of parameters, and
with one of input and parameters. They take turns, and the ratios are those of neighbours.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from harness import machine

import tinyconv as tc
from tinyconv.arrays import Array


def passes(model: tc.Layer, batch: int) -> dict[str, Callable[[], object]]:
    """Return a gradient and two Hessian-vector products of a network on random images."""
    rng = np.random.default_rng(0)
    criterion = tc.CrossEntropyLoss()

    def normal(like: Array) -> Array:
        return rng.standard_normal(like.shape).astype(np.float32)

    x, target = normal(np.empty((batch, 1, 28, 28))), rng.integers(0, 10, batch)
    x_dot, params_dot = normal(x), {name: normal(param) for name, param in model.params.items()}

    def gradient() -> Array:
        criterion.forward(model.forward(x), target)
        return model.backward(criterion.backward())

    def product(x_dot: Array | None) -> tc.gradients.second_order.HessianVectorProduct:
        return tc.hessian_vector_product(model, criterion, x, target, x_dot, params_dot)

    return {
        "gradient": gradient,
        "product, parameters": lambda: product(None),
        "product, input and parameters": lambda: product(x_dot),
    }


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the seconds of `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    for name, model, batch, repeats in (
        ("lenet5", tc.models.lenet5(generator=0), 128, 5),
        ("mnist_cnn", tc.models.mnist_cnn(generator=0), 64, 1),
    ):
        calls = passes(model, batch)
        rounds = [[seconds(call, repeats) for call in calls.values()] for _ in range(args.rounds + 1)][1:]
        print(f"{name}, batch {batch}, {args.rounds} rounds")
        for i, what in enumerate(calls):
            ratios = [took[i] / took[0] for took in rounds]
            median = statistics.median(took[i] for took in rounds) / repeats
            print(
                f"  {what:32}{1000 * median:8.1f} ms   {statistics.median(ratios):.2f} gradients "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
    print(machine())


if __name__ == "__main__":
    main()

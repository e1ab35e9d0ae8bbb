"""Prediction beside PyTorch under inference_mode: LeNet's latency at batch 1, its throughput at batch 256.

python benchmarks/latency.py
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import interleave, machine, table, write_json
from networks import pytorch_network

CALLS = {1: 500, 256: 20}


def timed(call: Callable[[], object], calls: int) -> float:
    """Seconds of one of `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def tinyconv_peer(batch: int) -> Callable[[], float]:
    """Set tinyconv up."""
    import tinyconv as tc

    model = tc.models.lenet5(generator=0)
    x = np.random.default_rng(0).standard_normal((batch, 1, 28, 28), np.float32)
    return lambda: timed(lambda: model.predict(x), CALLS[batch])


def pytorch_peer(batch: int, threads: int) -> Callable[[], float]:
    """Set PyTorch up."""
    import torch

    torch.set_num_threads(threads)
    model = pytorch_network("lenet").eval()
    x = torch.randn(batch, 1, 28, 28)

    def run_round() -> float:
        with torch.inference_mode():
            return timed(lambda: model(x), CALLS[batch])

    return run_round


def main() -> None:
    """Run both batches and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    results = {}
    for batch in CALLS:
        seconds = interleave(
            {
                "tinyconv": (tinyconv_peer, {"batch": batch}),
                "PyTorch": (pytorch_peer, {"batch": batch, "threads": args.threads}),
            },
            args.rounds,
            args.threads,
        )
        milliseconds = {name: [1e3 * s for s in took] for name, took in seconds.items()}
        print(table(f"LeNet, batch {batch}, in ms", milliseconds, 1000 * batch, "PyTorch"))
        results[batch] = seconds
    if args.json:
        write_json(args.json, {"machine": machine(("numpy", "torch")), "seconds": results})


if __name__ == "__main__":
    main()

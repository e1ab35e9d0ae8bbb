"""LeNet's latency at batch 1 and throughput at batch 256, compared with PyTorch under inference_mode.

python benchmarks/latency.py
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Peers, disturbance_line, machine, seconds_a_call, table, write_json
from networks import pytorch_network

BATCHES = (1, 256)


def tinyconv_peer() -> Callable[[int], float]:
    """Set tinyconv up."""
    import tinyconv as tc

    model = tc.models.lenet5(generator=0)

    def run_round(batch: int) -> float:
        x = np.random.default_rng(0).standard_normal((batch, 1, 28, 28), np.float32)
        return seconds_a_call(lambda: model.predict(x))

    return run_round


def pytorch_peer(threads: int) -> Callable[[int], float]:
    """Set PyTorch up."""
    import torch

    torch.set_num_threads(threads)
    model = pytorch_network("lenet").eval()

    def run_round(batch: int) -> float:
        x = torch.randn(batch, 1, 28, 28)
        with torch.inference_mode():
            return seconds_a_call(lambda: model(x))

    return run_round


def main() -> None:
    """Run both batches and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds that count (default 15)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()
    rows = {}
    with Peers(
        {"tinyconv": (tinyconv_peer, {}), "PyTorch": (pytorch_peer, {"threads": args.threads})}, args.threads
    ) as peers:
        for batch in BATCHES:
            seconds = rows[f"batch {batch}"] = peers.rounds(args.rounds, batch)
            print(table(f"LeNet, batch {batch}", seconds, batch, "PyTorch"))
            print(disturbance_line(peers))
    print(machine())
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    main()

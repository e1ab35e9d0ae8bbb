"""Convolution of usual shapes beside PyTorch: forward, input gradient and weight gradient.

    python benchmarks/conv_shapes.py --rounds 7

Each shape is set up in both libraries in one process each; they take turns, and a round of a peer is the best
of a few calls, which is what a busy machine disturbs least. Ratios above 1 mean that tinyconv is faster.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import Setup, interleave, machine, write_json

# name: channels in, out, size, kernel, options
SHAPES: dict[str, tuple[int, int, int, int, dict[str, Any]]] = {
    "3x3, 64 x 56^2": (64, 64, 56, 3, {"padding": 1}),
    "3x3, 128 x 28^2": (128, 128, 28, 3, {"padding": 1}),
    "3x3, 256 x 14^2": (256, 256, 14, 3, {"padding": 1}),
    "1x1, 64 to 256 x 56^2": (64, 256, 56, 1, {}),
    "1x1, 256 to 64 x 56^2": (256, 64, 56, 1, {}),
    "5x5, 32 x 28^2": (32, 32, 28, 5, {"padding": 2}),
    "7x7 stride 2, 3 to 64 x 112^2": (3, 64, 112, 7, {"padding": 3, "stride": 2}),
    "3x3 depthwise, 128 x 28^2": (128, 128, 28, 3, {"padding": 1, "groups": 128}),
    "3x3 dilated, 64 x 28^2": (64, 64, 28, 3, {"padding": 2, "dilation": 2}),
    "3x3 transposed, 64 x 28^2": (64, 64, 28, 3, {"padding": 1, "stride": 2, "transposed": True}),
}
BATCHES = (1, 16, 64)
PASSES = ("forward", "input gradient", "weight gradient")
LEAST_SECONDS = 0.05


def best(call: Callable[[], object]) -> float:
    """The shortest of a few calls."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < LEAST_SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def tinyconv_peer(shape: str, batch: int, which: str) -> Callable[[], float]:
    """Set tinyconv up, with the activations in its own memory format."""
    import tinyconv.functional as F
    from tinyconv.arrays import batch_first, batch_last

    c, o, size, kernel, options = SHAPES[shape]
    transposed = options.get("transposed", False)
    options = {key: value for key, value in options.items() if key != "transposed"}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, c, size, size), np.float32)
    x = batch_first(np.ascontiguousarray(batch_last(x)))
    w = rng.standard_normal(
        (c if transposed else o, c // options.get("groups", 1), kernel, kernel), np.float32
    )
    forward = F.conv_transpose2d if transposed else F.conv2d
    g = forward(x, w, **options)
    if which == "forward":
        return lambda: best(lambda: forward(x, w, **options))
    if transposed:  # its input gradient is a convolution, the roles of image and cotangent exchanged
        calls = {
            "input gradient": lambda: F.conv2d(g, w, **options),
            "weight gradient": lambda: F.conv2d_weight(g, w.shape, x, **options),
        }
    else:
        calls = {
            "input gradient": lambda: F.conv2d_input(x.shape, w, g, **options),
            "weight gradient": lambda: F.conv2d_weight(x, w.shape, g, **options),
        }
    return lambda: best(calls[which])


def pytorch_peer(shape: str, batch: int, which: str, threads: int) -> Callable[[], float]:
    """Set PyTorch up."""
    import torch

    torch.set_num_threads(threads)
    c, o, size, kernel, options = SHAPES[shape]
    transposed = options.get("transposed", False)
    options = {key: value for key, value in options.items() if key != "transposed"}
    x = torch.randn(batch, c, size, size)
    w = torch.randn(c if transposed else o, c // options.get("groups", 1), kernel, kernel)
    function = torch.nn.functional.conv_transpose2d if transposed else torch.nn.functional.conv2d
    g = torch.randn_like(function(x, w, **options))
    mask = [which == "input gradient", which == "weight gradient", False]
    geometry = [
        [options.get(key, default)] * 2 for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    ]
    groups = options.get("groups", 1)

    def forward() -> None:
        with torch.inference_mode():
            function(x, w, **options)

    def backward() -> None:
        torch.ops.aten.convolution_backward(g, x, w, None, *geometry, transposed, [0, 0], groups, mask)

    return lambda: best(forward if which == "forward" else backward)


def main() -> None:
    """Run the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--only", default="", help="part of a shape's name")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    rows, ratios = [], []
    print(f"{'':32}{'batch':>6}" + "".join(f"{which:>26}" for which in PASSES))
    for shape in (name for name in SHAPES if args.only in name):
        for batch in args.batches:
            cells = []
            for which in PASSES:
                options: dict[str, object] = {"shape": shape, "batch": batch, "which": which}
                peers: dict[str, tuple[Setup, dict[str, object]]] = {
                    "tinyconv": (tinyconv_peer, options),
                    "PyTorch": (pytorch_peer, options | {"threads": args.threads}),
                }
                took = interleave(peers, args.rounds, args.threads)
                ours, theirs = (statistics.median(took[name]) for name in peers)
                ratios.append(theirs / ours)
                cells.append(f"{1e3 * ours:9.2f} {1e3 * theirs:8.2f} {theirs / ours:7.2f}")
                rows.append({**options, "ms": [1e3 * ours, 1e3 * theirs]})
            print(f"{shape:32}{batch:6}" + "".join(cells), flush=True)
    print(f"geometric mean {statistics.geometric_mean(ratios):.2f}, least {min(ratios):.2f}")
    if args.json:
        write_json(args.json, {"machine": machine(("numpy", "torch")), "rows": rows})


if __name__ == "__main__":
    main()

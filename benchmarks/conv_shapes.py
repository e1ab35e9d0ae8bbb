"""Convolutions of common shapes compared with PyTorch: forward, input gradient and weight gradient.

    python benchmarks/conv_shapes.py

Each library has one process for the whole table, and they take turns; a round is the median of many calls
(see harness.py). Neither adds a bias. Each library's arrays have its own layout: (N, C, H, W) for PyTorch,
(H, W, C, N) for tinyconv. PyTorch's forward runs under inference_mode, its gradients are called without
autograd. Ratios above 1 mean that tinyconv is faster; those below 1/3 are marked.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Peers, disturbance_line, machine, ratios, seconds_a_call, write_json

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
LEAST_RATIO = 1 / 3


def rounds_of(make: Callable[[str, int, str], Callable[[], object]]) -> Callable[[str, int, str], float]:
    """Return a peer's round, which times what `make` returns for a shape, a batch and a pass."""
    last: dict[tuple[str, int, str], Callable[[], object]] = {}

    def run_round(*cell: Any) -> float:
        if cell not in last:
            last.clear()
            last[cell] = make(*cell)
        return seconds_a_call(last[cell])

    return run_round


def tinyconv_peer() -> Callable[[str, int, str], float]:
    """Set tinyconv up."""
    return rounds_of(tinyconv_call)


def tinyconv_call(shape: str, batch: int, which: str) -> Callable[[], object]:
    """Return one pass of tinyconv, with the activations in its memory format."""
    import tinyconv.functional as F
    from tinyconv.arrays import as_logical, stored

    x_shape, w_shape, options, transposed = geometry(shape, batch)
    rng = np.random.default_rng(0)
    x = as_logical(stored(rng.standard_normal(x_shape, np.float32)))
    w = rng.standard_normal(w_shape, np.float32)
    function: Callable[..., Any] = F.conv_transpose2d if transposed else F.conv2d
    g = function(x, w, **options)
    if which == "forward":
        return partial(function, x, w, **options)
    image, cotangent = (g, x) if transposed else (x, g)  # a transposed convolution exchanges their roles
    if which == "weight gradient":
        return partial(F.conv2d_weight, image, w_shape, cotangent, **options)
    return (
        partial(F.conv2d, g, w, **options)
        if transposed
        else partial(F.conv2d_input, x_shape, w, g, **options)
    )


def pytorch_peer(threads: int) -> Callable[[str, int, str], float]:
    """Set PyTorch up."""
    import torch

    torch.set_num_threads(threads)
    return rounds_of(pytorch_call)


def pytorch_call(shape: str, batch: int, which: str) -> Callable[[], object]:
    """Return one pass of PyTorch."""
    import torch

    x_shape, w_shape, options, transposed = geometry(shape, batch)
    x, w = torch.randn(x_shape), torch.randn(w_shape)
    functions: Any = torch.nn.functional
    function = functions.conv_transpose2d if transposed else functions.conv2d
    if which == "forward":
        forward: Callable[[], object] = torch.inference_mode()(partial(function, x, w, **options))
        return forward
    g = torch.randn_like(function(x, w, **options))
    defaults = (("stride", 1), ("padding", 0), ("dilation", 1))
    steps = [[options.get(name, default)] * 2 for name, default in defaults]
    mask = [which == "input gradient", which == "weight gradient", False]
    backward = torch.ops.aten.convolution_backward
    return partial(backward, g, x, w, None, *steps, transposed, [0, 0], options.get("groups", 1), mask)


def geometry(shape: str, batch: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], bool]:
    """Return the shapes of image and kernel, the options, and whether the convolution is transposed."""
    c, o, size, kernel, options = SHAPES[shape]
    options = dict(options)
    transposed = options.pop("transposed", False)
    first, second = (c, o) if transposed else (o, c // options.get("groups", 1))
    return (batch, c, size, size), (first, second, kernel, kernel), options, transposed


def measure(peers: Peers, rounds: int, shape: str, batch: int) -> dict[str, tuple[float, float, float]]:
    """Print and return for each pass the median ms of tinyconv and of PyTorch, and the median ratio."""
    cells = {}
    for which in PASSES:
        seconds = peers.rounds(rounds, shape, batch, which)
        ours, theirs = (1e3 * statistics.median(took) for took in seconds.values())
        cells[which] = ours, theirs, statistics.median(ratios(seconds, "PyTorch")["tinyconv"])
    printed = (f"{a:9.2f}{b:9.2f}{r:7.2f}{'!' if r < LEAST_RATIO else ' '}" for a, b, r in cells.values())
    print(f"{shape:32}{batch:6}{''.join(printed)}  {disturbance_line(peers)}", flush=True)
    return cells


def main() -> None:
    """Run the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds that count (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--only", default="", help="part of a shape's name")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()
    rows = {}
    print(f"{'ms of tinyconv, PyTorch; ratio':38}" + "".join(f"{which:>25} " for which in PASSES))
    with Peers(
        {"tinyconv": (tinyconv_peer, {}), "PyTorch": (pytorch_peer, {"threads": args.threads})}, args.threads
    ) as peers:
        for shape in (name for name in SHAPES if args.only in name):
            for batch in args.batches:
                rows[f"{shape}, batch {batch}"] = measure(peers, args.rounds, shape, batch)
    found = {which: [cells[which][2] for cells in rows.values()] for which in PASSES}
    means = ", ".join(f"{which} {statistics.geometric_mean(found[which]):.2f}" for which in PASSES)
    every = [ratio for column in found.values() for ratio in column]
    slow = sum(ratio < LEAST_RATIO for ratio in every)
    print(f"geometric mean {statistics.geometric_mean(every):.2f} ({means})")
    print(f"least {min(every):.2f}; {slow} of {len(every)} below 1/3 (marked !)")
    print(machine())
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    main()

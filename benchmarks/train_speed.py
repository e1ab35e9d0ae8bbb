"""Training speed compared with PyTorch, JAX and DeZero, and with the matrix products alone.

    python benchmarks/train_speed.py                           (lenet and cnn; needs the extra "benchmarks")
    python benchmarks/train_speed.py --model lenet --batch-size 128
    python benchmarks/train_speed.py --model lenet --batch-size 64 --threads 1 --pytorch-only
    python benchmarks/train_speed.py --model resnet18 --threads 1 --rounds 2 --pytorch-only

LeNet and the CNN train on MNIST; resnet18, vgg11 and mobilenet, which run only where `--model` names them, on
random RGB images of 32x32 pixels.

Every peer does the same work for each batch: uint8 images and labels gathered by a shuffled index,
normalised to float32, forward, mean cross-entropy, backward, a step of SGD with momentum 0.9, and the loss
read. The peers:

- tinyconv with as many workers as threads, and with one (whose BLAS then has all threads);
- PyTorch eager; eager with network and images in channels_last; torch.compile over normalising, network and
  loss (which needs a C++ compiler); the backward is compiled with them;
- JAX with the whole step, optimiser included, jitted; its parameters are donated;
- DeZero, a framework in NumPy only, on fewer images, as it is slow;
- GEMMs alone: the matrix products of forward, weight gradient and (except in the first layer) input gradient
  of every layer with existing matrices in NumPy, a convolution as (O, C*KH*KW) @ (C*KH*KW, OH*OW*N). There is
  no gathering, adding, pooling or updating, so only another algorithm can be faster.

Ratios are to the fastest of PyTorch's. Peers that are not installed are left out, and so are JAX, DeZero and
the GEMMs in the three large networks.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    Peers,
    Seconds,
    Setup,
    UnavailableError,
    bar_chart,
    disturbance_line,
    fastest,
    machine,
    ratios,
    table,
    write_json,
)
from networks import (
    FOR_MNIST,
    LR,
    MOMENTUM,
    dezero_step,
    image_shape,
    jax_step,
    products,
    pytorch_network,
    tinyconv_network,
)

from tinyconv.arrays import Array, formatted

ROOT = Path(__file__).parent.parent
BATCH_SIZES = {"lenet": (32, 128, 512), "cnn": (64,), "resnet18": (64,), "vgg11": (64,), "mobilenet": (64,)}
IMAGES = {  # per round, which takes some seconds
    "lenet": 20_000,
    "cnn": 2_000,
    "resnet18": 128,
    "vgg11": 256,
    "mobilenet": 256,
}
FEWER = 10  # for DeZero


def tinyconv_peer(model: str, batch_size: int, images: int, workers: int) -> Callable[[], float]:
    """Set tinyconv up; a round is an epoch."""
    import tinyconv as tc
    from tinyconv.data import DataLoader, normalize

    network = tinyconv_network(model)
    optimizer = tc.optim.SGD(network, lr=LR, momentum=MOMENTUM)
    trainer = tc.Trainer(network, tc.CrossEntropyLoss(), optimizer, workers=workers, progress=False)
    batches = DataLoader(
        data_of(model, batch_size, images),
        batch_size,
        shuffle=True,
        generator=0,
        transform=normalize if model in FOR_MNIST else normalize_rgb,
    )

    def run_round() -> float:
        start = time.perf_counter()
        trainer.fit(batches)
        return (time.perf_counter() - start) / len(batches)

    return run_round


def step_peer(
    framework: str, model: str, batch_size: int, images: int, **options: Any
) -> Callable[[], float]:
    """Set another framework up; a round is an epoch of its training steps."""
    steps: dict[str, Callable[..., Callable[[Array, Array], float]]] = {
        "PyTorch": pytorch_step,
        "JAX": jax_step,
        "DeZero": dezero_step,
    }
    step = steps[framework](model, **options)
    pixels, labels = data_of(model, batch_size, images)
    rng = np.random.default_rng(0)
    try:
        step(pixels[:batch_size], labels[:batch_size])  # compiles
    except RuntimeError as error:
        raise UnavailableError(f"its first step failed: {str(error).strip().splitlines()[0]}") from error

    def run_round() -> float:
        start = time.perf_counter()
        chosen = rng.permutation(len(pixels)).reshape(-1, batch_size)
        for index in chosen:
            step(pixels[index], labels[index])
        return (time.perf_counter() - start) / len(chosen)

    return run_round


def data_of(model: str, batch_size: int, images: int) -> tuple[Array, Array]:
    """Return uint8 images and labels for a network, as many as fill whole batches."""
    if model in FOR_MNIST:
        return training_data(batch_size, images)
    rng = np.random.default_rng(0)
    count = max(1, images // batch_size) * batch_size
    return rng.integers(0, 256, (count, *image_shape(model)), np.uint8), rng.integers(0, 10, count)


def normalize_rgb(images: Array) -> Array:
    """Do with (N, 3, H, W) what `tinyconv.data.normalize` does with (N, H, W)."""
    pixels: Array = formatted(images).astype(np.float32)
    pixels *= 1 / (255 * 0.3081)
    pixels -= 0.1307 / 0.3081
    return pixels


def training_data(batch_size: int, images: int) -> tuple[Array, Array]:
    """Return the first images and labels of MNIST, as many as fill whole batches."""
    from tinyconv.data import load_mnist

    data = load_mnist(ROOT / "examples" / "data" / "mnist")
    count = max(1, images // batch_size) * batch_size
    return data.train_images[:count], data.train_labels[:count].astype(np.int64)


def pytorch_step(model: str, threads: int, variant: str) -> Callable[[Array, Array], float]:
    """Return a training step of PyTorch."""
    import torch

    torch.set_num_threads(threads)
    layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    network = pytorch_network(model).to(memory_format=layout)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)

    def loss_of(pixels: torch.Tensor, labels: torch.Tensor) -> Any:
        x = ((pixels.float() / 255 - 0.1307) / 0.3081).reshape(-1, *image_shape(model))
        return criterion(network(x.contiguous(memory_format=layout)), labels)

    forward = torch.compile(loss_of) if variant == "torch.compile" else loss_of

    def step(pixels: Array, labels: Array) -> float:
        optimizer.zero_grad()
        loss = forward(torch.from_numpy(pixels), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        loss_value: float = loss.item()
        return loss_value

    return step


def products_peer(model: str, batch_size: int, images: int) -> Callable[[], float]:
    """Set the matrix products up; a round is as many repetitions as there are batches."""
    rng = np.random.default_rng(0)
    calls: list[Callable[[], object]] = []
    for number, (rows, columns, positions) in enumerate(products(model)):
        w = rng.standard_normal((rows, columns), np.float32)
        x = rng.standard_normal((columns, positions * batch_size), np.float32)
        g = rng.standard_normal((rows, positions * batch_size), np.float32)
        calls.append(partial(np.matmul, w, x, out=np.empty_like(g)))
        calls.append(partial(np.matmul, g, x.T, out=np.empty_like(w)))
        if number:
            calls.append(partial(np.matmul, w.T, g, out=np.empty_like(x)))
    repeats = max(1, images // batch_size)

    def run_round() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            for call in calls:
                call()
        return (time.perf_counter() - start) / repeats

    return run_round


def measure(
    model: str, batch_size: int, images: int, rounds: int, threads: int, pytorch_only: bool
) -> Seconds:
    """Run one row of the comparison and print it."""
    options = {"model": model, "batch_size": batch_size, "images": images}
    frameworks: dict[str, dict[str, Any]] = {
        f"PyTorch {variant}": {"framework": "PyTorch", "variant": variant, "threads": threads}
        for variant in ("eager", "channels_last", "torch.compile")
    }
    if not pytorch_only:
        frameworks["JAX jit"] = {"framework": "JAX"}
        frameworks["DeZero"] = {"framework": "DeZero", "images": images // FEWER}
    peers: dict[str, tuple[Setup, dict[str, Any]]] = {
        f"tinyconv, workers: {workers}": (tinyconv_peer, options | {"workers": workers})
        for workers in sorted({threads, 1}, reverse=True)
    }
    peers |= {name: (step_peer, options | chosen) for name, chosen in frameworks.items()}
    peers["GEMMs alone"] = (products_peer, options)
    with Peers(peers, threads) as running:
        seconds = running.rounds(rounds)
    baseline = fastest(seconds, "PyTorch")
    print(table(f"{model}, batch {batch_size}", seconds, batch_size, baseline))
    ours = fastest(seconds, "tinyconv")
    if "GEMMs alone" in seconds:
        share = statistics.median(ratios(seconds, "GEMMs alone")[ours])
        print(f"{ours}: {share:.0%} of the GEMM-only bound", end="; ")
    print(f"{disturbance_line(running)}\n", flush=True)
    return seconds


def main() -> None:
    """Run the requested rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=tuple(BATCH_SIZES), help="default: lenet and cnn")
    parser.add_argument("--batch-size", type=int, help="only this one")
    parser.add_argument(
        "--images", type=int, help="number of images per round (default: a few seconds' worth)"
    )
    parser.add_argument("--rounds", type=int, default=11, help="number of rounds that count (default 11)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--pytorch-only", action="store_true", help="leave out JAX and DeZero")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--chart", type=Path, help="file for a bar chart: PNG, SVG or PDF")
    args = parser.parse_args()
    rows, images = {}, {}
    for model in [args.model] if args.model else FOR_MNIST:
        for batch_size in [args.batch_size] if args.batch_size else BATCH_SIZES[model]:
            name = f"{model}, batch {batch_size}"
            count = args.images or IMAGES[model]
            rows[name] = measure(model, batch_size, count, args.rounds, args.threads, args.pytorch_only)
            images[name] = batch_size
    print(machine())
    if args.json:
        write_json(args.json, rows)
    if args.chart:
        bar_chart(args.chart, rows, images)


if __name__ == "__main__":
    main()

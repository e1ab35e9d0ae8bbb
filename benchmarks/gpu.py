"""Training speed on a GPU compared with PyTorch, and the table of the article that `mnist_cnn` comes from.

    python benchmarks/gpu.py                            (all rows; needs CuPy, and PyTorch for its rows)
    python benchmarks/gpu.py --model lenet --batch-size 128

Every peer does the same work for each batch: uint8 images and labels, which are stored on the device,
gathered by a shuffled index, normalised to float32, forward, mean cross-entropy, backward, a step of SGD with
momentum 0.9. Losses are not read between steps. All compute in full float32; TF32 is off. The peers:

- tinyconv without a CUDA graph, and with the step captured as one. Its trainer also adds up loss and
  accuracy on the device;
- PyTorch with cudnn.benchmark and the fused SGD: eager; with network and images in channels_last;
  torch.compile over gathering, normalising, network and loss; the whole eager step as a CUDA graph; and the
  whole compiled one.

A round is LEAST_STEPS to MOST_STEPS steps over as many of MNIST's images as fill whole batches; the time is
that between two events on the device, from the fourth step on, which excludes a new capture. It includes what
the trainer does at an epoch's end. Memory is what a process has allocated on the device by the end of a first
round, beyond the bare CUDA context: arrays, workspaces, graphs and kernels. It is read from cudaMemGetInfo,
which requires that nobody else uses the device, and is the peak, as these allocators do not free memory
during training.

Ratios are to the fastest of PyTorch's. Peers that are not installed, or for which the memory left by the
others is too small, are left out. The article's table, 5 epochs of the CNN at batch 64 including all costs of
an epoch, follows the row that it belongs to.
"""

import argparse
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from harness import (
    Peers,
    Seconds,
    Setup,
    UnavailableError,
    disturbance_line,
    fastest,
    machine,
    ratios,
    write_json,
)
from networks import LR, MOMENTUM, pytorch_network
from train_speed import ROOT, training_data

from tinyconv.arrays import device_module

MODELS = ("lenet", "cnn")
BATCH_SIZES = (64, 128, 512, 4096)
IMAGES = 60_000
VARIANTS: dict[str, dict[str, bool]] = {
    "eager": {},
    "channels_last": {"channels_last": True},
    "torch.compile": {"compiled": True},
    "CUDA graph": {"graph": True},
    "compiled CUDA graph": {"compiled": True, "graph": True},
}
LEAST_STEPS, MOST_STEPS, SKIPPED = 50, 200, 3
WARM_UP_STEPS = 3  # before a capture
EPOCHS, ARTICLE_BATCH, WEIGHT_DECAY = 5, 64, 1e-4
ARTICLE = {"article, nn.Conv2d": (0.992, 33.7), "article, its own convolution": (0.991, 76.5)}


class Device(NamedTuple):
    """A framework's functions to measure with: a new event, milliseconds between two, free bytes."""

    event: Callable[[], Any]
    milliseconds: Callable[[Any, Any], float]
    free: Callable[[], int]


class Steps:
    """The time on the device from a round's fourth step to its end, and the free memory then."""

    def __init__(self, device: Device) -> None:
        self._device, self.begun, self.free = device, 0, 0
        self._start, self._end = device.event(), device.event()

    def begin(self) -> None:
        """Note that a step begins."""
        if self.begun == SKIPPED:
            self._start.record()
        self.begun += 1

    def end(self) -> None:
        """Note that the last step is over; the last call counts."""
        self._end.record()
        self.free = self._device.free()

    def seconds(self) -> float:
        """Return the seconds per step."""
        self._end.synchronize()
        return self._device.milliseconds(self._start, self._end) / 1e3 / (self.begun - SKIPPED)


def rounds(
    train: Callable[[int, Steps], object], count: int, device: Device, before: int
) -> Callable[..., float]:
    """Train a first round, and return a function that runs one: seconds per step, or bytes for "memory".

    `count` is the number of batches, of which `train` passes over all several times; `before` the free memory
    before any setup.
    """
    passes, first = -(-LEAST_STEPS // count), Steps(device)
    train(passes, first)

    def run_round(figure: str = "seconds") -> float:
        if figure == "memory":
            return before - first.free
        steps = Steps(device)
        train(passes, steps)
        return steps.seconds()

    return run_round


def tinyconv_peer(model: str, batch_size: int, cuda_graph: bool) -> Callable[..., float]:
    """Set tinyconv up."""
    import tinyconv as tc
    from tinyconv.data import DataLoader, normalize

    logging.basicConfig(level=logging.INFO)  # the trainer logs when it cannot capture

    class Timing(tc.training.Callback):
        steps: Steps

        def on_batch_begin(self, run: tc.training.Run) -> None:
            self.steps.begin()

        def on_epoch_end(self, run: tc.training.Run) -> None:
            self.steps.end()

    cupy = device_module("cuda")
    device = Device(
        cupy.cuda.Event, cupy.cuda.get_elapsed_time, lambda: int(cupy.cuda.runtime.memGetInfo()[0])
    )
    before = device.free()
    network = {"lenet": tc.models.lenet5, "cnn": tc.models.mnist_cnn}[model](generator=0)
    optimizer = tc.optim.SGD(network, lr=LR, momentum=MOMENTUM)
    timing = Timing()
    trainer = tc.Trainer(
        network,
        tc.CrossEntropyLoss(),
        optimizer,
        callbacks=[timing],
        device="cuda",
        cuda_graph=cuda_graph,
        progress=False,
    )
    images, labels = training_data(batch_size, min(IMAGES, MOST_STEPS * batch_size))
    batches = DataLoader((images, labels), batch_size, shuffle=True, generator=0, transform=normalize)
    batches.move(cupy)

    def train(passes: int, steps: Steps) -> None:
        timing.steps = steps
        trainer.fit(batches, passes)

    try:
        return rounds(train, len(batches), device, before)
    except MemoryError as error:
        raise UnavailableError(str(error)) from error


def pytorch_peer(model: str, batch_size: int, **variant: bool) -> Callable[..., float]:
    """Set a variant of PyTorch up."""
    import torch

    cuda: Any = torch.cuda
    if not cuda.is_available():
        raise UnavailableError("it does not find a GPU")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    device = Device(
        partial(cuda.Event, enable_timing=True), cuda.Event.elapsed_time, lambda: int(cuda.mem_get_info()[0])
    )
    before = device.free()
    images, labels = (
        torch.from_numpy(array).cuda()
        for array in training_data(batch_size, min(IMAGES, MOST_STEPS * batch_size))
    )
    try:
        step = pytorch_step(model, images, labels, torch.arange(batch_size, device="cuda"), **variant)

        def train(passes: int, steps: Steps) -> None:
            for _ in range(passes):
                for index in torch.randperm(len(labels), device="cuda").view(-1, batch_size):
                    steps.begin()
                    step(index)
            steps.end()

        return rounds(train, len(labels) // batch_size, device, before)
    except RuntimeError as error:  # out of memory, or a failed compilation or capture
        raise UnavailableError(str(error).strip().splitlines()[0]) from error


def pytorch_step(
    model: str,
    images: Any,
    labels: Any,
    index: Any,
    channels_last: bool = False,
    compiled: bool = False,
    graph: bool = False,
) -> Callable[[Any], object]:
    """Return a training step of PyTorch on the images at an index; `index` warms up before a capture."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = pytorch_network(model).cuda().to(memory_format=layout)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, fused=True)

    def loss_of(index: torch.Tensor) -> Any:
        x = ((images[index].float() / 255 - 0.1307) / 0.3081)[:, None]
        return criterion(network(x.contiguous(memory_format=layout)), labels[index])

    forward = torch.compile(loss_of) if compiled else loss_of

    def step(index: torch.Tensor) -> None:
        optimizer.zero_grad()
        forward(index).backward()
        optimizer.step()

    return captured(step, index) if graph else step


def captured(step: Callable[[Any], None], index: Any) -> Callable[[Any], None]:
    """Return `step` as a replayed CUDA graph, as in "Whole-network capture" of PyTorch's documentation."""
    import torch

    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        for _ in range(WARM_UP_STEPS):
            step(index)
    cuda.current_stream().wait_stream(stream)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        step(index)

    def replay(chosen: torch.Tensor) -> None:
        index.copy_(chosen)
        graph.replay()

    replay.step = step  # type: ignore[attr-defined]  # the graph uses its parameters and kernels
    return replay


def measure(model: str, batch_size: int, count: int) -> dict[str, Seconds]:
    """Run one row of the comparison and print it; return seconds per step, and bytes, of each peer."""
    options = {"model": model, "batch_size": batch_size}
    peers: dict[str, tuple[Setup, dict[str, Any]]] = {
        "tinyconv plain": (tinyconv_peer, options | {"cuda_graph": False}),
        "tinyconv graph": (tinyconv_peer, options | {"cuda_graph": True}),
    }
    peers |= {f"PyTorch {name}": (pytorch_peer, options | variant) for name, variant in VARIANTS.items()}
    with Peers(peers, os.cpu_count() or 1) as running:
        seconds = running.rounds(count)
        disturbance = disturbance_line(running)
        taken = running.rounds(1, "memory")
    if seconds:
        print(table(f"{model}, batch {batch_size}", seconds, taken, batch_size))
    print(f"{disturbance}\n", flush=True)
    return {"seconds": seconds, "bytes": taken}


def table(title: str, seconds: Seconds, taken: Seconds, batch_size: int) -> str:
    """Return a table of the peers' medians, extremes, memory and speed against PyTorch's fastest."""
    baseline = fastest(seconds, "PyTorch" if any(name.startswith("PyTorch") for name in seconds) else "")
    lines = [f"{title:30}{'ms':>9}{'extremes':>21}{'images/s':>12}{'MB':>8}   speed against {baseline}"]
    for name, ratio in ratios(seconds, baseline).items():
        low, median, high = (1e3 * f(seconds[name]) for f in (min, statistics.median, max))
        lines.append(
            f"{name:30}{median:9.3f}{f'{low:.3f} to {high:.3f}':>21}{1e3 * batch_size / median:12,.0f}"
            f"{taken[name][0] / 1e6:8,.0f}   {statistics.median(ratio):.2f}"
        )
    return "\n".join(lines)


def article() -> dict[str, Any]:
    """Train the CNN as the article does, print its table, and return the accuracies and the seconds."""
    import tinyconv as tc
    from tinyconv.data import DataLoader, load_mnist, normalize

    data = load_mnist(ROOT / "examples" / "data" / "mnist")
    network = tc.models.mnist_cnn(generator=1)
    optimizer = tc.optim.SGD(network, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    trainer = tc.Trainer(
        network, tc.CrossEntropyLoss(), optimizer, device="cuda", cuda_graph=True, progress=False
    )
    images, labels = data.train_images, data.train_labels
    batches = DataLoader((images, labels), ARTICLE_BATCH, shuffle=True, generator=1, transform=normalize)
    test = DataLoader((data.test_images, data.test_labels), 256, transform=normalize)
    start = time.perf_counter()
    epochs = trainer.fit(batches, EPOCHS, validation=test).epochs
    seconds = time.perf_counter() - start
    accuracies = [epoch.validation_accuracy or 0.0 for epoch in epochs]
    print(f"{f'cnn, {EPOCHS} epochs, batch {ARTICLE_BATCH}':30}{'best':>8}{'seconds':>9}   after each epoch")
    for name, (best, took) in ARTICLE.items():
        print(f"{name:30}{best:8.1%}{took:9.1f}")
    each = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
    print(f"{'tinyconv graph, with tests':30}{max(accuracies):8.2%}{seconds:9.1f}   {each}\n", flush=True)
    training = sum(epoch.seconds for epoch in epochs)
    return {"accuracies": accuracies, "seconds": seconds, "seconds of training": training}


def described() -> str:
    """Return the device and the versions of its software in one line."""
    cupy = device_module("cuda")
    runtime = cupy.cuda.runtime
    facts = [runtime.getDeviceProperties(0)["name"].decode()]
    with suppress(OSError, subprocess.CalledProcessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        facts.append(f"driver {subprocess.check_output(query, text=True).strip()}")
    facts.append(f"driver's CUDA {_cuda_version(runtime.driverGetVersion())}")
    local = _cuda_version(cupy.cuda.get_local_runtime_version())
    facts.append(f"CuPy {cupy.__version__} with CUDA {local}")
    with suppress(ImportError):
        import torch

        cudnn: Any = torch.backends.cudnn
        facts.append(
            f"PyTorch {torch.__version__} with CUDA {torch.version.cuda} and cuDNN {cudnn.version()}"
        )
    return ", ".join(facts)


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def main() -> None:
    """Run the requested rows; without a GPU or CuPy print one line and exit with code 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--batch-size", type=int, help="only this one")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds that count (default 5)")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()
    os.environ["CUPY_TF32"] = "0"  # for CuPy here and in the peers
    try:
        facts = described()
    except RuntimeError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{facts}\n{machine()}\n", flush=True)
    results: dict[str, Any] = {"device": facts}
    for model in [args.model] if args.model else MODELS:
        for batch_size in [args.batch_size] if args.batch_size else BATCH_SIZES:
            results[f"{model}, batch {batch_size}"] = measure(model, batch_size, args.rounds)
            if (model, batch_size) == ("cnn", ARTICLE_BATCH):
                results["article"] = article()
    if args.json:
        write_json(args.json, results)


if __name__ == "__main__":
    main()

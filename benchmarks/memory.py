"""Peak memory of a training process, compared with PyTorch's.

    python benchmarks/memory.py
    python benchmarks/memory.py --model resnet18

Each trains on random images (for 40 steps; resnet18, vgg11 and mobilenet for 4) in a separate process,
including its imports. For one process it is the peak of the resident memory. With two workers, if the system
supports it (/proc/PID/smaps_rollup), it is the peak of the sum of both processes' proportional memory (Pss,
in which shared memory is divided among them), read every few milliseconds.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from harness import machine
from networks import FOR_MNIST, LR, MOMENTUM, image_shape, pytorch_network, tinyconv_network

BATCHES = {"lenet": 128, "cnn": 64, "resnet18": 64, "vgg11": 64, "mobilenet": 64}
PAUSE_SECONDS = 0.005


def steps(model: str) -> int:
    """Return how many steps each trains; the large networks reach their peak in few, which take seconds."""
    return 40 if model in FOR_MNIST else 4


def tinyconv_steps(model: str, workers: int) -> None:
    """Train with tinyconv."""
    import tinyconv as tc

    rng, batch = np.random.default_rng(0), BATCHES[model]
    network = tinyconv_network(model)
    optimizer = tc.optim.SGD(network, lr=LR, momentum=MOMENTUM)
    trainer = tc.Trainer(network, tc.CrossEntropyLoss(), optimizer, workers=workers, progress=False)
    shape = batch, *image_shape(model)
    images = (rng.standard_normal(shape, np.float32) for _ in range(steps(model)))
    trainer.fit((x, rng.integers(0, 10, batch)) for x in images)


def pytorch_steps(model: str, workers: int) -> None:
    """Train with PyTorch."""
    import torch

    network, batch = pytorch_network(model), BATCHES[model]
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)
    for _ in range(steps(model)):
        optimizer.zero_grad()
        loss = criterion(network(torch.randn(batch, *image_shape(model))), torch.randint(10, (batch,)))
        loss.backward()
        optimizer.step()
        loss.item()


PEERS = {"tinyconv": tinyconv_steps, "PyTorch": pytorch_steps}


def peak_mb(framework: str, model: str, workers: int) -> float:
    """Return the peak of a process, or of a process and its workers together."""
    command = [sys.executable, __file__, "--child", framework, model, str(workers)]
    if workers == 1:
        return float(subprocess.check_output(command))
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        while process.poll() is None:
            peak = max(peak, proportional_kb(process.pid))
            time.sleep(PAUSE_SECONDS)
    if process.returncode:
        raise RuntimeError(f"{framework} ended with exit code {process.returncode}")
    return peak / 1024


def proportional_kb(session: int) -> int:
    """Return the sum of Pss over the processes of a session."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ProcessLookupError):  # it has ended
            if os.getsid(int(folder.name)) == session:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Run each in a separate process and print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=tuple(BATCHES), help="default: all")
    args = parser.parse_args()
    if args.child:
        framework, model, workers = args.child
        PEERS[framework](model, int(workers))
        unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
        return
    for model in [args.model] if args.model else BATCHES:
        theirs = peak_mb("PyTorch", model, 1)
        print(f"{model}, batch {BATCHES[model]}: PyTorch {theirs:.0f} MB")
        for workers in (1, 2) if Path("/proc/self/smaps_rollup").exists() else (1,):
            ours = peak_mb("tinyconv", model, workers)
            print(f"  tinyconv, workers: {workers}: {ours:.0f} MB, {ours / theirs:.2f} of PyTorch's")
    print(machine())


if __name__ == "__main__":
    main()

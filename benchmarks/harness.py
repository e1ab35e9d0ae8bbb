"""Interleaved timing: every peer lives in a process of its own, and they take turns round by round.

The machine's speed may drift; a round of one peer directly follows a round of the other, so that the
ratio of the two holds. The first round of each is a warm-up and not counted.
"""

import json
import multiprocessing
import os
import platform
import statistics
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

Setup = Callable[..., Callable[[], float]]


def interleave(
    peers: dict[str, tuple[Setup, dict[str, object]]], rounds: int, threads: int
) -> dict[str, list[float]]:
    """Seconds of each round of each peer.

    A peer is a function, importable from a module, and its arguments. It sets itself up, and returns a
    function that runs one round and returns the seconds that it took.
    """
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, (setup, options) in peers.items():
        here, there = context.Pipe()
        context.Process(target=_serve, args=(there, setup, options)).start()
        pipes[name] = here
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    try:
        for number in range(rounds + 1):
            for name, pipe in pipes.items():
                pipe.send("round")
                took = pipe.recv()
                if number:
                    seconds[name].append(took)
    finally:
        for pipe in pipes.values():
            pipe.close()
    return seconds


def _serve(pipe: Connection, setup: Setup, options: dict[str, object]) -> None:
    run_round = setup(**options)
    with suppress(EOFError):  # the other end was closed
        while pipe.recv():
            pipe.send(run_round())


def table(title: str, seconds: dict[str, list[float]], images: int, baseline: str) -> str:
    """Median, spread, images/s, and the median ratio to `baseline`, round by round."""
    lines = [
        title,
        f"{'':24}{'median s':>10}{'min':>9}{'max':>9}{'images/s':>10}   speed against {baseline}",
    ]
    for name, took in seconds.items():
        median = statistics.median(took)
        ratios = [b / t for t, b in zip(took, seconds[baseline], strict=True)]
        lines.append(
            f"{name:24}{median:10.3f}{min(took):9.3f}{max(took):9.3f}{images / median:10,.0f}"
            f"   {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    return "\n".join(lines)


def machine(modules: Iterable[str]) -> dict[str, str]:
    """What the figures depend on."""
    from importlib.metadata import version

    facts = {"machine": platform.machine(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    return facts | {name: version(name) for name in modules}


def write_json(path: Path, results: object) -> None:
    """Write `results` as JSON."""
    path.write_text(json.dumps(results, indent=1) + "\n")

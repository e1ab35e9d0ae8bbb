"""A training step as one CUDA graph: captured once, then launched for each batch.

The shapes of a layered network are constant, and so are the addresses of its arrays: the kernels of forward,
loss, backward and optimiser are the same in each step. The GPU runs them all in one launch, and Python runs
through the layers only once.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

import tinyconv.gpu.cublas as cublas
from tinyconv.arrays import Array
from tinyconv.gpu.cublas import tf32

logger = logging.getLogger(__name__)

Updates = list[Callable[[], None]]


def check_device(cuda_graph: bool | None, xp: Any, ranks: int) -> None:
    """Check that a Trainer may have this argument, and so many ranks, on the device of `xp`.

    Raises:
        ValueError: a graph on the CPU, or several ranks on a GPU.
    """
    if cuda_graph and xp is np:
        raise ValueError(f"`cuda_graph` (={cuda_graph}) needs a GPU")
    if ranks > 1 and xp is not np:
        raise ValueError(f"`workers` or the size of `communicator` (={ranks}) must be 1 on a GPU")


def step_graph(loop: Any, xp: Any) -> "StepGraph | None":
    """Return the steps of a training loop as a CUDA graph, which gives the same bits; None if they cannot be.

    A graph is not used for a model that draws random numbers, for a callback that is not `replayable`, nor
    for data with targets that the criterion may ignore, as the host has to know whether to skip a step; the
    log says so. (The targets of an iterable other than a `DataLoader` are not known in advance: a batch of
    ignored ones makes a step, with a gradient of 0.) If the graph can gather a `DataLoader`'s samples itself,
    it is called with their indices instead of inputs and targets.
    """
    run = loop.run
    if tf32():
        logger.warning("TF32 is on (CUPY_TF32): float32 is multiplied with 10 bits of mantissa")
    if (obstacle := _obstacle(loop, xp)) is not None:
        logger.info(f"steps run without a CUDA graph: {obstacle}")
        return None
    gathers = getattr(run.batches, "gathers", False)

    def compute(updates: Updates, *batch: Array) -> Array:
        inputs, targets = run.batches.gathered(*batch) if gathers else batch
        sums: Array = loop.add_gradients(inputs, targets)
        run.call("on_gradients")
        for update in updates:
            update()
        return sums

    def arrays() -> list[Array]:
        samples = run.batches.dataset if gathers else ()
        return [*run.model.arrays(), *run.optimizer.arrays(), *samples]

    return StepGraph(compute, run.optimizer.begin_step, arrays, xp, gathers)


def _obstacle(loop: Any, xp: Any) -> str | None:
    """Why the steps cannot be a CUDA graph; None if nothing is known that prevents it."""
    run = loop.run
    if run.accumulate > 1:
        return "gradients are accumulated"
    if loop.reads:
        return "some targets may be ignored"
    if run.draws:
        return "the model draws random numbers"
    if not all(callback.replayable for callback in run.clipping):
        return "a callback has its own `on_gradients`"
    return "the file of cuBLAS was not found" if cublas.library(xp) is None else None


class StepGraph:
    """Run training steps as a CUDA graph, captured at the second step in a row with equal shapes.

    Where that fails, for example because a layer reads a number on the host, steps run without a graph from
    then on, and the log says so. A failed capture has computed nothing.

    Args:
        step: is called with the updates and the arrays of a batch; computes loss and gradients, runs the
            updates, and returns an array.
        begin_step: the optimiser's method, which the host calls before each step.
        arrays: returns the arrays that are kept from step to step; if they change, the step is captured
            again.
        xp: CuPy's module.
        gathers: whether a batch is the array of its samples' indices.
    """

    def __init__(
        self,
        step: Callable[..., Array],
        begin_step: Callable[[], Updates],
        arrays: Callable[[], list[Array]],
        xp: Any,
        gathers: bool = False,
    ) -> None:
        self._step, self._begin_step, self._arrays, self._xp = step, begin_step, arrays, xp
        self.gathers = gathers
        self._plain: _Form | None = None  # of the last step that ran without a graph
        self._captured: _Form | None = None
        self._graph: Any = None
        self._fails = False

    def __call__(self, *batch: Array) -> Array:
        """Return what `step` returns for a batch."""
        updates = self._begin_step()
        form = _Form(batch, self._arrays())
        if not form.equals(self._captured):
            # The first step of a form compiles its kernels, and creates the optimiser's state.
            if not form.equals(self._plain) or not self._capture(batch, updates):
                output = self._step(updates, *batch)
                self._plain = _Form(batch, self._arrays())
                return output
            self._captured = form
        for own, array in zip(self._batch, batch, strict=True):
            own[...] = array
        self._graph.launch()
        return self._output.copy()

    def _capture(self, batch: tuple[Array, ...], updates: Updates) -> bool:
        """Capture a step; return whether that has succeeded."""
        if self._fails:
            return False
        self._graph = self._captured = self._pool = None
        self._batch = [array.copy("K") for array in batch]
        # A pool that is short of memory frees only its own blocks, and the plain step's are in this one.
        self._xp.get_default_memory_pool().free_all_blocks()
        stream = self._xp.cuda.Stream(non_blocking=True)
        # The graph's memory must never be reused by others, so it comes from a separate pool.
        self._pool = self._xp.cuda.MemoryPool()
        with stream, self._xp.cuda.using_allocator(self._pool.malloc):
            stream.begin_capture()
            try:
                self._output = self._step(updates, *self._batch)
                self._graph = stream.end_capture()
            except BaseException as error:
                with suppress(Exception):  # the failure may have ended the capture, too
                    stream.end_capture()
                if not isinstance(error, Exception):
                    raise
                self._fails, self._pool = True, None
                logger.warning(f"steps run without a CUDA graph: capturing one failed: {error}")
        return not self._fails


class _Form:
    """What must be equal to replay a graph: shapes, dtypes, and the arrays that are kept themselves."""

    def __init__(self, batch: tuple[Array, ...], kept: list[Array]) -> None:
        self._shapes = [(array.shape, array.dtype) for array in batch]
        self._kept = kept

    def equals(self, other: "_Form | None") -> bool:
        if other is None or self._shapes != other._shapes or len(self._kept) != len(other._kept):
            return False
        return all(own is its for own, its in zip(self._kept, other._kept, strict=True))

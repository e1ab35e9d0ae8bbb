"""A training step as one CUDA graph: captured once, then launched for each batch.

The shapes of a layered network stand still, and so do its arrays: the kernels of forward, loss, backward and
optimiser are the same in each step, on the same memory. The GPU takes them all in one launch, and Python
runs through the layers only once.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tinyconv.cublas as cublas
from tinyconv.arrays import Array
from tinyconv.layers import Layer

Updates = list[Callable[[], None]]


def capturable(model: Layer, xp: Any) -> bool:
    """Whether a step of `model` can be captured on the device of the module `xp`."""
    return cublas.library(xp) is not None and all(layer.capturable for layer in model.layers())


class StepGraph:
    """Runs training steps, from the second batch on as a CUDA graph; batches of another form run plainly.

    Args:
        step: computes loss and gradients of a batch, and runs the updates; returns loss and prediction.
        begin_step: an optimiser's, which the host runs before each step.
        arrays: what the model holds; where it is no longer the same objects, the step is captured anew.
        xp: CuPy's module.
    """

    def __init__(
        self,
        step: Callable[[Array, Array, Updates], tuple[Array, Array]],
        begin_step: Callable[[], Updates],
        arrays: Callable[[], list[Array]],
        xp: Any,
    ) -> None:
        self._step, self._begin_step, self._arrays, self._xp = step, begin_step, arrays, xp
        self._held: list[Array] = []
        self._form: Any = None
        self._graph: Any = None

    def __call__(self, inputs: Array, targets: Array) -> tuple[Array, Array]:
        """Loss and prediction of a batch, which the next call may overwrite."""
        form = inputs.shape, inputs.dtype, targets.shape, targets.dtype
        updates = self._begin_step()
        if self._form != form:
            # The first step compiles the kernels, and makes what the optimiser remembers.
            self._form = self._form or form
            return self._step(inputs, targets, updates)
        held = self._arrays()
        if self._graph is None or any(a is not b for a, b in zip(held, self._held, strict=True)):
            self._held = held
            self._capture(inputs, targets, updates)
        self._inputs[...] = inputs
        self._targets[...] = targets
        self._graph.launch()
        return self._outputs

    def _capture(self, inputs: Array, targets: Array, updates: Updates) -> None:
        self._inputs, self._targets = inputs.copy(), targets.copy()
        stream = self._xp.cuda.Stream(non_blocking=True)
        # What the graph works in must never be given to others, so it comes from a pool of its own.
        self._pool = self._xp.cuda.MemoryPool()
        with stream, self._xp.cuda.using_allocator(self._pool.malloc):
            stream.begin_capture()
            try:
                self._outputs = self._step(self._inputs, self._targets, updates)
            except BaseException:
                with suppress(Exception):  # what failed may have ended the capture too
                    stream.end_capture()
                raise
            self._graph = stream.end_capture()

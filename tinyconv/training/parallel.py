"""Parallel workers: processes that each take a part of every batch.

The first worker is the training process itself; the others are forked from it and live as long as an
epoch. They share the parameters in shared memory, and have their own layers, caches, buffers and gradients;
the first one's buffers are the model's. With a `DataLoader` of arrays each worker cuts out its parts itself,
while the first one updates the parameters; parts of another iterable are distributed in shared memory, as
predictions and gradients are. Two semaphores per worker synchronise this. A layer that needs a sum over the
whole batch, such as batch norm, calls its communicator.

A worker process draws its own random numbers: before each batch the generators of layers, and those of
`np.random` and `random`, are set to a stream that is determined by their state at the beginning of the epoch,
the epoch, the batch and the worker. So a resumed run does not need their states. The training process draws
as it would alone.

Processes and not threads: the arrays of a small network keep NumPy busy for microseconds at a time, and
threads would spend more time passing Python's lock to each other than computing.
"""

import math
import mmap
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinyconv.arrays import Array, as_logical, stored_shape
from tinyconv.data.loader import iterates_by_parts, split
from tinyconv.data.pairs import is_pair
from tinyconv.data.streamed import iterate
from tinyconv.layers import Layer
from tinyconv.training.generators import RandomSource, digest, generators, global_generators, reseed

# Polls of a semaphore before sleeping on it: waking takes longer than most waits.
POLLS = 20_000
# The most that a layer can add up over the workers at once.
REDUCED_BYTES = 1 << 20


class WorkerError(Exception):
    """Raised when a worker process failed; the message is that of its error."""


class Workers:
    """Run a model in `count` processes, with a layer's forward and backward_params.

    The parts of a batch are as equal as possible and in order; gradients are added in the order of the
    workers, so that equal runs give equal bits. BLAS is limited to one thread each while this is open.

    Args:
        model: receives the sum of all workers' gradients. While this is open, its parameters are other
            arrays, in shared memory.
        count: number of workers.
        epoch: number of the epoch, for the random numbers.
    """

    def __init__(self, model: Layer, count: int, epoch: int) -> None:
        self._model, self._count, self._epoch = model, count, epoch
        self._network = model.fused()
        self._peers: list[_Peer] = []
        self._own_params = [(layer, dict(layer._params)) for layer in model.modules()]
        self._divided = False
        self._number = 0  # of the batch, in its epoch

    def __enter__(self) -> Self:
        from threadpoolctl import threadpool_limits

        # Here and not at the first batch: a resumed epoch reaches its own first batch later.
        self._streams = _streams(self._model)
        self._limits = threadpool_limits(1, user_api="blas")
        for layer, params in self._own_params:
            layer._params.update({name: _shared_copy(param) for name, param in params.items()})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for peer in self._peers:
                peer.process.kill()
                peer.process.join()
        finally:
            for layer, params in self._own_params:
                for name, param in params.items():
                    param[...] = layer._params[name]
                layer._params.update(params)
            self._set_communicator(None)
            self._limits.restore_original_limits()

    def divide(self, batches: Iterable[tuple[Array, Array]], skip: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield this process's part of the inputs, and all targets, of `batches` after the first `skip`.

        A batch of fewer samples than workers is not divided, nor is one of an iterable other than a
        `DataLoader` of arrays that is larger than its first batch, or of another form. What a `DataLoader`
        draws is drawn by this call. Only this process reads a data set of samples: if its samples are random,
        input and target must come from the same read.
        """
        self._number = skip
        if iterates_by_parts(batches) and is_pair(batches.dataset):
            return self._own_parts(*batches.parts(self._count, skip))
        return self._handed_out(iterate(batches, skip))

    def _own_parts(
        self, own: Iterator[tuple[Array, Array]], *others: Iterator[tuple[Array, Array]]
    ) -> Iterator[tuple[Array, Array]]:
        for inputs, targets in own:
            self._number += 1
            self._divided = len(targets) >= self._count
            if self._divided and not self._peers:
                self._start(inputs, len(targets), others)
            yield inputs, targets

    def _handed_out(self, batches: Iterator[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
        for inputs, targets in batches:
            self._number += 1
            if not self._peers:
                self._start(inputs, len(inputs), [None] * (self._count - 1))
            yield self._hand_out(inputs), targets

    def forward(self, x: Array) -> Array:
        """Compute the model's output for the whole batch, of which `x` is the part from `divide`."""
        if not self._divided:
            self._set_communicator(None)
            return self._network.forward(x)
        self._set_communicator(_First(self._peers))
        for peer in self._peers:
            peer.rows[1] = self._number
            peer.go.release()
        outputs = [self._network.forward(x)]
        for peer in self._peers:
            peer.wait()
            outputs.append(peer.outputs[: peer.rows[0]])
        joined: Array = np.concatenate(outputs)
        return joined

    def backward_params(self, grad_output: Array) -> None:
        """Add the parameters' gradients for the last forward to the model's."""
        if not self._divided:
            self._network.backward_params(grad_output)
            return
        own, *parts = split(grad_output, self._count)
        for peer, part in zip(self._peers, parts, strict=True):
            peer.grad_outputs[: len(part)] = part
            peer.go.release()
        self._network.backward_params(own)
        for peer in self._peers:
            peer.wait()
            for grad, other in peer.pairs:
                grad += other

    def _start(
        self, like: Array, batch_size: int, parts: Sequence[Iterator[tuple[Array, Array]] | None]
    ) -> None:
        """Fork the other workers, for batches of up to `batch_size` inputs `like` these."""
        self._model.release()
        self._batch_size, rows = batch_size, -(-batch_size // self._count)
        for rank, part in enumerate(parts, 1):
            peer = _Peer(self._model, (rows, *like.shape[1:]), like.dtype)
            peer.start(self._model, part, partial(_reseed, self._streams, self._epoch, rank))
            self._peers.append(peer)

    def _hand_out(self, inputs: Array) -> Array:
        """Give each of the other workers its part of `inputs`, and return this one's."""
        like = self._peers[0].inputs
        self._divided = (
            self._count <= len(inputs) <= self._batch_size
            and inputs.shape[1:] == like.shape[1:]
            and inputs.dtype == like.dtype
        )
        if not self._divided:
            return inputs
        own, *parts = split(inputs, self._count)
        for peer, part in zip(self._peers, parts, strict=True):
            peer.rows[0] = len(part)
            peer.inputs[: len(part)] = part
        return own

    def _set_communicator(self, communicator: "_First | None") -> None:
        for layer in self._model.modules():
            layer.communicator = communicator


class _Peer:
    """What the training process and one worker process share."""

    def __init__(self, model: Layer, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        import multiprocessing

        context = multiprocessing.get_context("fork")
        output_shape = model.output_shape(shape)
        self.rows = _shared((2,), np.int64)  # of the worker's part; the batch's number
        self.inputs = _shared_stored(shape, dtype)
        self.outputs = _shared_stored(output_shape, dtype)
        self.grad_outputs = _shared_stored(output_shape, dtype)
        own = model.grads
        self.grads = {name: _shared_copy(grad) for name, grad in own.items()}
        self.pairs = [(grad, self.grads[name]) for name, grad in own.items()]
        self.reduced = _shared((REDUCED_BYTES,), np.uint8)
        self.failure = _shared((1000,), np.uint8)
        self.go, self.done = context.Semaphore(0), context.Semaphore(0)
        self._context = context

    def start(
        self, model: Layer, parts: Iterator[tuple[Array, Array]] | None, reseed: Callable[[int], None]
    ) -> None:
        self.process = self._context.Process(target=self._serve, args=(model, parts, reseed), daemon=True)
        self.process.start()

    def wait(self) -> None:
        """Wait until the worker is done; raise what it raised."""
        while not _acquired(self.done):
            if not self.process.is_alive():
                if self.done.acquire(False):  # it has finished, and ended, just now
                    break
                raise WorkerError(f"a worker process ended with exit code {self.process.exitcode}")
        if self.failure[0]:
            raise WorkerError(bytes(self.failure).rstrip(b"\0").decode(errors="replace"))

    def _serve(
        self,
        model: Layer,
        parts: Iterator[tuple[Array, Array]] | None,
        reseed: Callable[[int], None],
    ) -> None:
        """Run the worker process: forward, backward, forward, … until it is killed."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        communicator = _Other(self)
        _make_own(model, self.grads, communicator)
        network = model.fused()
        seeded = 0
        try:
            for inputs in self._inputs(parts, communicator):
                number = int(self.rows[1])
                if number != seeded:
                    reseed(number)
                self.outputs[: len(inputs)] = network.forward(inputs)
                self.done.release()
                communicator.wait()
                model.zero_grad()
                network.backward_params(self.grad_outputs[: len(inputs)])
                self.done.release()
                seeded = number + 1
                reseed(seeded)  # while the first worker updates the parameters
        except Exception as error:
            text = np.frombuffer(f"{type(error).__name__}: {error}".encode()[: len(self.failure)], np.uint8)
            self.failure[1 : len(text)] = text[1:]
            self.failure[0] = text[0]  # written last, as it indicates an error
            self.done.release()

    def _inputs(self, parts: Iterator[tuple[Array, Array]] | None, communicator: "_Other") -> Iterator[Array]:
        """This worker's part of each batch, as soon as the parameters are updated."""
        while parts is None:
            communicator.wait()
            yield self.inputs[: self.rows[0]]
        for inputs, _ in parts:
            self.rows[0] = len(inputs)
            communicator.wait()
            yield inputs


class _First:
    """Communicator of the training process."""

    def __init__(self, peers: Sequence[_Peer]) -> None:
        self._peers = peers

    def allreduce(self, array: Array) -> Array:
        total = array.copy()
        for peer in self._peers:
            peer.wait()
            total += _as(peer.reduced, array)
        for peer in self._peers:
            _as(peer.reduced, array)[...] = total
            peer.go.release()
        return total


class _Other:
    """Communicator of a worker process."""

    def __init__(self, peer: _Peer) -> None:
        self._peer, self._parent = peer, os.getppid()

    def wait(self) -> None:
        """Wait for the training process; end with it."""
        while not _acquired(self._peer.go):
            if os.getppid() != self._parent:
                os._exit(1)

    def allreduce(self, array: Array) -> Array:
        _as(self._peer.reduced, array)[...] = array
        self._peer.done.release()
        self.wait()
        return _as(self._peer.reduced, array).copy()


def _make_own(model: Layer, grads: dict[str, Array], communicator: _Other) -> None:
    """In a worker: gradients in shared memory."""
    names = {id(grad): name for name, grad in model.grads.items()}
    for layer in model.modules():
        layer.communicator = communicator
        layer._grads.update({key: grads[names[id(grad)]] for key, grad in layer._grads.items()})


def _streams(model: Layer) -> list[tuple[RandomSource, int]]:
    """All random generators, those that layers share once, and a number that depends on their state now."""
    found = [own for layer in model.modules() for own in generators(layer).values()]
    unique = {id(own): own for own in (*found, *global_generators().values())}
    return [(own, digest(own)) for own in unique.values()]


def _reseed(streams: list[tuple[RandomSource, int]], epoch: int, rank: int, number: int) -> None:
    """In a worker: its own random numbers for the batch `number`."""
    for source, own in streams:
        reseed(source, own, epoch, number, rank)


def _acquired(semaphore: Any) -> bool:
    """Poll, then sleep for up to a second."""
    for _ in range(POLLS):
        if semaphore.acquire(False):
            return True
    return bool(semaphore.acquire(True, 1.0))


def _shared(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Zeros in memory that forked processes share."""
    size = math.prod(shape)
    memory = mmap.mmap(-1, max(1, size * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, size).reshape(shape)


def _shared_copy(array: Array) -> Array:
    shared = _shared(array.shape, array.dtype)
    shared[...] = array
    return shared


def _shared_stored(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    return as_logical(_shared(stored_shape(shape), dtype))


def _as(memory: Array, array: Array) -> Array:
    """The first bytes of `memory` with the shape and dtype of `array`."""
    if array.nbytes > len(memory):
        raise ValueError(f"`array` (of {array.nbytes:,} bytes) must have at most {len(memory):,} bytes")
    return memory[: array.nbytes].view(array.dtype).reshape(array.shape)

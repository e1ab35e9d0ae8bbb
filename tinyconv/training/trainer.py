"""The trainer: epochs of forward, loss, backward, step."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinyconv.arguments import Generator, integer
from tinyconv.arrays import Array, array_module, device_module, moved
from tinyconv.cublas import tf32
from tinyconv.data.batches import Batches
from tinyconv.data.streamed import Streamed, fits
from tinyconv.layers import Layer, Loss
from tinyconv.optim import Optimizer, Schedule
from tinyconv.training.graph import StepGraph, capturable
from tinyconv.training.history import Epoch, History
from tinyconv.training.parallel import Workers

logger = logging.getLogger(__name__)

# How often the progress bar reads loss and accuracy, for which a GPU has to be waited for.
SHOWN_SECONDS = 0.2

Data: TypeAlias = tuple[Array, Array] | Iterable[tuple[Array, Array]]


class Evaluation(NamedTuple):
    """Mean loss, and share of right classes (None where the targets are no class indices)."""

    loss: float
    accuracy: float | None


class Trainer:
    """Trains a model.

    Args:
        model: the layer to train.
        criterion: a loss with the reduction "mean" or "sum".
        optimizer: made for `model`.
        schedule: made for `optimizer`; stepped after each epoch or each step, as its `interval` says.
        workers: number of processes that share each batch; more than one need a system with fork.
            Equal runs with equal numbers of workers give equal bits; other numbers round differently.
        device: "cpu" or "cuda", where model, criterion, optimiser and data are moved; by default they stay
            where they are. On a GPU losses are read after each epoch, and when a progress bar shows them;
            a data set that takes more than half of the free memory is moved in chunks.
        cuda_graph: whether training steps on a GPU run as one CUDA graph, which gives the same bits; by
            default they do. A model with a layer that is not `capturable` runs plainly, and the log says so.
        progress: whether to show a progress bar, on a terminal.

    Attributes:
        history: what `fit` has seen so far, over all its calls.

    Raises:
        ValueError: a criterion that does not reduce, an optimiser of another model, an unknown device,
            more than one worker on a GPU, a CUDA graph on the CPU.
        RuntimeError: `device` "cuda", and there is no GPU, no driver or no CuPy.

    >>> import numpy as np
    >>> from tinyconv import Linear, MSELoss, optim
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> model = Linear(1, 1, generator=0)
    >>> trainer = Trainer(model, MSELoss(), optim.SGD(model, lr=0.1))
    >>> history = trainer.fit((x, 3 * x - 1), epochs=20, batch_size=8, generator=0)
    >>> trainer.evaluate((x, 3 * x - 1)).loss < 1e-3
    True
    """

    def __init__(
        self,
        model: Layer,
        criterion: Loss,
        optimizer: Optimizer,
        schedule: Schedule | None = None,
        *,
        workers: int = 1,
        device: str | None = None,
        cuda_graph: bool | None = None,
        progress: bool = True,
    ) -> None:
        if criterion.reduction == "none":
            raise ValueError("`criterion` must have the reduction 'mean' or 'sum', not 'none'")
        if optimizer.model is not model:
            raise ValueError("`optimizer` must have been made for `model`")
        if schedule is not None and schedule.optimizer is not optimizer:
            raise ValueError("`schedule` must have been made for `optimizer`")
        self.model, self.criterion = model, criterion
        self.optimizer, self.schedule = optimizer, schedule
        self.workers = integer("workers", workers)
        if self.workers > 1 and not hasattr(os, "fork"):
            raise ValueError(f"`workers` (={workers}) must be 1 on a system without fork")
        xp = self._xp if device is None else device_module(device)
        if self.workers > 1 and xp is not np:
            raise ValueError(f"`workers` (={workers}) must be 1 on a GPU")
        if cuda_graph and xp is np:
            raise ValueError(f"`cuda_graph` (={cuda_graph}) needs a GPU")
        self.cuda_graph = cuda_graph
        if device is not None:
            for part in (model, criterion, optimizer):
                part.to(device)
        self.progress = progress
        self.history = History()
        self._unread: list[tuple[Array, float]] = []

    @property
    def _xp(self) -> Any:
        """The array module of the model's device."""
        return array_module(next(iter(self.model.params.values()), None))

    def fit(
        self,
        data: Data,
        epochs: int = 1,
        *,
        batch_size: int = 64,
        validation: Data | None = None,
        generator: Generator = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> History:
        """Train for `epochs` more epochs.

        Args:
            data: a pair of arrays (inputs, targets), or an iterable of such pairs, one a batch,
                which is iterated once an epoch. It is moved to the model's device; a `Batches` stays there.
            epochs: number of epochs.
            batch_size: for arrays; they are shuffled in each epoch.
            validation: data to evaluate on after each epoch.
            generator: a numpy.random.Generator or seed for the shuffling of arrays.
            on_epoch: called with the record of each epoch when it is finished.

        Returns:
            `self.history`.

        Raises:
            FloatingPointError: the loss became NaN or infinite; the message names epoch, step and
                learning rate, and the parameters are those before that step (on a GPU those after
                the epoch).
            ValueError: an epoch without a batch.
            MemoryError: a batch that the GPU's memory does not hold; a smaller `batch_size` may do.
        """
        batches = self._as_batches(data, batch_size, shuffle=True, generator=generator)
        if validation is not None:
            validation = self._as_batches(validation, 256, shuffle=False, generator=0)
        first = len(self.history.epochs) + 1
        graph = self._step_graph()
        for epoch in range(first, first + integer("epochs", epochs, minimum=0)):
            record = self._train_epoch(batches, epoch, first + epochs - 1, graph)
            self.history.epochs.append(self._validated(record, validation))
            if on_epoch is not None:
                on_epoch(self.history.epochs[-1])
        return self.history

    def evaluate(self, data: Data, *, batch_size: int = 256) -> Evaluation:
        """Mean loss and accuracy of the model in evaluation mode.

        Args:
            data: a pair of arrays (inputs, targets), or an iterable of such pairs.
            batch_size: for arrays.

        Raises:
            ValueError: no batch in `data`.
        """
        total = _Running(self.criterion.reduction)
        for inputs, targets in self._as_batches(data, batch_size, shuffle=False, generator=0):
            prediction = self.model.predict(inputs, batch_size=max(1, len(inputs)))
            total.add(self.criterion.forward(prediction, targets), prediction, targets)
        return total.result("the evaluation")

    def _train_epoch(
        self, batches: Iterable[tuple[Array, Array]], epoch: int, epochs: int, graph: StepGraph | None
    ) -> Epoch:
        total, lr = _Running(self.criterion.reduction), self.optimizer.lr
        start = shown = time.perf_counter()
        self.model.train()
        network: Layer | Workers = self.model
        step, parts = 0, batches
        with ExitStack() as stack:
            stack.callback(self._read_losses)
            bar = stack.enter_context(self._bar(batches, f"epoch {epoch}/{epochs}"))
            if self.workers > 1:
                network = stack.enter_context(Workers(self.model, self.workers))
                parts = network.divide(batches)
            for step, (inputs, targets) in enumerate(parts, 1):
                if graph is None:
                    loss, prediction = self._train_step(network, inputs, targets, epoch, step)
                else:
                    loss, prediction = self._launch(graph, inputs, targets)
                if self.schedule is not None and self.schedule.interval == "step":
                    self.schedule.step()
                total.add(loss, prediction, targets)
                bar.update(len(targets))
                if not bar.disable and time.perf_counter() > shown + SHOWN_SECONDS:
                    bar.set_postfix(total.shown(), refresh=False)
                    shown = time.perf_counter()
            self._check_losses(epoch, step)
            if not bar.disable and step:
                bar.set_postfix(total.shown())
        mean, accuracy = total.result(f"epoch {epoch}")
        seconds = time.perf_counter() - start
        if self.schedule is not None and self.schedule.interval == "epoch":
            self.schedule.step()
        return Epoch(epoch, step, lr, mean, accuracy, None, None, seconds, total.images / seconds)

    def _train_step(
        self, network: Layer | Workers, inputs: Array, targets: Array, epoch: int, step: int
    ) -> tuple[Array, Array]:
        with _out_of_memory(f"a batch of {len(inputs)}"):
            prediction = network.forward(inputs)
            loss = self.criterion.forward(prediction, targets)
            self._unread.append((loss, self.optimizer.lr))
            if array_module(loss) is np:
                self._check_losses(epoch, step)
            self.optimizer.zero_grad()
            network.backward_params(self.criterion.backward())
            self.optimizer.step()
        return loss, prediction

    def _step_graph(self) -> StepGraph | None:
        """The steps of a training as a CUDA graph; None where they run plainly."""
        xp = self._xp
        if xp is np:
            return None
        if tf32():
            logger.warning("TF32 is on (CUPY_TF32): float32 is multiplied with 10 bits of mantissa")
        if self.cuda_graph is False:
            return None
        if not capturable(self.model, xp):
            logger.info("the model cannot be captured as a CUDA graph: its steps run plainly")
            return None
        return StepGraph(self._compute, self.optimizer.begin_step, self._arrays, xp)

    def _arrays(self) -> list[Array]:
        """What a step reads and writes from one batch to the next."""
        kinds = self.model.params, self.model.grads, self.model.buffers
        return [array for kind in kinds for array in kind.values()]

    def _launch(self, graph: StepGraph, inputs: Array, targets: Array) -> tuple[Array, Array]:
        lr = self.optimizer.lr
        with _out_of_memory(f"a batch of {len(inputs)}"):
            loss, prediction = graph(inputs, targets)
            loss = loss.copy()
        self._unread.append((loss, lr))
        return loss, prediction

    def _compute(
        self, inputs: Array, targets: Array, updates: list[Callable[[], None]]
    ) -> tuple[Array, Array]:
        """What a step computes on a GPU, where nothing is read."""
        prediction = self.model.forward(inputs)
        loss = self.criterion.forward(prediction, targets)
        self.optimizer.zero_grad()
        self.model.backward_params(self.criterion.backward())
        for update in updates:
            update()
        return loss, prediction

    def _read_losses(self) -> list[tuple[float, float]]:
        """Move the losses of the last steps to the history; returns them with their learning rates."""
        if not self._unread:
            return []
        losses, rates = zip(*self._unread, strict=True)
        self._unread.clear()
        read = moved(array_module(*losses).stack(losses), np).tolist()
        self.history.step_losses.extend(read)
        return list(zip(read, rates, strict=True))

    def _check_losses(self, epoch: int, step: int) -> None:
        """Refuse losses of the last steps, up to `step`, that are not finite."""
        read = self._read_losses()
        for number, (loss, lr) in enumerate(read, step - len(read) + 1):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} in epoch {epoch}, step {number}, at a learning rate of {lr:g}"
                )

    def _validated(self, record: Epoch, validation: Data | None) -> Epoch:
        if validation is None:
            return record
        loss, accuracy = self.evaluate(validation)
        return replace(record, validation_loss=loss, validation_accuracy=accuracy)

    def _bar(self, batches: Iterable[tuple[Array, Array]], description: str) -> Any:
        from tqdm import tqdm

        images = len(batches.inputs) if isinstance(batches, Batches) else None
        # disable=None shows the bar on a terminal only.
        return tqdm(
            total=images,
            desc=description,
            unit=" images",
            disable=None if self.progress else True,
        )

    def _as_batches(
        self, data: Data, batch_size: int, *, shuffle: bool, generator: Generator
    ) -> Iterable[tuple[Array, Array]]:
        """`data` as batches, on the model's device."""
        xp = self._xp
        if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple):
            data = Batches(*data, batch_size, shuffle=shuffle, generator=generator)
        if isinstance(data, Batches):
            if xp is not np and data.augment is None and not fits(data, xp):
                return Streamed(data, xp)
            with _out_of_memory("the data set"):
                data.move(xp)
            return data
        return data if xp is np else _Moved(data, xp)


@contextmanager
def _out_of_memory(what: str) -> Iterator[None]:
    """CuPy's error, which is not known here, as a MemoryError that says what was too large."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise MemoryError(f"{error}: {what} is too large for the GPU's memory") from error


class _Moved:
    """Batches of any iterable, each moved to the device of `xp`."""

    def __init__(self, batches: Iterable[tuple[Array, Array]], xp: Any) -> None:
        self._batches, self._xp = batches, xp

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for inputs, targets in self._batches:
            yield moved(inputs, self._xp), moved(targets, self._xp)


class _Running:
    """Loss and accuracy, added up over batches."""

    def __init__(self, reduction: str) -> None:
        self._loss_is_mean = reduction == "mean"
        self._loss: Any = 0.0
        self._right: Any = 0
        self._targets = 0
        self.images = 0

    def add(self, loss: Array, prediction: Array, targets: Array) -> None:
        self.images += len(targets)
        self._loss += loss * (len(targets) if self._loss_is_mean else 1)
        if targets.dtype.kind in "iu" and self._right is not None:
            self._targets += targets.size
            self._right += (prediction.argmax(axis=1) == targets).sum()
        else:
            self._right = None

    def result(self, where: str) -> Evaluation:
        if not self.images:
            raise ValueError(
                f"`data` gave no batch in {where}; it must be an iterable that can be iterated again"
            )
        accuracy = None if self._right is None else int(self._right) / max(1, self._targets)
        return Evaluation(float(self._loss) / self.images, accuracy)

    def shown(self) -> dict[str, str]:
        loss, accuracy = self.result("epoch")
        shown = {"loss": f"{loss:.4f}"}
        if accuracy is not None:
            shown["accuracy"] = f"{accuracy:.2%}"
        return shown

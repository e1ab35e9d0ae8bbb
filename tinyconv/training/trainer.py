"""The trainer: epochs of forward, loss, backward, step."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from tinyconv.arguments import Generator, instance, integer, number
from tinyconv.arrays import Array, array_module, device_module, moved
from tinyconv.data.loader import DataLoader, split_off
from tinyconv.data.pairs import check_iterable, check_pair, checked, is_pair
from tinyconv.data.streamed import Streamed, fits, iterate
from tinyconv.gpu.cublas import tf32
from tinyconv.layers import Layer, Loss
from tinyconv.optim import Optimizer, Schedule
from tinyconv.training.average import WeightAverage
from tinyconv.training.clip import clip_grad_norm_, clip_grad_value_
from tinyconv.training.device import Moved, may_ignore, out_of_memory
from tinyconv.training.graph import StepGraph, capturable
from tinyconv.training.history import Epoch, History
from tinyconv.training.parallel import Workers
from tinyconv.training.running import Evaluation, Running, is_number
from tinyconv.training.saving import Saving

logger = logging.getLogger(__name__)

# How often the progress bar reads loss and accuracy, which blocks on a GPU.
SHOWN_SECONDS = 0.2

Data: TypeAlias = tuple[Array, Array] | Iterable[tuple[Array, Array]]


class Trainer:
    """Train a model.

    Losses and gradients of several batches are combined by their numerators and denominators (see
    `Loss.denominator`), so the results do not depend on the batch size. For a batch of which no target
    counts, the step is skipped: parameters, optimiser, schedule and averages do not change (only running
    statistics are updated in forward), and the recorded loss is the criterion's, NaN for a mean.

    Args:
        model: the layer to train.
        criterion: a loss with the reduction "mean" or "sum".
        optimizer: an optimiser of `model`.
        schedule: a schedule of `optimizer`; stepped after each epoch or each step, according to its
            `interval`.
        workers: number of processes that share each batch; more than one requires a system with fork. Equal
            runs with equal numbers of workers give equal bits; other numbers round differently. In the other
            processes the generators in attributes of layers, and in lists, tuples and dicts there, as well as
            `np.random` and `random`, draw different numbers for each epoch, batch and worker, so the draws
            are not those of one process. Other generators cannot be found, and draw the same numbers in each
            process: those in closures, in attributes of other objects, in C libraries.
        device: "cpu" or "cuda", to which model, criterion, optimiser and data are moved; by default they are
            not moved. On a GPU losses are read after each epoch, and when a progress bar shows them; a data
            set that takes more than half of the free memory is moved in chunks.
        cuda_graph: whether training steps on a GPU run as one CUDA graph, which gives the same bits; by
            default they do. A graph is not used for a model with a layer that is not `capturable`, nor for
            data with targets that the criterion may ignore, as the host has to know whether to skip a step;
            the log says so. (The targets of an iterable other than a `DataLoader` are not known in advance:
            on a GPU a batch of ignored ones makes a step, with a gradient of 0.)
        accumulate: number of batches per update, which is that of one large batch: their gradients are added
            up and, with the reduction "mean", divided by the sum of their denominators. The last update of an
            epoch may have fewer.
        clip_grad_norm, clip_grad_value: limits to which the gradients are clipped before an update, see
            `clip_grad_norm_` and `clip_grad_value_`.
        ema_decay: keep an exponential moving average of the weights with this decay, see `WeightAverage`;
            evaluation uses it.
        checkpoint_dir: folder for checkpoints, and for the history as JSON lines, see `Checkpoints` and
            `HistoryLog`. A checkpoint is written after each epoch.
        checkpoint_every: write one also within epochs, each time after so many batches.
        keep: how many of the last checkpoints are kept, in addition to the best one.
        progress: whether to show a bar for each epoch, in a terminal or a notebook; if stderr is neither, as
            with a log file, a line per epoch is printed to it.

    Attributes:
        history: the `History` of all calls of `fit`.
        average: the `WeightAverage`, or None.

    Raises:
        TypeError: a model, criterion, optimiser or schedule of another type (its class, for example).
        ValueError: a criterion that does not reduce, an optimiser of another model, an unknown device,
            more than one worker on a GPU, a CUDA graph on the CPU.
        RuntimeError: `device` "cuda" without a GPU, its driver or CuPy.

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
        accumulate: int = 1,
        clip_grad_norm: float | None = None,
        clip_grad_value: float | None = None,
        ema_decay: float | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        keep: int = 3,
        progress: bool = True,
    ) -> None:
        instance("model", model, Layer)
        instance("criterion", criterion, Loss)
        instance("optimizer", optimizer, Optimizer)
        Running(criterion)  # raises for one that does not reduce
        if optimizer.model is not model:
            raise ValueError("`optimizer` must have been created for `model`")
        if schedule is not None and instance("schedule", schedule, Schedule).optimizer is not optimizer:
            raise ValueError("`schedule` must have been created for `optimizer`")
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
        self.accumulate = integer("accumulate", accumulate)
        self.clip_grad_norm = _number_or_none("clip_grad_norm", clip_grad_norm)
        self.clip_grad_value = _number_or_none("clip_grad_value", clip_grad_value)
        self.average = None if ema_decay is None else WeightAverage(model, ema_decay)
        self.progress = progress
        self.history = History()
        self._accumulated = 0  # batches since the last update
        self._denominator: Any = 0  # the sum of theirs
        self._ignoring = False  # on a GPU: whether a batch may have no target that counts
        self._unread: list[tuple[Array, Any, float]] = []  # loss, denominator, learning rate
        self.first_epoch = 1  # of the last `fit`
        self._saving = Saving(self, checkpoint_dir, checkpoint_every, keep)

    def __repr__(self) -> str:
        parts = [type(self.model).__name__, repr(self.criterion), type(self.optimizer).__name__]
        if self.schedule is not None:
            parts.append(type(self.schedule).__name__)
        numbers = {"workers": self.workers, "accumulate": self.accumulate}
        parts += [f"{name}={value}" for name, value in numbers.items() if value > 1]
        return f"Trainer({', '.join(parts)})"

    @property
    def steps(self) -> int:
        """Return the number of batches trained with, over all calls of `fit`."""
        return len(self.history.step_losses) + len(self._unread)

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
        validation_split: float = 0.0,
        patience: int | None = None,
        restore_best: bool = False,
        generator: Generator = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> History:
        """Train for `epochs` more epochs, of which the first may be the rest of a resumed one.

        Args:
            data: a tuple of arrays (inputs, targets), a `DataLoader`, or an iterable of such tuples, one per
                batch, which is iterated once per epoch. It is moved to the model's device; a `DataLoader`
                stays there.
            epochs: number of epochs.
            batch_size: for arrays; they are shuffled in each epoch.
            validation: data, as above, to evaluate on after each epoch.
            validation_split: fraction of the samples of `data`, arrays or a `DataLoader` of arrays, that is
                split off for validation: the last ones, before any shuffling.
            patience: stop when so many epochs have not been better than the best before them (by validation
                accuracy, else validation loss, else training loss). Epochs of an earlier call do not count; a
                resumed call continues counting.
            restore_best: end with the weights of the best epoch, as they were evaluated. (The newest
                checkpoint has the last ones.)
            generator: a numpy.random.Generator or seed for the shuffling of arrays.
            on_epoch: called with the record of each epoch when it is finished.

        Returns:
            `self.history`.

        Raises:
            FloatingPointError: the loss of targets that count became NaN or infinite; the message names
                epoch, step and learning rate, and the parameters are those before that step (on a GPU those
                after the epoch).
            TypeError: `data` or `validation` has another type; the message has the number of a wrong batch.
            ValueError: no sample, or an epoch without a batch; inputs and targets of different lengths; both
                a `validation` and a `validation_split`; a checkpoint folder of another run, or data that
                differ from those of the resumed run; weights to save that are NaN; a best epoch of an earlier
                call, of which the weights were not kept.
            WorkerError: a worker process failed.
            MemoryError: a batch is too large for the GPU's memory; use a smaller `batch_size`.
            OSError: a checkpoint cannot be written; earlier ones are not changed.
        """
        if validation_split:
            if validation is not None:
                raise ValueError("`validation` and `validation_split` must not both be given")
            data, validation = split_off(data, validation_split)
        batches = self._as_batches("data", data, batch_size, shuffle=True, generator=generator)
        self._ignoring = self._xp is not np and may_ignore(self.criterion, data)
        if validation is not None:
            validation = self._as_batches("validation", validation, 256, shuffle=False, generator=0)
        first = len(self.history.epochs) + 1
        last = first + integer("epochs", epochs, minimum=0) - 1
        most = math.inf if patience is None else integer("patience", patience)
        if not self._saving.goes_on:
            self.first_epoch = first
        best: dict[str, Array] | None = None
        graph = self._step_graph()
        with self._saving.opened():
            for epoch in range(first, last + 1):
                if History(self.history.epochs[self.first_epoch - 1 :]).epochs_since_best >= most:
                    break
                record = self._train_epoch(batches, epoch, last, graph)
                self.history.epochs.append(self._validated(record, validation))
                self._show_epoch(last)
                if restore_best and self.history.epochs_since_best == 0:
                    best = self._evaluated.state_dict()
                self._saving.save_epoch(batches)
                if on_epoch is not None:
                    on_epoch(self.history.epochs[-1])
            if restore_best and self.history.epochs_since_best:
                self._set_weights(best or self._saving.best_weights())
        return self.history

    def resume(self, path: str | os.PathLike[str] | None = None) -> None:
        """Load a checkpoint, so that `fit` continues as if the run had never stopped, bit for bit.

        Model, optimiser, schedule, trainer and data must be created as for that run. Random generators are
        restored in layers (see `workers`), in `np.random` and `random`, and in an attribute `generator` of
        the data, which a `DataLoader` has; other iterables must give the same batches again. (On a GPU
        dropout draws different numbers.)

        Args:
            path: a checkpoint's file, or a folder for the newest one in it; by default `checkpoint_dir`.

        Raises:
            ValueError: a damaged or foreign file, or one of another model, dtype, optimiser or schedule. If
                the newest checkpoint of a folder is damaged, the message names the next older one.
            OSError: it cannot be read, or does not exist.
        """
        self._saving.resume(path)

    def evaluate(self, data: Data, *, batch_size: int = 256) -> Evaluation:
        """Compute loss and accuracy in evaluation mode, with the averaged weights if there are any.

        Args:
            data: a tuple of arrays (inputs, targets), a `DataLoader`, or an iterable of such tuples.
            batch_size: for arrays.

        Returns:
            Loss and accuracy of all samples, see `Evaluation`.

        Raises:
            TypeError, ValueError: as `fit`, for `data`.
        """
        total, model = Running(self.criterion), self._evaluated
        batches = self._as_batches("data", data, batch_size, shuffle=False, generator=0)
        for inputs, targets in checked("data", batches):
            prediction = model.predict(inputs, batch_size=max(1, len(inputs)))
            loss = self.criterion.forward(prediction, targets)
            total.add(loss, self.criterion.denominator(prediction, targets), prediction, targets)
        return total.result("the evaluation")

    def _train_epoch(
        self, batches: Iterable[tuple[Array, Array]], epoch: int, epochs: int, graph: StepGraph | None
    ) -> Epoch:
        total, position = Running(self.criterion), self._saving.begin_epoch(batches)
        start = shown = time.perf_counter()
        self.model.train()
        self._accumulated = 0
        network: Layer | Workers = self.model.fused()
        step = first = position["step"]
        with ExitStack() as stack:
            stack.callback(self.read_losses)
            bar = stack.enter_context(self._bar(batches, epoch, epochs))
            if self.workers > 1:
                network = stack.enter_context(Workers(self.model, self.workers, epoch))
                parts = network.divide(batches, first)
            else:
                parts = iterate(batches, first)
            for step, (inputs, targets) in enumerate(parts, first + 1):
                if first and step == first + 1:
                    self._saving.go_on(batches, position, total)
                    bar.update(total.images)
                if not self._accumulated:
                    self._saving.save_within(batches, position, step - 1, total)
                loss, denominator, prediction = self._train_step(network, graph, inputs, targets, epoch, step)
                total.add(loss, denominator, prediction, targets)
                bar.update(len(targets))
                if not bar.disable and time.perf_counter() > shown + SHOWN_SECONDS:
                    bar.set_postfix(total.shown(), refresh=False)
                    shown = time.perf_counter()
            self._update()
            self.check_losses(epoch, step)
            if not bar.disable and step:
                bar.set_postfix(total.shown())
        mean, accuracy = total.result(f"epoch {epoch}")
        seconds = time.perf_counter() - start
        rate = (total.images - position["sums"].get("images", 0)) / seconds
        if self.schedule is not None and self.schedule.interval == "epoch":
            self.schedule.step()
        return Epoch(epoch, step, position["lr"], mean, accuracy, None, None, seconds, rate)

    def _train_step(
        self,
        network: Layer | Workers,
        graph: StepGraph | None,
        inputs: Array,
        targets: Array,
        epoch: int,
        step: int,
    ) -> tuple[Array, Any, Array]:
        """Train with a batch; return its loss, denominator and prediction."""
        lr = self.optimizer.lr
        with out_of_memory(f"a batch of {len(inputs)}"):
            if graph is not None:
                loss, denominator, prediction = graph(inputs, targets)
                # The graph writes its next results to the same arrays.
                kept = denominator if is_number(denominator) else denominator.copy()
                self._unread.append((loss.copy(), kept, lr))
                self._updated()
                return loss, denominator, prediction
            prediction = network.forward(inputs)
            loss = self.criterion.forward(prediction, targets)
            denominator = self.criterion.denominator(prediction, targets)
            if self._ignoring:
                denominator = float(denominator)
            self._unread.append((loss, denominator, lr))
            if array_module(loss) is np:
                self.check_losses(epoch, step)
            self._backward(network, loss, denominator, prediction)
            if self._accumulated == self.accumulate:
                self._update()
        return loss, denominator, prediction

    def _backward(self, network: Layer | Workers, loss: Array, denominator: Any, prediction: Array) -> None:
        """Add the gradients of a batch: of its mean if it is a whole update, else of its numerator."""
        if self._accumulated == 0:
            self.optimizer.zero_grad()
            self._denominator = 0
        self._accumulated += 1
        self._denominator = self._denominator + denominator
        if _is_zero(denominator):
            grad = array_module(prediction).zeros_like(prediction)
        elif self._divides:
            grad = self.criterion.backward(array_module(loss).full_like(loss, denominator))
        else:
            grad = self.criterion.backward()
        network.backward_params(grad)

    @property
    def _divides(self) -> bool:
        """Whether gradients are divided at the end of an update's batches."""
        return self.accumulate > 1 and self.criterion.reduction == "mean"

    def _update(self) -> None:
        """The optimiser's step with the accumulated gradients, if any target has counted."""
        if self._accumulated and not _is_zero(self._denominator):
            if self._divides:
                divisor = self._denominator
                if not is_number(divisor):
                    divisor = array_module(divisor).where(divisor == 0, 1, divisor)
                for grad in self.model.grads.values():
                    grad /= divisor
            self._clip()
            self.optimizer.step()
            self._updated()
        self._accumulated = 0

    def _clip(self) -> None:
        if self.clip_grad_norm is not None:
            clip_grad_norm_(self.model, self.clip_grad_norm)
        if self.clip_grad_value is not None:
            clip_grad_value_(self.model, self.clip_grad_value)

    def _updated(self) -> None:
        if self.average is not None:
            self.average.update()
        if self.schedule is not None and self.schedule.interval == "step":
            self.schedule.step()

    def _step_graph(self) -> StepGraph | None:
        """The training steps as a CUDA graph; None if they run without one."""
        xp = self._xp
        if xp is np:
            return None
        if tf32():
            logger.warning("TF32 is on (CUPY_TF32): float32 is multiplied with 10 bits of mantissa")
        if self.cuda_graph is False or self.accumulate > 1:
            return None
        if not capturable(self.model, xp):
            logger.info("the model cannot be captured as a CUDA graph: its steps run without one")
            return None
        if self._ignoring:
            logger.info("some targets may be ignored: steps run without a CUDA graph")
            return None
        return StepGraph(self._compute, self.optimizer.begin_step, self._arrays, xp)

    def _arrays(self) -> list[Array]:
        """What a step reads and writes from one batch to the next."""
        kinds = self.model.params, self.model.grads, self.model.buffers
        return [array for kind in kinds for array in kind.values()] + self.optimizer.arrays()

    def _compute(
        self, inputs: Array, targets: Array, updates: list[Callable[[], None]]
    ) -> tuple[Array, Any, Array]:
        """The computations of a step on a GPU, without reading from it."""
        network = self.model.fused()
        prediction = network.forward(inputs)
        loss = self.criterion.forward(prediction, targets)
        denominator = self.criterion.denominator(prediction, targets)
        self.optimizer.zero_grad()
        network.backward_params(self.criterion.backward())
        self._clip()
        for update in updates:
            update()
        return loss, denominator, prediction

    def read_losses(self) -> list[tuple[float, Any, float]]:
        """Move the losses of the last steps to the history; return them with denominators and rates."""
        if not self._unread:
            return []
        losses, denominators, rates = zip(*self._unread, strict=True)
        self._unread.clear()
        read = moved(array_module(*losses).stack(losses), np).tolist()
        self._saving.log_steps(read, rates)
        self.history.step_losses.extend(read)
        return list(zip(read, denominators, rates, strict=True))

    def check_losses(self, epoch: int, step: int) -> None:
        """Raise for losses of the last steps, up to `step`, that are not finite though some target counts."""
        read = self.read_losses()
        for at, (loss, denominator, lr) in enumerate(read, step - len(read) + 1):
            if not math.isfinite(loss) and denominator != 0:
                raise FloatingPointError(
                    f"the loss is {loss} in epoch {epoch}, step {at}, at a learning rate of {lr:g}"
                )

    def _validated(self, record: Epoch, validation: Data | None) -> Epoch:
        if validation is None:
            return record
        loss, accuracy = self.evaluate(validation)
        return replace(record, validation_loss=loss, validation_accuracy=accuracy)

    @property
    def _evaluated(self) -> Layer:
        """The model to evaluate: the averaged one, if there is one."""
        average = self.average
        return self.model if average is None or not average.n_averaged else average.module

    def _set_weights(self, weights: dict[str, Array]) -> None:
        self.model.load_state_dict(weights)
        if self.average is not None:
            self.average.module.load_state_dict(weights)

    def _bar(self, batches: Iterable[tuple[Array, Array]], epoch: int, epochs: int) -> Any:
        from tinyconv.training.progress import epoch_bar  # tqdm is imported only for a bar

        images = batches.samples_per_epoch if isinstance(batches, DataLoader) else None
        return epoch_bar(images, epoch, epochs, self.progress)

    def _show_epoch(self, epochs: int) -> None:
        from tinyconv.training.progress import epoch_line

        if self.progress:
            epoch_line(self.history.epochs[-1], epochs)

    def _as_batches(
        self, name: str, data: Data, batch_size: int, *, shuffle: bool, generator: Generator
    ) -> Iterable[tuple[Array, Array]]:
        """`data`, the argument `name`, as batches on the model's device."""
        xp = self._xp
        if is_pair(data):
            check_pair(f"`{name}`", data)
            data = DataLoader(data, batch_size, shuffle, generator=generator)
        if isinstance(data, DataLoader):
            if not len(data):
                raise ValueError(f"`{name}` must have at least one batch, got {data}")
            if xp is not np and data.augment is None and not fits(data, xp):
                return Streamed(data, xp)
            with out_of_memory("the data set"):
                data.move(xp)
            return data
        check_iterable(name, data)
        iterable: Any = data
        # Validation data comes with its name; the argument of `evaluate` is called `data`.
        return iterable if xp is np and name == "data" else Moved(name, iterable, xp)


def _number_or_none(name: str, value: float | None) -> float | None:
    return None if value is None else number(name, value, 0.0)


def _is_zero(denominator: Any) -> bool:
    """Whether no target counts; False on a GPU, which is not read."""
    return is_number(denominator) and bool(denominator == 0)

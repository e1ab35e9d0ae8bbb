"""The trainer: what a training is made of, and its front door. The loop itself is in `loop.py`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from os import PathLike
from typing import Any

import numpy as np

from tinyconv.arguments import Generator, integer
from tinyconv.arrays import one_blas_thread
from tinyconv.data.loader import split_off
from tinyconv.gpu.graph import check_device, step_graph
from tinyconv.layers import Layer, Loss
from tinyconv.optim import Optimizer, Schedule
from tinyconv.training.batches import Data, as_batches, may_ignore
from tinyconv.training.communicator import Communicator
from tinyconv.training.history import History
from tinyconv.training.loop import Loop, evaluate
from tinyconv.training.processes import checked_ranks, processes
from tinyconv.training.run import Callback, Run
from tinyconv.training.running import Evaluation


class Trainer:
    """Train a model.

    Losses and gradients of several batches, or parts of one, are combined by their numerators and
    denominators (see `Loss.denominator`). For a batch of which no target counts, the step is skipped, and the
    recorded loss is the criterion's, NaN for a mean. BLAS has one thread: its own would wait for each other.

    Args:
        model, criterion, optimizer, schedule: a layer, a loss that reduces, an optimiser of the layer, and
            None or a schedule of the optimiser, stepped after each epoch or step according to its `interval`.
        callbacks: see `Callback`; `WeightAverage`, `ClipGradNorm`, `EarlyStopping`, `Checkpoints` and
            `HistoryLog` are some.
        accumulate: number of batches per step of the optimiser, which is that of one large batch. The last
            step of an epoch may have fewer.
        workers: number of processes on this machine that share each batch, see `processes`. Equal runs with
            equal numbers of workers give equal bits; other numbers round differently.
        communicator: of processes that share each batch and are started otherwise, see `MPICommunicator`.
        device: "cpu" or "cuda", to which model, criterion, optimiser and data are moved; by default they are
            not moved. On a GPU losses are read after each epoch, and when a progress bar shows them.
        cuda_graph: whether steps on a GPU run as one CUDA graph, see `step_graph`; by default they do.
        progress: whether to show a bar for each epoch, or print a line where the output is not a terminal.

    Attributes:
        run: all that is kept of the training, see `Run`; `model`, `criterion`, `optimizer`, `schedule` and
            `history` are those of it.

    Raises:
        TypeError: an argument has another type (it is a class, for example).
        ValueError: a criterion that does not reduce, an optimiser of another model, an unknown device,
            several processes where they cannot be started, or on a GPU; a CUDA graph on the CPU.
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
        callbacks: Sequence[Callback] = (),
        accumulate: int = 1,
        workers: int = 1,
        communicator: Communicator | None = None,
        device: str | None = None,
        cuda_graph: bool | None = None,
        progress: bool = True,
    ) -> None:
        self.communicator, self.workers = checked_ranks(communicator, workers)
        if progress:
            from tinyconv.training.progress import Progress  # tqdm is imported only for it

            callbacks = [*callbacks, Progress()]
        self.run = Run(model, criterion, optimizer, schedule, callbacks, accumulate)
        if device is not None:
            self.run.to(device)
        self.cuda_graph = cuda_graph
        check_device(cuda_graph, self._xp, max(self.workers, self.communicator.size))

    # What the run holds, and nobody can exchange.
    model: Layer = property(attrgetter("run.model"), doc="Return the model.")  # type: ignore[assignment]
    criterion: Loss = property(attrgetter("run.criterion"), doc="Return the loss.")  # type: ignore[assignment]
    optimizer: Optimizer = property(attrgetter("run.optimizer"), doc="Return the optimiser.")  # type: ignore[assignment]
    schedule: Schedule | None = property(attrgetter("run.schedule"), doc="Return the schedule, or None.")  # type: ignore[assignment]
    accumulate: int = property(attrgetter("run.accumulate"), doc="Return the number of batches per step.")  # type: ignore[assignment]
    history: History = property(attrgetter("run.history"), doc="Return the history.")  # type: ignore[assignment]
    _xp: Any = property(attrgetter("run.xp"))

    def __repr__(self) -> str:
        kinds = self.model, self.optimizer, self.schedule
        parts = [type(one).__name__ for one in kinds if one is not None]
        parts += [repr(one) for one in (self.criterion, *self.run.callbacks)]
        numbers = {"workers": self.workers, "accumulate": self.accumulate}
        parts += [f"{name}={value}" for name, value in numbers.items() if value > 1]
        return f"Trainer({', '.join(parts)})"

    def fit(
        self,
        data: Data,
        epochs: int = 1,
        *,
        batch_size: int = 64,
        validation: Data | None = None,
        validation_split: float = 0.0,
        generator: Generator = None,
    ) -> History:
        """Train for `epochs` more epochs, of which the first may be a resumed one's rest; return the history.

        Args:
            data: a tuple of arrays (inputs, targets), a `DataLoader`, or an iterable of such tuples, one per
                batch, which is iterated once per epoch. It is moved to the model's device.
            epochs: number of epochs.
            batch_size: for arrays; they are shuffled in each epoch.
            validation: data, as above, to evaluate on after each epoch.
            validation_split: fraction of the samples of `data`, arrays or a `DataLoader` of arrays, that is
                split off for validation: the last ones, before any shuffling.
            generator: a numpy.random.Generator or seed for the shuffling of arrays.

        Raises:
            FloatingPointError: the loss of targets that count became NaN or infinite; the parameters are
                those before that step (on a GPU those after the epoch).
            TypeError: `data` or `validation` has another type; the message has the number of a wrong batch.
            ValueError: no sample, or an epoch without a batch; inputs and targets of different lengths; both
                a `validation` and a `validation_split`; data that differ from those of the resumed run.
            WorkerError: another process failed.
            RuntimeError: `fit` is called while it is running.
            MemoryError: a batch is too large for the GPU's memory; use a smaller `batch_size`.
        """
        if validation_split:
            if validation is not None:
                raise ValueError("`validation` and `validation_split` must not both be given")
            data, validation = split_off(data, validation_split)
        batches = as_batches("data", data, batch_size, self._xp, shuffle=True, generator=generator)
        if validation is not None:
            validation = as_batches("validation", validation, 256, self._xp)
        self.model.check_whole()
        self.run.begin_fit(batches, integer("epochs", epochs, minimum=0))
        try:
            reads = self._xp is not np and may_ignore(self.criterion, data)
            loop = Loop(self.run, validation, reads)
            if self._xp is not np and self.cuda_graph is not False:
                loop.graph = step_graph(loop, self._xp)
            with self._ranks(loop) as communicator:
                loop.fit(communicator)
        finally:
            self.run.fitting = False
        return self.history

    def resume(self, path: str | PathLike[str] | None = None) -> None:
        """Load a checkpoint, so that `fit` continues as if the run had never stopped, bit for bit.

        Model, optimiser, schedule, trainer and data must be created as for that run; see `resume_run`.

        Args:
            path: a checkpoint's file, or a folder for the newest one in it; by default that of `Checkpoints`.
        """
        from tinyconv.training.checkpoints import resume_run

        self.run.communicator = self.communicator
        with self.communicator.together():
            if self.communicator.rank == 0:
                resume_run(self.run, path)
            self.run.synchronize()

    def evaluate(self, data: Data, *, batch_size: int = 256) -> Evaluation:
        """Return loss and accuracy of all samples in evaluation mode, with averaged weights if there are any.

        Args:
            data: a tuple of arrays (inputs, targets), a `DataLoader`, or an iterable of such tuples.
            batch_size: for arrays.

        Raises:
            TypeError, ValueError: as `fit`, for `data`.
        """
        with one_blas_thread():
            return evaluate(self.run, as_batches("data", data, batch_size, self._xp), Communicator(), "data")

    def _ranks(self, loop: Loop) -> AbstractContextManager[Communicator]:
        """The communicator to train with; the processes of workers run the loop, too."""
        if self.workers == 1:
            return nullcontext(self.communicator)
        nbytes = sum(grad.nbytes for grad in self.model.grads.values())
        return processes(self.workers, loop.on_other_ranks().fit, nbytes)

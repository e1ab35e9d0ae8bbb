"""The training loop: epochs of batches of forward, loss, backward, step."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from copy import copy
from dataclasses import replace

import numpy as np

from tinyconv.arrays import Array, array_module, moved, one_blas_thread, one_thread, underflow_allowed
from tinyconv.data import DataLoader
from tinyconv.gpu.errors import out_of_memory
from tinyconv.gpu.graph import StepGraph
from tinyconv.layers.cache import Pass
from tinyconv.training.batches import Batches, parts_of
from tinyconv.training.communicator import Communicator
from tinyconv.training.generators import OwnStreams
from tinyconv.training.history import Epoch
from tinyconv.training.run import Run
from tinyconv.training.running import DENOMINATOR, NUMERATOR, Evaluation, check_reduces, evaluation, sums_of


class Loop:
    """The epochs of a `Trainer.fit`, which each of its ranks runs.

    A rank computes loss and gradients of its part of each batch; all add them up, and make the same step.
    Gradients that are added up, over ranks or batches, are those of the loss's numerator, and are divided by
    the sum of the denominators in the end.

    Args:
        run: the record of the run.
        validation: data to evaluate on after each epoch, or None.
        reads: whether to read from a GPU in each batch whether any target counts.

    Attributes:
        graph: on a GPU what does `add_gradients` and the optimiser's step at once, or None.
    """

    def __init__(self, run: Run, validation: Batches | None, reads: bool = False) -> None:
        self.run, self.validation, self.reads = run, validation, reads
        self.graph: StepGraph | None = None

    def on_other_ranks(self) -> "Loop":
        """Return the loop for the ranks that this process starts."""
        other = copy(self)
        other.run = self.run.on_other_ranks()
        return other

    def fit(self, communicator: Communicator) -> None:
        """Run the epochs of `run` that are left, as one of the ranks of `communicator`."""
        run = self.run
        check_reduces(run.criterion)
        before, run.communicator = run.communicator, communicator
        self._adds_up = run.accumulate > 1 or communicator.size > 1
        with one_blas_thread(), communicator.together(), ExitStack() as stack:
            stack.callback(setattr, run, "communicator", before)  # that of processes ends with them
            if communicator.size > 1:
                stack.enter_context(one_thread())
            for callback in run.called():
                stack.callback(callback.close)
            stack.callback(run.read)  # on a GPU, what an error has left there
            self._check_alike()
            run.call("on_fit_begin")
            run.synchronize()
            while len(run.history.epochs) < run.last_epoch and not run.stop:
                record = self._train_epoch()
                loss, accuracy = record.train_loss, record.train_accuracy
                if self.validation is not None:
                    loss, accuracy = evaluate(run, self.validation, communicator, "validation")
                    record = replace(record, validation_loss=loss, validation_accuracy=accuracy)
                if run.schedule is not None and run.schedule.interval == "epoch":
                    run.schedule.end_epoch(loss, accuracy)
                run.history.epochs.append(record)
                run.call("on_epoch_end")
                run.synchronize()
            run.call("on_fit_end")
            run.synchronize()
            if run.stop:  # for this call, which may be that of a resumed run, and not for the next one
                run.first_epoch, run.stop = len(run.history.epochs) + 1, False

    def _check_alike(self) -> None:
        """Check that this rank has the arguments of rank 0."""
        run, validates = self.run, self.validation is not None
        own = f"{run.criterion!r}, to epoch {run.last_epoch}, with{'' if validates else 'out'} validation"
        first = run.communicator.broadcast(own)
        if own != first:
            raise ValueError(f"rank {run.communicator.rank} fits {own}, but rank 0 {first}")

    def _train_epoch(self) -> Epoch:
        run, start = self.run, time.perf_counter()
        run.begin_epoch()
        run.model.train()
        self._network = run.model.fused()
        streams, first = OwnStreams(run.model, run.communicator.rank), run.step + 1
        run.call("on_epoch_begin")
        for number, batch in enumerate(self._batches(), first):
            if number == first:
                run.go_on()
            run.call("on_batch_begin")
            streams.begin(run.epoch, number)
            with out_of_memory(f"a batch of {len(batch[0])}"):
                run.pending.append((self.graph or self.add_gradients)(*batch))
                if len(run.pending) == run.accumulate:
                    self._step()
            run.call("on_batch_end")
        if run.pending:
            self._step()
        return run.end_epoch(time.perf_counter() - start)

    def _batches(self) -> Iterator[tuple[Array, ...]]:
        """What `add_gradients`, or the graph, is called with, for each batch that is left in the epoch."""
        run = self.run
        if self.graph is not None and self.graph.gathers and isinstance(run.batches, DataLoader):
            return ((chosen,) for chosen in run.batches.indices(run.step))
        return parts_of(run.batches, run.communicator, run.step)

    def add_gradients(self, inputs: Array, targets: Array) -> Array:
        """Add the gradients of a batch, or of this rank's part of it; return its sums."""
        run, criterion = self.run, self.run.criterion
        if not run.pending:
            run.optimizer.zero_grad()
        with run.communicator.dividing():
            prediction = self._network.forward(inputs)
            loss = criterion.forward(prediction, targets)
            sums = sums_of(criterion, loss, prediction, targets)
            if self.reads:
                sums = moved(sums, np)
            with np.errstate(all="ignore") if _is_not_finite(sums) else nullcontext():
                self._network.backward_params(self._grad(prediction, sums))
        return sums

    def _grad(self, prediction: Array, sums: Array) -> Array:
        """The gradient of the loss, or of its numerator, with respect to the prediction."""
        criterion, denominator = self.run.criterion, sums[DENOMINATOR]
        if array_module(sums) is np and not denominator and criterion.reduction != "sum":  # it may be NaN
            grad: Array = array_module(prediction).zeros_like(prediction)
            return grad
        grad = criterion.backward()
        if self._adds_up and criterion.reduction != "sum":
            grad = grad * denominator.astype(grad.dtype)
        return grad

    @underflow_allowed
    def _step(self) -> None:
        """Make the optimiser's step with the gradients of the pending batches, if any target counts."""
        run, lr = self.run, self.run.optimizer.lr
        sums = run.add_up()
        run.record(sums, lr)
        xp, denominator = array_module(sums), sums[:, DENOMINATOR].sum()
        if xp is np and not denominator:
            return
        if self.graph is None:
            if self._adds_up and run.criterion.reduction != "sum":
                divisor = denominator if xp is np else xp.where(denominator == 0, 1, denominator)
                for grad in run.model.grads.values():
                    grad /= divisor.astype(grad.dtype)
            run.call("on_gradients")
            run.optimizer.step()
        run.call("on_update_end")
        if run.schedule is not None and run.schedule.interval == "step":
            run.schedule.step()


def evaluate(run: Run, batches: Batches, communicator: Communicator, name: str) -> Evaluation:
    """Return loss and accuracy over the argument `name`, which the ranks of `communicator` share."""
    check_reduces(run.criterion)
    criterion, model, sums = run.criterion, run.evaluated, run.xp.zeros(5)
    with communicator.dividing():
        for inputs, targets in parts_of(batches, communicator):
            prediction = model.predict(inputs, batch_size=max(1, len(inputs)))
            with Pass(keeps=False):  # a training in another thread may be between forward and backward
                loss = criterion.forward(prediction, targets)
            sums += sums_of(criterion, loss, prediction, targets)
    sums = moved(sums, np)
    communicator.allreduce(sums)
    return evaluation(criterion, sums, f"`{name}` gave no batch in the evaluation")


def _is_not_finite(sums: Array) -> bool:
    """Whether the loss is NaN or infinite, which `Run.record` reports; False on a GPU, which is not read."""
    return array_module(sums) is np and not np.isfinite(sums[NUMERATOR])

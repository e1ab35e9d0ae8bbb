"""What is kept of a training run, and the hooks of those who follow it."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence, Sized
from copy import copy
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import instance, integer, one_of
from tinyconv.arrays import Array, array_module, moved
from tinyconv.data.loader import DataLoader
from tinyconv.layers import Layer
from tinyconv.layers.loss import Loss
from tinyconv.optim import Optimizer, Schedule
from tinyconv.signature import shown_arguments
from tinyconv.training.communicator import Communicator
from tinyconv.training.generators import model_generators, random_states, set_random_states
from tinyconv.training.history import Epoch, History
from tinyconv.training.running import DENOMINATOR, SAMPLES, batch_losses, check_reduces, evaluation


class Callback:
    """Base class of what follows a training; a subclass has those of the `on_` methods that it needs.

    They are called with the `Run` while the `Trainer` fits, in the order of its `callbacks`. Where several
    processes train together, they are called in the first one only, unless `every_rank` is True.

    Attributes:
        every_rank: whether it changes what is learnt (gradients, weights), so that it must run in all
            processes, and be the same in a resumed run.
        replayable: whether `on_gradients` does the same with the same arrays in each step, so that a record
            of its operations on them may run in its place.

    >>> class PrintLoss(Callback):
    ...     def on_epoch_end(self, run):
    ...         print(f"epoch {run.epoch}: {run.history.epochs[-1].train_loss:.3f}")
    """

    every_rank: ClassVar[bool] = False
    replayable: ClassVar[bool] = False

    def on_fit_begin(self, run: "Run") -> None:
        """Do something before the first epoch of a call of `fit`."""

    def on_epoch_begin(self, run: "Run") -> None:
        """Do something before the first batch of an epoch."""

    def on_batch_begin(self, run: "Run") -> None:
        """Do something before a batch, which has been read."""

    def on_gradients(self, run: "Run") -> None:
        """Do something with the gradients, before the optimiser's step."""

    def on_update_end(self, run: "Run") -> None:
        """Do something after the optimiser's step, at the end of one or more batches."""

    def on_batch_end(self, run: "Run") -> None:
        """Do something after a batch."""

    def on_epoch_end(self, run: "Run") -> None:
        """Do something after an epoch, of which `run.history.epochs[-1]` is the record."""

    def on_fit_end(self, run: "Run") -> None:
        """Do something after the last epoch of a call of `fit`."""

    def close(self) -> None:
        """Release files and the like: `fit` ends, or an error ends it."""

    def evaluated(self) -> Layer | None:
        """Return a model to evaluate, on every rank, in place of the trained one; None for that one."""
        return None

    def to(self, target: npt.DTypeLike) -> Self:
        """Move what it keeps to a device, as the Trainer does with the model."""
        return self

    def state_dict(self) -> dict[str, Array]:
        """Return the arrays that a resumed run needs, of a callback that runs on every rank."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Array]) -> None:
        """Load what `state_dict` returned."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_arguments(self)})"


class Run:
    """What is kept of a training run.

    Attributes:
        model, criterion, optimizer, schedule, callbacks: those of the Trainer.
        accumulate: number of batches per step of the optimiser.
        history: the `History`.
        epoch: the number of the present epoch, or of the last one.
        step: number of batches of this epoch up to the last step of the optimiser.
        sums: of this epoch up to there, see `running`.
        pending: the sums of the batches since the last step of the optimiser.
        first_epoch, last_epoch: the epochs of this call of `fit`.
        stop: set it to True, and `fit` ends after this epoch.
        fitting: whether `fit` is running.
        batches: the data.
        communicator: of the processes that train together.
        resumable: whether the states of random numbers are noted at the beginning of each epoch.
        folders: whose checkpoints belong to this run.

    >>> from tinyconv import Linear, MSELoss, optim
    >>> from tinyconv.training import Trainer
    >>> model = Linear(1, 1)
    >>> run = Trainer(model, MSELoss(), optim.SGD(model), accumulate=4).run
    >>> run.epoch, run.accumulate, run.model is model, run.history
    (0, 4, True, History(0 epochs, 0 steps))
    """

    def __init__(
        self,
        model: Layer,
        criterion: Loss,
        optimizer: Optimizer,
        schedule: Schedule | None,
        callbacks: Sequence[Callback],
        accumulate: int,
    ) -> None:
        instance("model", model, Layer)
        check_reduces(instance("criterion", criterion, Loss, "of a prediction and a target"))
        if instance("optimizer", optimizer, Optimizer).model is not model:
            raise ValueError("`optimizer` must have been created for `model`")
        if schedule is not None and instance("schedule", schedule, Schedule).optimizer is not optimizer:
            raise ValueError("`schedule` must have been created for `optimizer`")
        if schedule is not None:
            one_of("schedule.interval", schedule.interval, ("epoch", "step"))
        self.model, self.criterion, self.optimizer, self.schedule = model, criterion, optimizer, schedule
        self.callbacks = [instance("callbacks", one, Callback) for one in callbacks]
        for one in self.callbacks:
            if type(one).evaluated is not Callback.evaluated and not one.every_rank:
                raise ValueError(f"`callbacks`: {one} has a model to evaluate, so `every_rank` must be True")
        self.accumulate = integer("accumulate", accumulate)
        self.history = History()
        self.communicator = Communicator()
        self.epoch = self.step = self.last_epoch = 0
        self.first_epoch = 1
        self.sums: Array = np.zeros(5)
        self.pending: list[Array] = []
        self.stop = self.resumable = self.fitting = False
        self.folders: set[str] = set()
        self.batches: Iterable[Any] = ()
        self._begun: dict[str, Any] | None = None  # where the present epoch began: a position
        self._resumed: dict[str, Any] | None = None  # the position where a resumed run continues
        self._shared: Array = np.zeros((0, 5))  # sums, and in the last row whether a rank was interrupted
        self._unread: list[tuple[Array, float]] = []  # stacked sums of batches, learning rate

    def on_other_ranks(self) -> "Run":
        """Return the run for ranks that this process starts, with the callbacks that run on every rank."""
        other = copy(self)
        other.callbacks = self.shared_callbacks
        return other

    @property
    def shared_callbacks(self) -> list[Callback]:
        """Return the callbacks that run on every rank."""
        return [callback for callback in self.callbacks if callback.every_rank]

    @property
    def clipping(self) -> list[Callback]:
        """Return the callbacks that do something with the gradients."""
        return [one for one in self.callbacks if type(one).on_gradients is not Callback.on_gradients]

    @property
    def draws(self) -> bool:
        """Return whether layers of the model have random generators."""
        return bool(model_generators(self.model))

    def called(self) -> list[Callback]:
        """Return the callbacks that are called on this rank."""
        return self.shared_callbacks if self.communicator.rank else self.callbacks

    def call(self, hook: str) -> None:
        """Call a method of the callbacks."""
        for callback in self.called():
            getattr(callback, hook)(self)

    @property
    def xp(self) -> Any:
        """Return the array module of the model's device."""
        return array_module(*self.model.params.values())

    def to(self, device: str) -> None:
        """Move all that is computed with to a device."""
        parts: list[Any] = [self.model, self.criterion, self.optimizer, *self.callbacks]
        for part in parts:
            part.to(device)

    @property
    def steps(self) -> int:
        """Return the number of batches that have been trained with, over all epochs."""
        return len(self.history.step_losses) + sum(len(sums) for sums, _ in self._unread)

    @property
    def evaluated(self) -> Layer:
        """Return the model to evaluate: the averaged one, if there is one."""
        found = (callback.evaluated() for callback in self.callbacks)
        return next((model for model in found if model is not None), self.model)

    def begin_fit(self, batches: Iterable[Any], epochs: int) -> None:
        """Set the epochs of this call of `fit`: `epochs` more, of which one may be the rest of another.

        Raises:
            RuntimeError: another call is running.
        """
        if self.fitting:
            raise RuntimeError("`fit` is running: a callback or another thread must not call it, too")
        self.fitting, self.batches, self._begun = True, batches, None
        done = len(self.history.epochs)
        self.last_epoch = done + epochs
        if self._resumed is None:
            self.first_epoch, self.stop = done + 1, False
        self.pending.clear()

    def begin_epoch(self) -> None:
        """Begin the next epoch, or go on in one of which `step` batches are finished.

        Random generators are at the epoch's beginning then, so that the data can be drawn again.
        """
        self.epoch, resumed = len(self.history.epochs) + 1, self._resumed
        if resumed is not None:
            for what, size in self._sizes().items():
                if resumed[what] != size and not self.communicator.rank:
                    raise ValueError(f"`data` has {size} {what}, the resumed run's had {resumed[what]}")
            set_random_states(self.model, self.batches, resumed["begin"])
            self._resumed = None
        if resumed is not None and resumed["step"]:
            self._begun = resumed
        else:
            self._begun = self._beginning(random_states(self.model, self.batches) if self.resumable else {})
        self.step, self.sums = self._begun["step"], np.array(self._begun["sums"])

    def go_on(self) -> None:
        """Set the random generators to where the resumed run was, when its data have been drawn again."""
        if self._begun is not None and self._begun["step"]:
            set_random_states(self.model, self.batches, self._begun["now"])

    def end_epoch(self, seconds: float) -> Epoch:
        """Return the record of the epoch.

        Raises:
            FloatingPointError: as `check_losses`.
            ValueError: it did not have a batch.
        """
        self.check_losses()
        assert self._begun is not None
        sums = self.sums
        loss, accuracy = evaluation(self.criterion, sums, f"`data` gave no batch in epoch {self.epoch}")
        images = sums[SAMPLES] - self._begun["sums"][SAMPLES]
        rate = images / seconds if seconds else math.inf
        record = Epoch(self.epoch, self.step, self._begun["lr"], loss, accuracy, None, None, seconds, rate)
        if self.communicator.size > 1:
            self.check_ranks()
        self._begun = None
        return record

    def add_up(self) -> Array:
        """Return the stacked sums of the pending batches; with several ranks add up those and the gradients.

        Raises:
            KeyboardInterrupt: Ctrl-C was noted on a rank.
        """
        one = len(self.pending) == 1
        sums: Array = self.pending[0][None] if one else array_module(*self.pending).stack(self.pending)
        self.pending.clear()
        if self.communicator.size > 1:
            # In one array that stays the same, for which the communicator need not plan again.
            if len(self._shared) != len(sums) + 1:
                self._shared = np.zeros((len(sums) + 1, 5))
            self._shared[:-1], self._shared[-1] = sums, self.communicator.interrupted
            self.communicator.allreduce(*self.model.grads.values(), self._shared)
            sums = self._shared[:-1].copy()
            if self._shared[-1, 0]:
                raise self.communicator.agreed(KeyboardInterrupt())
        return sums

    def record(self, sums: Array, lr: float) -> None:
        """Add the stacked sums of batches, trained at the rate `lr`; on a GPU losses are read later.

        Raises:
            FloatingPointError: a loss is not finite though some target counts.
        """
        self._unread.append((sums, lr))
        self.step += len(sums)
        if array_module(sums) is np:
            self.check_losses()

    def read(self) -> list[tuple[float, float, float]]:
        """Move the losses of the last batches to the history; return them with denominators and rates."""
        if not self._unread:
            return []
        read, rates = self._on_host(), [lr for sums, lr in self._unread for _ in sums]
        self._unread.clear()
        for row in read:
            self.sums = self.sums + row
        losses = batch_losses(self.criterion, read)
        self.history.step_losses += losses
        self.history.step_lrs += rates
        return list(zip(losses, read[:, DENOMINATOR].tolist(), rates, strict=True))

    def sums_until_now(self) -> Array:
        """Return the sums of the epoch's batches, those included that `read` has not moved yet."""
        until_now: Array = self.sums + self._on_host().sum(axis=0)
        return until_now

    def _on_host(self) -> Array:
        """The sums of the batches that are not read yet, stacked."""
        each = [sums for sums, _ in self._unread]
        return moved(array_module(*each).concatenate(each), np) if each else np.zeros((0, 5))

    def check_losses(self) -> None:
        """Read the losses of the last batches.

        Raises:
            FloatingPointError: one is not finite though some target counts.
        """
        read = self.read()
        for step, (loss, denominator, lr) in enumerate(read, self.step - len(read) + 1):
            if not math.isfinite(loss) and denominator:
                where = f"in epoch {self.epoch}, step {step}, at a learning rate of {lr:g}"
                raise self.communicator.agreed(FloatingPointError(f"the loss is {loss} {where}"))

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return all of the run, as arrays and an object for JSON, between two batches or two epochs.

        The arrays have the names "model/0.weight", "optimizer/0.weight/momentum_buffer",
        "callbacks/0/module.0.weight" and "history/step_losses".
        """
        self.check_losses()
        optimizer = self.optimizer.state_dict()
        arrays = {f"model/{name}": array for name, array in self.model.state_dict().items()}
        # As bits, since a loss may be NaN, but not an array of a checkpoint.
        for name in ("step_losses", "step_lrs"):
            arrays[f"history/{name}"] = np.array(getattr(self.history, name), np.float64).view(np.int64)
        numbers: dict[str, dict[str, Any]] = {}
        for name, own in optimizer.pop("state").items():
            numbers[name] = {key: value for key, value in own.items() if not hasattr(value, "shape")}
            arrays |= {f"optimizer/{name}/{key}": own[key] for key in own.keys() - numbers[name].keys()}
        for number, callback in enumerate(self.shared_callbacks):
            arrays |= {f"callbacks/{number}/{name}": array for name, array in callback.state_dict().items()}
        state = {
            **self._kinds(),
            "optimizer": {**optimizer, "state": numbers},
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "epochs": [asdict(epoch) for epoch in self.history.epochs],
            "first_epoch": self.first_epoch,
            "stop": self.stop,
            "position": self._position(),
        }
        return arrays, state

    def restore(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Set the run to what `state` returned.

        Raises:
            ValueError: the run had another model, dtype, optimiser or schedule, or parts of it are missing.
                Nothing is changed then.
        """
        self._check_kind(arrays, state)
        try:
            optimizer = {**state["optimizer"], "state": dict(state["optimizer"]["state"])}
            for name, array in under("optimizer/", arrays).items():
                param, _, key = name.rpartition("/")
                optimizer["state"][param] = {**optimizer["state"][param], key: array}
            epochs, position = [Epoch(**epoch) for epoch in state["epochs"]], _checked(state.get("position"))
            lists = [arrays[f"history/{n}"].view(np.float64).tolist() for n in ("step_losses", "step_lrs")]
            first, stop, schedule = state["first_epoch"], state["stop"], state["schedule"]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is not complete: {type(error).__name__} {error}") from error
        parts: list[tuple[Any, Any]] = [(self.model, under("model/", arrays)), (self.optimizer, optimizer)]
        for number, callback in enumerate(self.shared_callbacks):
            parts.append((callback, under(f"callbacks/{number}/", arrays)))
        _load_all([*parts, (self.schedule, schedule)] if self.schedule is not None else parts)
        self.first_epoch, self.stop, self._resumed = first, stop, position
        self.history.epochs[:], self.history.step_losses[:], self.history.step_lrs[:] = epochs, *lists

    def check_ranks(self) -> None:
        """Check that all ranks have the same parameters.

        Raises:
            RuntimeError: they do not, on any of them.
        """
        communicator = self.communicator
        checksums = np.zeros(communicator.size)
        for array in self.model.params.values():
            own = zlib.crc32(np.ascontiguousarray(array).tobytes(), int(checksums[communicator.rank]))
            checksums[communicator.rank] = own
        communicator.allreduce(checksums)
        if (checksums != checksums[0]).any():
            others = np.flatnonzero(checksums != checksums[0]).tolist()
            raise communicator.agreed(
                RuntimeError(
                    f"the parameters on the ranks {others} are no longer those of rank 0: a callback that "
                    "changes them must run on every rank"
                )
            )

    def synchronize(self) -> None:
        """Give all ranks the state of the first."""
        if self.communicator.size == 1:
            return
        state = self.communicator.broadcast(self.state() if self.communicator.rank == 0 else None)
        if self.communicator.rank and state is not None:
            try:
                self.restore(*state)
            except ValueError as error:
                rank = self.communicator.rank
                raise ValueError(f"rank {rank} does not train what rank 0 trains: {error}") from error

    def _position(self) -> dict[str, Any]:
        """Where the run is in its data: after `step` batches of an epoch, or before one."""
        if self._resumed is not None:
            return self._resumed
        now = random_states(self.model, self.batches)
        if self._begun is not None and self.step:
            return {**self._begun, "step": self.step, "now": now, "sums": self.sums.tolist()}
        return self._beginning(now)

    def _beginning(self, states: dict[str, Any]) -> dict[str, Any]:
        """The position before the first batch of an epoch."""
        position = {"step": 0, "begin": states, "now": states, "sums": [0.0] * 5, "lr": self.optimizer.lr}
        return {**position, **self._sizes()}

    def _sizes(self) -> dict[str, int | None]:
        """The number of batches and samples of the data, which a resumed run must have, too."""
        batches = self.batches
        count = len(batches) if isinstance(batches, Sized) else None
        return {"batches": count, "samples": batches.samples if isinstance(batches, DataLoader) else None}

    def _check_kind(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Check that arrays and state are those of a run like this one."""
        for what, own in self._kinds().items():
            if state.get(what) != own:
                raise ValueError(f"it is of another run, with {what} {state.get(what)} and not {own}")
        model = under("model/", arrays)
        for name, array in {**self.model.params, **self.model.buffers}.items():
            if name in model and model[name].dtype != array.dtype:
                raise ValueError(f"it has another dtype: {name!r} is {model[name].dtype}, not {array.dtype}")

    def _kinds(self) -> dict[str, Any]:
        """What must be equal in the run that continues."""
        schedule = self.schedule
        kinds = {
            "model": repr(self.model),
            "frozen parameters": [name for name in self.model.params if name not in self.model.grads],
            "optimizer kind": type(self.optimizer).__name__,
            "groups": [group["params"] for group in self.optimizer.groups],
            "schedule kind": None if schedule is None else [type(schedule).__name__, *schedule.base_lrs],
            "callbacks": [repr(callback) for callback in self.shared_callbacks],
            "accumulate": self.accumulate,
        }
        same: dict[str, Any] = json.loads(json.dumps(kinds, default=list))  # with lists, as in a file
        return same


def under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _load_all(parts: Iterable[tuple[Any, Any]]) -> None:
    """Load each state into its part, or none of them."""
    loaded: list[tuple[Any, Any]] = []
    try:
        for part, state in parts:
            loaded.append((part, part.state_dict()))
            part.load_state_dict(state)
    except (ValueError, TypeError, KeyError) as error:
        for part, before in loaded:
            part.load_state_dict(before)
        if isinstance(error, KeyError):
            raise ValueError(f"it is not complete: it lacks {error}") from error
        raise


def _checked(position: Any) -> dict[str, Any]:
    """A position from a checkpoint, checked; ValueError if it is not one."""
    kinds: dict[str, Any] = {
        "step": int,
        "begin": dict,
        "now": dict,
        "sums": list,
        "lr": (int, float),
        "batches": (int, type(None)),
        "samples": (int, type(None)),
    }
    if not isinstance(position, dict):
        raise ValueError("it lacks the position in the data")
    for name, kind in kinds.items():
        if not isinstance(position.get(name, ()), kind):
            raise ValueError(f"its position in the data lacks {name!r}, or has a wrong one")
    return position

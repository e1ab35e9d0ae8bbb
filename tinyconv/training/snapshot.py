"""The whole state of a training run as arrays and a JSON object, for checkpoints, and its restoration.

The arrays have the names "model/0.weight", "optimizer/0.weight/momentum_buffer", "average/module.0.weight"
and "history/step_losses".
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyconv.arrays import Array
from tinyconv.training.generators import (
    RandomSource,
    generators,
    global_generators,
    set_state,
    state_of,
)
from tinyconv.training.history import Epoch

if TYPE_CHECKING:
    from tinyconv.training.trainer import Trainer


def snapshot(trainer: "Trainer") -> tuple[dict[str, Array], dict[str, Any]]:
    """Return everything that `restore` needs of a run, except its position in the data."""
    optimizer = trainer.optimizer.state_dict()
    arrays = {f"model/{name}": array for name, array in trainer.model.state_dict().items()}
    # As bits, since a loss may be NaN, but not an array of a checkpoint.
    arrays["history/step_losses"] = np.array(trainer.history.step_losses, np.float64).view(np.int64)
    numbers: dict[str, dict[str, Any]] = {}
    for name, own in optimizer.pop("state").items():
        numbers[name] = {key: value for key, value in own.items() if not hasattr(value, "shape")}
        arrays |= {f"optimizer/{name}/{key}": own[key] for key in own.keys() - numbers[name].keys()}
    if trainer.average is not None:
        arrays |= {f"average/{name}": array for name, array in trainer.average.state_dict().items()}
    state = {
        **_kinds(trainer),
        "optimizer": {**optimizer, "state": numbers},
        "schedule": None if trainer.schedule is None else trainer.schedule.state_dict(),
        "epochs": [asdict(epoch) for epoch in trainer.history.epochs],
        "first_epoch": trainer.first_epoch,
    }
    return arrays, state


def restore(trainer: "Trainer", arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
    """Set the state of `trainer` to that of the `snapshot`.

    Raises:
        ValueError: the run had another model, dtype, optimiser or schedule, or parts of it are missing.
            Nothing is changed then.
    """
    for what, own in _kinds(trainer).items():
        if state.get(what) != own:
            raise ValueError(f"it is of another run: its {what} is {state.get(what)}, and this one's {own}")
    model, average = under("model/", arrays), under("average/", arrays)
    for name, array in {**trainer.model.params, **trainer.model.buffers}.items():
        for kept in (model.get(name, array), average.get(f"module.{name}", array)):
            if kept.dtype != array.dtype:
                raise ValueError(f"it has another dtype: {name!r} is {kept.dtype}, not {array.dtype}")
    try:
        optimizer = {**state["optimizer"], "state": dict(state["optimizer"]["state"])}
        for name, array in under("optimizer/", arrays).items():
            param, _, key = name.rpartition("/")
            optimizer["state"][param] = {**optimizer["state"][param], key: array}
        epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        losses, schedule = arrays["history/step_losses"].view(np.float64).tolist(), state["schedule"]
        first = state["first_epoch"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not complete: {type(error).__name__} {error}") from error
    parts = (trainer.model, model), (trainer.optimizer, optimizer), (trainer.schedule, schedule)
    given: list[tuple[Any, Any]] = [*parts, (trainer.average, average)]
    present = [(part, new, part.state_dict()) for part, new in given if part is not None]
    try:
        for part, new, _ in present:
            part.load_state_dict(new)
    except (ValueError, TypeError, KeyError) as error:
        for part, _, before in present:
            part.load_state_dict(before)
        if isinstance(error, KeyError):
            raise ValueError(f"it is not complete: it lacks {error}") from error
        raise
    trainer.first_epoch = first
    trainer.history.epochs[:], trainer.history.step_losses[:] = epochs, losses


def random_states(trainer: "Trainer", batches: Iterable[Any]) -> dict[str, Any]:
    """Return the states of all random generators, of model, `batches`, `np.random` and `random`, by name."""
    return {name: state_of(own) for name, own in _generators(trainer, batches).items()}


def set_random_states(trainer: "Trainer", batches: Iterable[Any], states: Mapping[str, Any]) -> None:
    """Set the generators to what `random_states` returned.

    Raises:
        ValueError: there are other generators, or generators of another kind.
    """
    own = _generators(trainer, batches)
    if own.keys() != states.keys():
        raise ValueError(
            f"the checkpoint has random numbers for {sorted(states)}, and this run for {sorted(own)}"
        )
    for name, source in own.items():
        set_state(source, states[name])


def _generators(trainer: "Trainer", batches: Iterable[Any]) -> dict[str, RandomSource]:
    found = global_generators() | {
        f"layer {index}, {key}": generator
        for index, layer in enumerate(trainer.model.modules())
        for key, generator in generators(layer).items()
    }
    own = getattr(batches, "generator", None)
    return {**found, "batches": own} if isinstance(own, np.random.Generator) else found


def _kinds(trainer: "Trainer") -> dict[str, Any]:
    """What must be equal in the run that continues."""
    optimizer, schedule, average = trainer.optimizer, trainer.schedule, trainer.average
    kinds = {
        "model": repr(trainer.model),
        "frozen parameters": [name for name in trainer.model.params if name not in trainer.model.grads],
        "optimizer kind": type(optimizer).__name__,
        "groups": [group["params"] for group in optimizer.groups],
        "schedule kind": None if schedule is None else [type(schedule).__name__, *schedule.base_lrs],
        "average's decay": None if average is None else average.decay,
        **{
            name: getattr(trainer, name)
            for name in ("workers", "accumulate", "clip_grad_norm", "clip_grad_value")
        },
    }
    same: dict[str, Any] = json.loads(json.dumps(kinds, default=list))  # with lists, as in a file
    return same


def under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays whose names begin with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

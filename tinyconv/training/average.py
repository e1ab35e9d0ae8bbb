"""Averaged weights, which often predict better than the last ones."""

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import instance, number
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.layers import Layer
from tinyconv.training.generators import model_generators
from tinyconv.training.run import Callback, Run


class WeightAverage(Callback):
    """Keep an exponential moving average of a model's parameters and buffers.

    As a callback of a Trainer it is updated after each step, and evaluated in place of the model.

    average = decay * average + (1 - decay) * value after each update but the first, which copies.
    It is PyTorch's AveragedModel with `get_ema_multi_avg_fn(decay)` and `use_buffers=True`, except that
    integer buffers, such as batch norm's `num_batches_tracked`, are copied by every update (PyTorch averages
    these, too, and truncates the result).

    Args:
        model: the layer that is trained.
        decay: between 0 and 1.

    Attributes:
        module: a copy of `model` with the averaged values, to predict with.
        n_averaged: number of updates.

    Raises:
        ValueError, TypeError: a `decay` out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html

    >>> from tinyconv import Linear
    >>> layer = Linear(1, 1)
    >>> average = WeightAverage(layer, decay=0.75)
    >>> for value in (0.0, 4.0):
    ...     layer.params["weight"][...] = value
    ...     average.update()
    >>> float(average.module.params["weight"][0, 0]), float(layer.params["weight"][0, 0])
    (1.0, 4.0)
    """

    def __init__(self, model: Layer, decay: float = 0.999) -> None:
        self.model = instance("model", model, Layer)
        self.decay = number("decay", decay, 0.0, 1.0)
        # With the model's generators and not copies, so that layers draw in evaluation from the streams that
        # checkpoints save.
        shared: dict[int, Any] = {id(own): own for own in model_generators(model).values()}
        self.module = copy.deepcopy(model, shared)
        self._changes = model.changes()
        self.n_averaged = 0

    every_rank = True

    def on_update_end(self, run: Run) -> None:
        self.update()

    def evaluated(self) -> Layer | None:
        if not self.n_averaged:
            return None
        self.check()
        return self.module

    def check(self) -> None:
        """Check that the model has the layers and parameters that the averages are of.

        Raises:
            RuntimeError: some have been added, removed or replaced since the averages were begun.
        """
        if self.model.changes() != self._changes:
            raise RuntimeError("`model` has changed since its WeightAverage was made: make another one")

    @underflow_allowed
    def update(self) -> None:
        """Update the averages with the model's present values.

        Raises:
            RuntimeError: see `check`.
        """
        self.check()
        for average, value in self._pairs():
            if self.n_averaged == 0 or value.dtype.kind != "f":
                average[...] = value
            else:
                average += (1 - self.decay) * (value - average)
        self.n_averaged += 1

    def to(self, target: npt.DTypeLike) -> Self:
        """Move the averages to a device, or convert them to a dtype, as the model was.

        Raises:
            ValueError, TypeError, RuntimeError: as `Layer.to`.
        """
        self.module.to(target)
        return self

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the averages, named as in PyTorch: "module.0.weight", "n_averaged"."""
        averages = {f"module.{name}": array for name, array in self.module.state_dict().items()}
        return {"n_averaged": np.asarray(self.n_averaged), **averages}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict`, or that of PyTorch's AveragedModel, returned.

        Raises:
            ValueError, TypeError: as `Layer.load_state_dict`; nothing is changed then.
        """
        if "n_averaged" not in state_dict:
            raise ValueError("`state_dict` lacks ['n_averaged']")
        count = int(state_dict["n_averaged"])
        averages = {k.removeprefix("module."): v for k, v in state_dict.items() if k != "n_averaged"}
        self.module.load_state_dict(averages)
        self.n_averaged = count

    def _pairs(self) -> list[tuple[Array, Array]]:
        """The averages and the model's values, in pairs."""
        averages = {**self.module.params, **self.module.buffers}
        values = {**self.model.params, **self.model.buffers}
        return [(averages[name], value) for name, value in values.items()]

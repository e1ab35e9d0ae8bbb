"""Schedules, which change an optimiser's learning rates after each epoch or step."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from tinyconv.arguments import above_zero, boolean, given, instance, integer, number, one_of
from tinyconv.optim.optimizers import Optimizer
from tinyconv.signature import shown_arguments

__all__ = ["ConstantLR", "CosineAnnealingLR", "OneCycleLR", "Schedule", "StepLR"]


class Schedule:
    """Base class: set the learning rate of each group of `optimizer` now, and again by each `step`.

    As in PyTorch, a schedule continues from the present learning rate: `optimizer.lr *= 0.5` in between has a
    lasting effect. (Only OneCycleLR depends on the number of steps alone.)

    Attributes:
        interval: when a Trainer calls `step`: after each "epoch" or after each optimiser "step".
        optimizer: the argument; all arguments of a schedule are attributes of it.
        base_lrs: the groups' learning rates when the optimiser's first schedule was created.
        count: number of calls of `step`.
    """

    interval: ClassVar[Literal["epoch", "step"]] = "epoch"

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = instance("optimizer", optimizer, Optimizer)
        if not optimizer.initial_lrs:
            optimizer.initial_lrs = [group["lr"] for group in optimizer.groups]
        self.base_lrs = list(optimizer.initial_lrs)
        self.count = 0
        self._apply()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_arguments(self)})"

    def step(self) -> None:
        """Set the next learning rate."""
        self.count += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to continue, besides the optimiser's: "count" and "base_lrs"."""
        return {"count": self.count, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned. The learning rates are in the optimiser's own `state_dict`.

        Raises:
            ValueError, TypeError: a value that is out of range or not a number; nothing is changed then.
        """
        count = integer("count", state_dict["count"], minimum=0)
        base_lrs = [number("base_lrs", lr) for lr in state_dict["base_lrs"]]
        if len(base_lrs) != len(self.base_lrs):
            raise ValueError(f"`state_dict` has {len(base_lrs)} base_lrs for {len(self.base_lrs)} groups")
        self.count, self.base_lrs = count, base_lrs

    def _apply(self) -> None:
        for group, base_lr in zip(self.optimizer.groups, self.base_lrs, strict=True):
            group["lr"] = self._next(group["lr"], base_lr)

    def _next(self, lr: float, base_lr: float) -> float:
        """The learning rate from call number `count` of `step` on, after `lr`; `count` 0 is the beginning."""
        raise NotImplementedError


class ConstantLR(Schedule):
    """Use lr * factor for the first `total_iters` epochs, and lr afterwards.

    A learning rate that never changes needs no schedule.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ConstantLR.html
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor = number("factor", factor, 0.0, 1.0)
        self.total_iters = integer("total_iters", total_iters, minimum=0)
        super().__init__(optimizer)

    def _next(self, lr: float, base_lr: float) -> float:
        if self.count == 0:
            return lr * self.factor
        if self.count != self.total_iters:
            return lr
        return lr * (1 / self.factor) if self.factor else base_lr


class StepLR(Schedule):
    """Use lr * gamma^floor(epoch / step_size).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.StepLR.html
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer("step_size", step_size)
        self.gamma = number("gamma", gamma, 0.0)
        super().__init__(optimizer)

    def _next(self, lr: float, base_lr: float) -> float:
        return lr * self.gamma if self.count and self.count % self.step_size == 0 else lr


class CosineAnnealingLR(Schedule):
    """Use eta_min + (lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:  # noqa: N803
        self.T_max = integer("T_max", T_max)
        self.eta_min = number("eta_min", eta_min, 0.0)
        super().__init__(optimizer)

    def _next(self, lr: float, base_lr: float) -> float:
        if self.count == 0:
            return lr
        if (self.count - 1) % (2 * self.T_max) == self.T_max:  # it rises again from eta_min, which may be 0
            return lr + (base_lr - self.eta_min) * (1 - math.cos(math.pi / self.T_max)) / 2
        before, now = (1 + math.cos(math.pi * i / self.T_max) for i in (self.count - 1, self.count))
        return now / before * (lr - self.eta_min) + self.eta_min


class OneCycleLR(Schedule):
    """Rise from max_lr / div_factor to max_lr, then fall to max_lr / div_factor / final_div_factor.

    It is stepped after each optimiser step. The momentum (or Adam's beta1) changes in the opposite direction,
    from max_momentum down to base_momentum and up again.

    Args:
        optimizer: its own learning rates, and those of its groups, are not used.
        max_lr: the highest learning rate: a number, or a list with one for each of `optimizer.groups`.
        total_steps: number of steps of the whole cycle; alternatively pass `epochs` and `steps_per_epoch`.
        pct_start: fraction of the steps in which the learning rate rises.
        anneal_strategy: "cos" or "linear".
        cycle_momentum, base_momentum, max_momentum: whether and how the momentum of all groups changes.
        div_factor, final_div_factor: as above.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; an optimiser without
            momentum for `cycle_momentum`; more than `total_steps` calls of `step`.

    Source: Smith and Topin, https://arxiv.org/abs/1708.07120;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        instance("optimizer", optimizer, Optimizer)
        self.epochs = None if epochs is None else integer("epochs", epochs)
        self.steps_per_epoch = (
            None if steps_per_epoch is None else integer("steps_per_epoch", steps_per_epoch)
        )
        if total_steps is None:
            if self.epochs is None or self.steps_per_epoch is None:
                raise ValueError("either `total_steps`, or `epochs` and `steps_per_epoch` must be given")
            total_steps = self.epochs * self.steps_per_epoch
        self.total_steps = integer("total_steps", total_steps)
        self.pct_start = number("pct_start", pct_start, 0.0, 1.0)
        self.anneal_strategy = one_of("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self.cycle_momentum = boolean("cycle_momentum", cycle_momentum)
        self.base_momentum = number("base_momentum", base_momentum, 0.0)
        self.max_momentum = number("max_momentum", max_momentum, 0.0)
        self.div_factor = above_zero("div_factor", div_factor)
        self.final_div_factor = above_zero("final_div_factor", final_div_factor)
        if self.cycle_momentum and not ("betas" in optimizer.options or getattr(optimizer, "momentum", None)):
            raise ValueError("`cycle_momentum` needs an `optimizer` with momentum")
        self.max_lr, max_lrs = _max_lrs(max_lr, len(optimizer.groups))
        # A later schedule starts from where this one began, as in PyTorch.
        optimizer.initial_lrs = [highest / self.div_factor for highest in max_lrs]
        super().__init__(optimizer)

    def step(self) -> None:
        """Set the next learning rate and the next momentum."""
        if self.count == self.total_steps:
            raise ValueError(f"`step` was called {self.count + 1} times, `total_steps` is {self.total_steps}")
        super().step()

    def _apply(self) -> None:
        super()._apply()
        if not self.cycle_momentum:
            return
        momentum = self._at(self.max_momentum, self.base_momentum, self.max_momentum)
        for group in self.optimizer.groups:
            if "betas" in group:
                group["betas"] = momentum, group["betas"][1]
            else:
                group["momentum"] = momentum

    def _next(self, lr: float, base_lr: float) -> float:
        return self._at(base_lr, base_lr * self.div_factor, base_lr / self.final_div_factor)

    def _at(self, start: float, peak: float, end: float) -> float:
        """The value at step `count` of one that begins at `start`, goes to `peak` and then to `end`."""
        anneal = _cosine if self.anneal_strategy == "cos" else _line
        top, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if self.count <= top:
            return anneal(start, peak, self.count / top if top else 1.0)
        return anneal(peak, end, (self.count - top) / (last - top) if last > top else 1.0)


def _max_lrs(value: Any, count: int) -> tuple[float | list[float], list[float]]:
    """`max_lr` as it was passed, in Python's numbers, and as a list of one for each of the groups."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        highest = number("max_lr", value, 0.0)
        return highest, [highest] * count
    if len(value) != count:
        raise ValueError(f"`max_lr` ({given(value)}) must be a number, or {count}, one for each group")
    each = [number("max_lr", highest, 0.0) for highest in value]
    return each, each


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share

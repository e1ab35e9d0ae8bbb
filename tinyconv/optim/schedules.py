"""Schedules, which change an optimiser's learning rates after each epoch or step."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from tinyconv.arguments import above_zero, boolean, given, instance, integer, integers, number, one_of
from tinyconv.optim.optimizers import Optimizer
from tinyconv.signature import shown_arguments

__all__ = ["ConstantLR", "CosineAnnealingLR", "ExponentialLR", "LinearLR", "MultiStepLR", "OneCycleLR"]
__all__ += ["ReduceLROnPlateau", "Schedule", "SequentialLR", "StepLR"]


class Schedule:
    """Base class: set the learning rate of each group of `optimizer` now, and again by each `step`.

    As in PyTorch, a schedule continues from the present learning rate: `optimizer.lr *= 0.5` in between has a
    lasting effect. (Only OneCycleLR depends on the number of steps alone.)

    Attributes:
        interval: when a Trainer calls `step`: after each "epoch" or after each optimiser "step". Assign the
            other one, before the Trainer is created, to count in it: `schedule.interval = "step"`.
        optimizer: the argument; all arguments of a schedule are attributes of it.
        base_lrs: the groups' learning rates when the optimiser's first schedule was created.
        count: number of calls of `step`.

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule = ExponentialLR(SGD(Linear(1, 1), lr=1.0), gamma=0.5)
    >>> schedule.step()
    >>> schedule.optimizer.lr *= 0.5
    >>> schedule.step()
    >>> schedule.optimizer.lr, schedule.count, schedule.base_lrs
    (0.125, 2, [1.0])
    """

    interval: Literal["epoch", "step"] = "epoch"
    _state: ClassVar[dict[str, Callable[[str, Any], float]]] = {"count": partial(integer, minimum=0)}

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

    def end_epoch(self, loss: float, accuracy: float | None) -> None:
        """Set the next learning rate, at the end of a Trainer's epoch with these figures.

        They are those of the validation, or of the training if there is none.
        """
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to continue, besides the optimiser's: "count", "base_lrs" and the like."""
        return {"base_lrs": list(self.base_lrs), **{name: getattr(self, name) for name in self._state}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned. The learning rates are in the optimiser's own `state_dict`.

        Raises:
            ValueError, TypeError: a value that is out of range or not a number; nothing is changed then.
        """
        vars(self).update(self._checked(state_dict))

    def _checked(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes in `state_dict`, if they are those of such a schedule."""
        found = {name: check(name, state_dict[name]) for name, check in self._state.items()}
        base_lrs = [number("base_lrs", lr) for lr in state_dict["base_lrs"]]
        if len(base_lrs) != len(self.base_lrs):
            raise ValueError(f"`state_dict` has {len(base_lrs)} base_lrs for {len(self.base_lrs)} groups")
        return {"base_lrs": base_lrs, **found}

    def _begin(self, lrs: Sequence[float]) -> None:
        """Begin again, from the learning rates `lrs`."""
        for group, lr in zip(self.optimizer.groups, lrs, strict=True):
            group["lr"] = lr
        self.count = 0
        self._apply()

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

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule, lrs = ConstantLR(SGD(Linear(1, 1), lr=1.0), factor=0.25, total_iters=2), []
    >>> for epoch in range(4):
    ...     lrs.append(schedule.optimizer.lr)
    ...     schedule.step()
    >>> lrs
    [0.25, 0.25, 1.0, 1.0]
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor = number("factor", factor, 0.0, 1.0)
        self.total_iters = integer("total_iters", total_iters)
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

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule, lrs = StepLR(SGD(Linear(1, 1), lr=1.0), step_size=2, gamma=0.5), []
    >>> for epoch in range(5):
    ...     lrs.append(schedule.optimizer.lr)
    ...     schedule.step()
    >>> lrs
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer("step_size", step_size)
        self.gamma = number("gamma", gamma, 0.0)
        super().__init__(optimizer)

    def _next(self, lr: float, base_lr: float) -> float:
        return lr * self.gamma if self.count and self.count % self.step_size == 0 else lr


class MultiStepLR(Schedule):
    """Multiply the learning rate by gamma at each of the epochs `milestones`.

    An epoch that is there twice counts twice.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.MultiStepLR.html

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule, lrs = MultiStepLR(SGD(Linear(1, 1), lr=1.0), milestones=[1, 4], gamma=0.5), []
    >>> for epoch in range(5):
    ...     lrs.append(schedule.optimizer.lr)
    ...     schedule.step()
    >>> lrs
    [1.0, 0.5, 0.5, 0.5, 0.25]
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones = integers("milestones", milestones, minimum=0)
        self.gamma = number("gamma", gamma, 0.0)
        super().__init__(optimizer)

    def _next(self, lr: float, base_lr: float) -> float:
        return float(lr * self.gamma ** self.milestones.count(self.count))


class ExponentialLR(StepLR):
    """Use lr * gamma^epoch.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ExponentialLR.html

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule, lrs = ExponentialLR(SGD(Linear(1, 1), lr=1.0), gamma=0.5), []
    >>> for epoch in range(4):
    ...     lrs.append(schedule.optimizer.lr)
    ...     schedule.step()
    >>> lrs
    [1.0, 0.5, 0.25, 0.125]
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        super().__init__(optimizer, 1, gamma)


class LinearLR(Schedule):
    """Use lr * (start_factor + (end_factor - start_factor) * min(1, epoch / total_iters)).

    It is the usual warm-up; see `SequentialLR`. `total_iters` is at least 1. (With 0, PyTorch's stays at
    start_factor.)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LinearLR.html

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule, lrs = LinearLR(SGD(Linear(1, 1), lr=1.0), start_factor=0.25, total_iters=3), []
    >>> for epoch in range(5):
    ...     lrs.append(round(schedule.optimizer.lr, 4))
    ...     schedule.step()
    >>> lrs
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        self.start_factor = number("start_factor", above_zero("start_factor", start_factor), 0.0, 1.0)
        self.end_factor = number("end_factor", end_factor, 0.0, 1.0)
        self.total_iters = integer("total_iters", total_iters)
        super().__init__(optimizer)

    def _next(self, lr: float, base_lr: float) -> float:
        if self.count == 0:
            return lr * self.start_factor
        if self.count > self.total_iters:
            return lr
        change = self.end_factor - self.start_factor
        return lr * (1 + change / (self.total_iters * self.start_factor + (self.count - 1) * change))


class CosineAnnealingLR(Schedule):
    """Use eta_min + (lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule, lrs = CosineAnnealingLR(SGD(Linear(1, 1), lr=1.0), T_max=4, eta_min=0.5), []
    >>> for epoch in range(5):
    ...     lrs.append(round(schedule.optimizer.lr, 4))
    ...     schedule.step()
    >>> lrs
    [1.0, 0.9268, 0.75, 0.5732, 0.5]
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

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> optimizer = SGD(Linear(1, 1), momentum=0.9)
    >>> options = {"pct_start": 0.6, "anneal_strategy": "linear", "div_factor": 4.0, "final_div_factor": 25.0}
    >>> schedule, steps = OneCycleLR(optimizer, max_lr=1.0, total_steps=5, **options), []
    >>> for _ in range(5):
    ...     steps.append((round(optimizer.lr, 4), round(optimizer.momentum, 4)))
    ...     schedule.step()
    >>> steps
    [(0.25, 0.95), (0.625, 0.9), (1.0, 0.85), (0.505, 0.9), (0.01, 0.95)]
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
        self.max_lr, max_lrs = _lrs("max_lr", max_lr, optimizer)
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


class ReduceLROnPlateau(Schedule):
    """Multiply the learning rate by `factor` when a figure has stopped improving.

    A Trainer passes the loss after each epoch, or with mode "max" the accuracy: that of the validation, or of
    the training if there is none. By hand: `schedule.step(loss)`.

    Args:
        optimizer: the optimiser.
        mode: "min" or "max": whether a lower or a higher figure is better.
        factor: as above, from 0 to less than 1.
        patience: the number of epochs that may be no better; the next one is one too many.
        threshold, threshold_mode: a figure is better if it is below best * (1 - threshold), or for "abs"
            below best - threshold; in mode "max" above best * (1 + threshold) or best + threshold. NaN never
            is.
        cooldown: number of epochs after a reduction that are not counted.
        min_lr: the lowest learning rate: a number, or a list with one for each of `optimizer.groups`.
        eps: smaller reductions are not made.

    Attributes:
        best: the best figure until now.
        num_bad_epochs: the number of epochs since then, or since the last reduction.
        cooldown_counter: the number of epochs that are left of the cooldown.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type. `end_epoch`, which a Trainer
            calls, raises ValueError in mode "max" without an accuracy.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD
    >>> schedule = ReduceLROnPlateau(SGD(Linear(1, 1), lr=0.5), patience=1)
    >>> for loss in (0.9, 0.8, 0.8, 0.8):
    ...     schedule.step(loss)
    >>> schedule.optimizer.lr, schedule.best
    (0.05, 0.8)
    """

    _state = dict.fromkeys(("count", "num_bad_epochs", "cooldown_counter"), Schedule._state["count"])
    _state["best"] = number

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.mode = one_of("mode", mode, ("min", "max"))
        self.factor = number("factor", factor, 0.0)
        if self.factor >= 1:
            raise ValueError(f"`factor` (={factor!r}) must be less than 1")
        self.patience = integer("patience", patience, minimum=0)
        self.threshold = number("threshold", threshold, 0.0)
        self.threshold_mode = one_of("threshold_mode", threshold_mode, ("rel", "abs"))
        self.cooldown = integer("cooldown", cooldown, minimum=0)
        self.eps = number("eps", eps, 0.0)
        self.min_lr, self._min_lrs = _lrs("min_lr", min_lr, optimizer)
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = 0
        super().__init__(optimizer)

    def step(self, metrics: float) -> None:  # type: ignore[override]
        """Reduce the learning rate if the figure `metrics` of an epoch is one too many that is not better."""
        figure = number("metrics", float(metrics) if hasattr(metrics, "dtype") else metrics)
        better = self._is_better(figure)
        self.best = figure if better else self.best
        self.num_bad_epochs = 0 if better or self.cooldown_counter else self.num_bad_epochs + 1
        self.cooldown_counter = max(0, self.cooldown_counter - 1)
        super().step()

    def end_epoch(self, loss: float, accuracy: float | None) -> None:
        """Step with the loss, or in mode "max" with the accuracy."""
        figure = loss if self.mode == "min" else accuracy
        if figure is None:
            raise ValueError("`mode` (='max') needs an accuracy, but the targets are no classes: use 'min'")
        self.step(figure)

    def _is_better(self, figure: float) -> bool:
        margin = self.threshold if self.mode == "max" else -self.threshold
        bound = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return figure > bound if self.mode == "max" else figure < bound

    def _apply(self) -> None:
        if self.num_bad_epochs <= self.patience:
            return
        self.num_bad_epochs, self.cooldown_counter = 0, self.cooldown
        for group, lowest in zip(self.optimizer.groups, self._min_lrs, strict=True):
            reduced = max(group["lr"] * self.factor, lowest)
            if group["lr"] - reduced > self.eps:
                group["lr"] = reduced


class SequentialLR(Schedule):
    """Use one schedule after the other, each from its milestone on.

    Each begins with the optimiser's first learning rate, and counts from its milestone.

    Args:
        optimizer: the optimiser.
        schedulers: schedules of it, with the same `interval`. They are no longer stepped by themselves.
        milestones: the epochs at which the second, third... begin, in ascending order.

    Raises:
        ValueError, TypeError: schedules of other optimisers or intervals, a ReduceLROnPlateau, as it needs
            a figure; not one milestone fewer than schedules.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.SequentialLR.html

    >>> from tinyconv import Linear
    >>> from tinyconv.optim import SGD, CosineAnnealingLR, LinearLR
    >>> optimizer = SGD(Linear(1, 1), lr=0.1)
    >>> warmup, cosine = LinearLR(optimizer, 0.1, total_iters=2), CosineAnnealingLR(optimizer, 4)
    >>> schedule, lrs = SequentialLR(optimizer, [warmup, cosine], milestones=[2]), []
    >>> for epoch in range(6):
    ...     lrs.append(round(optimizer.lr, 4))
    ...     schedule.step()
    >>> lrs
    [0.01, 0.055, 0.1, 0.0854, 0.05, 0.0146]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: list[int]) -> None:
        self.schedulers = [instance("schedulers", one, Schedule) for one in schedulers]
        self.milestones = integers("milestones", milestones, minimum=0)
        if len(self.milestones) != len(self.schedulers) - 1 or self.milestones != sorted(self.milestones):
            raise ValueError(
                f"`milestones` (={self.milestones}) must be in ascending order, and one fewer than the "
                f"{len(self.schedulers)} `schedulers`"
            )
        for one in self.schedulers:
            if isinstance(one, ReduceLROnPlateau) or one.optimizer is not optimizer:
                raise ValueError(f"`schedulers`: {one} is not of `optimizer`, or needs figures as it steps")
            if one.interval != self.schedulers[0].interval:
                raise ValueError(f"`schedulers` must have one `interval`, but {one} steps by {one.interval}")
        self.interval = self.schedulers[0].interval
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to continue, with "schedulers", a list of the states of each."""
        return {**super().state_dict(), "schedulers": [one.state_dict() for one in self.schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; see `Schedule.load_state_dict`."""
        super().load_state_dict(state_dict)
        for one, state in zip(self.schedulers, state_dict["schedulers"], strict=True):
            one.load_state_dict(state)

    def _checked(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        states = state_dict["schedulers"]
        if len(states) != len(self.schedulers):
            raise ValueError(f"`state_dict` has {len(states)} schedulers, not {len(self.schedulers)}")
        for one, state in zip(self.schedulers, states, strict=True):
            one._checked(state)
        return super()._checked(state_dict)

    def _apply(self) -> None:
        present = self.schedulers[bisect_right(self.milestones, self.count)]
        if self.count == 0:
            present._begin(self.optimizer.initial_lrs)
        elif self.count in self.milestones:
            present._begin(present.base_lrs)
        else:
            present.step()


def _lrs(name: str, value: Any, optimizer: Optimizer) -> tuple[float | list[float], list[float]]:
    """Learning rates as they were passed, in Python's numbers, and as a list with one for each group."""
    count = len(instance("optimizer", optimizer, Optimizer).groups)
    if not isinstance(value, (list, tuple, np.ndarray)):
        one = number(name, value, 0.0)
        return one, [one] * count
    if len(value) != count:
        raise ValueError(f"`{name}` ({given(value)}) must be a number, or {count}, one for each group")
    each = [number(name, lr, 0.0) for lr in value]
    return each, each


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share

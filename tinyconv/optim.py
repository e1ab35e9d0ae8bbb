"""Optimisers and learning-rate schedules, step by step the same as torch.optim's.

An optimiser is made for a model and updates its parameters in place from its gradients:

    optimizer.zero_grad(); model.backward(grad); optimizer.step(); schedule.step()
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import conversion, integer, number, one_of
from tinyconv.arrays import Array, array_module, fused, moved, underflow_allowed
from tinyconv.layers import Layer

Groups: TypeAlias = Sequence[Mapping[str, Any]]


class Optimizer:
    """Base class: walks over the parameters of `model`; a subclass says how one is updated.

    Attributes:
        lr: the learning rate, which schedules change.
        initial_lr: the one that the optimiser was made with.
        groups: the groups of parameters with options of their own, after one, without any, of the others.
        state: name of a parameter -> what the optimiser remembers of it.
    """

    options: ClassVar[tuple[str, ...]] = ()  # what a group can have of its own

    def __init__(self, model: Layer, lr: float, weight_decay: float, groups: Groups) -> None:
        if not isinstance(model, Layer):
            raise TypeError(f"`model` (={model!r}) must be a Layer")
        self.model = model
        self.lr = self.initial_lr = lr
        self.weight_decay = weight_decay
        self.groups: list[Mapping[str, Any]] = [{}, *groups]
        self._group_of = self._members()
        self.state: dict[str, dict[str, Any]] = {name: {} for name in model.params}
        self._steps = 0
        # Of parameters that are alike -> the numbers of the last step, and where they lie.
        self._on_device: dict[Any, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}

    def _members(self) -> dict[str, int]:
        """For each parameter the number of its group."""
        members = dict.fromkeys(self.model.params, 0)
        for index, group in enumerate(self.groups[1:], 1):
            chosen = group.get("params") if isinstance(group, Mapping) else None
            if not isinstance(chosen, Sequence) or isinstance(chosen, str):
                raise TypeError(
                    f"`groups` must be mappings whose 'params' are a list of names, got {group!r}"
                )
            unknown = [name for name in group if name not in (*self.options, "params")]
            if unknown:
                raise ValueError(
                    f"`groups` holds the unknown option {unknown[0]!r}, not one of {self.options}"
                )
            for chosen in group["params"]:
                names = [name for name in members if name == chosen or name.startswith(f"{chosen}.")]
                taken = [name for name in names if members[name]]
                if taken or not names:
                    what = f"is in two groups: {taken[0]!r}" if taken else "names no parameter and no layer"
                    raise ValueError(f"`groups`: {chosen!r} {what}")
                members.update(dict.fromkeys(names, index))
        for group in self.groups:
            self._check(**self._options(group))
        return members

    def _check(self, **options: Any) -> None:
        """Refuse options that are out of range or of the wrong type."""
        number("lr", options["lr"], 0.0)
        number("weight_decay", options["weight_decay"], 0.0)

    def to(self, target: npt.DTypeLike) -> Self:
        """Move what is remembered of the parameters to a device, or convert it to a dtype, as the model was.

        Raises:
            ValueError, TypeError, RuntimeError: as `Layer.to`.
        """
        convert = conversion(target)
        for state in self.state.values():
            state.update({key: convert(value) for key, value in state.items() if hasattr(value, "dtype")})
        return self

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to zero."""
        self.model.zero_grad()

    @underflow_allowed
    def step(self) -> None:
        """Update all parameters from their gradients."""
        for update in self.begin_step():
            update()

    def begin_step(self) -> list[Callable[[], None]]:
        """Count the step, and return the updates that it consists of.

        What changes from step to step are numbers. On a GPU they are arrays that this call writes, so that
        the updates are the same kernels on the same arrays in each step, and can be a part of a CUDA graph.
        """
        self._steps += 1
        numbers: dict[Any, tuple[Any, ...]] = {}
        updates: list[Callable[[], None]] = []
        params = self.model.params
        for name, grad in self.model.grads.items():
            param, state, group = params[name], self.state[name], self._group_of[name]
            state["step"] = state.get("step", 0) + 1
            alike = group, self._steps - state["step"], param.dtype
            if alike not in numbers:
                options = self._options(self.groups[group])
                numbers[alike] = self._placed(alike, self._numbers(state["step"], **options), param)
            updates.append(partial(self._update, param, grad, state, *numbers[alike]))
        return updates

    def _options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a group: its own, and otherwise the optimiser's."""
        options = {name: group.get(name, getattr(self, name)) for name in self.options}
        if "lr" in group and self.lr != self.initial_lr:
            options["lr"] *= self.lr / self.initial_lr if self.initial_lr else 1
        return options

    def _numbers(self, step: int, **options: Any) -> tuple[float | None, ...]:
        """What the update takes besides arrays, in a parameter's `step`; None for what it does without."""
        raise NotImplementedError

    def _update(self, param: Array, grad: Array, state: dict[str, Any], *numbers: Any) -> None:
        raise NotImplementedError

    def _placed(self, alike: Any, numbers: tuple[float | None, ...], like: Array) -> tuple[Any, ...]:
        """`numbers`, those of the parameters that are `alike`, where `like` lies."""
        xp = array_module(like)
        if xp is np:
            return numbers
        known, placed = self._on_device.get(alike, ((), ()))
        if [old is None for old in known] != [new is None for new in numbers]:
            known = (None,) * len(numbers)
            placed = tuple(None if new is None else xp.empty((), like.dtype) for new in numbers)
        for array, new, old in zip(placed, numbers, known, strict=True):
            if array is not None and new != old:
                array.fill(new)
        self._on_device[alike] = numbers, placed
        return placed

    def arrays(self) -> list[Array]:
        """All arrays that the updates read and write besides parameters and gradients."""
        kept = [value for own in self.state.values() for value in own.values() if hasattr(value, "shape")]
        placed = [array for _, arrays in self._on_device.values() for array in arrays if array is not None]
        return kept + placed

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on: "steps", "initial_lr", "options" (as schedules have them now), "state".

        "state" holds, for each parameter's name, copies of what is remembered of it.
        """
        state = {
            name: {key: value.copy() if hasattr(value, "copy") else value for key, value in own.items()}
            for name, own in self.state.items()
        }
        options = {name: getattr(self, name) for name in self.options}
        return {"steps": self._steps, "initial_lr": self.initial_lr, "options": options, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; arrays are copied to where the parameters lie.

        Raises:
            ValueError: a name that is missing or unknown, or an array of another shape than its parameter.
                Nothing is changed then.
        """
        params, options, state = self.model.params, state_dict["options"], state_dict["state"]
        if set(state) != set(params) or set(options) != set(self.options):
            raise ValueError(
                f"`state_dict` is of an optimiser of other parameters or options: {sorted(state)} and "
                f"{sorted(options)} instead of {sorted(params)} and {sorted(self.options)}"
            )
        for name, own in state.items():
            for key, value in own.items():
                if hasattr(value, "shape") and value.shape != params[name].shape:
                    raise ValueError(
                        f"`state_dict`: {key!r} of {name!r} (of shape {value.shape}) must have the shape "
                        f"{params[name].shape}"
                    )
        options = {
            name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
        }
        self._check(**options)
        self._steps = integer("steps", state_dict["steps"], minimum=0)
        self.initial_lr = number("initial_lr", state_dict["initial_lr"], 0.0)
        for name, value in options.items():
            setattr(self, name, value)
        for name, own in state.items():
            self.state[name] = {key: _copied(value, params[name]) for key, value in own.items()}


def _copied(value: Any, param: Array) -> Any:
    """A copy of `value`, if it is an array, of the dtype of `param` and where it lies."""
    if not hasattr(value, "shape"):
        return value
    copy = array_module(param).empty_like(param)
    copy[...] = moved(value, array_module(param))
    return copy


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    g = grad + weight_decay * param;  v = momentum * v + (1 - dampening) * g  (v = g at first);
    param -= lr * v, or with nesterov lr * (g + momentum * v)

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        momentum, dampening, weight_decay: as in the formula.
        nesterov: needs a momentum and no dampening.
        groups: parameters with options of their own: mappings with "params", names of parameters ("0.weight")
            or of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes all learning rates in proportion.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """

    options = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        groups: Groups = (),
    ) -> None:
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        super().__init__(model, lr, weight_decay, groups)

    def _check(self, **options: Any) -> None:
        super()._check(**options)
        momentum, dampening = options["momentum"], options["dampening"]
        number("momentum", momentum, 0.0)
        number("dampening", dampening, -math.inf)
        if options["nesterov"] and (momentum == 0 or dampening != 0):
            raise ValueError(
                f"`nesterov` needs a `momentum` above 0 (got {momentum}) "
                f"and a `dampening` of 0 (got {dampening})"
            )

    def _numbers(self, step: int, **options: Any) -> tuple[float | None, ...]:
        momentum, dampening = options["momentum"], options["dampening"]
        undamped = None if dampening == 0 or step == 1 else 1 - dampening
        ahead = momentum if options["nesterov"] else None
        return options["lr"], momentum or None, undamped, ahead, options["weight_decay"] or None

    def _update(self, param: Array, grad: Array, state: dict[str, Any], *numbers: Any) -> None:
        _, momentum, *_ = numbers
        if momentum is not None and "momentum_buffer" not in state:
            state["momentum_buffer"] = array_module(param).zeros_like(param)
        _sgd(param, grad, None if momentum is None else state["momentum_buffer"], *numbers)


@fused
def _sgd(
    xp: Any,
    param: Array,
    grad: Array,
    velocity: Array | None,
    lr: Any,
    momentum: Any,
    undamped: Any,
    ahead: Any,
    weight_decay: Any,
) -> None:
    if weight_decay is not None:
        grad = grad + weight_decay * param
    if velocity is not None:
        velocity *= momentum
        velocity += grad if undamped is None else undamped * grad
        grad = velocity if ahead is None else grad + ahead * velocity
    param -= lr * grad


class Adam(Optimizer):
    """Adam; its weight decay adds weight_decay * param to the gradient.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    param -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: added to the denominator.
        weight_decay: as above.
        groups: parameters with options of their own: mappings with "params", names of parameters ("0.weight")
            or of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes all learning rates in proportion.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: Kingma and Ba, https://arxiv.org/abs/1412.6980;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
    """

    options = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        groups: Groups = (),
    ) -> None:
        self.betas, self.eps = tuple(betas), eps
        super().__init__(model, lr, weight_decay, groups)

    def _check(self, **options: Any) -> None:
        super()._check(**options)
        number("eps", options["eps"], 0.0)
        betas = options["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"`betas` (={betas!r}) must be two numbers, each at least 0 and less than 1")

    def _numbers(self, step: int, **options: Any) -> tuple[float | None, ...]:
        lr, (beta1, beta2) = options["lr"], options["betas"]
        corrected = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
        decay = self._decay(lr, options["weight_decay"])
        return *corrected, beta1, 1 - beta1, beta2, 1 - beta2, options["eps"], *decay

    def _decay(self, lr: float, weight_decay: float) -> tuple[float | None, float | None]:
        """What times a parameter is added to its gradient, and what the parameter itself is multiplied by."""
        return weight_decay or None, None

    def _update(self, param: Array, grad: Array, state: dict[str, Any], *numbers: Any) -> None:
        if "exp_avg" not in state:
            xp = array_module(param)
            state.update(exp_avg=xp.zeros_like(param), exp_avg_sq=xp.zeros_like(param))
        _adam(param, grad, state["exp_avg"], state["exp_avg_sq"], *numbers)


@fused
def _adam(
    xp: Any,
    param: Array,
    grad: Array,
    mean: Array,
    square: Array,
    lr: Any,
    root: Any,
    beta1: Any,
    rest1: Any,
    beta2: Any,
    rest2: Any,
    eps: Any,
    added: Any,
    kept: Any,
) -> None:
    if added is not None:
        grad = grad + added * param
    if kept is not None:
        param *= kept
    mean *= beta1
    mean += rest1 * grad
    square *= beta2
    square += rest2 * grad * grad
    denominator = xp.sqrt(square)
    denominator /= root
    denominator += eps
    update = mean / denominator
    update *= lr
    param -= update


class AdamW(Adam):
    """Adam with decoupled weight decay: each step first multiplies param by 1 - lr * weight_decay.

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: added to the denominator.
        weight_decay: as above.
        groups: parameters with options of their own: mappings with "params", names of parameters ("0.weight")
            or of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes all learning rates in proportion.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type.

    Source: Loshchilov and Hutter, https://arxiv.org/abs/1711.05101;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html
    """

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        groups: Groups = (),
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay, groups=groups)

    def _decay(self, lr: float, weight_decay: float) -> tuple[float | None, float | None]:
        return None, 1 - lr * weight_decay if weight_decay else None


class Schedule:
    """Base class: sets `optimizer.lr` at once, and again after each `step`.

    Attributes:
        interval: when a Trainer calls `step`: after each "epoch" or after each optimiser "step".
        base_lr: the optimiser's learning rate when the schedule was made.
        count: number of calls of `step`.
    """

    interval: ClassVar[Literal["epoch", "step"]] = "epoch"

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"`optimizer` (={optimizer!r}) must be an Optimizer")
        self.optimizer = optimizer
        self.base_lr = optimizer.lr
        self.count = 0
        self._apply()

    def step(self) -> None:
        """Go on to the next learning rate."""
        self.count += 1
        self._apply()

    def _apply(self) -> None:
        self.optimizer.lr = self.lr_at(self.count)

    def lr_at(self, count: int) -> float:
        """The learning rate after `count` calls of `step`."""
        raise NotImplementedError


class ConstantLR(Schedule):
    """lr * factor for the first `total_iters` epochs, lr afterwards.

    A learning rate that never changes needs no schedule.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ConstantLR.html
    """

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        self.factor = number("factor", factor, 0.0, 1.0)
        self.total_iters = integer("total_iters", total_iters, minimum=0)
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        return self.base_lr * (self.factor if count < self.total_iters else 1.0)


class StepLR(Schedule):
    """lr * gamma^floor(epoch / step_size).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.StepLR.html
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = integer("step_size", step_size)
        self.gamma = number("gamma", gamma, 0.0)
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        return float(self.base_lr * self.gamma ** (count // self.step_size))


class CosineAnnealingLR(Schedule):
    """eta_min + (lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:  # noqa: N803
        self.T_max = integer("T_max", T_max)
        self.eta_min = number("eta_min", eta_min, 0.0)
        super().__init__(optimizer)

    def lr_at(self, count: int) -> float:
        return _cosine(self.base_lr, self.eta_min, count / self.T_max)


class OneCycleLR(Schedule):
    """Up from max_lr / div_factor to max_lr, down to max_lr / div_factor / final_div_factor.

    Stepped after each optimiser step. The momentum (SGD's, or Adam's beta1) runs the other way, from
    max_momentum down to base_momentum and up again.

    Args:
        optimizer: its own learning rate is not used.
        max_lr: the highest learning rate.
        total_steps: number of steps of the whole cycle; or give `epochs` and `steps_per_epoch`.
        pct_start: share of the steps on the way up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum, base_momentum, max_momentum: whether and how the momentum changes.
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
        max_lr: float,
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
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("either `total_steps`, or `epochs` and `steps_per_epoch` must be given")
            total_steps = integer("epochs", epochs) * integer("steps_per_epoch", steps_per_epoch)
        self.total_steps = integer("total_steps", total_steps)
        max_lr = number("max_lr", max_lr, 0.0)
        start = max_lr / number("div_factor", div_factor, 0.0)
        self._lrs = (start, max_lr, start / number("final_div_factor", final_div_factor, 0.0))
        self._peak = number("pct_start", pct_start, 0.0, 1.0) * self.total_steps - 1
        strategy = one_of("anneal_strategy", anneal_strategy, ("cos", "linear"))
        self._anneal = _cosine if strategy == "cos" else _line
        self._momenta = (max_momentum, base_momentum, max_momentum) if cycle_momentum else None
        if cycle_momentum and not (isinstance(optimizer, Adam) or getattr(optimizer, "momentum", None)):
            raise ValueError("`cycle_momentum` needs an `optimizer` with momentum")
        super().__init__(optimizer)

    def _apply(self) -> None:
        if self.count > self.total_steps:
            raise ValueError(f"`step` was called {self.count} times, `total_steps` is {self.total_steps}")
        super()._apply()
        if self._momenta is None:
            return
        momentum = self._at(self._momenta, self.count)
        if isinstance(self.optimizer, Adam):
            self.optimizer.betas = (momentum, self.optimizer.betas[1])
        elif isinstance(self.optimizer, SGD):
            self.optimizer.momentum = momentum

    def lr_at(self, count: int) -> float:
        return self._at(self._lrs, count)

    def _at(self, values: tuple[float, float, float], count: int) -> float:
        start, peak, end = values
        last = self.total_steps - 1
        if count <= self._peak:
            return self._anneal(start, peak, count / self._peak if self._peak else 1.0)
        return self._anneal(
            peak, end, (count - self._peak) / (last - self._peak) if last > self._peak else 1.0
        )


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share

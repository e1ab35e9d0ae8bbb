"""Optimisers, which update a model's parameters from their gradients."""

import math
from collections import UserDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from tinyconv.arguments import boolean, conversion, given, instance, integer, number
from tinyconv.arrays import Array, array_module, by_values, fused, moved, underflow_allowed
from tinyconv.layers import Layer
from tinyconv.signature import shown_arguments

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "NAdam", "Optimizer", "RMSprop"]

T = TypeVar("T")
Groups: TypeAlias = Sequence[Mapping[str, Any]]
State: TypeAlias = Array | None  # an array of a parameter's state that not all options need


class Option(Generic[T]):
    """An option as an attribute of an optimiser, for all groups that do not have their own.

    `check` returns the value to store, a plain Python one, or raises. (NumPy's float64 numbers would turn
    float32 arrays into float64, and JSON cannot represent them.)
    """

    def __init__(self, check: Callable[[str, Any], T]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, owner: type | None = None) -> T:
        return cast("T", self if optimizer is None else optimizer.groups[0][self.name])

    def __set__(self, optimizer: Any, value: T) -> None:
        for group in optimizer.groups:
            if self.name not in group.own:
                group[self.name] = value


def _not_nan(name: str, value: Any) -> float:
    if math.isnan(as_float := number(name, value)):
        raise ValueError(f"`{name}` (=nan) must not be NaN")
    return as_float


class Group(UserDict[str, Any]):
    """Names of parameters or layers, "params", and all their options, which are checked when assigned.

    Attributes:
        own: the names of the options that were passed for the group.
    """

    def __init__(self, options: Mapping[str, Option[Any]], group: Any) -> None:
        params = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(params, Sequence) or isinstance(params, str):
            raise TypeError(
                f"`groups` must be mappings whose 'params' are a list of names, got one {given(group)}"
            )
        number("lr", group.get("lr", 0.0), 0.0)
        self.options, self.own = options, frozenset(group) - {"params"}
        super().__init__({name: group[name] for name in group if name != "params"})
        self.data["params"] = list(params)

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.options:
            raise ValueError(f"`groups` has the unknown option {name!r}, not one of {tuple(self.options)}")
        self.data[name] = self.options[name].check(name, value)


class Optimizer:
    """Base class of the optimisers; a subclass defines how one parameter is updated.

    Attributes:
        lr, weight_decay and the other options: plain Python numbers. An assigned one is used from the next
            step on, by all parameters except those of a group that has its own.
        groups: mappings of "params" and all options, as PyTorch's `param_groups`: the first has the
            parameters that are in no other group. Schedules change their "lr", and you may, too:
            `optimizer.groups[1]["lr"] *= 0.5`.
        initial_lrs: the groups' learning rates when the first schedule was created.
        state: name of a parameter -> the optimiser's state for it.

    >>> from tinyconv import Linear, Sequential
    >>> model = Sequential(Linear(4, 3), Linear(3, 2))
    >>> optimizer = SGD(model, lr=0.5, groups=[{"params": ["1"], "lr": 0.25}])
    >>> [(group["params"], group["lr"]) for group in optimizer.groups]
    [(['0.weight', '0.bias'], 0.5), (['1'], 0.25)]
    >>> optimizer.lr = 0.125
    >>> [group["lr"] for group in optimizer.groups]
    [0.125, 0.25]
    """

    options: ClassVar[dict[str, Option[Any]]] = {}

    lr = Option(_not_nan)  # may become negative: a linear OneCycleLR ends there, in PyTorch too
    weight_decay = Option(partial(number, low=0.0))

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        found = {name: value for base in cls.__mro__[::-1] for name, value in vars(base).items()}
        cls.options = {name: value for name, value in found.items() if isinstance(value, Option)}

    def __init__(self, model: Layer, groups: Groups, **options: Any) -> None:
        self.model = instance("model", model, Layer, f"pass the model itself: {type(self).__name__}(model)")
        if not model.params:
            raise ValueError(f"`model` (of type {type(model).__name__}) does not have parameters")
        model.check_whole()
        self._changes = model.changes()
        # A tuple: parameters belong to a group from the beginning on.
        self.groups = (Group(self.options, {"params": []}), *(Group(self.options, own) for own in groups))
        number("lr", options["lr"], 0.0)
        for name, value in options.items():
            setattr(self, name, value)
        self._group_of = self._members()
        self.groups[0].data["params"] = [name for name, index in self._group_of.items() if index == 0]
        self.initial_lrs: list[float] = []
        self.state: dict[str, dict[str, Any]] = {name: {} for name in model.params}
        self._steps = 0
        # Which of the numbers of a step, and dtype -> those of the last step, and where they are stored.
        self._on_device: dict[Any, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}

    def __repr__(self) -> str:
        counts = {"parameter": len(self.model.params), "group": len(self.groups) - 1}
        shown = [f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count]
        options = shown_arguments(self, always="lr", never="groups")
        return f"{type(self).__name__}({', '.join([*shown, options])})"

    def _members(self) -> dict[str, int]:
        """The number of the group of each parameter."""
        members = dict.fromkeys(self.model.params, 0)
        for index, group in enumerate(self.groups[1:], 1):
            for chosen in group["params"]:
                names = [name for name in members if name == chosen or name.startswith(f"{chosen}.")]
                taken = [name for name in names if members[name]]
                if taken or not names:
                    what = f"is in two groups: {taken[0]!r}" if taken else "names no parameter and no layer"
                    raise ValueError(f"`groups`: {chosen!r} {what}")
                members.update(dict.fromkeys(names, index))
        return members

    def to(self, target: npt.DTypeLike) -> Self:
        """Move the state of the parameters to a device, or convert it to a dtype, as the model was.

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
        """Update all parameters from their gradients.

        Raises:
            RuntimeError: layers or parameters of the model were added, removed or replaced since the
                optimiser was created.
        """
        for update in self.begin_step():
            update()

    def begin_step(self) -> list[Callable[[], None]]:
        """Count the step, and return its updates.

        Raises:
            RuntimeError: layers or parameters of the model were added, removed or replaced since the
                optimiser was created.

        Only numbers change from step to step. On a GPU this call writes them to arrays, so that the updates
        are the same kernels on the same arrays in each step, and can be part of a CUDA graph.
        """
        if self.model.changes() != self._changes:
            raise RuntimeError(
                "`model` has changed since the optimiser was created, which would not update new layers and "
                "parameters: create another optimiser"
            )
        self._steps += 1
        needed: dict[Any, tuple[list[str | None], tuple[Any, ...]]] = {}
        last, self._on_device = self._on_device, {}
        updates: list[Callable[[], None]] = []
        params = self.model.params
        for name, grad in self.model.grads.items():
            param, state, group = params[name], self.state[name], self._group_of[name]
            options = self.groups[group]
            self._count(state, options)
            alike = group, self._steps - state["step"], param.dtype, self._differs_by(state)
            if alike not in needed:
                place = len(needed), param.dtype  # the same from step to step, as arrays in a graph must be
                numbers = self._numbers(state, options)
                if (xp := array_module(param)) is not np:
                    self._on_device[place] = _placed(numbers, last.get(place, ((), ())), param.dtype, xp)
                    numbers = self._on_device[place][1]
                names = [key if not on or options.get(on) else None for key, on in self._arrays.items()]
                needed[alike] = names, numbers
            names, numbers = needed[alike]
            arrays = [_own_array(state, own, param, self._first_value(options)) for own in names]
            updates.append(partial(self._update_in_parts, numbers, param, grad, *arrays))
        return updates

    def _update_in_parts(self, numbers: tuple[Any, ...], *arrays: Array | None) -> None:
        """Update a parameter, in parts that stay in the cache for all steps of `_update`."""

        def update(*parts: Array) -> None:
            left = iter(parts)
            self._update(*(None if array is None else next(left) for array in arrays), *numbers)

        by_values(update, *(array for array in arrays if array is not None))

    _update: Callable[..., None]  # changes a parameter, given its gradient, its arrays and its numbers:

    # Name of an array in a parameter's state -> the option without which it is not needed; None for always.
    _arrays: ClassVar[Mapping[str, str | None]]

    def _first_value(self, options: Mapping[str, Any]) -> float:
        """The value that the arrays in a parameter's state have at first."""
        return 0.0

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        """The numbers for the update, in a parameter's `state`; None for those that it does not need.

        They are the same for the parameters of a group that have made as many steps, and do not differ by
        `_differs_by`.
        """
        raise NotImplementedError

    def _differs_by(self, state: Mapping[str, Any]) -> Any:
        """What else than the number of steps in a parameter's `state` the numbers depend on."""
        return None

    def _count(self, state: dict[str, Any], options: Mapping[str, Any]) -> None:
        """Count a step in a parameter's `state`, and update the numbers in it."""
        state["step"] = state.get("step", 0) + 1

    def arrays(self) -> list[Array]:
        """Return all arrays that the updates read and write besides parameters and gradients."""
        kept = [value for own in self.state.values() for value in own.values() if hasattr(value, "shape")]
        placed = [array for _, arrays in self._on_device.values() for array in arrays if array is not None]
        return kept + placed

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to continue: "steps", "initial_lrs", "groups" (their options), "state".

        "state" has, for each parameter's name, copies of its state.
        """
        state = {
            name: {key: value.copy() if hasattr(value, "copy") else value for key, value in own.items()}
            for name, own in self.state.items()
        }
        groups = [{name: group[name] for name in self.options} for group in self.groups]
        return {"steps": self._steps, "initial_lrs": list(self.initial_lrs), "groups": groups, "state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned; arrays are copied to the device of the parameters.

        Raises:
            ValueError, TypeError: a name that is missing or unknown, an option out of range, or an array of
                another shape than its parameter. Nothing is changed then.
        """
        params, state, found = self.model.params, state_dict["state"], state_dict["groups"]
        different = set(state).symmetric_difference(params)
        different |= {name for group in found for name in set(group).symmetric_difference(self.options)}
        if different or len(found) != len(self.groups):
            raise ValueError(
                f"`state_dict` is of other parameters or options: {len(found)} groups, not "
                f"{len(self.groups)}, and {len(different)} names that one of the two lacks: "
                f"{sorted(different)[:3]}"
            )
        for name, own in state.items():
            for key, value in own.items():
                if hasattr(value, "shape") and value.shape != params[name].shape:
                    raise ValueError(
                        f"`state_dict`: {key!r} of {name!r} (of shape {value.shape}) must have the shape "
                        f"{params[name].shape}"
                    )
        groups = [
            {name: self.options[name].check(name, value) for name, value in group.items()} for group in found
        ]
        initial_lrs = [number("initial_lrs", lr) for lr in state_dict["initial_lrs"]]
        if len(initial_lrs) not in (0, len(groups)):
            raise ValueError(f"`state_dict` has {len(initial_lrs)} initial_lrs for {len(groups)} groups")
        self._steps = integer("steps", state_dict["steps"], minimum=0)
        self.initial_lrs = initial_lrs
        for group, options in zip(self.groups, groups, strict=True):
            group.update(options)
        for name, own in state.items():
            self.state[name] = {key: _copied(value, params[name]) for key, value in own.items()}


def _placed(
    numbers: tuple[float | None, ...], last: tuple[tuple[Any, ...], tuple[Any, ...]], dtype: Any, xp: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """`numbers`, and arrays of them on a GPU: those of the `last` step, if the same ones are None."""
    known, placed = last
    if [old is None for old in known] != [new is None for new in numbers]:
        known = (None,) * len(numbers)
        placed = tuple(None if new is None else xp.empty((), dtype) for new in numbers)
    for array, new, old in zip(placed, numbers, known, strict=True):
        if array is not None and new != old:
            array.fill(new)
    return numbers, placed


def _with_decay(grad: Array, param: Array, weight_decay: Any) -> Array:
    """The gradient, with that of the decay of weights; None for none."""
    return grad if weight_decay is None else grad + weight_decay * param


def _own_array(state: dict[str, Any], name: str | None, like: Array, first: float) -> State:
    """The array `name` of a parameter's state, at first full of the value `first`; None for None."""
    if name is not None and name not in state:
        state[name] = array_module(like).full_like(like, first)
    return None if name is None else state[name]


def _copied(value: Any, param: Array) -> Any:
    """A copy of `value`, if it is an array, with the dtype and device of `param`."""
    if not hasattr(value, "shape"):
        return value
    copy = array_module(param).empty_like(param)
    copy[...] = moved(value, array_module(param))
    return copy


class SGD(Optimizer):
    """Implement stochastic gradient descent with momentum.

    g = grad + weight_decay * param;  v = momentum * v + (1 - dampening) * g  (v = g at first);
    param -= lr * v, or with nesterov lr * (g + momentum * v)

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        momentum, dampening, weight_decay: as in the formula.
        nesterov: whether to use Nesterov momentum; it needs a momentum and no dampening.
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html

    >>> from tinyconv import Linear
    >>> model = Linear(1, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0]], 2.0
    >>> optimizer, weights = SGD(model, lr=0.5, momentum=0.5), []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     weights.append(model.weight.item())
    >>> weights  # 5 - 0.5 * 2, then 0.5 * (2 + 1) and 0.5 * (2 + 1.5) less
    [4.0, 2.5, 0.75]
    """

    momentum = Option(partial(number, low=0.0))
    dampening = Option(_not_nan)
    nesterov = Option(boolean)
    _arrays: ClassVar = {"momentum_buffer": "momentum"}

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
        own = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        super().__init__(model, groups, lr=lr, weight_decay=weight_decay, **own)
        for group in self.groups:
            if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
                raise ValueError(
                    f"`nesterov` needs a `momentum` above 0 (got {group['momentum']}) "
                    f"and a `dampening` of 0 (got {group['dampening']})"
                )

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        momentum, dampening = options["momentum"], options["dampening"]
        undamped = None if dampening == 0 or not self._differs_by(state) else 1 - dampening
        ahead = momentum if options["nesterov"] else None
        return options["lr"], momentum or None, undamped, ahead, options["weight_decay"] or None

    def _differs_by(self, state: Mapping[str, Any]) -> bool:
        return "momentum_buffer" in state  # the first gradient is not dampened

    @staticmethod
    @fused
    def _update(xp: Any, param: Array, grad: Array, velocity: State, *numbers: Any) -> None:
        lr, momentum, undamped, ahead, weight_decay = numbers
        grad = _with_decay(grad, param, weight_decay)
        if velocity is not None:
            velocity *= momentum
            velocity += grad if undamped is None else undamped * grad
            grad = velocity if ahead is None else grad + ahead * velocity
        param -= lr * grad


def _betas(name: str, value: Any) -> tuple[float, float]:
    betas = [number(name, beta) for beta in value] if isinstance(value, (tuple, list, np.ndarray)) else []
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"`{name}` ({given(value)}) must be two numbers, each at least 0 and less than 1")
    return betas[0], betas[1]


class Adam(Optimizer):
    """Implement Adam, whose weight decay adds weight_decay * param to the gradient.

    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2;
    param -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: added to the denominator.
        weight_decay: as above.
        amsgrad: whether to divide by the root of the largest v until now, in place of v (AMSGrad).
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: Kingma and Ba, https://arxiv.org/abs/1412.6980;
        Reddi, Kale and Kumar (AMSGrad), https://arxiv.org/abs/1904.09237;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html

    >>> from tinyconv import Linear
    >>> model = Linear(2, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0, 5.0]], [[2.0, -0.001]]
    >>> Adam(model, lr=0.1).step()
    >>> model.weight.round(4)  # the first step is as long as the learning rate, whatever the gradient
    array([[4.9, 5.1]])
    """

    betas = Option(_betas)
    eps = Option(partial(number, low=0.0))
    amsgrad = Option(boolean)
    _arrays: ClassVar = {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"}
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        groups: Groups = (),
    ) -> None:
        own = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        super().__init__(model, groups, lr=lr, **own)

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        lr = options["lr"] / (1 - options["betas"][0] ** state["step"])
        return lr, None, None, *_adams(state["step"], options, self._decoupled)

    @staticmethod
    @fused
    def _update(
        xp: Any, param: Array, grad: Array, mean: Array, square: Array, largest: State, *numbers: Any
    ) -> None:
        lr, share, ahead, root, beta1, rest1, beta2, rest2, eps, added, kept = numbers
        grad = _with_decay(grad, param, added)
        if kept is not None:
            param *= kept
        mean *= beta1
        mean += rest1 * grad
        square *= beta2
        square += rest2 * grad * grad
        if ahead is not None:
            mean = share * mean + ahead * grad
        if largest is not None:
            largest[...] = xp.maximum(largest, square)
        denominator = xp.sqrt(square if largest is None else largest)
        denominator /= root
        denominator += eps
        update = mean / denominator
        update *= lr
        param -= update


def _adams(step: int, options: Mapping[str, Any], decoupled: bool) -> tuple[float | None, ...]:
    """Numbers of Adam's update; the last are the factors of the parameter in its gradient, and of itself."""
    (beta1, beta2), decay = options["betas"], options["weight_decay"] or None
    decays = (None, 1 - options["lr"] * decay) if decay and decoupled else (decay, None)
    return math.sqrt(1 - beta2**step), beta1, 1 - beta1, beta2, 1 - beta2, options["eps"], *decays


class AdamW(Adam):
    """Implement Adam with decoupled weight decay: each step first multiplies param by 1 - lr * weight_decay.

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: added to the denominator.
        weight_decay: as above.
        amsgrad: whether to divide by the root of the largest v until now, in place of v (AMSGrad).
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: Loshchilov and Hutter, https://arxiv.org/abs/1711.05101;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html

    >>> from tinyconv import Linear
    >>> model = Linear(1, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0]], 2.0
    >>> AdamW(model, lr=0.1, weight_decay=0.5).step()
    >>> model.weight.round(6)  # 5 * (1 - 0.1 * 0.5) - 0.1
    array([[4.65]])
    """

    _decoupled = True

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        groups: Groups = (),
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay, amsgrad, groups=groups)


class NAdam(Optimizer):
    """Implement NAdam, Adam with Nesterov momentum.

    m and v are those of Adam;  u_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2);  p_t = u_1 * ... * u_t;
    param -= lr * (u_(t+1) / (1 - p_(t+1)) * m + (1 - u_t) / (1 - p_t) * g) / (sqrt(v / (1 - beta2^t)) + eps)

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        betas: (beta1, beta2), each at least 0 and less than 1.
        eps: added to the denominator.
        weight_decay: its product with param is added to the gradient g.
        momentum_decay: how fast the momentum u_t rises from beta1 / 2 to beta1.
        decoupled_weight_decay: whether each step first multiplies param by 1 - lr * weight_decay instead.
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: Dozat, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html

    >>> from tinyconv import Linear
    >>> model = Linear(1, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0]], 2.0
    >>> NAdam(model, lr=0.3, betas=(0.5, 0.999), momentum_decay=0.0).step()  # u_t = 0.25 and m = 1
    >>> model.weight.round(6)  # 5 - 0.3 * (0.25 / (1 - 0.25**2) * 1 + 2) / 2
    array([[4.66]])
    """

    betas = Option(_betas)
    eps = Option(partial(number, low=0.0))
    momentum_decay = Option(partial(number, low=0.0))
    decoupled_weight_decay = Option(boolean)
    _arrays, _update = Adam._arrays, staticmethod(Adam._update)

    def __init__(
        self,
        model: Layer,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        groups: Groups = (),
    ) -> None:
        own = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay}
        super().__init__(model, groups, lr=lr, decoupled_weight_decay=decoupled_weight_decay, **own)

    def _count(self, state: dict[str, Any], options: Mapping[str, Any]) -> None:
        super()._count(state, options)
        state["mu_product"] = state.get("mu_product", 1.0) * _momentum(state["step"], options)

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        step, product = state["step"], state["mu_product"]
        now, later = _momentum(step, options), _momentum(step + 1, options)
        factors = options["lr"], later / (1 - product * later), (1 - now) / (1 - product)
        return *factors, *_adams(step, options, options["decoupled_weight_decay"])

    def _differs_by(self, state: Mapping[str, Any]) -> float:
        product: float = state["mu_product"]  # of the momenta of the steps that it has made
        return product


def _momentum(step: int, options: Mapping[str, Any]) -> float:
    return float(options["betas"][0] * (1 - 0.5 * 0.96 ** (step * options["momentum_decay"])))


class RMSprop(Optimizer):
    """Implement RMSprop: the gradient over the root of a running average of its square.

    g = grad + weight_decay * param;  s = alpha * s + (1 - alpha) * g^2;  d = g / (sqrt(s) + eps);
    param -= lr * d, or with a momentum  b = momentum * b + d;  param -= lr * b

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        alpha: as in the formula, from 0 to 1.
        eps: added to the denominator.
        weight_decay, momentum: as in the formula.
        centered: whether to divide by sqrt(s - a^2) instead, an estimate of the standard deviation, with the
            running average of the gradient a = alpha * a + (1 - alpha) * g. If rounding makes s - a^2
            negative, as where the gradient stays the same, it counts as 0. (PyTorch's parameter becomes NaN.)
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.RMSprop.html

    >>> from tinyconv import Linear
    >>> model = Linear(1, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0]], 2.0
    >>> RMSprop(model, lr=0.5, alpha=0.75).step()
    >>> model.weight.round(6)  # 5 - 0.5 * 2 / sqrt(0.25 * 2**2)
    array([[4.]])
    """

    alpha = Option(partial(number, low=0.0, high=1.0))
    eps = Option(partial(number, low=0.0))
    momentum = Option(partial(number, low=0.0))
    centered = Option(boolean)
    _arrays: ClassVar = {"square_avg": None, "grad_avg": "centered", "momentum_buffer": "momentum"}

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        groups: Groups = (),
    ) -> None:
        own = {"alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        super().__init__(model, groups, lr=lr, weight_decay=weight_decay, **own)

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        alpha, optional = options["alpha"], (options["momentum"] or None, options["weight_decay"] or None)
        return options["lr"], alpha, 1 - alpha, options["eps"], *optional

    @staticmethod
    @fused
    def _update(
        xp: Any, param: Array, grad: Array, square: Array, mean: State, velocity: State, *numbers: Any
    ) -> None:
        lr, alpha, rest, eps, momentum, weight_decay = numbers
        grad = _with_decay(grad, param, weight_decay)
        square *= alpha
        square += rest * grad * grad
        variance = square
        if mean is not None:
            mean += rest * (grad - mean)
            variance = xp.maximum(square - mean * mean, 0)  # rounding may make it negative
        grad = grad / (xp.sqrt(variance) + eps)
        if velocity is not None:
            velocity *= momentum
            velocity += grad
            grad = velocity
        param -= lr * grad


class Adagrad(Optimizer):
    """Implement Adagrad: the gradient over the root of the sum of all its squares.

    g = grad + weight_decay * param;  s = s + g^2  (s = initial_accumulator_value at first);
    param -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        lr_decay, weight_decay, initial_accumulator_value: as in the formula.
        eps: added to the denominator.
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: Duchi, Hazan and Singer, https://jmlr.org/papers/v12/duchi11a.html;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.Adagrad.html

    >>> from tinyconv import Linear
    >>> model = Linear(1, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0]], 2.0
    >>> Adagrad(model, lr=0.5, initial_accumulator_value=12.0).step()
    >>> model.weight.round(6)  # 5 - 0.5 * 2 / sqrt(12 + 2**2)
    array([[4.75]])
    """

    lr_decay = Option(partial(number, low=0.0))
    initial_accumulator_value = Option(partial(number, low=0.0))
    eps = Option(partial(number, low=0.0))
    _arrays: ClassVar = {"sum": None}

    def __init__(
        self,
        model: Layer,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        groups: Groups = (),
    ) -> None:
        own = {"lr_decay": lr_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps}
        super().__init__(model, groups, lr=lr, weight_decay=weight_decay, **own)

    def _first_value(self, options: Mapping[str, Any]) -> float:
        return float(options["initial_accumulator_value"])

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        lr = options["lr"] / (1 + (state["step"] - 1) * options["lr_decay"])
        return lr, options["eps"], options["weight_decay"] or None

    @staticmethod
    @fused
    def _update(xp: Any, param: Array, grad: Array, total: Array, *numbers: Any) -> None:
        lr, eps, weight_decay = numbers
        grad = _with_decay(grad, param, weight_decay)
        total += grad * grad
        param -= lr * (grad / (xp.sqrt(total) + eps))


class Adadelta(Optimizer):
    """Implement Adadelta, whose steps are as large as the last ones were.

    g = grad + weight_decay * param;  s = rho * s + (1 - rho) * g^2;  d = g * sqrt(u + eps) / sqrt(s + eps);
    u = rho * u + (1 - rho) * d^2;  param -= lr * d

    Args:
        model: the layer whose parameters are updated.
        lr: learning rate.
        rho: as in the formula, from 0 to 1.
        eps, weight_decay: as in the formula.
        groups: parameters with their own options: mappings with "params", names of parameters ("0.weight") or
            of layers ("0"), and any of the options above, e.g. {"params": ["0"], "lr": 1e-3}. A schedule
            changes the learning rate of each group.

    Raises:
        ValueError, TypeError: an argument out of range or of the wrong type; a model without parameters.

    Source: Zeiler, https://arxiv.org/abs/1212.5701;
        https://docs.pytorch.org/docs/stable/generated/torch.optim.Adadelta.html

    >>> from tinyconv import Linear
    >>> model = Linear(1, 1, bias=False, dtype=np.float64)
    >>> model.weight, model.grads["weight"][...] = [[5.0]], 2.0
    >>> Adadelta(model, rho=0.75, eps=1 / 3).step()
    >>> model.weight.round(6)  # 5 - 2 * sqrt(0 + 1/3) / sqrt(0.25 * 2**2 + 1/3)
    array([[4.]])
    """

    rho = Option(partial(number, low=0.0, high=1.0))
    eps = Option(partial(number, low=0.0))
    _arrays: ClassVar = {"square_avg": None, "acc_delta": None}

    def __init__(
        self,
        model: Layer,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        groups: Groups = (),
    ) -> None:
        super().__init__(model, groups, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)

    def _numbers(self, state: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[float | None, ...]:
        decay = options["weight_decay"] or None
        return options["lr"], options["rho"], 1 - options["rho"], options["eps"], decay

    @staticmethod
    @fused
    def _update(xp: Any, param: Array, grad: Array, square: Array, deltas: Array, *numbers: Any) -> None:
        lr, rho, rest, eps, weight_decay = numbers
        grad = _with_decay(grad, param, weight_decay)
        square *= rho
        square += rest * grad * grad
        delta = xp.sqrt(deltas + eps) / xp.sqrt(square + eps) * grad
        deltas *= rho
        deltas += rest * delta * delta
        param -= lr * delta

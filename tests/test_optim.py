"""Optimisers and schedules: step by step the same as PyTorch's."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tinyconv import Linear, ReLU, Sequential, models, optim

OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "SGD with momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "SGD with dampening": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "SGD with nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "SGD with everything": (
        optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "Adam": (optim.Adam, {"lr": 0.1}),
    "Adam with everything": (
        optim.Adam,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "AdamW": (optim.AdamW, {"lr": 0.1}),
    "AdamW with everything": (
        optim.AdamW,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.3},
    ),
    "Adam with amsgrad": (optim.Adam, {"lr": 0.1, "betas": (0.5, 0.6), "amsgrad": True}),
    "AdamW with amsgrad": (optim.AdamW, {"lr": 0.1, "betas": (0.5, 0.6), "eps": 1e-3, "amsgrad": True}),
    "NAdam": (optim.NAdam, {"lr": 0.1}),
    "NAdam without betas": (optim.NAdam, {"lr": 0.1, "betas": (0.0, 0.0)}),
    "NAdam with everything": (
        optim.NAdam,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.5},
    ),
    "NAdam with decoupled weight decay": (
        optim.NAdam,
        {"lr": 0.1, "weight_decay": 0.3, "momentum_decay": 0.0, "decoupled_weight_decay": True},
    ),
    "RMSprop": (optim.RMSprop, {"lr": 0.1}),
    "RMSprop with momentum": (optim.RMSprop, {"lr": 0.01, "alpha": 0.8, "momentum": 0.9}),
    "RMSprop, centered": (optim.RMSprop, {"lr": 0.01, "centered": True}),
    "RMSprop with everything": (
        optim.RMSprop,
        {"lr": 0.01, "alpha": 0.7, "eps": 1e-2, "weight_decay": 0.1, "momentum": 0.5, "centered": True},
    ),
    "Adagrad": (optim.Adagrad, {"lr": 0.1}),
    "Adagrad with everything": (
        optim.Adagrad,
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.3, "initial_accumulator_value": 0.5, "eps": 1e-2},
    ),
    "Adadelta": (optim.Adadelta, {}),
    "Adadelta with everything": (
        optim.Adadelta,
        {"lr": 0.5, "rho": 0.6, "eps": 1e-3, "weight_decay": 0.2},
    ),
}
EACH = [
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.NAdam,
    optim.RMSprop,
    optim.Adagrad,
    optim.Adadelta,
]


@pytest.fixture
def torch64() -> Iterator[Any]:
    """PyTorch with float64 as its default, in which NAdam keeps the product of its momenta."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
def test_fifty_steps_agree_with_pytorch(case: str, dtype: Any, torch64: Any) -> None:
    torch = torch64
    make, options = OPTIMIZERS[case]
    model = Linear(3, 2, dtype=dtype, generator=0)
    theirs = {name: torch.tensor(param) for name, param in model.params.items()}
    ours = make(model, **options)
    expected = getattr(torch.optim, make.__name__)(list(theirs.values()), **options)
    rng = np.random.default_rng(0)
    for _ in range(50):
        for name, grad in model.grads.items():
            grad[...] = rng.standard_normal(grad.shape)
            theirs[name].grad = torch.tensor(grad)
        ours.step()
        expected.step()
        for name, param in model.params.items():
            assert_close(param, theirs[name].numpy(), name)
    ours.zero_grad()
    assert not any(grad.any() for grad in model.grads.values())


@pytest.mark.parametrize("make", EACH)
def test_defaults_are_pytorchs(make: type[optim.Optimizer]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours = make(Linear(1, 1))  # type: ignore[call-arg]
    defaults = getattr(torch.optim, make.__name__)([torch.zeros(1)]).defaults
    assert set(ours.options) <= set(defaults)
    for name in ours.options:
        assert getattr(ours, name) == defaults[name], name
    theirs = list(inspect.signature(getattr(torch.optim, make.__name__)).parameters)[1:]
    own = list(inspect.signature(make).parameters)[1:-1]
    assert own == [name for name in theirs if name in own]


def test_parameters_keep_their_dtype_and_identity() -> None:
    model = Linear(3, 2, generator=0)
    weight = model.params["weight"]
    for make in EACH:
        model.grads["weight"] += 1
        make(model, lr=0.1).step()
    assert model.params["weight"] is weight
    assert weight.dtype == np.float32


SCHEDULES: dict[str, tuple[type[optim.Schedule], dict[str, Any]]] = {
    "constant": (optim.ConstantLR, {}),
    "constant with arguments": (optim.ConstantLR, {"factor": 0.5, "total_iters": 3}),
    "step": (optim.StepLR, {"step_size": 4}),
    "step with gamma": (optim.StepLR, {"step_size": 3, "gamma": 0.5}),
    "several steps": (optim.MultiStepLR, {"milestones": [3, 4, 11]}),
    "several steps, some at once": (optim.MultiStepLR, {"milestones": [6, 0, 6], "gamma": 0.5}),
    "exponential": (optim.ExponentialLR, {"gamma": 0.9}),
    "linear": (optim.LinearLR, {}),
    "linear with arguments": (
        optim.LinearLR,
        {"start_factor": 0.75, "end_factor": 0.25, "total_iters": 7},
    ),
    "linear to 0": (optim.LinearLR, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 9}),
    "cosine": (optim.CosineAnnealingLR, {"T_max": 20}),
    "cosine with eta_min": (optim.CosineAnnealingLR, {"T_max": 7, "eta_min": 0.01}),
    "one cycle": (optim.OneCycleLR, {"max_lr": 0.3, "total_steps": 20}),
    "one cycle by epochs": (optim.OneCycleLR, {"max_lr": 0.3, "epochs": 4, "steps_per_epoch": 5}),
    "one cycle, linear": (
        optim.OneCycleLR,
        {"max_lr": 0.3, "total_steps": 20, "anneal_strategy": "linear", "pct_start": 0.5},
    ),
    "one cycle, other factors": (
        optim.OneCycleLR,
        {"max_lr": 0.3, "total_steps": 20, "div_factor": 10, "final_div_factor": 100},
    ),
    "one cycle, momentum": (
        optim.OneCycleLR,
        {"max_lr": 0.3, "total_steps": 20, "base_momentum": 0.5, "max_momentum": 0.8},
    ),
    "one cycle, no momentum": (
        optim.OneCycleLR,
        {"max_lr": 0.3, "total_steps": 20, "cycle_momentum": False},
    ),
}


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.NAdam, optim.RMSprop])
def test_schedules_agree_with_pytorch(case: str, make: type[optim.Optimizer]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    schedule, options = SCHEDULES[case]
    momentum: dict[str, Any] = {"momentum": 0.9} if "momentum" in make.options else {}
    ours = make(Linear(1, 1), lr=0.2, **momentum)
    theirs = getattr(torch.optim, make.__name__)([torch.zeros(1)], lr=0.2, **momentum)
    mine = schedule(ours, **options)
    expected = getattr(torch.optim.lr_scheduler, schedule.__name__)(theirs, **options)
    for _ in range(21):
        group = theirs.param_groups[0]
        assert ours.lr == pytest.approx(group["lr"], rel=1e-12, abs=1e-16)
        for name in {"momentum", "betas"} & ours.options.keys():
            assert getattr(ours, name) == pytest.approx(group[name], rel=1e-12)
        theirs.step()
        if mine.count < 20 or schedule is not optim.OneCycleLR:
            mine.step()
            expected.step()


CHANGES = [[(7, 0.5)], [(0, 2.0)], [(3, 0.5), (4, 4.0), (5, 0.25), (6, 0.5), (14, 3.0)]]


def halved(group: Any, factor: float) -> None:
    group["lr"] *= factor


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedules_go_on_from_a_rate_changed_by_hand_as_pytorchs(
    case: str, changes: list[tuple[int, float]]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    schedule, options = SCHEDULES[case]
    model = Sequential(Linear(1, 1), Linear(1, 1), Linear(1, 1))
    own: list[dict[str, Any]] = [{"lr": 0.03}, {"momentum": 0.5}]
    ours = optim.SGD(
        model, lr=0.2, momentum=0.9, groups=[{"params": [str(i)], **o} for i, o in enumerate(own)]
    )
    theirs = torch.optim.SGD([{"params": [torch.zeros(1)], **o} for o in ({}, *own)], lr=0.2, momentum=0.9)
    mine, expected = (
        schedule(ours, **options),
        getattr(torch.optim.lr_scheduler, schedule.__name__)(theirs, **options),
    )
    for epoch in range(20):
        for factor in (factor for when, factor in changes if when == epoch):
            halved(theirs.param_groups[0], factor)
            halved(theirs.param_groups[2], factor)  # which follows the first, having no lr of its own
            ours.lr *= factor
            halved(theirs.param_groups[1], factor / 2)
            halved(ours.groups[1], factor / 2)
        theirs.step()
        mine.step()
        expected.step()
        for group, other in zip(ours.groups, theirs.param_groups, strict=True):
            assert group["lr"] == pytest.approx(other["lr"], rel=1e-12, abs=1e-16)
            assert group["momentum"] == pytest.approx(other["momentum"], rel=1e-12)


def test_one_cycle_takes_a_highest_rate_for_each_group_as_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours = optim.Adam(Sequential(Linear(1, 1), Linear(1, 1)), groups=[{"params": ["0"], "betas": (0.5, 0.6)}])
    theirs = torch.optim.Adam(
        [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "betas": (0.5, 0.6)}]
    )
    mine = optim.OneCycleLR(ours, [0.1, 0.02], total_steps=9)
    expected = torch.optim.lr_scheduler.OneCycleLR(theirs, [0.1, 0.02], total_steps=9)
    for _ in range(9):
        theirs.step()
        mine.step()
        expected.step()
        for group, other in zip(ours.groups, theirs.param_groups, strict=True):
            assert group["lr"] == pytest.approx(other["lr"], rel=1e-12)
            assert group["betas"] == pytest.approx(other["betas"], rel=1e-12)


def test_a_second_schedule_has_the_base_rates_of_the_first_as_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours, theirs = optim.SGD(Linear(1, 1), lr=0.2), torch.optim.SGD([torch.zeros(1)], lr=0.2)
    schedules = torch.optim.lr_scheduler
    pairs: list[tuple[optim.Schedule, Any]] = [(optim.StepLR(ours, 2, 0.5), schedules.StepLR(theirs, 2, 0.5))]
    for epoch in range(12):
        if epoch == 5:
            pairs.append((optim.CosineAnnealingLR(ours, 3), schedules.CosineAnnealingLR(theirs, 3)))
        theirs.step()
        for mine, expected in pairs:
            mine.step()
            expected.step()
        assert ours.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12, abs=1e-16)


def two_groups() -> tuple[optim.SGD, Any]:
    """Our optimiser and PyTorch's, of two groups with rates of their own."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    own: dict[str, Any] = {"lr": 0.03}
    ours = optim.SGD(
        Sequential(Linear(1, 1), Linear(1, 1)), lr=0.2, momentum=0.9, groups=[{"params": ["1"], **own}]
    )
    theirs = torch.optim.SGD([{"params": [torch.zeros(1)], **o} for o in ({}, own)], lr=0.2, momentum=0.9)
    return ours, theirs


def assert_same_rates(ours: optim.Optimizer, theirs: Any) -> None:
    for group, other in zip(ours.groups, theirs.param_groups, strict=True):
        assert group["lr"] == pytest.approx(other["lr"], rel=1e-12, abs=1e-16)
        assert group["momentum"] == pytest.approx(other["momentum"], rel=1e-12)


PLATEAUS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no patience": {"patience": 0},
    "highest": {"mode": "max", "patience": 1},
    "a little at a time": {"patience": 2, "factor": 0.7, "threshold": 0.05},
    "absolute": {"patience": 1, "factor": 0.5, "threshold": 0.1, "threshold_mode": "abs"},
    "highest, absolute": {
        "mode": "max",
        "patience": 1,
        "factor": 0.5,
        "threshold": 0.1,
        "threshold_mode": "abs",
    },
    "cooldown": {"patience": 1, "cooldown": 3, "factor": 0.5},
    "lowest rate": {"patience": 0, "factor": 0.5, "min_lr": 0.01},
    "a lowest rate for each": {"patience": 0, "factor": 0.5, "min_lr": [0.05, 0.02]},
    "no small reductions": {"patience": 0, "factor": 0.5, "eps": 0.01},
    "to 0": {"mode": "max", "patience": 3, "factor": 0.0},
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", PLATEAUS, ids=str)
def test_plateaus_are_pytorchs(case: str, seed: int) -> None:
    ours, theirs = two_groups()
    schedules = pytest.importorskip("torch", reason="PyTorch is the oracle").optim.lr_scheduler
    mine = optim.ReduceLROnPlateau(ours, **PLATEAUS[case])
    expected = schedules.ReduceLROnPlateau(theirs, **PLATEAUS[case])
    rng = np.random.default_rng(seed)
    rates = set()
    for epoch in range(60):
        metrics = float(rng.normal(-epoch / 20 if seed % 2 else 1.0, 0.3))
        if seed == 4 and epoch % 7 == 3:
            metrics = float("nan")
        mine.step(metrics)
        expected.step(metrics)
        assert_same_rates(ours, theirs)
        assert (mine.best, mine.num_bad_epochs, mine.cooldown_counter) == (
            expected.best,
            expected.num_bad_epochs,
            expected.cooldown_counter,
        )
        rates.add(ours.lr)
    assert len(rates) > 1


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array])
def test_a_plateau_takes_figures_as_losses_give_them(kind: Any) -> None:
    half: Any = np.float32(0.5)
    optimizer = optim.SGD(Linear(1, 1), lr=half)
    schedule = optim.ReduceLROnPlateau(optimizer, patience=0, factor=half, min_lr=[half / 4])
    for loss in (0.5, 1.5):
        schedule.step(kind(loss))
    assert optimizer.lr == 0.25
    assert json.loads(json.dumps(schedule.state_dict())) == schedule.state_dict()
    wrongs: list[Any] = ["0.5", None, np.zeros(2)]
    for wrong in wrongs:
        with pytest.raises((TypeError, ValueError)):
            schedule.step(wrong)
    assert schedule.count == 2


SEQUENCES: dict[str, tuple[list[str], list[int]]] = {
    "warm-up and cosine": (["linear with arguments", "cosine"], [5]),
    "constant and exponential": (["constant", "exponential"], [3]),
    "three": (["exponential", "several steps", "step"], [4, 9]),
    "with a milestone in each": (["several steps", "several steps, some at once"], [7]),
    "one alone": (["step"], []),
    "two milestones at once": (["exponential", "linear", "step with gamma"], [6, 6]),
    "the second at once": (["linear", "exponential"], [0]),
    "one cycle first": (["one cycle", "exponential"], [19]),
    "one cycle last": (["linear", "one cycle"], [2]),
}


def made_sequence(case: str, optimizer: Any, home: Any) -> Any:
    names, milestones = SEQUENCES[case]
    made = [
        getattr(home, kind.__name__)(optimizer, **options) for kind, options in (SCHEDULES[n] for n in names)
    ]
    for one in made:
        one.interval = "step"  # that of the one cycle
    return home.SequentialLR(optimizer, made, milestones)


@pytest.mark.parametrize("change", [1.0, 0.5])
@pytest.mark.parametrize("case", SEQUENCES, ids=str)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_sequences_are_pytorchs(case: str, change: float) -> None:
    ours, theirs = two_groups()
    schedules = pytest.importorskip("torch", reason="PyTorch is the oracle").optim.lr_scheduler
    mine, expected = made_sequence(case, ours, optim), made_sequence(case, theirs, schedules)
    for epoch in range(20):
        assert_same_rates(ours, theirs)
        if epoch in (2, 12):
            halved(theirs.param_groups[0], change)
            halved(ours.groups[0], change)
        theirs.step()
        mine.step()
        expected.step()


@pytest.mark.parametrize("steps", [2, 5, 6, 12])
@pytest.mark.parametrize("case", [*SEQUENCES, "of sequences"], ids=str)
def test_a_state_dict_takes_a_sequence_on(case: str, steps: int) -> None:
    def made(optimizer: optim.Optimizer) -> optim.Schedule:
        if case != "of sequences":
            sequence: optim.Schedule = made_sequence(case, optimizer, optim)
            return sequence
        inner = [made_sequence(name, optimizer, optim) for name in ("three", "warm-up and cosine")]
        return optim.SequentialLR(optimizer, inner, [8])

    optimizers = [optim.SGD(Linear(1, 1), lr=lr, momentum=0.9) for lr in (0.2, 0.7)]
    first, second = map(made, optimizers)
    for _ in range(steps):
        first.step()
    optimizers[0].lr *= 0.5
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(7):
        assert optimizers[0].groups == optimizers[1].groups
        first.step()
        second.step()
    state = second.state_dict()
    wrong_last = {**state["schedulers"][-1], "count": -1}
    for wrong in (
        {**state, "schedulers": []},
        {**state, "count": "6"},
        {**state, "count": 0, "schedulers": [*state["schedulers"][:-1], wrong_last]},
    ):
        with pytest.raises((ValueError, TypeError), match="`"):
            second.load_state_dict(wrong)
    assert second.state_dict() == state


def test_a_sequence_of_sequences_begins_each_anew() -> None:
    optimizer = optim.SGD(Linear(1, 1), lr=1.0)
    inner = optim.SequentialLR(
        optimizer, [optim.ConstantLR(optimizer, 0.5, 9), optim.ExponentialLR(optimizer, 0.1)], [2]
    )
    outer, rates = optim.SequentialLR(optimizer, [optim.LinearLR(optimizer, 0.25, 1.0, 3), inner], [2]), []
    for _ in range(6):
        rates.append(optimizer.lr)
        outer.step()
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.5, 1.0, 0.1])


def test_a_state_dict_takes_a_plateau_on() -> None:
    optimizers = [optim.SGD(Linear(1, 1), lr=0.2) for _ in range(2)]
    first, second = (optim.ReduceLROnPlateau(o, patience=2, cooldown=2, factor=0.5) for o in optimizers)
    fresh = json.loads(json.dumps(second.state_dict()))
    second.load_state_dict(fresh)  # with an infinite best figure
    for loss in (3.0, 2.0, 2.5, 2.5):
        first.step(loss)
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rates = []
    for loss in (2.1, 2.0, 2.0, 2.0, 1.5, 2.0, 2.0, 2.0, 2.0):
        first.step(loss)
        second.step(loss)
        rates.append(optimizers[0].lr)
        assert optimizers[0].groups == optimizers[1].groups
    assert rates == [0.1] * 7 + [0.05] * 2
    state = second.state_dict()
    for wrong in ({**state, "best": "low"}, {**state, "num_bad_epochs": -1}, {**state, "base_lrs": []}):
        with pytest.raises((ValueError, TypeError), match="`"):
            second.load_state_dict(wrong)
    assert second.state_dict() == state


def test_a_constant_schedule_from_0_comes_back_to_the_first_rate() -> None:
    optimizer = optim.SGD(Linear(1, 1), lr=0.2)
    schedule, rates = optim.ConstantLR(optimizer, factor=0, total_iters=2), []
    for _ in range(4):
        rates.append(optimizer.lr)
        schedule.step()
    assert rates == [0, 0, 0.2, 0.2]


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_a_state_dict_takes_a_schedule_on(case: str) -> None:
    schedule, options = SCHEDULES[case]
    optimizers = [optim.SGD(Linear(1, 1), lr=0.2, momentum=0.9) for _ in range(2)]
    first, second = (schedule(optimizer, **options) for optimizer in optimizers)
    for _ in range(6):
        first.step()
    optimizers[0].lr *= 0.5
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(14):
        assert optimizers[0].groups == optimizers[1].groups
        first.step()
        second.step()
    state = first.state_dict()
    for wrong in ({**state, "count": "6"}, {**state, "base_lrs": []}):
        with pytest.raises((ValueError, TypeError), match="`"):
            second.load_state_dict(wrong)
    assert second.state_dict() == state


def test_one_cycle_refuses_more_steps_than_it_has() -> None:
    schedule = optim.OneCycleLR(optim.Adam(Linear(1, 1)), 0.1, total_steps=3)
    for _ in range(3):
        schedule.step()
    with pytest.raises(ValueError, match="`total_steps` is 3"):
        schedule.step()


@pytest.mark.parametrize("total_steps", [1, 2, 3])
def test_one_cycle_works_for_very_short_runs(total_steps: int) -> None:
    optimizer = optim.Adam(Linear(1, 1))
    schedule = optim.OneCycleLR(optimizer, 0.1, total_steps=total_steps)
    for _ in range(total_steps):
        assert 0 <= optimizer.lr <= 0.1 + 1e-12
        schedule.step()


def sequence(model: Any, makes: list[Any], milestones: list[int]) -> optim.Schedule:
    optimizer = optim.Adam(model)
    return optim.SequentialLR(optimizer, [make(optimizer) for make in makes], milestones)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: optim.SGD(m, lr=-1),
        lambda m: optim.SGD(m, lr="fast"),  # type: ignore[arg-type]
        lambda m: optim.SGD(m, momentum=-0.5),
        lambda m: optim.SGD(m, nesterov=True),
        lambda m: optim.SGD(m, momentum=0.9, dampening=0.1, nesterov=True),
        lambda m: optim.SGD(m, weight_decay=-1),
        lambda m: optim.Adam(m, betas=(0.9, 1.0)),
        lambda m: optim.Adam(m, betas=(0.9,)),  # type: ignore[arg-type]
        lambda m: optim.Adam(m, eps=-1),
        lambda m: optim.SGD(m, nesterov="no", momentum=0.9),  # type: ignore[arg-type]
        lambda m: optim.SGD(m, lr=float("nan")),
        lambda m: optim.SGD(m, dampening=float("nan")),
        lambda m: optim.Adam(m, betas=0.9),  # type: ignore[arg-type]
        lambda m: optim.Adam(m, betas=("a", "b")),  # type: ignore[arg-type]
        lambda m: optim.SGD(m, groups={"params": ["weight"]}),  # type: ignore[arg-type]
        lambda m: optim.Adam(m, amsgrad=1),  # type: ignore[arg-type]
        lambda m: optim.NAdam(m, betas=(1.0, 0.9)),
        lambda m: optim.NAdam(m, momentum_decay=-1),
        lambda m: optim.NAdam(m, decoupled_weight_decay="yes"),  # type: ignore[arg-type]
        lambda m: optim.RMSprop(m, alpha=1.5),
        lambda m: optim.RMSprop(m, momentum=-0.5),
        lambda m: optim.RMSprop(m, centered=None),  # type: ignore[arg-type]
        lambda m: optim.Adagrad(m, initial_accumulator_value=-1),
        lambda m: optim.Adagrad(m, lr_decay=-1),
        lambda m: optim.Adadelta(m, rho=1.1),
        lambda m: optim.Adadelta(m, eps=-1e-6),
        lambda m: optim.OneCycleLR(optim.RMSprop(m), 0.1, total_steps=5),
        lambda m: optim.OneCycleLR(optim.Adagrad(m), 0.1, total_steps=5),
        lambda m: optim.MultiStepLR(optim.SGD(m), 3),  # type: ignore[arg-type]
        lambda m: optim.MultiStepLR(optim.SGD(m), [-1]),
        lambda m: optim.ExponentialLR(optim.SGD(m), -0.5),
        lambda m: optim.LinearLR(optim.SGD(m), 0.0),
        lambda m: optim.LinearLR(optim.SGD(m), 1.5),
        lambda m: optim.LinearLR(optim.SGD(m), end_factor=1.5),
        lambda m: optim.LinearLR(optim.SGD(m), total_iters=0),
        lambda m: optim.ConstantLR(optim.SGD(m), total_iters=0),
        lambda m: optim.ReduceLROnPlateau(m),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), "lowest"),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), factor=1.0),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), patience=-1),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), threshold=-1),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), threshold_mode="both"),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), cooldown=0.5),  # type: ignore[arg-type]
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), min_lr=[0.1, 0.2]),
        lambda m: optim.ReduceLROnPlateau(optim.SGD(m), eps=-1),
        lambda m: optim.SequentialLR(optim.SGD(m), [], []),
        lambda m: optim.SequentialLR(optim.SGD(m), [optim.StepLR(optim.SGD(m), 1)], []),
        lambda m: sequence(m, [lambda o: optim.StepLR(o, 1)] * 2, []),
        lambda m: sequence(m, [lambda o: optim.StepLR(o, 1)] * 3, [3, 2]),
        lambda m: sequence(m, [lambda o: optim.StepLR(o, 1), optim.ReduceLROnPlateau], [2]),
        lambda m: sequence(
            m, [lambda o: optim.StepLR(o, 1), lambda o: optim.OneCycleLR(o, 0.1, total_steps=3)], [2]
        ),
        lambda m: sequence(m, [lambda o: o], []),
        lambda m: optim.StepLR(optim.SGD(m), 0),
        lambda m: optim.StepLR(m, 1),
        lambda m: optim.CosineAnnealingLR(optim.SGD(m), 0),
        lambda m: optim.OneCycleLR(optim.SGD(m), 0.1, total_steps=5),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, pct_start=2),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, anneal_strategy="square"),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, div_factor=0),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, max_momentum="much"),  # type: ignore[arg-type]
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, cycle_momentum=1),  # type: ignore[arg-type]
        lambda m: optim.OneCycleLR(optim.Adam(m), [0.1, 0.2], total_steps=5),
    ],
)
def test_wrong_arguments_are_refused(make: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="`"):
        make(Linear(1, 1))


def test_an_optimizer_updates_all_parameters_of_a_network() -> None:
    model = Sequential(models.lenet5(generator=0))
    before = {name: param.copy() for name, param in model.params.items()}
    for grad in model.grads.values():
        grad += 1
    optim.SGD(model, lr=0.5).step()
    for name, param in model.params.items():
        np.testing.assert_allclose(param, before[name] - 0.5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", EACH)
def test_groups_have_options_of_their_own_and_follow_the_schedule(make: Any, torch64: Any) -> None:
    torch = torch64
    model = Sequential(
        Linear(3, 2, dtype=np.float64, generator=0), Linear(2, 2, dtype=np.float64, generator=1)
    )
    theirs = {name: torch.tensor(param) for name, param in model.params.items()}
    own = {"lr": 0.02, "weight_decay": 0.3}
    ours = make(model, lr=0.1, weight_decay=0.1, groups=[{"params": ["1.weight", "0"], **own}])
    chosen = [theirs[name] for name in ("0.weight", "0.bias", "1.weight")]
    expected = getattr(torch.optim, make.__name__)(
        [{"params": [theirs["1.bias"]]}, {"params": chosen, **own}], lr=0.1, weight_decay=0.1
    )
    schedules = optim.StepLR(ours, 3), torch.optim.lr_scheduler.StepLR(expected, 3)
    rng = np.random.default_rng(0)
    for _ in range(10):
        for name, grad in model.grads.items():
            grad[...] = rng.standard_normal(grad.shape)
            theirs[name].grad = torch.tensor(grad)
        for step in (ours, expected, *schedules):
            step.step()
    for name, param in model.params.items():
        assert_close(param, theirs[name].numpy(), name)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"params": ["2"]}], "'2' names no parameter and no layer"),
        ([{"params": ["0"]}, {"params": ["0.bias"]}], "'0.bias' is in two groups"),
        ([{"params": ["0"], "momentums": 1}], "unknown option 'momentums'"),
        ([{"params": ["0"], "lr": -1}], "`lr` .=-1. must be"),
        ([{"params": ["0"], "nesterov": True}], "`nesterov` needs a `momentum`"),
    ],
    ids=str,
)
def test_groups_that_are_wrong_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.SGD(Sequential(Linear(1, 1)), groups=groups)


@pytest.mark.parametrize("case", ["Adam", "NAdam", "Adagrad with everything"])
def test_frozen_layers_stay_as_they_are_and_start_later_as_in_pytorch(case: str, torch64: Any) -> None:
    torch = torch64
    make, options = OPTIMIZERS[case]
    model = Sequential(
        Linear(3, 2, dtype=np.float64, generator=0), Linear(2, 2, dtype=np.float64, generator=1)
    )
    theirs = {name: torch.tensor(param) for name, param in model.params.items()}
    ours = make(model, **options)
    expected = getattr(torch.optim, make.__name__)(list(theirs.values()), **options)
    before = model[0].state_dict()
    model[0].requires_grad_(False)
    rng = np.random.default_rng(0)
    for step in range(8):
        if step == 4:
            for name, value in before.items():
                np.testing.assert_array_equal(model[0].params[name], value)
            model[0].requires_grad_()
        x, g = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
        ours.zero_grad()
        model.forward(x)
        model.backward(g)
        assert list(model.grads) == list(model.params)[2 if step < 4 else 0 :]
        for name, grad in model.grads.items():
            theirs[name].grad = torch.tensor(grad)
        ours.step()
        expected.step()
    for name, param in model.params.items():
        assert_close(param, theirs[name].numpy(), name)


@pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
def test_a_state_dict_takes_an_optimiser_on(case: str) -> None:
    make, options = OPTIMIZERS[case]
    models_ = [Linear(3, 2, dtype=np.float64, generator=0) for _ in range(2)]
    first, second = (make(model, **options) for model in models_)
    rng = np.random.default_rng(0)

    def step(optimizer: optim.Optimizer) -> None:
        for grad in optimizer.model.grads.values():
            grad[...] = rng.standard_normal(grad.shape)
        optimizer.step()

    for _ in range(3):
        step(first)
    first.lr = 0.05
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    for optimizer in (first, second):
        rng = np.random.default_rng(1)
        for _ in range(3):
            step(optimizer)
    for name, param in first.model.params.items():
        np.testing.assert_array_equal(second.model.params[name], param)


def test_a_group_has_an_initial_accumulator_value_of_its_own() -> None:
    model = Sequential(Linear(2, 1), Linear(1, 1))
    groups = [{"params": ["0"], "initial_accumulator_value": 3.0}]
    optimizer = optim.Adagrad(model, initial_accumulator_value=0.5, groups=groups)
    optimizer.step()
    optimizer.initial_accumulator_value = 7.0  # too late
    optimizer.step()
    found = {name: np.unique(own["sum"]).tolist() for name, own in optimizer.state.items()}
    assert found == {"0.weight": [3.0], "0.bias": [3.0], "1.weight": [0.5], "1.bias": [0.5]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centered_rmsprop_stays_finite_where_the_gradient_never_changes(dtype: Any) -> None:
    model = Linear(300, 1, dtype=dtype, generator=0)
    optimizer = optim.RMSprop(model, alpha=0.5, centered=True)
    model.grads["weight"][...] = np.random.default_rng(0).standard_normal((1, 300))
    for _ in range(100):
        optimizer.step()
    assert np.isfinite(model.weight).all()


def test_nadams_momentum_may_change_from_step_to_step_as_pytorchs(torch64: Any) -> None:
    torch = torch64
    model = Linear(2, 2, dtype=np.float64, generator=0)
    theirs = {name: torch.tensor(param) for name, param in model.params.items()}
    ours, expected = optim.NAdam(model, lr=0.1), torch.optim.NAdam(list(theirs.values()), lr=0.1)
    rng = np.random.default_rng(0)
    for betas in ((0.9, 0.99), (0.5, 0.9), (0.1, 0.5), (0.8, 0.7)):
        ours.betas = expected.param_groups[0]["betas"] = betas
        for name, grad in model.grads.items():
            grad[...] = rng.standard_normal(grad.shape)
            theirs[name].grad = torch.tensor(grad)
        ours.step()
        expected.step()
    for name, param in model.params.items():
        assert_close(param, theirs[name].numpy(), name)


def test_a_state_dict_of_another_model_is_refused() -> None:
    optimizer = optim.SGD(Linear(2, 1), momentum=0.9)
    optimizer.step()
    state = optimizer.state_dict()
    for model, message in (
        (Linear(3, 1), "must have the shape"),
        (Linear(2, 1, bias=False), "other parameters"),
    ):
        with pytest.raises(ValueError, match=message):
            optim.SGD(model, momentum=0.9).load_state_dict(state)
    with pytest.raises(ValueError, match="other parameters or options"):
        optim.Adam(Linear(2, 1)).load_state_dict(state)


NUMBERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "SGD": (
        optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.1, "nesterov": True},
    ),
    "Adam": (optim.Adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    **{case: OPTIMIZERS[case] for case in OPTIMIZERS if "with everything" in case},
}


def numpys(value: Any, kind: Any) -> Any:
    """`value` with NumPy's numbers in place of Python's."""
    if isinstance(value, tuple):
        return np.array(value, kind)
    return np.bool_(value) if isinstance(value, bool) else kind(value)


def plain(value: Any) -> bool:
    return all(type(v) in (float, bool) for v in (value if isinstance(value, tuple) else (value,)))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("case", NUMBERS, ids=str)
def test_numbers_of_numpy_become_pythons_wherever_they_are_given(case: str, kind: Any) -> None:
    make, options = NUMBERS[case]
    given = {name: numpys(value, kind) for name, value in options.items()}
    model = Sequential(Linear(3, 2, generator=0), Linear(2, 2, generator=1))
    optimizer = make(model, **given, groups=[{"params": ["1"], **given}])
    later = make(model, **options, groups=[{"params": ["1"], **options}])
    for name, value in given.items():
        setattr(later, name, value)
        later.groups[1][name] = value
    for each in (optimizer, later):
        for grad in model.grads.values():
            grad += 1
        each.step()
        json.dumps(each.state_dict()["groups"])
        for group in each.groups:
            assert all(plain(group[name]) for name in options), group
            assert all(plain(x) for x in (getattr(each, name) for name in options))
        numbers = [each._numbers({"step": 1, "mu_product": 0.4}, group) for group in each.groups]
        assert all(plain(x) for found in numbers for x in found if x is not None)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_schedules_of_numpys_numbers_set_plain_ones(case: str, kind: Any) -> None:
    schedule, options = SCHEDULES[case]
    kinds: dict[type, Any] = {float: kind, int: np.int64, bool: np.bool_, str: str}
    kinds[list] = lambda values: [np.int64(value) for value in values]
    optimizer = optim.Adam(Linear(1, 1), lr=kind(0.1))
    made = schedule(optimizer, **{name: kinds[type(value)](value) for name, value in options.items()})
    for _ in range(5):
        assert all(plain(getattr(optimizer, name)) for name in optimizer.options)
        made.step()
    optimizer.lr = kind(0.05)
    made.step()
    assert type(optimizer.lr) is float
    json.dumps([made.state_dict(), {name: getattr(made, name) for name in options}])


def test_an_option_assigned_later_is_checked_and_used_by_groups_without_their_own() -> None:
    model = Sequential(Linear(1, 1), Linear(1, 1))
    optimizer = optim.SGD(model, lr=0.1, groups=[{"params": ["0"], "lr": 0.2}, {"params": ["1.bias"]}])
    optimizer.lr = 0.5
    assert [group["lr"] for group in optimizer.groups] == [0.5, 0.2, 0.5]
    assert [group["params"] for group in optimizer.groups] == [["1.weight"], ["0"], ["1.bias"]]
    for name, value in (("lr", "fast"), ("momentum", -1), ("lr", float("nan")), ("nesterov", 2)):
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            setattr(optimizer, name, value)
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            optimizer.groups[1][name] = value
    with pytest.raises(ValueError, match="unknown option 'learning_rate'"):
        optimizer.groups[1]["learning_rate"] = 0.1
    assert [group["lr"] for group in optimizer.groups] == [0.5, 0.2, 0.5]


def test_what_an_optimizer_and_a_schedule_are_is_said_in_short() -> None:
    model = models.lenet5(generator=0)
    sgd = optim.SGD(model, 0.1, 0.9, weight_decay=1e-4)
    assert repr(sgd) == "SGD(10 parameters, lr=0.1, momentum=0.9, weight_decay=0.0001)"
    adam = optim.AdamW(Sequential(Linear(1, 1, bias=False)), groups=[{"params": ["0"]}])
    assert repr(adam) == "AdamW(1 parameter, 1 group, lr=0.001)"
    assert repr(optim.StepLR(optim.SGD(model, 0.1), 1, 0.7)) == (
        "StepLR(SGD(10 parameters, lr=0.1), 1, gamma=0.7)"
    )
    one = optim.SGD(model, 0.1)
    assert repr(optim.SequentialLR(one, [optim.ExponentialLR(one, 0.5)], [])) == (
        "SequentialLR(SGD(10 parameters, lr=0.1), (ExponentialLR(SGD(10 parameters, lr=0.1), 0.5),), ())"
    )
    assert repr(optim.ReduceLROnPlateau(one, patience=3)) == (
        "ReduceLROnPlateau(SGD(10 parameters, lr=0.1), patience=3)"
    )
    assert repr(optim.OneCycleLR(adam, 0.25, epochs=2, steps_per_epoch=3)) == (
        "OneCycleLR(AdamW(1 parameter, 1 group, lr=0.01, betas=(0.95, 0.999)), "
        "0.25, total_steps=6, epochs=2, steps_per_epoch=3)"
    )


@pytest.mark.parametrize("case", SCHEDULES, ids=str)
def test_all_arguments_are_attributes(case: str) -> None:
    schedule, options = SCHEDULES[case]
    made = schedule(optim.Adam(Linear(1, 1)), **options)
    for name in inspect.signature(schedule).parameters:
        assert hasattr(made, name), name
    assert {name: getattr(made, name) for name in options} == options
    for kind, given in OPTIMIZERS.values():
        optimizer = kind(Linear(1, 1), **given)
        assert {name: getattr(optimizer, name) for name in given} == given
        assert all(hasattr(optimizer, name) for name in inspect.signature(kind).parameters)


def test_what_is_no_model_is_refused_in_few_words() -> None:
    params: Any = models.lenet5(generator=0).params
    wrongs: list[tuple[Any, str]] = [(params, "Arrays"), ((p for p in params.values()), "generator")]
    for wrong, kind in wrongs:
        with pytest.raises(TypeError) as refused:
            optim.Adam(wrong)
        message = f"`model` (of type {kind}) must be a Layer: pass the model itself: Adam(model)"
        assert str(refused.value) == message
    for call in (lambda: optim.StepLR(params, 1), lambda: optim.SGD(Linear(1, 1), params)):
        with pytest.raises(TypeError, match=r"of type Arrays\) must be") as refused:
            call()
        assert len(str(refused.value)) < 100


def test_a_model_without_parameters_is_refused() -> None:
    for model in (ReLU(), Sequential(ReLU())):
        kind = type(model).__name__
        with pytest.raises(ValueError, match=rf"`model` \(of type {kind}\) does not have parameters"):
            optim.SGD(model)


def test_the_first_step_with_momentum_is_not_dampened_whenever_it_comes() -> None:
    torch = pytest.importorskip("torch")
    model = Linear(1, 1, bias=False, dtype=np.float64)
    model.weight = [[0.0]]
    param = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    own, theirs = optim.SGD(model, lr=1.0, dampening=0.5), torch.optim.SGD([param], lr=1.0, dampening=0.5)
    for step in range(4):
        own.momentum = theirs.param_groups[0]["momentum"] = 0.9 if step else 0.0
        model.grads["weight"][...] = step + 1
        param.grad = torch.full_like(param, step + 1)
        own.step()
        theirs.step()
        assert_close(model.weight[0], param.detach().numpy())


def test_nadams_parameters_that_missed_different_steps_have_numbers_of_their_own() -> None:
    torch = pytest.importorskip("torch")
    model = Sequential(*(Linear(1, 1, bias=False, dtype=np.float64, generator=0) for _ in range(2)))
    params = [torch.tensor(value, requires_grad=True) for value in model.params.values()]
    own, theirs = optim.NAdam(model, lr=0.1), torch.optim.NAdam(params, lr=0.1)
    for step, frozen in enumerate((0, 1, None, None)):
        own.betas = theirs.param_groups[0]["betas"] = (0.95 if step else 0.5), 0.999
        for number, (name, param) in enumerate(zip(model.params, params, strict=True)):
            model[number].requires_grad_(number != frozen)
            param.grad = None
            if number != frozen:
                model.grads[name][...] = step + 1
                param.grad = torch.full_like(param, step + 1)
        own.step()
        theirs.step()
    for value, param in zip(model.params.values(), params, strict=True):
        np.testing.assert_allclose(value, param.detach().numpy(), atol=1e-7)  # its products are float32

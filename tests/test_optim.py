"""Optimisers and schedules: step by step the same as PyTorch's."""

from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tinyconv import Linear, Sequential, models, optim

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
}


@pytest.mark.parametrize("case", OPTIMIZERS, ids=str)
def test_fifty_steps_agree_with_pytorch(case: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    make, options = OPTIMIZERS[case]
    model = Linear(3, 2, dtype=np.float64, generator=0)
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


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_defaults_are_pytorchs(make: type[optim.Optimizer]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours = make(Linear(1, 1))  # type: ignore[call-arg]
    defaults = getattr(torch.optim, make.__name__)([torch.zeros(1)]).defaults
    for name, value in vars(ours).items():
        if name in defaults:
            assert value == defaults[name], name


def test_parameters_keep_their_dtype_and_identity() -> None:
    model = Linear(3, 2, generator=0)
    weight = model.params["weight"]
    for make in (optim.SGD, optim.Adam, optim.AdamW):
        model.grads["weight"] += 1
        make(model, lr=0.1).step()
    assert model.params["weight"] is weight
    assert weight.dtype == np.float32


SCHEDULES: dict[str, tuple[type[optim.Schedule], dict[str, Any]]] = {
    "constant": (optim.ConstantLR, {}),
    "constant with arguments": (optim.ConstantLR, {"factor": 0.5, "total_iters": 3}),
    "step": (optim.StepLR, {"step_size": 4}),
    "step with gamma": (optim.StepLR, {"step_size": 3, "gamma": 0.5}),
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
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam])
def test_schedules_agree_with_pytorch(case: str, make: type[optim.Optimizer]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    schedule, options = SCHEDULES[case]
    momentum: dict[str, Any] = {"momentum": 0.9} if make is optim.SGD else {}
    ours = make(Linear(1, 1), lr=0.2, **momentum)
    theirs = getattr(torch.optim, make.__name__)([torch.zeros(1)], lr=0.2, **momentum)
    mine = schedule(ours, **options)
    expected = getattr(torch.optim.lr_scheduler, schedule.__name__)(theirs, **options)
    for _ in range(21):
        group = theirs.param_groups[0]
        assert ours.lr == pytest.approx(group["lr"], rel=1e-12, abs=1e-16)
        if isinstance(ours, optim.SGD):
            assert ours.momentum == pytest.approx(group["momentum"], rel=1e-12)
        elif isinstance(ours, optim.Adam):
            assert ours.betas == pytest.approx(group["betas"], rel=1e-12)
        theirs.step()
        if mine.count < 20 or schedule is not optim.OneCycleLR:
            mine.step()
            expected.step()


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
        lambda m: optim.SGD(m.params),
        lambda m: optim.StepLR(optim.SGD(m), 0),
        lambda m: optim.StepLR(m, 1),
        lambda m: optim.CosineAnnealingLR(optim.SGD(m), 0),
        lambda m: optim.OneCycleLR(optim.SGD(m), 0.1, total_steps=5),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, pct_start=2),
        lambda m: optim.OneCycleLR(optim.Adam(m), 0.1, total_steps=5, anneal_strategy="square"),
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

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


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_groups_have_options_of_their_own_and_follow_the_schedule(make: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
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


def test_frozen_layers_stay_as_they_are_and_start_later_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    model = Sequential(
        Linear(3, 2, dtype=np.float64, generator=0), Linear(2, 2, dtype=np.float64, generator=1)
    )
    theirs = {name: torch.tensor(param) for name, param in model.params.items()}
    ours, expected = optim.Adam(model, lr=0.1), torch.optim.Adam(list(theirs.values()), lr=0.1)
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

"""Losses say who they are: arguments, attributes, repr, and what their mean divides by."""

import inspect
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests import strict_arrays
from tests.compare import assert_close
from tinyconv import gradcheck
from tinyconv.arrays import Array, moved

WEIGHT = np.array([1.0, 0.25, 3.0])
FUNCTIONS: dict[Any, Any] = {
    tc.MSELoss: F.mse_loss,
    tc.L1Loss: F.l1_loss,
    tc.SmoothL1Loss: F.smooth_l1_loss,
    tc.HuberLoss: F.huber_loss,
    tc.KLDivLoss: F.kl_div,
    tc.HingeEmbeddingLoss: F.hinge_embedding_loss,
    tc.BCELoss: F.binary_cross_entropy,
    tc.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
    tc.NLLLoss: F.nll_loss,
    tc.CrossEntropyLoss: F.cross_entropy,
}


CLASSES = ((6, 3), (6, 3, 2), (3,))
WEIGHTED: dict[str, Any] = {"weight": WEIGHT}
SMOOTHED: dict[str, Any] = {"label_smoothing": 0.2}
# Losses with options, and with shapes of a prediction for each kind of target.
CASES: list[tuple[list[Any], list[dict[str, Any]], tuple[Any, ...], str]] = [
    (
        [tc.MSELoss, tc.L1Loss, tc.SmoothL1Loss, tc.HuberLoss, tc.KLDivLoss, tc.HingeEmbeddingLoss],
        [{}],
        ((4, 3), (5,), (), (0, 3)),
        "elements",
    ),
    ([tc.BCELoss, tc.BCEWithLogitsLoss], [{}, WEIGHTED], ((4, 3),), "elements"),
    (
        [tc.NLLLoss, tc.CrossEntropyLoss],
        [{}, WEIGHTED, {"ignore_index": 1}, {**WEIGHTED, "ignore_index": 2}],
        CLASSES,
        "classes",
    ),
    ([tc.CrossEntropyLoss], [SMOOTHED, {**WEIGHTED, **SMOOTHED}], CLASSES, "classes"),
    ([tc.CrossEntropyLoss], [{}, WEIGHTED, {**WEIGHTED, **SMOOTHED}], CLASSES, "shares"),
]


def cases() -> Iterator[Any]:
    for kinds, every, shapes, target in CASES:
        for kind, options, shape in product(kinds, every, shapes):
            name = f"{kind.__name__}, {list(options)}, {shape}, {target}"
            yield pytest.param(kind, options, shape, target, id=name)


def arrays_of(shape: tuple[int, ...], kind: str, ignored: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    prediction = np.asarray(rng.uniform(0.1, 0.9, shape))
    if kind == "elements":
        return prediction, np.asarray(rng.uniform(0.1, 0.9, shape))
    if kind == "shares":
        return prediction, rng.uniform(0.1, 0.9, shape)
    target = np.asarray(rng.integers(0, 3, (*shape[:1], *shape[2:]) if len(shape) > 1 else ()))
    if target.ndim:
        target[1] = ignored
    return prediction, target


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("kind", "options", "shape", "target"), list(cases()))
def test_the_mean_is_the_sum_over_the_denominator(
    kind: Any, options: dict[str, Any], shape: tuple[int, ...], target: str, dtype: str
) -> None:
    prediction, targets = arrays_of(shape, target, options.get("ignore_index", -100))
    prediction = prediction.astype(dtype)
    targets = targets.astype(dtype) if targets.dtype.kind == "f" else targets
    criterion = kind(**options).to(dtype)
    mean, denominator = criterion(prediction, targets), criterion.denominator(prediction, targets)
    assert type(denominator) in (int, float)
    criterion.reduction = "sum"
    total = criterion(prediction, targets)
    assert criterion.denominator(prediction, targets) == denominator
    if denominator:
        assert_close(np.asarray(total / denominator, dtype), mean)
    else:
        assert total == 0
        assert np.isnan(mean)


@pytest.mark.parametrize("shape", [(4, 3), (5,), (), (3, 0)])
def test_batchmean_divides_by_the_batch_size(shape: tuple[int, ...]) -> None:
    prediction, target = arrays_of(shape, "elements")
    criterion = tc.KLDivLoss("batchmean")
    size = shape[0] if shape else 1
    assert criterion.denominator(prediction, target) == (size if prediction.size else 3)
    loss, grad, total = criterion(prediction, target), criterion.backward(), tc.KLDivLoss("sum")
    assert_close(loss, np.asarray(total(prediction, target) / size))
    assert_close(grad, total.backward() / size)
    if prediction.size:
        gradcheck(criterion, (prediction, target))
        gradcheck(criterion, (prediction, target), second_order=True)
        gradcheck(partial(F.kl_div, reduction="batchmean"), (prediction, target))
    for wrong in (tc.MSELoss, tc.HuberLoss):
        with pytest.raises(ValueError, match="`reduction`"):
            wrong("batchmean")


def test_a_trainer_divides_what_it_adds_up_by_the_batch_size_for_batchmean() -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((10, 4)), rng.dirichlet(np.ones(3), 10)
    weights = []
    for accumulate, size in ((1, 10), (4, 3)):  # a last batch of one sample
        linear = tc.Linear(4, 3, dtype=np.float64, generator=0)
        model = tc.Sequential(linear, tc.LogSoftmax(1))
        optimizer = tc.optim.SGD(model, lr=0.5)
        trainer = tc.Trainer(
            model, tc.KLDivLoss("batchmean"), optimizer, accumulate=accumulate, progress=False
        )
        expected = tc.KLDivLoss("batchmean")(model(x), target)
        assert trainer.evaluate((x, target), batch_size=3).loss == pytest.approx(float(expected))
        trainer.fit((x, target), 1, batch_size=size)
        weights.append(linear.weight)
    assert_close(weights[1], weights[0])


def test_on_a_gpu_the_denominator_is_not_read() -> None:
    with strict_arrays.installed() as cupy:
        for options in ({}, {"weight": WEIGHT}, {"ignore_index": 1}):
            criterion, prediction, target = tc.CrossEntropyLoss(**options), *arrays_of((4, 3), "classes")
            expected = criterion.denominator(prediction, target)
            on_device = cupy.asarray(prediction), cupy.asarray(target)
            before = strict_arrays.reads
            found = criterion.to("cuda").denominator(*on_device)
            assert strict_arrays.reads == before
            assert found.shape == ()
            assert found.dtype == prediction.dtype
            assert moved(found, np) == expected


def test_a_loss_of_ones_own_has_its_batch_size() -> None:
    class Worst(tc.Loss):
        """The largest error of each sample."""

        def forward(self, prediction: Array, target: Array) -> Array:
            return self.save(np.asarray(abs(prediction - target).max(axis=1).mean()), prediction, target)

    assert Worst().denominator(np.zeros((5, 2)), np.zeros((5, 2))) == 5
    assert repr(Worst("sum")) == "Worst(reduction='sum')"


@pytest.mark.parametrize("kind", [tc.MSELoss, tc.CrossEntropyLoss])
def test_a_denominator_of_arrays_that_do_not_fit_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="`target`"):
        kind().denominator(np.zeros((4, 3)), np.zeros((4, 2)))


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_arguments_are_pytorchs_by_position_and_attributes_by_name(kind: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    theirs = inspect.signature(getattr(torch.nn, kind.__name__)).parameters
    expected = {n: p.default for n, p in theirs.items() if n not in ("size_average", "reduce")}
    found = inspect.signature(kind).parameters
    assert {name: p.default for name, p in found.items()} == expected
    assert list(found) == list(expected)
    function = inspect.signature(FUNCTIONS[kind]).parameters
    assert list(function) == ["input", "target", *expected]
    backward = inspect.signature(getattr(F, f"{FUNCTIONS[kind].__name__}_backward")).parameters
    assert list(backward) == ["grad_output", "input", "target", *expected]
    for parameters in (found, function, backward):
        assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters.values())
    values: dict[str, Any] = {"reduction": "sum", "ignore_index": 3, "label_smoothing": 0.5, "beta": 2.0}
    values |= {"weight": WEIGHT, "pos_weight": WEIGHT, "delta": 2.0, "margin": 2.0, "log_target": True}
    criterion = kind(*[values[name] for name in expected])
    assert all(getattr(criterion, name) is values[name] for name in expected)


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_what_is_assigned_to_an_attribute_takes_effect(kind: Any) -> None:
    classes = kind in (tc.NLLLoss, tc.CrossEntropyLoss)
    prediction, target = arrays_of((6, 3), "classes" if classes else "elements")
    values: dict[str, Any] = {
        "beta": 0.1,
        "delta": 0.1,
        "margin": 0.4,
        "log_target": True,
        "weight": WEIGHT,
        "pos_weight": WEIGHT,
        "ignore_index": 1,
        "label_smoothing": 0.3,
        "reduction": "sum",
    }
    changed, given = kind(), {}
    for name in inspect.signature(kind).parameters:
        setattr(changed, name, values[name])
        given[name] = values[name]
        made = kind(**given)
        loss = made(prediction, target)
        assert changed(prediction, target) == loss == FUNCTIONS[kind](prediction, target, **given)
        assert_close(changed.jvp(prediction), made.jvp(prediction))
        np.testing.assert_array_equal(changed.backward(), made.backward())
    changed.reduction = "average"
    with pytest.raises(ValueError, match="`reduction`"):
        changed(prediction, target)


def test_a_backward_belongs_to_its_forward_whatever_is_assigned_in_between() -> None:
    for kind in (tc.MSELoss, tc.CrossEntropyLoss):
        prediction, target = np.ones((2, 3)), np.zeros((2, 3))
        criterion = kind()
        criterion(prediction, target)
        expected = criterion.backward()
        criterion(prediction, target)
        criterion.reduction = "sum"
        np.testing.assert_array_equal(criterion.backward(), expected)


def test_attributes_that_are_arrays_are_converted() -> None:
    criterion: Any = tc.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT).to("float32")
    assert criterion.weight.dtype == criterion.pos_weight.dtype == np.float32
    assert WEIGHT.dtype == np.float64
    prediction, target = (array.astype(np.float32) for array in arrays_of((4, 3), "elements"))
    assert criterion(prediction, target).dtype == np.float32
    criterion.to("float64")  # with what forward kept
    assert criterion.weight.dtype == np.float64
    with strict_arrays.installed() as cupy:
        assert isinstance(criterion.to("cuda").pos_weight, cupy.ndarray)
        assert repr(criterion) == "BCEWithLogitsLoss(weight=<3 values>, pos_weight=<3 values>)"
        assert isinstance(criterion.to("cpu").pos_weight, np.ndarray)


def test_a_repr_says_what_differs_from_the_defaults() -> None:
    assert repr(tc.CrossEntropyLoss()) == "CrossEntropyLoss()"
    assert repr(tc.MSELoss("sum")) == "MSELoss(reduction='sum')"
    assert repr(tc.SmoothL1Loss(beta=0.5)) == "SmoothL1Loss(beta=0.5)"
    weighted = tc.CrossEntropyLoss(np.ones(1000), label_smoothing=0.1)
    assert repr(weighted) == "CrossEntropyLoss(weight=<1000 values>, label_smoothing=0.1)"
    assert repr(tc.BCELoss(np.ones((2, 3)))) == "BCELoss(weight=<2x3 values>)"
    criterion = tc.NLLLoss()
    criterion.ignore_index = 7
    assert repr(criterion) == "NLLLoss(ignore_index=7)"


INF, NAN = np.inf, np.nan
# The arguments, at kinks and zeros and beyond, and options.
EDGES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "huber_loss at delta": ("huber_loss", ([-0.5, 0.5, 0, 2, NAN, INF], [0.0] * 6), {"delta": 0.5}),
    "huber_loss, a parabola": ("huber_loss", ([-3.0, 5.0, NAN], [0.0] * 3), {"delta": INF}),
    "kl_div at 0": ("kl_div", ([-1.0, -1.0, -INF, -INF, NAN], [0.0, 1.0, 0.0, 1.0, 1.0]), {}),
    "kl_div, no probabilities": ("kl_div", ([0.0, 0.0, -1.0, 2.0], [-1.0, NAN, 3.0, -0.0]), {}),
    "kl_div, log_target": (
        "kl_div",
        ([-1.0, -INF, -1.0, 0.0, -INF], [-INF, -INF, 0.0, 2.0, -1.0]),
        {"log_target": True},
    ),
    "hinge_embedding_loss at the margin": (
        "hinge_embedding_loss",
        ([0.5, 0.4, 0.6, 0.5, 0.5, NAN, NAN, INF], [-1.0, -1.0, -1.0, 1.0, 0.0, -1.0, 1.0, -1.0]),
        {"margin": 0.5},
    ),
    "margin_ranking_loss at the margin": (
        "margin_ranking_loss",
        ([0.0, 1.0, 2.0, 1.0, NAN, -INF], [0.0] * 6, [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]),
        {"margin": 1.0},
    ),
    "margin_ranking_loss of equal inputs": ("margin_ranking_loss", ([0.0, 1.0], [0.0, 1.0], [1.0, -1.0]), {}),
    "cosine_embedding_loss of zeros": (
        "cosine_embedding_loss",
        (
            [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]],
            [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]],
            [1.0, -1.0, -1.0, 1.0],
        ),
        {},
    ),
    "cosine_embedding_loss at the margin": (
        "cosine_embedding_loss",
        (
            [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [NAN, 0.0]],
            [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
            [-1.0, 1.0, 2.0, 1.0],
        ),
        {},
    ),
    "triplet_margin_loss at the margin": (
        "triplet_margin_loss",
        ([[0.0, 0.0]] * 3, [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [3.5, 0.0], [2.5, 0.0]]),
        {"eps": 0.0},
    ),
    "triplet_margin_loss, swapping at a tie": (
        "triplet_margin_loss",
        ([[0.0, 0.0]] * 3, [[2.0, 0.0], [2.0, 1.0], [0.0, 2.0]], [[1.0, 0.0], [0.5, 0.0], [0.0, 5.0]]),
        {"eps": 0.0, "swap": True, "margin": 9.0},
    ),
}
for p in (0.5, 1.0, 1.5, 2.0, 3.0, INF, -INF, -1.0):
    EDGES[f"triplet_margin_loss of lengths of 0, p={p}"] = (
        "triplet_margin_loss",
        ([[0.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [1.0, 2.0]], [[1.0, 0.0], [2.0, 3.0]]),
        {"eps": 0.0, "margin": 9.0, "p": p},
    )


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.filterwarnings("ignore:reduction. 'mean'")
def test_at_kinks_and_zeros_values_and_gradients_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    function, inputs, options = EDGES[name]
    arrays = [np.array(values) for values in inputs]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    output = getattr(torch.nn.functional, function)(*tensors, reduction="none", **options)
    cotangent = np.linspace(1, 2, len(output))
    expected = torch.autograd.grad(output, tensors, torch.tensor(cotangent), allow_unused=True)
    options = {"reduction": "none", **options}
    assert_close(getattr(F, function)(*arrays, **options), output.detach().numpy())
    grads = getattr(F, f"{function}_backward")(cotangent, *arrays, **options)
    grads += (None,) * (len(expected) - len(grads))  # of what it is not differentiable in
    for grad, theirs in zip(grads, expected, strict=True):
        assert (grad is None) == (theirs is None)
        if theirs is not None:
            assert_close(grad, theirs.numpy())


def test_a_target_of_ones_and_minus_ones_may_have_an_integer_dtype() -> None:
    x, target = np.array([0.5, 0.5, 2.0], np.float32), np.array([1, -1, -1])
    for dtype in (np.int8, np.int64):
        loss = F.hinge_embedding_loss(x, target.astype(dtype))
        assert_close(loss, F.hinge_embedding_loss(x, target.astype(np.float32)))
    with pytest.raises(TypeError, match="`target`"):
        F.hinge_embedding_loss(x, target == 1)
    with pytest.raises(TypeError, match="`target`"):
        F.hinge_embedding_loss(x, target.astype(np.float64))
    with pytest.raises(ValueError, match="`target`"):
        F.hinge_embedding_loss(x, target[:1])


def test_the_loss_of_the_edges_is_that_of_float32_as_well() -> None:
    for function, inputs, options in EDGES.values():
        if np.isfinite(np.concatenate([np.ravel(values) for values in inputs])).all():
            arrays = [np.array(values) for values in inputs]
            found = getattr(F, function)(*(array.astype(np.float32) for array in arrays), **options)
            assert found.dtype == np.float32
            assert_close(found, np.float32(getattr(F, function)(*arrays, **options)))


def test_options_out_of_range_are_refused_by_name() -> None:
    x = np.zeros(3)
    for delta in (0, -1.0, NAN):
        with pytest.raises(ValueError, match="`delta`"):
            F.huber_loss(x, x, delta=delta)
        with pytest.raises(ValueError, match="`delta`"):
            tc.HuberLoss(delta=delta)
    with pytest.raises(TypeError, match="`log_target`"):
        tc.KLDivLoss(log_target=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`log_target`"):
        F.kl_div(x, x, log_target="no")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`margin`"):
        tc.HingeEmbeddingLoss("1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'batchmean'"):
        F.kl_div(x, x, reduction="batch")


@pytest.mark.parametrize(
    ("x", "pos_weight"), [(-np.inf, 0.5), (-1e4, 1e-6), (1e4, 1e-6), (np.inf, 2.0), (0.3, 3.0)]
)
def test_the_target_s_gradient_with_pos_weight_does_not_cancel(x: float, pos_weight: float) -> None:
    torch = pytest.importorskip("torch")
    arrays = np.array(1.0), np.array([x]), np.array([0.5])
    got = F.binary_cross_entropy_with_logits_backward(*arrays, None, "sum", np.array([pos_weight]))[1]
    target = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    options = {"reduction": "sum", "pos_weight": torch.tensor([pos_weight], dtype=torch.float64)}
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor([x], dtype=torch.float64), target, **options
    )
    loss.backward()
    np.testing.assert_allclose(got, target.grad.numpy(), rtol=1e-10)

"""Losses of two embeddings and a target, or of three: against PyTorch, differences, and on a device."""

import copy
import inspect
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests import strict_arrays
from tests.compare import assert_close, both_refuse
from tinyconv import gradcheck
from tinyconv.arrays import Array, moved
from tinyconv.gradients.gradcheck import GradcheckError


def normal(*shape: int, seed: int = 0) -> Array:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


def signs(*shape: int, seed: int = 2) -> Array:
    return np.where(normal(*shape, seed=seed) < 0, -1.0, 1.0)


FUNCTIONS: dict[Any, Any] = {
    tc.MarginRankingLoss: F.margin_ranking_loss,
    tc.CosineEmbeddingLoss: F.cosine_embedding_loss,
    tc.TripletMarginLoss: F.triplet_margin_loss,
}
kinds = pytest.mark.parametrize("kind", FUNCTIONS)

INF = np.inf
ALIKE = ((3, 4),) * 3
WIDER = ((3, 4), (1, 4), (3, 1))
# The loss, shapes of its inputs, and options.
CASES: dict[str, tuple[Any, tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "ranking": (tc.MarginRankingLoss, ALIKE, {}),
    "ranking, margin": (tc.MarginRankingLoss, ((5,),) * 3, {"margin": 0.7}),
    "ranking, negative margin": (tc.MarginRankingLoss, ALIKE, {"margin": -0.7}),
    "ranking, broadcast": (tc.MarginRankingLoss, WIDER, {"margin": 0.5}),
    "ranking, a target that is broadcast": (tc.MarginRankingLoss, ((1, 4), (3, 1), (1, 1)), {"margin": 1.0}),
    "ranking, inputs that are broadcast": (tc.MarginRankingLoss, ((1, 4), (1, 1), (3, 1)), {"margin": 1.0}),
    "ranking, numbers": (tc.MarginRankingLoss, ((),) * 3, {"margin": 9.0}),
    "cosine": (tc.CosineEmbeddingLoss, ((5, 4), (5, 4), (5,)), {}),
    "cosine, margin": (tc.CosineEmbeddingLoss, ((5, 4), (5, 4), (5,)), {"margin": -0.4}),
    "cosine, one row": (tc.CosineEmbeddingLoss, ((4,), (4,), ()), {"margin": -1.0}),
    "cosine, broadcast": (tc.CosineEmbeddingLoss, ((5, 4), (1, 4), (5,)), {"margin": -1.0}),
    "cosine, a target that is broadcast": (tc.CosineEmbeddingLoss, ((5, 4), (5, 4), (1,)), {"margin": -1.0}),
    "cosine, inputs that are broadcast": (tc.CosineEmbeddingLoss, ((1, 4), (1, 4), (5,)), {"margin": -1.0}),
    "cosine, features that are broadcast": (tc.CosineEmbeddingLoss, ((5, 4), (5, 1), (5,)), {"margin": -1.0}),
    "triplet": (tc.TripletMarginLoss, ALIKE, {}),
    "triplet, margin": (tc.TripletMarginLoss, ALIKE, {"margin": 3.0}),
    "triplet, swap": (tc.TripletMarginLoss, ((8, 4),) * 3, {"margin": 3.0, "swap": True}),
    "triplet, one row": (tc.TripletMarginLoss, ((4,),) * 3, {"margin": 3.0}),
    "triplet, numbers": (tc.TripletMarginLoss, ((),) * 3, {"margin": 3.0}),
    "triplet, three dimensions": (tc.TripletMarginLoss, ((2, 3, 4),) * 3, {"margin": 3.0, "eps": 0.1}),
    "triplet, broadcast": (tc.TripletMarginLoss, WIDER, {"margin": 3.0, "swap": True}),
    "triplet, features that are broadcast": (tc.TripletMarginLoss, ((3, 1), (3, 1), (3, 4)), {"margin": 3.0}),
    "triplet, a wider negative": (tc.TripletMarginLoss, ((1, 4), (1, 4), (3, 4)), {"margin": 3.0}),
}
for p in (0.0, 0.5, 1.0, 1.5, 3.0, INF, -INF, -1.0):
    for swap in (False, True):
        powers = {"margin": 5.0, "p": p, "swap": swap}
        CASES[f"triplet, p={p}, swap={swap}"] = (tc.TripletMarginLoss, ALIKE, powers)
every_case = pytest.mark.parametrize(("kind", "shapes", "options"), CASES.values(), ids=CASES)
reductions = pytest.mark.parametrize("reduction", ["none", "mean", "sum"])


def arrays_of(kind: Any, shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
    arrays = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    return arrays if kind is tc.TripletMarginLoss else [*arrays[:2], signs(*shapes[2])]


def second_order(criterion: Any, arrays: list[Array], dots: list[Array]) -> list[Array]:
    """All that a criterion computes, for some cotangent and tangents."""
    loss = criterion(*arrays)
    g, g_dot = normal(*loss.shape, seed=7), normal(*loss.shape, seed=8)
    return [loss, criterion.jvp(*dots), *criterion.backward(g), *criterion.backward_jvp(g_dot)]


def pytorchs_second_order(criterion: Any, arrays: list[Array], dots: list[Array]) -> list[Array]:
    """The same of PyTorch's criterion; its target stands still."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    tensors = [torch.tensor(array, requires_grad=i < len(dots)) for i, array in enumerate(arrays)]
    inputs = tensors[: len(dots)]
    loss = criterion(*tensors)
    upstream = torch.tensor(normal(*loss.shape, seed=7), requires_grad=True)
    grads = torch.autograd.grad(loss, inputs, upstream, create_graph=True)
    along = sum((grad * torch.tensor(dot)).sum() for grad, dot in zip(grads, dots, strict=True))
    (loss_dot,) = torch.autograd.grad(along, upstream, create_graph=True)
    total = along + (torch.tensor(normal(*loss.shape, seed=8)) * loss).sum()
    grads_dot = torch.autograd.grad(total, inputs)
    return [np.asarray(found.detach()) for found in (loss, loss_dot, *grads, *grads_dot)]


# Numeric


@every_case
@reductions
def test_every_order_is_pytorchs(kind: Any, shapes: Any, options: dict[str, Any], reduction: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    if options.get("p") in (0.0, 1.0, INF, -INF):
        pytest.skip("PyTorch has no second order of these; differences have")
    options = {**options, "reduction": reduction}
    arrays = arrays_of(kind, shapes)
    dots = [normal(*shape, seed=5 + i) for i, shape in enumerate(shapes[: len(kind.inputs)])]
    expected = pytorchs_second_order(getattr(torch.nn, kind.__name__)(**options), arrays, dots)
    found = second_order(kind(**options), arrays, dots)
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert_close(ours, theirs, f"result {i}", scale=1.0)  # gradients may cancel


@every_case
def test_every_gradient_is_pytorchs(kind: Any, shapes: Any, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    arrays = arrays_of(kind, shapes)
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    name = FUNCTIONS[kind].__name__
    loss = getattr(torch.nn.functional, name)(*tensors, **options)
    if options.get("p") == 0.0:  # a constant, of which PyTorch has no gradient
        expected = [torch.zeros_like(tensor) for tensor in tensors]
    else:
        expected = torch.autograd.grad(loss, tensors, allow_unused=True)
    grads = getattr(F, f"{name}_backward")(np.ones(()), *arrays, **options)
    assert len(grads) == 3 - (kind is tc.CosineEmbeddingLoss)
    assert_close(FUNCTIONS[kind](*arrays, **options), np.asarray(loss.detach()))
    for grad, theirs in zip(grads, expected, strict=False):
        assert_close(grad, np.asarray(theirs), scale=1.0)


@every_case
@reductions
def test_every_order_agrees_with_differences(
    kind: Any, shapes: Any, options: dict[str, Any], reduction: str
) -> None:
    options = {**options, "reduction": reduction}
    arrays = arrays_of(kind, shapes)
    moving = arrays[: len(kind.inputs)]
    assert gradcheck(kind(**options), arrays) == (sum(array.size for array in moving), ())
    assert not gradcheck(kind(**options), arrays, second_order=True).kinks
    if kind is not tc.TripletMarginLoss:
        arrays[2] = arrays[2].astype(int)
    assert not gradcheck(partial(FUNCTIONS[kind], **options), arrays).kinks


def test_of_cosines_of_zeros_the_second_order_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    arrays = [
        np.array([[0.0, 0], [0, 0], [3, 4]]),
        np.array([[0.0, 0], [1, 0], [0, 0]]),
        np.array([1, -1, 1]),
    ]
    dots = [normal(3, 2), normal(3, 2, seed=1)]
    expected = pytorchs_second_order(torch.nn.CosineEmbeddingLoss(-0.1), arrays, dots)
    for ours, theirs in zip(second_order(tc.CosineEmbeddingLoss(-0.1), arrays, dots), expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_cosines_of_numbers_whose_squares_overflow_are_nan_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, target = np.array([1e200, 1.0]), np.array(1.0)
    tensors = [torch.tensor(array) for array in (x, x, target)]
    assert torch.nn.functional.cosine_embedding_loss(*tensors).isnan()
    assert np.isnan(F.cosine_embedding_loss(x, x, target))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_of_lengths_of_0_the_second_order_is_nan_as_in_pytorch_or_0(p: float) -> None:
    x = np.array([[1.0, 2.0]])
    criterion = tc.TripletMarginLoss(9.0, p, eps=0.0)
    criterion(x, x, 2 * x)
    criterion.jvp(x, -x, 3 * x)
    criterion.backward()
    grads_dot = criterion.backward_jvp()
    for grad_dot in grads_dot[:2]:  # that of the length with which PyTorch divides by its 0
        assert np.isnan(grad_dot).all() == (p == 2.0)
    assert np.isfinite(grads_dot[2]).all()


@every_case
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_mean_is_the_sum_over_the_denominator(
    kind: Any, shapes: Any, options: dict[str, Any], dtype: str
) -> None:
    arrays = [array.astype(dtype) for array in arrays_of(kind, shapes)]
    criterion = kind(**options)
    mean, denominator = criterion(*arrays), criterion.denominator(*arrays)
    assert [grad.dtype for grad in criterion.backward()] == [dtype] * len(kind.inputs)
    criterion.reduction = "none"
    losses = criterion(*arrays)
    assert (type(denominator), denominator) == (int, losses.size)
    assert losses.dtype == mean.dtype == dtype
    criterion.reduction = "sum"
    assert_close(np.asarray(criterion(*arrays) / denominator, dtype), mean)
    assert criterion.denominator(*arrays) == denominator


def test_of_no_samples_the_mean_is_nan_and_the_gradients_are_empty() -> None:
    for kind, target in ((tc.CosineEmbeddingLoss, (0,)), (tc.TripletMarginLoss, (0, 3))):
        criterion: Any = kind()
        assert np.isnan(criterion(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(target)))
        assert {grad.shape for grad in criterion.backward()} == {(0, 3)}


def test_a_target_of_ones_and_minus_ones_may_have_an_integer_dtype() -> None:
    for kind in (tc.MarginRankingLoss, tc.CosineEmbeddingLoss):
        shapes = ((4, 3), (4, 3), (4, 3) if kind is tc.MarginRankingLoss else (4,))
        x1, x2, target = arrays_of(kind, shapes)
        x1, x2 = x1.astype(np.float32), x2.astype(np.float32)
        expected = kind()(x1, x2, target.astype(np.float32))
        for dtype in (np.int8, np.int64):
            criterion: Any = kind()
            assert_close(criterion(x1, x2, target.astype(dtype)), expected)
            assert {grad.dtype for grad in criterion.backward()} == {np.dtype(np.float32)}
            backward = getattr(F, f"{FUNCTIONS[kind].__name__}_backward")
            assert len(backward(np.ones((), np.float32), x1, x2, target.astype(dtype))) == 2
        for wrong in (target, target == 1):
            with pytest.raises(TypeError, match="`target`"):
                kind()(x1, x2, wrong)


@kinds
@reductions
def test_every_loss_gives_the_same_on_the_gpu(kind: Any, reduction: str) -> None:
    shapes = ((5, 4), (1, 4), (5, 4) if kind is not tc.CosineEmbeddingLoss else (5,))
    arrays = arrays_of(kind, shapes)
    dots = [normal(*shape, seed=5 + i) for i, shape in enumerate(shapes[: len(kind.inputs)])]
    variants: list[dict[str, Any]] = [{"margin": 0.5}]
    if kind is tc.TripletMarginLoss:
        variants = [{"margin": 2.0, "p": p, "swap": True} for p in (0.0, 1.0, 2.0, 2.5, INF, -INF)]
    for options in variants:
        criterion = kind(**options, reduction=reduction)
        expected = second_order(criterion, arrays, dots)
        with strict_arrays.installed() as cupy:
            criterion.to("cuda")
            found = [criterion(*map(cupy.asarray, arrays)), criterion.jvp(*map(cupy.asarray, dots))]
            loss = found[0]
            found += criterion.backward(cupy.asarray(normal(*loss.shape, seed=7)))
            found += criterion.backward_jvp(cupy.asarray(normal(*loss.shape, seed=8)))
            for ours, theirs in zip(found, expected, strict=True):
                assert isinstance(ours, cupy.ndarray)
                assert_close(moved(ours, np), theirs)


# Arguments and the contract


@kinds
def test_arguments_are_pytorchs_by_position_and_attributes_by_name(kind: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    name = FUNCTIONS[kind].__name__
    for ours, theirs in (
        (kind, getattr(torch.nn, kind.__name__)),
        (FUNCTIONS[kind], getattr(torch.nn.functional, name)),
    ):
        expected = [
            (n, p.default)
            for n, p in inspect.signature(theirs).parameters.items()
            if n not in ("size_average", "reduce")
        ]
        assert [(n, p.default) for n, p in inspect.signature(ours).parameters.items()] == expected
    forward = list(inspect.signature(getattr(torch.nn, kind.__name__).forward).parameters)
    assert tuple(forward[1 : 1 + len(kind.inputs)]) == kind.inputs
    backward = getattr(F, f"{name}_backward")
    assert (backward.__name__, backward.__module__) == (f"{name}_backward", FUNCTIONS[kind].__module__)


@kinds
def test_what_is_assigned_to_an_attribute_takes_effect(kind: Any) -> None:
    arrays = arrays_of(kind, ((5, 4), (5, 4), (5,) if kind is tc.CosineEmbeddingLoss else (5, 4)))
    values: dict[str, Any] = {"margin": 0.3, "p": 3.0, "eps": 0.1, "swap": True, "reduction": "sum"}
    changed, given = kind(), {}
    for name in inspect.signature(kind).parameters:
        setattr(changed, name, values[name])
        given[name] = values[name]
        made = kind(**given)
        assert made(*arrays) == changed(*arrays) == FUNCTIONS[kind](*arrays, **given)
        assert repr(made) == repr(changed) != repr(kind())
    changed.reduction = "average"
    with pytest.raises(ValueError, match="`reduction`"):
        changed(*arrays)


@kinds
def test_one_forward_serves_one_backward(kind: Any) -> None:
    arrays = arrays_of(kind, ((5, 4), (5, 4), (5,) if kind is tc.CosineEmbeddingLoss else (5, 4)))
    criterion = kind()
    with pytest.raises(RuntimeError, match="forward"):
        criterion.backward()
    criterion(*arrays)
    pickle.loads(pickle.dumps(criterion))
    with pytest.raises(RuntimeError, match="forward"):
        copy.deepcopy(criterion).backward()
    with pytest.raises(ValueError, match="`grad_output`"):
        criterion.backward(np.ones(2))
    criterion.backward()
    with pytest.raises(RuntimeError, match="forward"):
        criterion.jvp(*arrays[: len(kind.inputs)])


@kinds
def test_tangents_that_do_not_fit_are_refused(kind: Any) -> None:
    arrays = arrays_of(kind, ((5, 4), (5, 4), (5,) if kind is tc.CosineEmbeddingLoss else (5, 4)))
    criterion, dots = kind(), arrays[: len(kind.inputs)]
    criterion(*arrays)
    with pytest.raises(ValueError, match=r"jvp takes tangents of \w+, \w+.*, got 1"):
        criterion.jvp(dots[0])
    for wrong in (dots[0][:1], dots[0].astype(np.float32)):
        with pytest.raises((ValueError, TypeError), match="`input_dot`"):
            criterion.jvp(wrong, *dots[1:])
    criterion.jvp(*dots)
    criterion.backward()
    with pytest.raises(ValueError, match="`grad_output_dot`"):
        criterion.backward_jvp(np.zeros(3))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        ("margin_ranking_loss", ((3, 4), (4,), (3, 4))),
        ("margin_ranking_loss", ((3, 4), (3, 4), (3,))),
        ("margin_ranking_loss", ((3, 4), (2, 4), (3, 4))),
        ("cosine_embedding_loss", ((3, 4), (4,), (3,))),
        ("cosine_embedding_loss", ((3, 4), (3, 4), ())),
        ("cosine_embedding_loss", ((3, 4), (3, 4), (3, 4))),
        ("cosine_embedding_loss", ((2, 3, 4), (2, 3, 4), (2, 3))),
        ("cosine_embedding_loss", ((3, 4), (3, 4), (2,))),
        ("cosine_embedding_loss", ((3, 4), (3, 2), (3,))),
        ("triplet_margin_loss", ((3, 4), (4,), (3, 4))),
        ("triplet_margin_loss", ((3, 4), (2, 4), (3, 4))),
        ("triplet_margin_loss", ((3, 4), (3, 4), (3, 5))),
    ],
)
def test_shapes_that_do_not_fit_are_refused_as_by_pytorch(function: str, shapes: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    arrays = [normal(*shape) for shape in shapes]
    theirs = partial(getattr(torch.nn.functional, function), *map(torch.tensor, arrays))
    both_refuse(partial(getattr(F, function), *arrays), theirs, r"`\w+` .*shape")


def test_options_out_of_range_are_refused_by_name() -> None:
    x = normal(3, 4)
    for margin in (0, -1.0):
        with pytest.raises(ValueError, match="`margin`"):
            tc.TripletMarginLoss(margin)
        with pytest.raises(ValueError, match="`margin`"):
            F.triplet_margin_loss(x, x, x, margin)
    for option, value in (("p", "2"), ("eps", None), ("swap", 1), ("margin", True)):
        with pytest.raises(TypeError, match=f"`{option}`"):
            tc.TripletMarginLoss(**{option: value})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=f"`{option}`"):
            F.triplet_margin_loss(x, x, x, **{option: value})
    for kind in FUNCTIONS:
        with pytest.raises(TypeError, match="`margin`"):
            kind("1")
        with pytest.raises(ValueError, match="`reduction`"):
            kind(reduction="batchmean")


# Beside the rest


def test_a_trainer_refuses_a_loss_of_several_inputs() -> None:
    model = tc.Linear(2, 2)
    for criterion in (tc.TripletMarginLoss(), tc.CosineEmbeddingLoss()):
        with pytest.raises(TypeError, match=r"`criterion` .* must be a Loss: of a prediction and a target"):
            tc.Trainer(model, criterion, tc.optim.SGD(model))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"`criterion` .* must be a Loss"):
            tc.Objective(model, criterion)  # type: ignore[arg-type]


class Product(tc.MultiInputLoss):
    """A loss of one's own, the mean of a * b * c^2, with a fault that a test may set."""

    inputs = ("a", "b")

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def forward(self, *inputs: Array) -> Array:
        a, b, c = inputs
        return self.save(np.asarray((a * b * c**2).mean()), *inputs)

    def backward(self, grad_output: Array | None = None) -> tuple[Array, ...]:
        a, b, c = self.saved(self.full(1) if grad_output is None else grad_output)
        g = (1 if grad_output is None else grad_output) * c**2 / a.size
        return b * g, a * g * (2 if self.fault == "backward" else 1)

    def jvp(self, *dots: Array) -> Array:
        (a, b, c), (a_dot, b_dot) = self.kept(), dots
        return self.save_tangents(np.asarray(((a_dot * b + a * b_dot) * c**2).mean()), *dots)

    def backward_jvp(self, grad_output_dot: Array | None = None) -> tuple[Array, ...]:
        g_dot = self.full(0) if grad_output_dot is None else grad_output_dot
        (a, b, c), (a_dot, b_dot), g = self.saved_tangents(g_dot)
        share = c**2 / a.size
        bent = 0 if self.fault == "backward_jvp" else b_dot * g * share
        return b * g_dot * share + bent, (a * g_dot + a_dot * g) * share


def test_gradcheck_checks_the_inputs_that_a_loss_of_ones_own_names() -> None:
    arrays = [normal(4, seed=seed) for seed in range(3)]
    assert gradcheck(Product(), arrays).checked == 8
    assert gradcheck(Product(), arrays, second_order=True).checked == 5 * (1 + 4 + 4)
    with pytest.raises(GradcheckError, match="Product: the derivative with respect to b at"):
        gradcheck(Product("backward"), arrays)
    with pytest.raises(
        GradcheckError, match=r"the tangent of the gradient with respect to a at .* by backward_jvp"
    ):
        gradcheck(Product("backward_jvp"), arrays, second_order=True)


def test_an_embedding_is_trained_by_hand_with_triplets() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, 6))
    labels = rng.integers(0, 2, (3, 64))
    labels[1], labels[2] = labels[0], 1 - labels[0]
    rows = (centres[labels] + rng.standard_normal((3, 64, 6))).astype(np.float32)
    model, criterion = tc.Linear(6, 2, generator=0), tc.TripletMarginLoss()
    optimizer = tc.optim.SGD(model, lr=0.1)
    losses = []
    for _ in range(40):
        embedded = model.forward(rows.reshape(-1, 6)).reshape(3, 64, 2)
        losses.append(float(criterion(*embedded)))
        optimizer.zero_grad()
        model.backward(np.concatenate(criterion.backward()))
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]

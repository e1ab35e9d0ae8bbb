"""Initialisers: the distributions of PyTorch's, in place, on either device."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import strict_arrays
from tinyconv import Conv2d, ConvTranspose2d, Linear, init
from tinyconv.arrays import Array

# (out, in), (out, in / groups, height, width), (in, out / groups, height, width) and others.
SHAPES = [(60, 50), (50, 60), (40, 20, 3, 3), (12, 30, 5, 3), (20, 1, 7, 7), (7, 300, 5), (9, 8, 2, 3, 5)]
DRAWN: dict[str, dict[str, Any]] = {
    "uniform_": {"a": -2.0, "b": 3.0},
    "normal_": {"mean": 1.0, "std": 0.3},
    "xavier_uniform_": {"gain": 2.0},
    "xavier_normal_": {"gain": 0.5},
    "kaiming_uniform_": {"a": 0.3, "nonlinearity": "leaky_relu"},
    "kaiming_uniform_, defaults": {},
    "kaiming_uniform_, fan_out": {"mode": "fan_out", "nonlinearity": "relu"},
    "kaiming_normal_": {"a": 5**0.5},
    "kaiming_normal_, fan_out": {"mode": "fan_out", "nonlinearity": "tanh"},
}


def drawn(case: str, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """What we and PyTorch draw."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    name, options = case.split(",")[0], DRAWN[case]
    torch.manual_seed(0)
    theirs = getattr(torch.nn.init, name)(torch.empty(shape, dtype=torch.float64), **options)
    ours: Array = getattr(init, name)(np.zeros(shape), **options, generator=0)
    return ours, theirs.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", DRAWN, ids=str)
def test_distributions_are_pytorchs(case: str, shape: tuple[int, ...]) -> None:
    ours, theirs = drawn(case, shape)
    count = math.prod(shape)
    noise = 5 * theirs.std() / math.sqrt(count)
    assert abs(ours.mean() - theirs.mean()) < 1.5 * noise
    assert abs(ours.std() - theirs.std()) < 1.5 * noise
    if "uniform" in case:
        spread = theirs.max() - theirs.min()
        for found, expected in ((ours.min(), theirs.min()), (ours.max(), theirs.max())):
            assert abs(found - expected) < 15 * spread / count
    else:
        assert abs((np.abs(ours - ours.mean()) < ours.std()).mean() - 0.6827) < 3 / math.sqrt(count)


@pytest.mark.parametrize(
    ("layer", "fan_in", "fan_out"),
    [
        (Linear(30, 20), 30, 20),
        (Conv2d(6, 8, (3, 5)), 90, 120),
        (Conv2d(6, 8, (3, 5), groups=2), 45, 120),
        (ConvTranspose2d(6, 8, (3, 5)), 120, 90),  # as PyTorch, which reads (in, out, ...) as (out, in, ...)
        (ConvTranspose2d(6, 8, 3, groups=2), 36, 54),
    ],
    ids=repr,
)
def test_the_bounds_are_those_of_the_formulas(layer: Any, fan_in: int, fan_out: int) -> None:
    uniform: list[tuple[Callable[[Array], Array], float]] = [
        (lambda w: init.xavier_uniform_(w, 3.0, 0), 3 * math.sqrt(6 / (fan_in + fan_out))),
        (lambda w: init.kaiming_uniform_(w, generator=0), math.sqrt(6 / fan_in)),
        (lambda w: init.kaiming_uniform_(w, 1.0, "fan_out", generator=0), math.sqrt(3 / fan_out)),
        (lambda w: init.kaiming_uniform_(w, nonlinearity="selu", generator=0), 0.75 * math.sqrt(3 / fan_in)),
    ]
    for call, bound in uniform:
        weight = layer.weight
        assert call(weight) is weight is layer.params["weight"]
        assert bound * 0.95 < np.abs(weight).max() <= bound * (1 + 1e-6)
    normal: list[tuple[Callable[[Array], Array], float]] = [
        (lambda w: init.xavier_normal_(w, 3.0, 0), 3 * math.sqrt(2 / (fan_in + fan_out))),
        (lambda w: init.kaiming_normal_(w, nonlinearity="relu", generator=0), math.sqrt(2 / fan_in)),
        (lambda w: init.kaiming_normal_(w, 0, "fan_out", "linear", 0), math.sqrt(1 / fan_out)),
    ]
    for call, std in normal:
        unit = init.normal_(np.zeros_like(layer.weight), generator=0)
        np.testing.assert_allclose(call(layer.weight), std * unit, rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [(5, 8), (8, 5), (6, 6), (4, 3, 3, 3), (40, 3, 3, 1), (1, 4), (4, 1)], ids=str
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_fewer_of_rows_and_columns_are_orthogonal(shape: tuple[int, ...], dtype: Any) -> None:
    matrix = init.orthogonal_(np.zeros(shape, dtype), 3.0, generator=0).reshape(shape[0], -1)
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(product, 9 * np.eye(len(product)), atol=1e-5 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (2, 3)])
def test_orthogonal_matrices_are_distributed_uniformly(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    matrices = np.stack([init.orthogonal_(np.zeros(shape), generator=rng) for _ in range(4000)])
    # as Haar's measure demands: no direction is preferred, and both signs of a determinant are as likely
    np.testing.assert_allclose(matrices.mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose((matrices**2).mean(axis=0), 1 / max(shape), atol=0.03)
    if shape == (2, 2):
        assert abs((np.linalg.det(matrices) > 0).mean() - 0.5) < 0.05


def test_gains_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    names = ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
    names += [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
    for name in names:
        for param in (None, 0, 0.3, -2.0):
            expected = torch.nn.init.calculate_gain(name, param)
            assert init.calculate_gain(name, param) == pytest.approx(expected, rel=1e-15)


def test_constants() -> None:
    for array in (np.full((2, 3), 9.0), np.full((), 9.0, np.float32), np.full((2, 0), 9.0)):
        for call, value in (
            (lambda x: init.constant_(x, -0.5), -0.5),
            (init.ones_, 1.0),
            (init.zeros_, 0.0),
        ):
            assert call(array) is array
            assert (array == value).all()


FILLS: dict[str, Callable[[Any], Any]] = {
    "uniform": lambda x: init.uniform_(x, generator=3),
    "normal": lambda x: init.normal_(x, generator=3),
    "constant": lambda x: init.constant_(x, 0.1),
    "xavier": lambda x: init.xavier_uniform_(x, generator=3),
    "kaiming": lambda x: init.kaiming_normal_(x, generator=3),
    "orthogonal": lambda x: init.orthogonal_(x, generator=3),
}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_the_numbers_depend_on_the_generator_alone(fill: Callable[[Any], Any]) -> None:
    expected = fill(np.empty((4, 3, 2)))
    single = fill(np.empty((4, 3, 2), np.float32))
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, expected.astype(np.float32))
    np.testing.assert_array_equal(fill(np.empty((2, 3, 4)).T), expected)
    np.testing.assert_array_equal(fill(np.empty((4, 3, 4))[..., ::2]), expected)
    with strict_arrays.installed() as cupy:
        array = cupy.zeros((4, 3, 2))
        assert fill(array) is array
        np.testing.assert_array_equal(cupy.asnumpy(array), expected)


def test_a_generator_goes_on_and_none_is_fresh() -> None:
    for generator in (np.random.default_rng(0), None):
        first, second = (init.normal_(np.zeros(5), generator=generator) for _ in range(2))
        assert (first != second).all()


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_what_is_no_floating_array_is_refused(fill: Callable[[Any], Any]) -> None:
    for wrong in (None, [[1.0, 2.0]], np.zeros((2, 2), int), 3.0):
        with pytest.raises(TypeError, match="`tensor`"):
            fill(wrong)


@pytest.mark.parametrize("name", ["xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"])
def test_wrong_arguments_are_named(name: str) -> None:
    weight = np.ones((3, 2))
    wrongs: list[tuple[Callable[[], Any], str]] = [
        (lambda: getattr(init, name)(np.ones(3)), r"`tensor` \(of shape \(3,\)\) must have two dimensions"),
        (lambda: getattr(init, name)(np.ones((3, 0))), "`tensor`"),
        (lambda: getattr(init, name)(weight, "much"), "`gain`|`param`"),
        (lambda: getattr(init, name)(weight, generator=-1), "`generator`"),
        (lambda: init.orthogonal_(np.ones(3)), "`tensor`"),
        (lambda: init.orthogonal_(weight, "much"), "`gain`"),  # type: ignore[arg-type]
        (lambda: init.uniform_(weight, 1.0, 0.5), "`b` .=0.5. must be between 1"),
        (lambda: init.normal_(weight, std=-1), "`std`"),
        (lambda: init.constant_(weight, "1"), "`val`"),  # type: ignore[arg-type]
        (lambda: init.kaiming_normal_(weight, mode="fan"), "`mode`.*'fan_in', 'fan_out'"),
        (lambda: init.kaiming_normal_(weight, nonlinearity="swish"), "`nonlinearity`"),
        (lambda: init.calculate_gain("leaky_relu", True), "`param`"),
    ]
    for call, message in wrongs:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    np.testing.assert_array_equal(weight, 1)


def test_signatures_are_pytorchs() -> None:
    import inspect

    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    for name in init.__all__:
        ours = inspect.signature(getattr(init, name)).parameters
        theirs = inspect.signature(getattr(torch.nn.init, name)).parameters
        assert [*ours] == [*theirs]
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]

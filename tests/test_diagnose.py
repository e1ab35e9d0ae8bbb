"""diagnose names planted mistakes, each made by other means than its own, and nothing else."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
import tinyconv.functional as F
from tests.planted import PLANTED, Planted, normal
from tinyconv.arrays import Array
from tinyconv.gradients import conv_formulas, formulas
from tinyconv.gradients.diagnose import Diagnosis, diagnose
from tinyconv.gradients.mistakes import mistake

Rng = np.random.Generator


def names(found: Diagnosis) -> tuple[str, ...]:
    return tuple(mistake.name for mistake in found.mistakes)


def found_for(planted: Planted, got: Any) -> Diagnosis:
    return diagnose(np.asarray(got), operator=planted.operator, wrt=planted.wrt, **planted.arguments)


def wanted(planted: Planted) -> Array:
    return np.array(formulas.Case(planted.operator, planted.wrt, planted.arguments).want)


def test_planted_mistakes_are_named_and_none_is_named_wrong() -> None:
    assert len(PLANTED) >= 60
    assert len({planted.operator for planted in PLANTED}) >= 10
    missed: list[Any] = []
    wrong: list[Any] = []
    for planted in PLANTED:
        found = found_for(planted, planted.got())
        expected = (planted.expected,) if isinstance(planted.expected, str) else planted.expected
        assert not found.agrees, planted
        if names(found) != expected:
            (wrong if found.mistakes else missed).append(
                (planted.operator, planted.wrt, expected, names(found))
            )
    assert not wrong
    assert len(missed) <= 0.1 * len(PLANTED), missed


def test_planted_mistakes_are_named_in_float32_as_well() -> None:
    missed = []
    for planted in PLANTED:
        if planted.expected == "precision":
            continue
        found = found_for(planted, np.asarray(planted.got(), np.float32))
        expected = (planted.expected,) if isinstance(planted.expected, str) else planted.expected
        if names(found) != expected:
            assert not found.mistakes, (planted.operator, planted.wrt, expected, names(found))
            missed.append(planted)
    assert len(missed) <= 0.1 * len(PLANTED)


def test_the_example_s_formulas_are_named_where_they_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import conv_gradient_formulas as written

    arguments = written.arguments(3, 3, 1, 2)
    g, x, w, stride, padding = arguments
    truth = written.truth(*arguments)
    seen = 0
    for candidate in (*written.GRAD_X.values(), *written.GRAD_W.values()):
        by_x = candidate in written.GRAD_X.values()
        try:
            got = candidate(*arguments)
        except ValueError:
            continue  # of one image of one channel alone
        found = diagnose(
            got,
            operator="conv2d",
            wrt="input" if by_x else "weight",
            x=x,
            weight=w,
            stride=stride,
            padding=padding,
            grad_output=g,
        )
        want = truth[0 if by_x else 1]
        right = got.shape == want.shape and np.allclose(got, want)
        assert bool(found) == right, candidate.__name__
        assert bool(found.mistakes) != right, candidate.__name__
        seen += not right
    assert seen >= 10


def test_every_wrong_formula_has_its_texts() -> None:
    rows = [row for table in (formulas.COMMON, *formulas.TABLE.values()) for row in table]
    conv = [key for table in conv_formulas.TABLE.values() for key, _ in table]
    conv += [*conv_formulas.BIAS, *(key for key, _ in conv_formulas.IMAGE_OF_STRIDE_ONE)]
    named = [mistake(row.key, **row.values) for row in rows]
    named += [mistake(key, padding=(1, 1), right=(2, 2)) for key in conv]
    assert all(each.says and each.cure and ":" not in each.name for each in named)


@pytest.mark.parametrize("operator", ["relu", "gelu", "conv2d"])
def test_a_formula_that_is_right_for_the_arguments_is_never_named(operator: str) -> None:
    arguments: dict[str, Any] = {"x": normal(2, 3, 7, 7)}
    if operator == "conv2d":
        arguments["weight"] = normal(3, 3, 1, 1)
    output = formulas.Case(operator, "output", arguments).want
    arguments["grad_output"] = normal(*output.shape, seed=1)
    want = formulas.Case(operator, "x", arguments).want
    found = diagnose(want * (1 + 1e-12), operator=operator, wrt="x", rtol=0, **arguments)
    assert (found.agrees, names(found)) == (False, ())


# What must not be named

SHAPES = [
    (),
    (1,),
    (2,),
    (4,),
    (7,),
    (2, 2),
    (5, 4),
    (1, 1, 3, 3),
    (2, 3, 3, 3),
    (4, 2, 5, 5),
    (3, 4, 6),
    (8, 8),
]
SHAPES += [(2, 2, 2, 2, 2), (1, 1, 8, 8), (2, 4, 8, 8)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_never_named(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    for shape in SHAPES * 15:
        other = SHAPES[rng.integers(len(SHAPES))] if rng.random() < 0.2 else shape
        got, want = (np.asarray(rng.standard_normal(s), dtype) for s in (shape, other))
        found = diagnose(got, want)
        assert not found, (shape, other)
        assert names(found) == (), (shape, other, found.text)


@pytest.mark.parametrize("kind", ["normal", "relu", "whole", "mask"])
def test_right_arrays_with_some_random_values_are_never_named(kind: str) -> None:
    rng = np.random.default_rng(4)
    makes: dict[str, Any] = {
        "normal": rng.standard_normal,
        "relu": lambda shape: np.maximum(rng.standard_normal(shape), 0),
        "whole": lambda shape: rng.integers(-3, 4, shape) * 1.0,
        "mask": lambda shape: (rng.random(shape) < 0.5) * 1.0,
    }
    make = makes[kind]
    for shape in [shape for shape in SHAPES if np.prod(shape) > 1] * 15:
        want = np.asarray(make(shape))
        got = want.copy()
        count = rng.integers(1, want.size + 1)
        got.flat[rng.permutation(want.size)[:count]] += rng.standard_normal(count)
        found = diagnose(got, want)
        assert names(found) == (), (shape, count, found.text)
        assert found.differing == count


def test_noise_and_random_changes_are_never_named_for_an_operator() -> None:
    rng = np.random.default_rng(6)
    for planted in PLANTED:
        want = wanted(planted)
        found = found_for(planted, rng.standard_normal(want.shape))
        assert names(found) == (), (planted.operator, planted.wrt, found.text)
        want.flat[rng.permutation(want.size)[: 1 + want.size // 3]] += 1 + rng.random(1 + want.size // 3)
        found = found_for(planted, want)
        assert names(found) == (), (planted.operator, planted.wrt, found.text)


def test_right_gradients_agree() -> None:
    for planted in PLANTED:
        want = wanted(planted)
        for got in (want, want * (1 + 1e-12), want.astype(np.float32)):
            found = found_for(planted, got)
            assert found
            assert (found.mistakes, found.where, found.place, found.first) == ((), "", "", None)
            assert "equals" in found.text


# Arrays alone

W = normal(4, 3, 5, 5)
IMAGE = normal(2, 3, 8, 8)


def zeros_follow(array: Array, down: int) -> Array:
    moved = np.zeros_like(array)
    moved[:, :, down:] = array[:, :, :-down]
    return moved


@pytest.mark.parametrize(
    ("got", "want", "expected", "details"),
    [
        (W[..., ::-1, ::-1], W, ("rotated",), {"axes": (2, 3)}),
        (W[..., ::-1, :], W, ("flipped",), {"axes": (2,)}),
        (W[::-1], W, ("flipped",), {"axes": (0,)}),
        (W.T, W, ("transposed",), {"axes": (3, 2, 1, 0)}),
        (W.transpose(0, 1, 3, 2), W, ("transposed",), {"axes": (0, 1, 3, 2)}),
        (W.transpose(2, 3, 1, 0), W, ("transposed",), {"axes": (2, 3, 1, 0)}),
        (W.transpose(0, 2, 3, 1).reshape(W.shape), W, ("memory order",), {"axes": (0, 2, 3, 1)}),
        (W.transpose(2, 3, 1, 0).reshape(W.shape), W, ("memory order",), {"axes": (2, 3, 1, 0)}),
        (W.ravel("F").reshape(W.shape), W, ("memory order",), {"axes": (3, 2, 1, 0)}),
        (W.reshape(5, 5, 3, 4).transpose(3, 2, 0, 1), W, ("memory order",), {"stored": "got"}),
        (W.reshape(4, -1), W, ("reshaped",), {"shape": W.shape}),
        (W[None], W, ("reshaped",), {}),
        (np.roll(W, 1, 2), W, ("shifted",), {"shift": {2: 1}, "filled": "around"}),
        (np.roll(IMAGE, (1, -2), (2, 3)), IMAGE, ("shifted",), {"shift": {2: 1, 3: -2}}),
        (zeros_follow(W, 1), W, ("shifted",), {"shift": {2: 1}, "filled": "zeros"}),
        (W[:, :, 1:, :-1], W, ("cropped",), {"cut": {2: (1, 0), 3: (0, 1)}}),
        (np.pad(W, [(0, 0), (0, 0), (1, 1), (2, 2)]), W, ("not cropped",), {"cut": {2: (1, 1), 3: (2, 2)}}),
        (W, W.sum(0), ("not summed",), {"axes": (0,), "mean": False}),
        (W, W.mean((2, 3)), ("not summed",), {"axes": (2, 3), "mean": True}),
        (W, W.sum((0, 2), keepdims=True), ("not summed",), {"axes": (0, 2)}),
        (W.sum(1), W, ("summed",), {"axes": (1,), "mean": False}),
        (np.broadcast_to(W.mean(0), W.shape), W, ("summed",), {"axes": (0,), "mean": True}),
        (abs(W), W, ("signs lost",), {}),
        (W + 0.25, W, ("constant added",), {"constant": 0.25}),
        (2 * W, W, ("scaled",), {"factor": 2.0}),
        (-W, W, ("scaled",), {"factor": -1.0}),
        (-2 * W, W, ("scaled",), {"factor": -2.0}),
        (W / -2, W, ("scaled",), {"factor": -0.5}),
        (W / 2, W, ("scaled",), {"factor": 0.5}),
        (W / 4, W, ("scaled",), {"meaning": "the length of axis 0"}),
        (W * 25, W, ("scaled",), {"meaning": "the number of positions in the last two axes"}),
        (W * 4 / 3, W, ("scaled",), {"meaning": "n = 4"}),
        (W * 0.1234, W, ("scaled",), {"known": False}),
        (W * 0, W, ("zeros",), {}),
        (W.astype(np.float32).astype(float), W, ("precision",), {"dtype": "float32"}),
        (W.astype(np.float16).astype(float), W, ("precision",), {"dtype": "float16"}),
        (W.round(4), W, ("precision",), {"decimals": 4}),
        (W.round(3).astype(np.float32), W, ("precision",), {"decimals": 3}),
        (np.floor(9 * W), 9 * W, ("precision",), {"decimals": 0}),
        ((10 * W).astype(int), 10 * W, ("precision",), {"decimals": 0}),
        (W, np.maximum(W, 0), ("mask missing",), {"count": int((W < 0).sum())}),
        (np.maximum(W, 0), W, ("mask too much",), {"count": int((W < 0).sum())}),
        (W, np.maximum(W, 0) * 2, ("mask missing",), {"factor": 0.5}),
    ],
)
def test_a_transformation_is_named_with_its_numbers(
    got: Array, want: Array, expected: tuple[str, ...], details: dict[str, Any]
) -> None:
    found = diagnose(got, want)
    assert names(found) == expected, found.text
    assert not found.alternatives, found.text
    told = found.mistakes[0].details
    for key, value in details.items():
        assert told[key] == pytest.approx(value) if isinstance(value, float) else told[key] == value
    assert str(found) == found.text
    assert found.mistakes[0].cure in found.text


@pytest.mark.parametrize(
    ("got", "want", "expected"),
    [
        (W[..., ::-1, ::-1] / 4, W, ("rotated", "scaled")),
        (W.transpose(0, 1, 3, 2)[..., ::-1], W, ("transposed", "flipped")),
        (-W.transpose(1, 0, 2, 3), W, ("transposed", "scaled")),
        (3 * W.transpose(0, 2, 3, 1).reshape(W.shape), W, ("memory order", "scaled")),
        (W * 2, W.sum(0), ("not summed", "scaled")),
        (W[..., ::-1, ::-1], W.sum(0), ("rotated", "not summed")),
        (W.swapaxes(1, 2), W.sum(0), ("transposed", "not summed")),
        (2 * zeros_follow(W, 1), W, ("shifted", "scaled")),
        (W[..., ::-1, ::-1][:, :, 1:], W, ("cropped", "rotated")),
        (np.roll(W[..., ::-1, ::-1], 1, 2), W, ("shifted", "rotated")),
    ],
)
def test_two_mistakes_together_are_named(got: Array, want: Array, expected: tuple[str, ...]) -> None:
    assert names(diagnose(got, want)) == expected


def undone(cure: str, got: Array) -> Array:
    """What the code in a cure makes of `got`."""
    found = re.fullmatch(r"Use (.*?)(: .*)?\.", cure)
    assert found, cure
    return np.asarray(eval(found[1], {"np": np, "got": got, "w": got}))


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (W[..., ::-1, ::-1], W),
        (W[:, ::-1], W),
        (W.T, W),
        (W[0, 0].T, W[0, 0]),
        (W.transpose(0, 3, 1, 2), W),
        (W.transpose(2, 3, 1, 0), W),
        (W.swapaxes(0, 1), W),
        (W.transpose(0, 2, 3, 1).reshape(W.shape), W),
        (W.ravel("F").reshape(W.shape), W),
        (W.reshape(5, 5, 3, 4).transpose(3, 2, 0, 1), W),
        (W.reshape(4, -1), W),
        (np.roll(W, (1, -2), (2, 3)), W),
        (np.pad(W, [(0, 0), (0, 0), (1, 2), (2, 0)]), W),
        (W, W.sum((0, 2))),
        (W, W.mean(1)),
        (W, W.sum((0, 2), keepdims=True)),
        (-W, W),
    ],
)
def test_the_cure_s_code_gives_the_right_array(got: Array, want: Array) -> None:
    (mistake,) = diagnose(got, want).mistakes
    np.testing.assert_allclose(undone(mistake.cure, got), want)


def test_the_sentence_says_what_and_why_and_the_cure() -> None:
    assert diagnose(W[..., ::-1, ::-1], W).text == (
        "`got` equals the expected array with its last two axes reversed: the kernel is rotated by 180°. "
        "Use w[..., ::-1, ::-1]."
    )
    assert diagnose(W / 7, W).text == (
        "`got` equals the expected array multiplied by 1/7. "
        "If 7 is the batch size or the number of positions, it is a mean in place of a sum."
    )


def test_where_arrays_differ_is_said() -> None:
    got = W.copy()
    got[1, 2, 3, 4] += 1
    got[3, 2, 0, 1] += 0.5
    found = diagnose(got, W)
    assert found.text == "No known mistake explains `got`. " + found.where
    assert found.where.startswith("2 of 300 values differ, by at most 1 (")
    assert "the first is at (1, 2, 3, 4)" in found.where
    assert "1, 3 of axis 0 (length 4); 2 of axis 1 (length 3)" in found.where
    assert (found.differing, found.size, found.first, found.place) == (2, 300, (1, 2, 3, 4), "some places")
    assert found.largest_difference == pytest.approx(1)
    assert found.largest_relative == pytest.approx(1 / abs(W).max())


def test_differences_as_small_as_float32_s_rounding_are_said_to_be() -> None:
    got = W + 1e-7 * normal(*W.shape, seed=9)
    assert diagnose(got, W).text.endswith("float32 rounds as much off.")
    assert "float32" not in diagnose(W + 0.1 * normal(*W.shape, seed=9), W).text


def test_sparse_arrays_are_judged_by_what_is_not_zero() -> None:
    want = np.zeros((8, 4, 40, 40))
    want[-1, -1, -8:, -8:] = normal(8, 8)
    assert names(diagnose(2.345 * want, want)) == ("scaled",)
    assert names(diagnose(want[..., ::-1, ::-1], want)) == ("rotated",)


def test_a_wrong_border_or_interior_is_named() -> None:
    rng = np.random.default_rng(8)
    ring = np.ones((8, 8), bool)
    ring[1:-1, 1:-1] = False
    for mask, name in ((ring, "border"), (~ring, "interior")):
        found = diagnose(np.where(mask, IMAGE + rng.random(IMAGE.shape), IMAGE), IMAGE)
        assert (names(found), found.place) == ((name,), name)
        assert found.mistakes[0].details["widths"] == {2: (1, 1), 3: (1, 1)}
    last = IMAGE.copy()
    last[:, :, -1] += rng.random(last[:, :, -1].shape)
    found = diagnose(last, IMAGE)
    assert found.mistakes[0].details["widths"] == {2: (0, 1), 3: (0, 0)}
    assert "axis 2: 0 at the start, 1 at the end" in found.text


def test_nan_and_infinite_values_are_counted() -> None:
    got = W.copy()
    got[0, 1, 2, 3] = np.nan
    got[1] = np.inf
    found = diagnose(got, W)
    assert names(found) == ("nan",)
    assert found.mistakes[0].details == {"count": 76, "nan": 1, "first": (0, 1, 2, 3), "in": "got"}
    assert (
        "76 of the 300 values of `got` are NaN (1) or infinite (75), the first at (0, 1, 2, 3)." in found.text
    )
    assert diagnose(got, got)
    assert diagnose(W, got).mistakes[0].details["in"] == "want"
    other = got.copy()
    other[2, 0, 0, 0] += 1
    assert names(diagnose(other, got)) == ()
    assert not diagnose(-got, got)


# Data that cannot tell


def test_symmetric_kernels_name_the_first_and_say_so() -> None:
    symmetric = W[:, :, :, ::-1] + W
    found = diagnose(symmetric[:, :, ::-1], symmetric)
    assert names(found) == ("rotated",)
    assert [mistake.name for mistake in found.alternatives[0]] == ["flipped"]
    assert "These values cannot tell it from another mistake: with its axis 2 reversed." in found.text
    even = symmetric + symmetric[:, :, ::-1]
    assert diagnose(even[..., ::-1, ::-1], even)
    assert names(diagnose(2 * even[..., ::-1, ::-1], even)) == ("scaled",)


def test_constant_arrays_are_not_taken_for_more_than_they_show() -> None:
    ones = np.ones((3, 4))
    found = diagnose(2 * ones, ones)
    assert names(found) == ("scaled",)
    assert [mistake.name for mistake in found.alternatives[0]] == ["constant added"]
    assert names(diagnose(1.2345 * ones, ones)) == ()
    assert names(diagnose(2 * ones.astype(np.float32), ones.astype(np.float32))) == ()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_number_is_not_fitted_to_fewer_than_four_values(size: int) -> None:
    want = normal(size)
    assert names(diagnose(1.2345 * want, want)) == ()
    assert names(diagnose(want + 0.789, want)) == ()
    assert names(diagnose(-want, want)) == ("scaled",)


def test_one_by_one_kernels_agree_however_they_are_rotated() -> None:
    x, w, g = normal(2, 3, 5, 5), normal(3, 3, 1, 1), normal(2, 3, 5, 5, seed=1)
    got = F.conv2d_input(x.shape, w[..., ::-1, ::-1], g)
    assert diagnose(got, operator="conv2d", wrt="x", x=x, weight=w, grad_output=g)
    got = F.conv2d_input(x.shape, w.swapaxes(0, 1), g)
    assert names(diagnose(got, operator="conv2d", wrt="x", x=x, weight=w, grad_output=g)) == (
        "channels not swapped",
    )


# Shapes, dtypes, tolerances, arguments


def test_shapes_that_no_mistake_explains_are_said() -> None:
    found = diagnose(normal(3, 4), normal(5))
    assert found.text == (
        "No known mistake explains `got`. "
        "`got` has the shape (3, 4), but the expected array has the shape (5,)."
    )
    assert (found.differing, found.size, found.largest_difference, found.place) == (None, None, None, "")


def test_empty_and_zero_dimensional_arrays_are_taken() -> None:
    assert diagnose(np.zeros((0, 3)), np.zeros((0, 3))).text == "`got` and the expected array are both empty."
    assert "(0, 3)" in diagnose(np.zeros((0, 3)), normal(2, 3)).text
    assert "(0, 3)" in diagnose(normal(2, 3), np.zeros((0, 3))).text
    assert not diagnose(np.zeros((0, 3)), np.zeros((3, 0)))
    assert diagnose(np.array(2.5)[()], np.array(2.5))
    assert names(diagnose(np.array(-2.5)[()], np.array(2.5))) == ("scaled",)
    assert diagnose(np.array(2.5), np.array(2.6)).first == ()


@pytest.mark.parametrize(("dtype", "apart"), [(np.float64, 1e-10), (np.float32, 1e-6), (np.float16, 5e-4)])
def test_the_coarsest_dtype_says_what_rounding_is(dtype: Any, apart: float) -> None:
    got = W * (1 + apart)
    assert diagnose(got.astype(dtype), W)
    assert diagnose(got, W.astype(dtype))
    assert not diagnose((W * (1 + 100 * apart)).astype(dtype), W)


def test_integers_and_booleans_are_arrays_of_numbers() -> None:
    whole = np.arange(12).reshape(3, 4)
    assert diagnose(whole, whole.astype(float))
    assert names(diagnose(whole.T, whole)) == ("transposed",)
    assert diagnose(whole > 3, (whole > 3).astype(np.float32))


def test_tolerances_are_of_the_largest_value() -> None:
    want = np.array([1.0, 1000.0])
    assert diagnose(want + 0.5, want, rtol=1e-3)
    assert not diagnose(want + 2, want, rtol=1e-3)
    assert diagnose(want + 2, want, atol=2)
    assert names(diagnose(1.3 * W, W, rtol=0.01)) == ("scaled",)
    assert names(diagnose(normal(4, 3, 5, 5, seed=2), W, rtol=0.5)) == ()


def test_arrays_of_any_layout_are_read_and_not_written() -> None:
    frozen = np.asfortranarray(W)
    frozen.flags.writeable = False
    assert names(diagnose(frozen[..., ::-1, ::-1], frozen)) == ("rotated",)
    small, large = W * 1e-200, W * 1e200
    assert names(diagnose(7 * small, small)) == names(diagnose(7 * large, large)) == ("scaled",)


@pytest.mark.filterwarnings("error")
def test_numpy_may_raise_errors() -> None:
    tiny = W * 1e-250
    with np.errstate(all="raise"):
        assert names(diagnose(tiny[..., ::-1, ::-1], tiny)) == ("rotated",)
        test_noise_and_random_changes_are_never_named_for_an_operator()


def test_an_operator_takes_one_sample_and_named_padding() -> None:
    x, w = normal(3, 7, 7), normal(2, 3, 3, 3)
    g = normal(2, 7, 7)
    arguments: dict[str, Any] = {"x": x, "weight": w, "padding": "same", "grad_output": g}
    got = F.conv2d_input(x.shape, w[..., ::-1, ::-1], g, padding=1)
    assert names(diagnose(got, operator="conv2d", wrt="input", **arguments)) == ("kernel not rotated",)
    assert names(diagnose(g.mean((1, 2)), operator="conv2d", wrt="bias", **arguments)) == ("scaled",)


def test_the_factor_s_meaning_is_the_operator_s() -> None:
    x, w, g = normal(5, 3, 7, 6), normal(2, 3, 3, 3), normal(5, 2, 5, 4)
    got = F.conv2d_weight(x, w.shape, g)
    arguments: dict[str, Any] = {"operator": "conv2d", "wrt": "weight", "x": x, "weight": w, "grad_output": g}
    for size, meaning in ((5, "the batch size"), (20, "the number of output positions")):
        (mistake,) = diagnose(got / size, **arguments).mistakes
        assert mistake.details["meaning"] == meaning
        assert mistake.details["factor"] == pytest.approx(1 / size)


def test_a_wrong_call_is_refused() -> None:
    with pytest.raises(ValueError, match="`operator` must be given where `want` is not"):
        diagnose(W)
    with pytest.raises(ValueError, match="`operator` must be given"):
        diagnose(W, W, stride=2)
    with pytest.raises(TypeError, match=r"`got` must be a numpy.ndarray .* got list"):
        diagnose([1.0], W)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`want` \(of dtype complex128\) must be an array of real numbers"):
        diagnose(W, W + 1j)
    with pytest.raises(ValueError, match=r"`rtol` \(=-1\) must be between 0 and inf"):
        diagnose(W, W, rtol=-1)
    with pytest.raises(ValueError, match=r"`operator` \(='conv3d'\) must be one of 'conv1d', 'conv2d'"):
        diagnose(W, operator="conv3d", wrt="x")
    with pytest.raises(ValueError, match="`wrt` must be given with `operator`: one of 'input', 'output'"):
        diagnose(W, operator="relu", x=W)
    with pytest.raises(ValueError, match=r"`wrt` \(='weight'\) must be one of 'input', 'output'"):
        diagnose(W, operator="relu", wrt="weight", x=W)
    with pytest.raises(ValueError, match="`grad_output` must be given for a gradient"):
        diagnose(W, operator="relu", wrt="x", x=W)
    with pytest.raises(ValueError, match=r"`input` \(or `x`\) must be given: relu needs it"):
        diagnose(W, operator="relu", wrt="x", grad_output=W)
    with pytest.raises(ValueError, match="`x` and `input` are one argument"):
        diagnose(W, operator="relu", wrt="x", x=W, input=W, grad_output=W)
    with pytest.raises(
        TypeError, match="`slope` is not an argument of leaky_relu: it takes input, negative_slope"
    ):
        diagnose(W, operator="leaky_relu", wrt="x", x=W, slope=1, grad_output=W)
    with pytest.raises(TypeError, match=r"`input` must be a numpy\.ndarray"):
        diagnose(W, operator="relu", wrt="output", x=[1.0])
    with pytest.raises(ValueError, match=r"`wrt` \(='bias'\) must be an argument that is given"):
        diagnose(W, operator="layer_norm", wrt="bias", x=W, normalized_shape=(5,), grad_output=W)


def test_running_statistics_stay_as_they_are() -> None:
    mean, var = np.zeros(3), np.ones(3)
    arguments: dict[str, Any] = {
        "x": normal(4, 3, 5),
        "running_mean": mean,
        "running_var": var,
        "training": True,
    }
    diagnose(normal(4, 3, 5), operator="batch_norm", wrt="output", **arguments)
    assert (mean == 0).all()
    assert (var == 1).all()


# gradcheck and assert_close


class Faulty(tc.Conv2d):
    """A convolution whose gradients go through a function."""

    def __init__(self, spoil: Any) -> None:
        super().__init__(2, 3, 3, generator=0)
        self.spoil = spoil

    def backward(self, grad_output: Array) -> Array:
        before = self.grads["weight"].copy()
        grad = super().backward(grad_output)
        self.grads["weight"][...] = before + self.spoil(self.grads["weight"] - before)
        return grad


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: w[..., ::-1, ::-1], "the kernel is rotated by 180°"),
        (lambda w: w / 4, "multiplied by 1/4"),
        (lambda w: w.swapaxes(2, 3), "axes 2 and 3 exchanged"),
        (abs, "without its signs"),
        (np.sin, "No known mistake explains"),
    ],
)
def test_gradcheck_ends_with_the_diagnosis(spoil: Any, words: str) -> None:
    with pytest.raises(
        tc.gradients.gradcheck.GradcheckError, match="Diagnosis of `got`, which backward returned"
    ) as e:
        tc.gradcheck(Faulty(spoil), normal(4, 2, 5, 5))
    assert str(e.value).startswith("Faulty: the derivative with respect to weight at")
    assert words in str(e.value)


def test_gradcheck_says_what_a_gradient_of_another_shape_is() -> None:
    class Long(tc.ReLU):
        def backward(self, grad_output: Array) -> Array:
            return super().backward(grad_output).T

    with pytest.raises(
        tc.gradients.gradcheck.GradcheckError, match=r"not \(3, 4\)\. Diagnosis.*transposed.*got\.T"
    ):
        tc.gradcheck(Long(), normal(3, 4))


def test_gradcheck_diagnoses_no_argument_that_is_large() -> None:
    with pytest.raises(tc.gradients.gradcheck.GradcheckError) as e:
        tc.gradcheck(Faulty(np.negative), normal(1, 2, 5, 5))
    assert "Diagnosis" in str(e.value)
    layer = tc.Sequential(Twice())
    with pytest.raises(tc.gradients.gradcheck.GradcheckError) as e:
        tc.gradcheck(layer, normal(40, 40))
    assert "Diagnosis" not in str(e.value)


class Twice(tc.ReLU):
    def backward(self, grad_output: Array) -> Array:
        return 2 * super().backward(grad_output)


def test_assert_close_says_how_much_where_and_why() -> None:
    tc.testing.assert_close(W * (1 + 1e-12), W)
    tc.testing.assert_close(W.astype(np.float32), W)
    with pytest.raises(AssertionError) as e:
        tc.testing.assert_close(W / 4, W)
    lines = str(e.value).splitlines()
    assert lines[0] == "`got` differs from `want`:"
    assert lines[1].startswith("300 of 300 values differ, by at most ")
    assert lines[2].startswith("`got` equals the expected array multiplied by 1/4: 4 is the length of axis 0")
    with pytest.raises(AssertionError, match="No known mistake explains them"):
        tc.testing.assert_close(normal(3, 4), normal(3, 4, seed=1))
    with pytest.raises(
        AssertionError, match=r"the shape \(3, 4\).*\(4, 3\)[^`]*\n`got` equals .* transposed"
    ):
        tc.testing.assert_close(normal(3, 4), normal(3, 4).T)
    tc.testing.assert_close(W + 0.1, W, atol=0.2)
    tc.testing.assert_close(W + 0.1, W, rtol=0.2)

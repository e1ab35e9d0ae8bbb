"""The examples on explicit gradients: composed convolutions, and which formula is right where."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tinyconv.arrays import Array

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import composed_gradients

    yield composed_gradients
    sys.modules.pop("composed_gradients")


@pytest.fixture
def formulas(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import conv_gradient_formulas

    yield conv_gradient_formulas
    sys.modules.pop("conv_gradient_formulas")


# Composed convolutions

SMALL = {"batch": 2, "channels": 3, "size": 12, "filters": 5, "block": 4}

# question: the images, the kernels of z, what is compared with, and the k before that
QUESTIONS: dict[str, tuple[str, dict[str, str], str, str | None]] = {
    "(a) k * x": ("image", {}, "y_filtered", "k"),
    "(b) w1 * x": ("x", {"w1": "w1"}, "y", None),
    "(b) k * w1 * x": ("x", {"w1": "w1"}, "y_filtered", "k"),
    "(c) w2 * relu(w1 * x)": ("x", {"w1": "w1_hidden", "w2": "w2"}, "y", None),
    "(c) k * w2 * relu(w1 * x)": ("x", {"w1": "w1_hidden", "w2": "w2"}, "y_filtered", "k"),
}
FULL_SIZE = [
    pytest.param(question, marks=() if question in ("(a) k * x", "(b) w1 * x") else pytest.mark.slow)
    for question in QUESTIONS
]


def autograd(question: str, arrays: dict[str, Array]) -> dict[str, Array]:
    """PyTorch's gradients of half the squared error, by the images and by the kernels of z."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    conv2d = torch.nn.functional.conv2d
    images, kernels, target, filters = QUESTIONS[question]
    names = {"x": images, **kernels}
    tensors = {name: torch.tensor(arrays[key], requires_grad=True) for name, key in names.items()}
    z = tensors["x"]
    for name in kernels:
        z = conv2d(torch.relu(z) if name == "w2" else z, tensors[name], padding=1)
    if filters is not None:
        z = conv2d(z, torch.tensor(arrays[filters]), stride=arrays[filters].shape[2:])
    loss = (z - torch.tensor(arrays[target])).square().sum() / 2
    grads = torch.autograd.grad(loss, list(tensors.values()))
    return {name: grad.numpy() for name, grad in zip(names, grads, strict=True)}


def compare_ways(composed: ModuleType, question: str, **sizes: int) -> None:
    arrays = composed.problem(**sizes)
    expected = autograd(question, arrays)
    for way, gradients in zip(("formulas", "layers"), composed.both_ways(question, arrays), strict=True):
        assert list(gradients) == list(expected)
        for name, gradient in gradients.items():
            assert_close(gradient, expected[name], f"{question} {way}, by {name}")
            assert composed.relative_difference(gradient, expected[name]) < 1e-10


@pytest.mark.parametrize("question", QUESTIONS)
def test_composed_gradients_by_formulas_and_with_layers_are_pytorchs(
    composed: ModuleType, question: str
) -> None:
    assert list(composed.QUESTIONS) == list(QUESTIONS)
    compare_ways(composed, question, **SMALL)


@pytest.mark.parametrize("question", FULL_SIZE)
def test_composed_gradients_of_full_size_are_pytorchs(composed: ModuleType, question: str) -> None:
    compare_ways(composed, question)


def test_the_full_sizes_are_those_of_the_questions(composed: ModuleType) -> None:
    assert {name: array.shape for name, array in composed.problem().items()} == {
        "image": (8, 1, 128, 128),
        "x": (8, 32, 128, 128),
        "k": (512, 1, 32, 32),
        "w1": (1, 32, 3, 3),
        "w1_hidden": (32, 32, 3, 3),
        "w2": (1, 32, 3, 3),
        "y": (8, 1, 128, 128),
        "y_filtered": (8, 512, 4, 4),
    }


@pytest.fixture
def printed_gradients(
    composed: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """The lines of the example on small arrays."""
    small = composed.problem(**SMALL)
    monkeypatch.setattr(composed, "problem", lambda **sizes: small)
    composed.main()
    return capsys.readouterr().out.splitlines()


def test_composed_gradients_prints_the_answer_first(printed_gradients: list[str]) -> None:
    assert printed_gradients[5] == ""
    answer = "\n".join(printed_gradients[:5])
    for formula in ("dx = conv2d_input(x.shape, w, dz)", "dw = conv2d_weight(x, w.shape, dz)", "dz = z - y"):
        assert formula in answer
    assert max(map(len, printed_gradients)) <= 110


def test_composed_gradients_prints_a_formula_and_a_small_error_for_each_gradient(
    composed: ModuleType, printed_gradients: list[str]
) -> None:
    rows = [line for line in printed_gradients if re.search(r"\) +\d\.\de-\d\d$", line)]
    assert len(rows) == 1 + 2 + 2 + 3 + 3
    assert rows[0].startswith("    dx  = conv2d_input(x.shape, k, k * x - y)")
    assert "(2, 1, 12, 12)" in rows[0]
    assert all(float(row.split()[-1]) < 1e-6 for row in rows)
    assert float(printed_gradients[-1].rstrip(".").split()[-1]) < 1e-10
    for question, formulas in composed.FORMULAS.items():
        by_formula, _ = composed.both_ways(question, composed.problem())
        assert {f"d{name}" for name in by_formula} <= {*formulas}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_differences_of_composed_gradients_find_a_wrong_gradient(
    composed: ModuleType, question: str
) -> None:
    arrays = composed.problem(**SMALL)
    by_formula, _, names = composed.QUESTIONS[question]
    given = {argument: arrays[name] for argument, name in names.items()}
    for name, gradient in by_formula(**given).items():
        rotated = gradient[:, :, ::-1, ::-1]
        assert composed.difference_error(gradient, name, given) < 1e-6
        assert composed.difference_error(rotated, name, given) > 1e-2
        assert composed.difference_error(1.01 * gradient, name, given) > 5e-3


def test_the_plain_convolution_of_composed_gradients_is_pytorchs(composed: ModuleType) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    normal = np.random.default_rng(2).standard_normal
    x, w = normal((2, 3, 7, 8)), normal((4, 3, 3, 2))
    for stride, padding in ((1, 0), (1, 1), (2, 0), (3, 2)):
        expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), None, stride, padding)
        assert_close(composed.plain_conv2d(x, w, stride, padding), expected.numpy())


# Which formula is right where. Columns as printed: batch, channels, padding and stride, the last one fastest.

ALL_RIGHT = "yes yes yes yes | yes yes yes yes | yes yes yes yes | yes yes yes yes"
GENERAL_BY_X = (
    "x_scipy_summed",
    "x_transposed_output_padding",
    "x_tensorflow_views",
    "x_full_convolution",
    "x_index_formula",
    "x_conv2d_input",
)
GENERAL_BY_W = (
    "w_scipy_correlated",
    "w_tensorflow_views",
    "w_dilated_convolution",
    "w_index_formula",
    "w_conv2d_weight",
)
EXPECTED = {
    "x_not_rotated": "val shp val shp | val shp val shp | val shp val shp | val shp val shp",
    "x_rotated": "yes shp yes shp | val shp val shp | yes shp yes shp | val shp val shp",
    "x_rotated_swapped": "yes shp yes shp | yes shp yes shp | yes shp yes shp | yes shp yes shp",
    "x_padding_of_forward": "shp - yes shp | shp - yes shp | shp - yes shp | shp - yes shp",
    "x_zeros_between_only": "yes shp yes shp | yes shp yes shp | yes shp yes shp | yes shp yes shp",
    "x_scipy_full": "yes shp shp shp | - - - - | - - - - | - - - -",
    "x_scipy_same": "shp shp yes shp | - - - - | - - - - | - - - -",
    "x_scipy_not_summed": "yes yes yes yes | val val val val | yes yes yes yes | val val val val",
    "x_transposed_swapped": "yes yes yes yes | val val val val | yes yes yes yes | val val val val",
    "x_transposed": "yes shp yes shp | yes shp yes shp | yes shp yes shp | yes shp yes shp",
    "x_tensorflow_wrong_axes": "yes yes yes yes | val val val val | yes yes yes yes | val val val val",
    **dict.fromkeys(GENERAL_BY_X, ALL_RIGHT),
    "w_not_swapped": "yes yes yes yes | shp shp shp shp | shp shp shp shp | val val val val",
    "w_not_swapped_back": "yes yes yes yes | val val val val | yes yes yes yes | val val val val",
    "w_stride_of_forward": "yes val yes val | yes val yes val | yes val yes val | yes val yes val",
    "w_without_padding": "yes yes shp shp | yes yes shp shp | yes yes shp shp | yes yes shp shp",
    "w_not_cut": "yes shp yes shp | yes shp yes shp | yes shp yes shp | yes shp yes shp",
    "w_scipy_valid": "yes shp shp shp | - - - - | - - - - | - - - -",
    "w_scipy_convolved": "val val val val | val val val val | val val val val | val val val val",
    "w_tensorflow_reshaped": "yes yes yes yes | val val val val | yes yes yes yes | val val val val",
    **dict.fromkeys(GENERAL_BY_W, ALL_RIGHT),
}


def torch_gradients(x: Array, w: Array, grad_output: Array, stride: int, padding: int) -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, w)]
    output = torch.nn.functional.conv2d(*tensors, stride=stride, padding=padding)
    return torch.autograd.grad(output, tensors, torch.tensor(grad_output))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_general_formulas_are_pytorchs_gradients(
    formulas: ModuleType, batch: int, channels: int, padding: int, stride: int
) -> None:
    given = formulas.arguments(batch, channels, padding, stride)
    grad_output, x, w, *_ = given
    expected = torch_gradients(x, w, grad_output, stride, padding)
    for names, gradient in zip((GENERAL_BY_X, GENERAL_BY_W), expected, strict=True):
        for name in names:
            assert_close(getattr(formulas, name)(*given), gradient.numpy(), name)


@pytest.mark.parametrize("name", [*GENERAL_BY_X, *GENERAL_BY_W])
def test_the_general_formulas_hold_for_other_kernels_strides_and_channels(
    formulas: ModuleType, name: str
) -> None:
    normal = np.random.default_rng(0).standard_normal
    x, w, grad_output = normal((2, 4, 11, 12)), normal((5, 4, 4, 2)), normal((2, 5, 4, 5))
    expected = torch_gradients(x, w, grad_output, stride=3, padding=1)
    gradient = getattr(formulas, name)(grad_output, x, w, 3, 1)
    assert_close(gradient, expected[0 if name in GENERAL_BY_X else 1].numpy(), name)


def test_every_formula_is_right_where_the_table_says(
    formulas: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    formulas.main()
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 110
    rows = [line.split() for line in printed.splitlines() if "|" in line]
    settings = [[int(value) for value in row[1:] if value != "|"] for row in rows[:4]]
    assert [row[0] for row in rows[:4]] == ["batch", "channels", "padding", "stride"]
    cells = [(n, c, p, s) for n in (1, 3) for c in (1, 3) for p in (0, 1) for s in (1, 2)]
    assert list(zip(*settings, strict=True)) == cells
    table = {row[0]: " ".join(row[1:]) for row in rows if row[0][:2] in ("x_", "w_")}
    assert table == EXPECTED


@pytest.mark.parametrize("name", ["x_transposed", "x_zeros_between_only", "w_not_cut"])
def test_formulas_without_unread_rows_are_right_where_there_are_none(formulas: ModuleType, name: str) -> None:
    normal = np.random.default_rng(0).standard_normal
    x, w, grad_output = normal((3, 3, 7, 9)), normal((3, 3, 3, 3)), normal((3, 3, 3, 4))
    by_x, by_w = formulas.truth(grad_output, x, w, 2, 0)
    assert_close(getattr(formulas, name)(grad_output, x, w, 2, 0), by_x if name[0] == "x" else by_w, name)

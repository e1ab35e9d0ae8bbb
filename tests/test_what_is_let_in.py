"""Which kinds of arrays are let in: each gives what the plain array gives, or a TypeError that names it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.compare import assert_close
from tests.every_function import arrays_of, every_call, parameter, public_functions, run
from tests.test_layer_contract import CASES, Case
from tinyconv import (
    BatchNorm1d,
    BCEWithLogitsLoss,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    GradientLayer,
    GradientStep,
    GroupNorm,
    LayerNorm,
    Linear,
    MSELoss,
    NLLLoss,
    ReLU,
    Sequential,
    Trainer,
    Unflatten,
    optim,
)
from tinyconv.arguments import OPTIONAL
from tinyconv.arrays import Array
from tinyconv.training.running import evaluation, sums_of

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
CALLS = every_call(np.float64)


class Named(np.ndarray):
    """A subclass that adds nothing to the arithmetic."""


class Doubling(np.ndarray):
    """A subclass with ufuncs of its own."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(value) for value in inputs]
        return 2 * getattr(ufunc, method)(*plain, **options)


def read_only(x: Array) -> Array:
    frozen = x.copy()
    frozen.flags.writeable = False
    return frozen


def structured(x: Array) -> Array:
    return np.ascontiguousarray(x).view([("value", x.dtype)])


# Kinds of arrays that work everywhere.
TAKEN: dict[str, Callable[[Array], Any]] = {
    "memmap": lambda x: x.copy().view(np.memmap),
    "read-only": read_only,
    "Fortran": lambda x: np.array(x, order="F"),
    "zero strides": lambda x: np.broadcast_to(x.ravel()[0], x.shape),
    "plain subclass": lambda x: x.copy().view(Named),
}
# Kinds that no function takes.
REFUSED: dict[str, Callable[[Array], Any]] = {
    "masked": lambda x: np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) % 2 == 0),
    "list": lambda x: x.tolist() if x.ndim else float(x),
    "number": lambda x: 1.0,
    "None": lambda x: None,
    "string": lambda x: "values",
    "tensor": lambda x: pytest.importorskip("torch", reason="it is a tensor").tensor(np.array(x, order="C")),
    "series": lambda x: pytest.importorskip("pandas", reason="it is a series").Series(x.ravel()),
    "subclass with ufuncs": lambda x: x.copy().view(Doubling),
}
# Dtypes that functions refuse, but those that only move values.
DTYPES: dict[str, Callable[[Array], Any]] = {
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "half": lambda x: x.astype(np.float16),
    "complex": lambda x: x.astype(complex),
    "object": lambda x: x.astype(object),
    "bool": lambda x: x != 0,
    "structured": structured,
}
if np.dtype(np.longdouble) != np.float64:  # as it is on Windows and on ARM Macs
    DTYPES["longdouble"] = lambda x: x.astype(np.longdouble)
MOVERS = ("flatten", "unflatten", "nhwc_to_nchw", "nchw_to_nhwc", "hwio_to_oihw", "oihw_to_hwio")
functions = pytest.mark.parametrize("name", sorted(CALLS))
# What a user's layer computes is its own.
OURS = {name: case for name, case in CASES.items() if "user" not in name}
cases = pytest.mark.parametrize("case", OURS.values(), ids=list(OURS))


def same(actual: Any, expected: Any, what: str) -> None:
    ours, theirs = arrays_of(actual), arrays_of(expected)
    assert len(ours) == len(theirs), what
    for a, b in zip(ours, theirs, strict=True):
        assert_close(np.asarray(a), np.asarray(b), what)


def test_every_function_is_called() -> None:
    assert set(CALLS) == public_functions()


@functions
def test_functions_take_every_layout_and_plain_subclasses(name: str) -> None:
    call = CALLS[name]
    for place in call.where_arrays_are():
        for kind, convert in TAKEN.items():
            made = convert(call.args[place])
            if (
                kind == "read-only"
                and parameter(name, place).startswith("running")
                and "backward" not in name
            ):
                continue  # written to
            expected = run(name, call.given(place, np.array(np.asarray(made))))
            same(run(name, call.given(place, made)), expected, f"{parameter(name, place)}: {kind}")


@functions
def test_functions_refuse_what_is_no_array_by_name(name: str) -> None:
    call = CALLS[name]
    for place in call.where_arrays_are():
        for kind, convert in REFUSED.items():
            argument = parameter(name, place)
            if kind == "None" and argument in OPTIONAL:
                continue
            wrong = call.given(place, convert(call.args[place]))
            with pytest.raises(TypeError, match=f"`{argument}`"):
                run(name, wrong)


@functions
def test_a_matrix_is_refused_by_name(name: str) -> None:
    call = CALLS[name]
    for place in call.where_arrays_are():
        argument = parameter(name, place)
        if call.args[place].ndim > 2:
            continue
        with pytest.raises(TypeError, match=rf"`{argument}` .* got numpy.matrix: use np.asarray\(x\)"):
            run(name, call.given(place, np.matrix(call.args[place])))


@functions
def test_functions_refuse_other_dtypes_by_name_or_only_move_the_values(name: str) -> None:
    call = CALLS[name]
    expected = run(name, call)
    for place in call.where_arrays_are():
        argument = parameter(name, place)
        for kind, convert in DTYPES.items():
            changed = call.given(place, convert(call.args[place]))
            if name.removesuffix("_backward") in MOVERS:
                moved = run(name, changed)
                if kind not in ("structured", "bool", "half", "complex"):
                    for a, b in zip(arrays_of(moved), arrays_of(expected), strict=True):
                        assert_close(a.astype(b.dtype), b, f"{argument}: {kind}")
            elif kind == "big-endian" and argument != "indices" and call.args[place].dtype.kind in "iu":
                same(run(name, changed), expected, f"{argument}: {kind}")
            else:
                with pytest.raises(TypeError, match=f"`{argument}`"):
                    run(name, changed)


def passes(case: Case, convert: Callable[[Array], Any], place: str) -> list[Any]:
    """All passes of a layer, with what is given in `place` converted."""
    rng = np.random.default_rng(3)

    def given(name: str, shape: tuple[int, ...]) -> Any:
        x = rng.standard_normal(shape)
        return convert(x) if name == place else x

    layer = case.make()
    y = layer.forward(given("x", case.shape))
    if isinstance(layer, (GradientLayer, GradientStep)):
        results = [y, layer.backward(given("grad_output", y.shape)), *layer.grads.values()]
    else:
        y_dot = layer.jvp(given("x_dot", case.shape))
        dx = layer.backward(given("grad_output", y.shape))
        dx_dot = layer.backward_jvp(given("grad_output_dot", y.shape))
        results = [y, y_dot, dx, dx_dot, *layer.grads.values(), *layer.grads_dot.values()]
    return [np.asarray(result) for result in results]


def reached(case: Case, place: str) -> bool:
    """Whether the layer has the pass that takes `place`."""
    return not place.endswith("_dot") or not isinstance(case.make(), (GradientLayer, GradientStep))


@cases
@pytest.mark.parametrize("place", ["x", "x_dot", "grad_output", "grad_output_dot"])
def test_layers_take_every_layout_and_plain_subclasses(case: Case, place: str) -> None:
    for kind, convert in TAKEN.items():
        expected = passes(case, lambda x, convert=convert: np.array(np.asarray(convert(x))), place)  # type: ignore[misc]
        for ours, plain in zip(passes(case, convert, place), expected, strict=True):
            assert_close(ours, plain, kind)


@cases
@pytest.mark.parametrize("place", ["x", "x_dot", "grad_output", "grad_output_dot"])
def test_layers_refuse_what_is_no_array(case: Case, place: str) -> None:
    if not reached(case, place):
        return
    for kind, convert in {**REFUSED, "matrix": lambda x: np.matrix(x.reshape(len(x), -1)), **DTYPES}.items():
        if place == "x" and isinstance(case.make(), (Flatten, Unflatten)) and kind in DTYPES:
            continue  # they take every dtype
        with pytest.raises((TypeError, ValueError) if kind == "matrix" else TypeError) as caught:
            passes(case, convert, place)
        assert "numpy" in str(caught.value) or "dtype" in str(caught.value), kind


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_statistics_that_cannot_be_updated_are_refused_by_name(name: str) -> None:
    statistics: dict[str, Any] = {"running_mean": np.zeros(3), "running_var": np.ones(3)}
    statistics[name] = read_only(statistics[name])
    before = {key: value.copy() for key, value in statistics.items()}
    x = np.random.default_rng(0).standard_normal((4, 3))
    with pytest.raises(ValueError, match=rf"`{name}` .* updated in place.*: use {name}.copy\(\)"):
        F.batch_norm(x, **statistics, training=True)
    for key, value in statistics.items():
        np.testing.assert_array_equal(value, before[key])
    assert F.batch_norm(x, **statistics).shape == x.shape


def test_what_was_saved_for_another_shape_is_refused_and_not_broadcast() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    output, winners = F.max_pool2d_saved(x, 2)
    for size in ((2, 3, 6, 6), (3, 4, 6)):
        with pytest.raises(ValueError, match="`winners`"):
            F.max_pool2d_saved_backward(output, winners, size, 2)
    with pytest.raises(ValueError, match="`winners`"):
        F.max_pool2d_saved_jvp(x[..., :4], winners, 2)
    for mask in (F.dropout_saved(x[:1])[1], F.dropout_saved(x[0])[1], F.dropout2d_saved(x[:, :1])[1]):
        with pytest.raises(ValueError, match="`mask`"):
            F.dropout_saved_backward(x, mask)


@functions
def test_arrays_of_another_shape_are_refused_and_not_broadcast(name: str) -> None:
    call = CALLS[name]
    for place in call.where_arrays_are():
        argument, array = parameter(name, place), call.args[place]
        if argument == "input" or len(call.args) == 1:
            continue  # what the others have to fit
        if argument == "weight" and name.startswith(("binary_cross_entropy", "prelu")):
            continue  # documented to broadcast
        wrongs = [array[None], array[..., None], *([array[:1], array[0]] if array.ndim else [])]
        if (
            name.startswith(("margin_ranking", "cosine_embedding", "triplet_margin"))
            and argument != "grad_output"
        ):
            del wrongs[2]  # these are documented to broadcast, with the same number of dimensions
        for wrong in wrongs:
            with pytest.raises(ValueError, match="`"):
                run(name, call.given(place, wrong))


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(TypeError) as caught:
        call()
    return str(caught.value)


def test_a_model_and_data_of_two_dtypes_are_told_how_to_agree() -> None:
    images = np.random.default_rng(0).standard_normal((2, 1, 5, 5))
    network = Sequential(ReLU(), Conv2d(1, 2, 3), Flatten(), Linear(18, 3))
    assert message(lambda: network(images)) == (
        "layer '1' (Conv2d): `input` (of dtype float64) must have the dtype of `weight` (float32): "
        "use x.astype(np.float32), or model.to(np.float64) for a model's weight"
    )
    network(images.astype(np.float32))
    assert network.to(np.float64)(images).dtype == np.float64  # both cures work
    assert message(lambda: network(images.astype(np.float32))) == (
        "layer '1' (Conv2d): `input` (of dtype float32) must have the dtype of `weight` (float64): "
        "use x.astype(np.float64), or model.to(np.float32) for a model's weight"
    )


@pytest.mark.parametrize(
    "layer",
    [Linear(4, 4), BatchNorm1d(4), BatchNorm1d(4, affine=False), LayerNorm(4), GroupNorm(2, 4)],
    ids=repr,
)
def test_every_layer_with_parameters_names_the_data_and_both_cures(layer: Any) -> None:
    found = message(lambda: layer(np.ones((3, 4))))
    assert found.startswith("`input` (of dtype float64) must have the dtype of `")
    assert ": use x.astype(np.float32), or model.to(np.float64) for a model's " in found


def test_a_loss_of_two_dtypes_names_the_target_and_the_cure() -> None:
    prediction, target = np.ones((2, 3), np.float32), np.ones((2, 3))
    for loss in (MSELoss(), BCEWithLogitsLoss(), CrossEntropyLoss()):
        assert message(lambda loss=loss: loss(prediction, target)) == (  # type: ignore[misc]
            "`target` (of dtype float64) must have the dtype of `input` (float32): "
            "use target.astype(np.float32)"
        )
    weighted = CrossEntropyLoss(weight=np.ones(3))
    assert message(lambda: weighted(prediction, np.array([0, 1]))) == (
        "`weight` (of dtype float64) must have the dtype of `input` (float32): use weight.astype(np.float32)"
    )


@pytest.mark.parametrize(
    ("dtype", "cure"),
    [
        (np.uint8, "got uint8: use x.astype(np.float32) (and scale it: see data.normalize)"),
        (np.int64, "got int64: use x.astype(np.float32)"),
        (np.float16, "got float16: use x.astype(np.float32)"),
        (">f4", 'got >f4: use x.astype(x.dtype.newbyteorder("="))'),
        (np.complex64, "got complex64"),
        ([("value", "f4")], "got a structured dtype"),
    ],
    ids=str,
)
def test_images_of_other_dtypes_are_told_how_to_become_floating(dtype: Any, cure: str) -> None:
    images = np.zeros((2, 1, 5, 5), dtype)
    expected = f"`input` must be of dtype float32 or float64, {cure}"
    assert message(lambda: Conv2d(1, 2, 3)(images)) == expected
    assert message(lambda: F.relu(images)) == expected


def test_lists_and_what_other_libraries_hold_are_told_how_to_become_arrays() -> None:
    wanted = "must be a numpy.ndarray or cupy.ndarray, got"
    listed = f"{wanted} list: use np.asarray(x, np.float32)"
    x = np.ones((2, 2), np.float32)
    assert message(lambda: Linear(2, 1)([[1.0, 2.0]])) == f"`input` {listed}"
    assert message(lambda: Sequential(Linear(2, 1))([[1.0, 2.0]])) == f"layer '0' (Linear): `input` {listed}"
    assert message(lambda: F.relu([1.0])) == f"`input` {listed}"  # type: ignore[arg-type]
    assert message(lambda: F.conv2d(x[None], [[1.0]])) == f"`weight` {listed}"  # type: ignore[arg-type]
    targets = f"`target` {wanted} list: use np.asarray(x)"  # which class indices would not survive as float32
    assert message(lambda: MSELoss()(x, [[1.0, 2.0]])) == targets  # type: ignore[arg-type]
    assert message(lambda: CrossEntropyLoss()(x, [0, 1])) == targets  # type: ignore[arg-type]
    assert message(lambda: F.relu(None)) == f"`input` {wanted} None"  # type: ignore[arg-type]
    assert message(lambda: F.relu(np.ma.masked_array(x))) == (
        f"`input` {wanted} numpy.ma.MaskedArray: fill it first, x.filled(0)"
    )
    model = Linear(2, 1)
    trainer = Trainer(model, MSELoss(), optim.SGD(model))
    assert message(lambda: trainer.fit(([[1.0, 2.0]], x))) == f"`data`: `inputs` {listed}"  # type: ignore[arg-type]


def test_tensors_and_frames_are_named() -> None:
    torch = pytest.importorskip("torch", reason="the tensor")
    pandas = pytest.importorskip("pandas", reason="the frame")
    assert message(lambda: F.relu(torch.ones(2))).endswith("got torch.Tensor: use x.detach().cpu().numpy()")
    assert "DataFrame: use x.to_numpy()" in message(lambda: F.relu(pandas.DataFrame({"a": [1.0]})))


@pytest.mark.parametrize("value", [-1.5, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_numpy_scalars_and_0d_arrays_work(value: float, dtype: Any) -> None:
    scalar, array, vector = dtype(value), np.array(value, dtype), np.array([value], dtype)
    for name in ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh", "silu", "softplus"):
        for x in (scalar, array):
            output = getattr(F, name)(x)
            assert (output.shape, output.dtype) == ((), dtype), name
            assert output == getattr(F, name)(vector)[0], name
            grad = getattr(F, f"{name}_backward")(x, x)
            assert grad == getattr(F, f"{name}_backward")(vector, vector)[0], name
    losses = "mse_loss l1_loss smooth_l1_loss huber_loss kl_div hinge_embedding_loss"
    for name in (*losses.split(), "binary_cross_entropy_with_logits"):
        for x in (scalar, array):
            assert getattr(F, name)(x, dtype(0.5)) == getattr(F, name)(vector, np.array([0.5], dtype))


INTEGERS = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("ignore_index", [-100, 156, 2])
def test_class_labels_of_every_integer_dtype_work(dtype: Any, ignore_index: int) -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 200)), np.array([3, 0, 2, 100, 2, 4])
    for loss, backward in ((F.cross_entropy, F.cross_entropy_backward), (F.nll_loss, F.nll_loss_backward)):
        for reduction in ("mean", "none"):
            options: Any = {"ignore_index": ignore_index, "reduction": reduction}
            expected = loss(logits, labels, **options)
            assert_close(loss(logits, labels.astype(dtype), **options), expected)
            grad = np.ones_like(expected)
            expected_grad = backward(grad, logits, labels, **options)[0]
            assert_close(backward(grad, logits, labels.astype(dtype), **options)[0], expected_grad)


def test_labels_do_not_wrap_around_to_the_ignored_one() -> None:
    logits = np.random.default_rng(0).standard_normal((2, 200))
    labels = np.array([156, 1], np.uint8)  # 156 is -100 as int8
    assert_close(F.cross_entropy(logits, labels), F.cross_entropy(logits, labels.astype(np.int64)))
    with pytest.raises(ValueError, match="-100, which must be between 0 and 199"):
        F.cross_entropy(logits, np.array([-100, 1], np.int8), ignore_index=156)
    with pytest.raises(ValueError, match="between 0 and 199"):
        F.nll_loss(logits, np.array([(1 << 64) - 100, 1], np.uint64))


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), NLLLoss()], ids=repr)
def test_labels_that_are_bool_or_negative_are_refused_by_name(loss: Any) -> None:
    with pytest.raises(TypeError, match=r"`target` must be of an integer .*dtype, got bool"):
        loss(np.zeros((2, 2)), np.array([True, False]))
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        with pytest.raises(ValueError, match="`target` has the class index -1"):
            loss(np.zeros((2, 2)), np.array([-1, 0], dtype))


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda dtype: dtype.__name__)
def test_training_and_its_accuracy_are_the_same_for_labels_of_every_integer_dtype(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((12, 3)).astype(np.float32), rng.integers(0, 4, 12)

    def figures(targets: Array) -> tuple[Any, ...]:
        model = Linear(3, 4, generator=0)
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model, lr=0.1), progress=False)
        trainer.fit((x, targets), epochs=2, batch_size=5, generator=0)
        return (*trainer.history.step_losses, *trainer.evaluate((x, targets)))

    assert figures(labels.astype(dtype)) == figures(labels)
    sums = sums_of(CrossEntropyLoss(), np.zeros(()), np.eye(4)[labels], labels.astype(dtype))
    assert evaluation(CrossEntropyLoss(), sums, "").accuracy == 1

"""Under `numpy.errstate(all="raise")` everything runs and gives what it gives without."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.every_function import arrays_of, every_call, run
from tests.test_layer_contract import Case
from tests.test_what_is_let_in import OURS
from tests.trainers import callbacks
from tinyconv import (
    BatchNorm2d,
    BCELoss,
    BCEWithLogitsLoss,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    GradientLayer,
    GradientStep,
    HingeEmbeddingLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    Linear,
    MaxPool2d,
    MSELoss,
    NLLLoss,
    ReLU,
    Sequential,
    SmoothL1Loss,
    Trainer,
    optim,
)
from tinyconv.arrays import Array, underflow_allowed
from tinyconv.training import WeightAverage, clip_grad_norm_, clip_grad_value_

# Scales of which the products underflow, and then many values themselves.
TINY = {np.float32: (1e-25, 1e-38), np.float64: (1e-180, 2e-308)}
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def assert_no_errors(compute: Callable[[], Any], what: str = "") -> None:
    """Demand the same arrays whether floating-point errors are ignored or raised."""
    with np.errstate(all="ignore"):
        expected = compute()
    with np.errstate(all="raise"):
        found = compute()
    for ours, theirs in zip(arrays_of(found), arrays_of(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs, what)


def test_underflow_is_what_the_tests_below_would_find() -> None:
    for dtype, tiny in TINY.items():
        for value in tiny:
            with pytest.raises(FloatingPointError, match="underflow"), np.errstate(all="raise"):
                np.array([value], dtype) * np.array([value], dtype)


@dtypes
def test_functions_of_usual_tiny_and_large_values(dtype: Any) -> None:
    tiny = [(scale, 0.0) for scale in TINY[dtype]]
    for scale, shift in [(1.0, 0.0), *tiny, (1e3, 0.0), (1.0, 1e3), (1.0, -1e3)]:
        with np.errstate(all="ignore"):
            calls = every_call(dtype, scale, shift)
        for name, call in calls.items():
            assert_no_errors(partial(run, name, call), f"{name} of values {scale} * normal + {shift}")


ACTIVATIONS: dict[str, dict[str, Any]] = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 2.0},
    "gelu": {},
    "gelu, tanh": {"approximate": "tanh"},
    "sigmoid": {},
    "tanh": {},
    "silu": {},
    "softplus": {"beta": 3.0},
    "softmax": {"dim": 1},
    "log_softmax": {"dim": 1},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@dtypes
def test_activations_of_infinite_nan_and_saturated_values(name: str, dtype: Any) -> None:
    largest, options = float(np.finfo(dtype).max), ACTIVATIONS[name]
    name = name.removesuffix(", tanh")
    smallest = float(np.finfo(dtype).tiny) / 8
    for value in (np.inf, np.nan, largest, largest**0.5, 1000.0, 90.0, 15.0, 0.0, smallest):
        for x in (np.array([[value, 0.5]], dtype), np.array([[-value, 0.5]], dtype)):
            ones = np.ones_like(x)
            for function, args in (
                (name, (x,)),
                (f"{name}_backward", (ones, x)),
                (f"{name}_backward_jvp", (ones, ones, ones, x)),
            ):
                assert_no_errors(partial(getattr(F, function), *args, **options), f"{function} of {x}")


def test_saturated_values_are_the_limits() -> None:
    x = np.array([-1000.0, 1000.0], np.float32)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(F.sigmoid(x), [0, 1])
        np.testing.assert_array_equal(F.softplus(x), [0, 1000])
        np.testing.assert_array_equal(F.gelu(x), [0, 1000])
        np.testing.assert_array_equal(F.elu(x), [-1, 1000])
        np.testing.assert_array_equal(F.softmax(x, 0), [0, 1])
        assert F.cross_entropy(x[None], np.array([0])) == 2000
        grad, _ = F.cross_entropy_backward(np.float32(1), x[None], np.array([0]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(grad, [[-1, 1]])


def passes(case: Case, dtype: Any, scale: float) -> tuple[Array, ...]:
    """The results of all passes of a layer, of values multiplied by `scale`."""
    rng, layer = np.random.default_rng(4), case.make().to(dtype)

    @underflow_allowed
    def drawn(shape: tuple[int, ...]) -> Array:
        return np.asarray(rng.standard_normal(shape) * scale, dtype)

    y = layer.forward(drawn(case.shape))
    second_order = not isinstance(layer, (GradientLayer, GradientStep))
    results = [y, layer.jvp(drawn(case.shape))] if second_order else [y]
    results.append(layer.backward(drawn(y.shape)))
    if second_order:
        results.append(layer.backward_jvp(drawn(y.shape)))
    results.append(layer.predict(drawn(case.shape)))
    arrays = layer.grads, layer.grads_dot, layer.buffers
    return (*results, *(array for kind in arrays for array in kind.values()))


@pytest.mark.parametrize("case", OURS.values(), ids=list(OURS))
@dtypes
def test_layers_of_usual_tiny_and_large_values(case: Case, dtype: Any) -> None:
    for scale in (1.0, *TINY[dtype], 1e3):
        assert_no_errors(partial(passes, case, dtype, scale), f"values of {scale}")


LOSSES: dict[str, Callable[[], Any]] = {
    "MSELoss": MSELoss,
    "L1Loss": L1Loss,
    "SmoothL1Loss": SmoothL1Loss,
    "HuberLoss": HuberLoss,
    "KLDivLoss": KLDivLoss,
    "HingeEmbeddingLoss": HingeEmbeddingLoss,
    "BCELoss": BCELoss,
    "BCEWithLogitsLoss": BCEWithLogitsLoss,
    "CrossEntropyLoss": CrossEntropyLoss,
    "CrossEntropyLoss, smoothed": lambda: CrossEntropyLoss(label_smoothing=0.1),
    "NLLLoss": NLLLoss,
}


@pytest.mark.parametrize("name", LOSSES)
@dtypes
def test_losses_of_usual_tiny_and_large_values(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    labels, shares = rng.integers(0, 5, 4), rng.random((4, 5)).astype(dtype)
    target = labels if name.startswith(("CrossEntropy", "NLL")) else shares
    for scale in (1.0, *TINY[dtype], 1e3):
        largest = 1.0 if name == "BCELoss" else scale
        prediction = (rng.random((4, 5)) * min(scale, largest)).astype(dtype)

        def every_pass(prediction: Array = prediction, scale: float = scale) -> tuple[Array, ...]:
            loss = LOSSES[name]()
            forward, dot = loss(prediction, target), loss.jvp(np.ones_like(prediction))
            return forward, dot, loss.backward(np.asarray(scale, dtype)), loss.backward_jvp()

        assert_no_errors(every_pass, f"values of {scale}")


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda model: optim.SGD(model, 0.1),
    "SGD, momentum": lambda model: optim.SGD(model, 0.1, 0.9, weight_decay=1e-4, nesterov=True),
    "Adam": lambda model: optim.Adam(model, weight_decay=1e-4),
    "AdamW": optim.AdamW,
    "AdamW, amsgrad": partial(optim.AdamW, amsgrad=True),
    "NAdam": optim.NAdam,
    "RMSprop": partial(optim.RMSprop, momentum=0.9, weight_decay=1e-4),
    "RMSprop, centered": partial(optim.RMSprop, centered=True),
    "Adagrad": optim.Adagrad,
    "Adadelta": optim.Adadelta,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@dtypes
def test_optimisers_clipping_and_averages_of_tiny_gradients(name: str, dtype: Any) -> None:
    def trained() -> tuple[Array, ...]:
        model = Linear(3, 2, dtype=dtype, generator=0)
        optimizer, average = OPTIMIZERS[name](model), WeightAverage(model, 0.5)
        for scale in (1.0, *TINY[dtype], 0.0):
            with np.errstate(under="ignore"):
                for key, grad in model.grads.items():
                    grad[...] = np.random.default_rng(1).standard_normal(grad.shape) * scale
                    model.params[key][...] *= scale or 1
            clip_grad_norm_(model, 1.0)
            clip_grad_norm_(model, 1e-3, norm_type=3.0)
            clip_grad_value_(model, 0.1)
            optimizer.step()
            average.update()
        return (*model.params.values(), *average.module.params.values())

    assert_no_errors(trained)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e3])
def test_training_gives_the_same(scale: float) -> None:
    rng = np.random.default_rng(0)
    images = (rng.standard_normal((24, 1, 8, 8)) * scale).astype(np.float32)
    labels = rng.integers(0, 3, 24)

    def figures() -> tuple[Any, ...]:
        features = Conv2d(1, 4, 3, generator=0), BatchNorm2d(4), ReLU(), MaxPool2d(2), Flatten()
        model = Sequential(*features, Dropout(0.2, generator=1), Linear(36, 3, generator=2))
        optimizer = optim.Adam(model, lr=0.1)
        trainer = Trainer(
            model,
            CrossEntropyLoss(),
            optimizer,
            optim.OneCycleLR(optimizer, 0.1, total_steps=12),
            callbacks=callbacks(model, norm=1.0, value=0.1, average=0.9),
            accumulate=2,
            progress=False,
        )
        trainer.fit((images, labels), epochs=3, batch_size=4, validation=(images, labels), generator=0)
        evaluation = trainer.evaluate((images, labels))
        return np.array(trainer.history.step_losses), np.array(evaluation), *model.params.values()

    assert_no_errors(figures)

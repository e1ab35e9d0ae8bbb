"""What users write that would be lost, ignored or mixed up in silence: it works, or it is refused by name."""

import copy
import pickle
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import numpy as np
import pytest

import tinyconv as tc
from tests.trainers import callbacks
from tinyconv.arrays import Array
from tinyconv.layers.cache import Pass


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(rows: int = 3, columns: int = 3) -> tc.Linear:
    return tc.Linear(rows, columns, generator=0)


# Layers and parameters in places where nobody looks

CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "a list": lambda one: [one],
    "a list of lists": lambda one: [[one]],
    "a dict of dicts": lambda one: {"a": {"b": one}},
    "keys": lambda one: {one: 1},
    "pairs": lambda one: [(one, "relu")],
    "a set": lambda one: {one},
    "a frozenset": lambda one: frozenset([one]),
    "a deque": lambda one: deque([one]),
    "an ordered dict": lambda one: OrderedDict(a=one),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_layers_in_containers_of_every_kind_are_refused(kind: str) -> None:
    layer = tc.Layer()
    layer.first = linear()
    with pytest.raises(TypeError, match=r"`others` .* has layers, which would not be trained or saved"):
        layer.others = CONTAINERS[kind](linear())
    layer.others = CONTAINERS[kind](layer.first)


def test_a_container_that_contains_itself_is_walked_through_once() -> None:
    layer, circle = tc.Layer(), list[Any]()
    circle += [circle] * 40
    layer.circle = circle
    circle.append(linear())
    with pytest.raises(TypeError, match="`circle`"):
        layer.circle = circle


@pytest.mark.parametrize("kind", ["a list", "a list of lists", "a dict of dicts", "pairs"])
def test_parameters_in_containers_are_refused(kind: str) -> None:
    with pytest.raises(
        TypeError, match=r"`weights` .* has a Parameter or Buffer, which would not be trained"
    ):
        tc.Layer().weights = CONTAINERS[kind](tc.Parameter(np.ones(3)))


def test_layers_and_parameters_of_a_class_are_refused() -> None:
    for value in (linear(), tc.Parameter(np.ones(2))):
        with pytest.raises(TypeError, match=r"`shared` of the class Net .* assign self\.shared in __init__"):
            type("Net", (tc.Layer,), {"shared": value})


def test_one_array_under_two_names_is_refused() -> None:
    first = linear()
    tied = tc.Sequential(first, copy.copy(first))
    with pytest.raises(ValueError, match=r"one array has two names, '0\.weight' and '1\.weight'"):
        tc.optim.SGD(tied)


def test_an_alias_of_a_parameter_is_refused() -> None:
    class Alias(tc.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = linear()
            self.tied = self.encoder.weight

    with pytest.raises(ValueError, match=r"`tied` of Alias is the array 'encoder\.weight'"):
        tc.optim.SGD(Alias())


def test_a_layer_appended_after_the_optimiser_was_made_is_refused_by_fit() -> None:
    class Net(tc.Sequential):
        pass

    net = Net(linear(3, 2))
    net.more = []
    trainer = tc.Trainer(net, tc.MSELoss(), tc.optim.SGD(net), progress=False)
    net.more.append(linear())
    with pytest.raises(TypeError, match=r"`more` .* has layers"):
        trainer.fit((normal(4, 3), normal(4, 2)))


@pytest.mark.parametrize(
    "write",
    [
        lambda layer, value: layer.load_state_dict({**layer.state_dict(), "bias": value}),
        lambda layer, value: setattr(layer, "bias", value),
        lambda layer, value: layer.params.update({"bias": value}),
        lambda layer, value: layer.grads.__setitem__("bias", value),
    ],
)
def test_masked_values_are_refused_where_values_are_copied(write: Any) -> None:
    layer, masked = linear(), np.ma.masked_array(np.ones(3, np.float32), [True, False, False])
    before = layer.state_dict()
    with pytest.raises(TypeError, match=r"bias.* got numpy.ma.MaskedArray: fill it first"):
        write(layer, masked)
    np.testing.assert_array_equal(layer.bias, before["bias"])


def test_averages_of_a_model_that_has_changed_are_refused() -> None:
    model = tc.Sequential(linear(3, 2))
    average = tc.training.WeightAverage(model, 0.5)
    average.update()
    model[0] = linear(3, 1)
    with pytest.raises(RuntimeError, match="has changed since its WeightAverage"):
        average.update()
    model = tc.Sequential(linear(3, 2))
    averaged = callbacks(model, average=0.9)
    trainer = tc.Trainer(model, tc.MSELoss(), tc.optim.SGD(model), callbacks=averaged, progress=False)
    trainer.fit((normal(4, 3), normal(4, 2)))
    model.append(tc.ReLU())
    with pytest.raises(RuntimeError, match="make another one"):
        trainer.evaluate((normal(4, 3), normal(4, 2)))


def test_groups_are_given_when_the_optimiser_is_made() -> None:
    with pytest.raises(AttributeError, match="append"):
        tc.optim.SGD(linear()).groups.append({"params": ["weight"], "lr": 1.0})  # type: ignore[attr-defined]


# One thing does not disturb another


def test_an_evaluation_between_forward_and_backward_leaves_the_gradient_as_it_is() -> None:
    model, criterion = tc.Sequential(linear(3, 2)), tc.MSELoss()
    trainer = tc.Trainer(model, criterion, tc.optim.SGD(model), progress=False)
    x, y = normal(4, 3), normal(4, 2, seed=1)
    criterion(model(x), y)
    expected = criterion.backward()
    criterion(model(x), y)
    trainer.evaluate((3 * x, 1 - y))
    np.testing.assert_array_equal(criterion.backward(), expected)


def test_evaluations_in_a_thread_leave_a_training_as_it_is() -> None:
    def trained(watch: bool) -> dict[str, Array]:
        model = tc.Sequential(linear(3, 8), tc.Tanh(), tc.Linear(8, 2, generator=1))
        trainer = tc.Trainer(model, tc.MSELoss(), tc.optim.SGD(model, lr=0.1), progress=False)
        data, done = (normal(320, 3), normal(320, 2, seed=1)), threading.Event()

        def evaluate() -> None:
            while not done.is_set():
                trainer.evaluate(data, batch_size=32)

        thread = threading.Thread(target=evaluate)
        if watch:
            thread.start()
        try:
            trainer.fit(data, epochs=10, batch_size=32, generator=0)
        finally:
            done.set()
        if watch:
            thread.join()
        return model.state_dict()

    alone, watched = trained(False), trained(True)
    for name, value in alone.items():
        np.testing.assert_array_equal(watched[name], value)


def test_a_forward_with_threads_predicts_in_copies_of_its_context() -> None:
    class Parallel(tc.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = tc.BatchNorm1d(3), tc.Dropout(0.5)

        def forward(self, x: Array) -> Array:
            with ThreadPoolExecutor(2) as pool:
                runs = [pool.submit(copy_context().run, one, x) for one in (self.norm, self.drop)]
                first, second = (run.result() for run in runs)
            result: Array = first + second
            return result

    layer, x = Parallel(), normal(40, 3)
    np.testing.assert_array_equal(layer.predict(x), layer.predict(x))
    assert not layer.buffers["norm.running_mean"].any()


def test_backward_params_within_a_pass_leaves_what_a_training_keeps() -> None:
    net, x = tc.Sequential(linear(), tc.Tanh()), normal(4, 3)
    y = net(x)
    expected = tc.Sequential(*net)
    with Pass(keeps=True):
        net.backward_params(net(2 * x))
    assert net.backward(y).shape == expected(x).shape


# What is a user's own


def test_integer_targets_that_are_no_classes_have_no_accuracy() -> None:
    class Poisson(tc.Loss):
        def forward(self, prediction: Array, target: Array) -> Array:
            loss = np.asarray((np.exp(prediction) - target * prediction).mean())
            return self.save(loss, prediction, target)

        def backward(self, grad_output: Array | None = None) -> Array:
            prediction, target = self.saved(self.full(1))
            result: Array = ((np.exp(prediction) - target) / prediction.size).astype(np.float32)
            return result

    model = linear(3, 1)
    trainer = tc.Trainer(model, Poisson(), tc.optim.SGD(model, lr=0.01), progress=False)
    counts = np.random.default_rng(0).poisson(2, (40, 1))
    history = trainer.fit((normal(40, 3), counts), epochs=3, validation=(normal(40, 3), counts))
    assert [epoch.validation_accuracy for epoch in history.epochs] == [None] * 3
    assert [epoch.train_accuracy for epoch in history.epochs] == [None] * 3


def test_a_loss_that_does_not_look_at_grad_output_accumulates_as_any_other() -> None:
    class Half(tc.MSELoss):
        def backward(self, grad_output: Array | None = None) -> Array:
            return super().backward(None)

    def weights(accumulate: int, criterion: tc.Loss) -> Array:
        model = linear(3, 2)
        optimizer = tc.optim.SGD(model, lr=0.1)
        trainer = tc.Trainer(model, criterion, optimizer, accumulate=accumulate, progress=False)
        data = tc.data.DataLoader((normal(12, 3), normal(12, 2, seed=1)), 12 // accumulate)
        trainer.fit(data, epochs=3)
        return model.state_dict()["weight"]

    np.testing.assert_allclose(weights(3, Half()), weights(1, tc.MSELoss()), rtol=1e-5)


def test_a_frozen_batch_norm_stays_in_evaluation_mode() -> None:
    class Frozen(tc.BatchNorm1d):
        def train(self, mode: bool = True) -> "Frozen":
            return super().train(False)

    model = tc.Sequential(linear(), tc.Sequential(Frozen(3)))
    assert not model.train()[1][0].training  # type: ignore[index]
    trainer = tc.Trainer(model, tc.MSELoss(), tc.optim.SGD(model), progress=False)
    trainer.fit((normal(8, 3), normal(8, 3)))
    assert not model.buffers["1.0.running_mean"].any()


def test_a_forward_replaced_on_one_layer_is_used_by_predict_and_fit() -> None:
    model, calls = tc.Sequential(linear(), tc.ReLU()), []
    forward = model[0].forward

    def hooked(x: Array) -> Array:
        calls.append(len(x))
        return forward(x) * 0

    model[0].forward = hooked  # type: ignore[method-assign]
    assert not model(normal(2, 3)).any()
    assert not model.predict(normal(2, 3)).any()
    assert calls == [2, 2]


def test_errors_keep_their_class_and_attributes_on_their_way_through_containers() -> None:
    class OwnError(ValueError):
        code = 0

    class Raises(tc.ReLU):
        def forward(self, x: Array) -> Array:
            error = OwnError("own")
            error.code = 7
            raise error

    with pytest.raises(OwnError, match=r"layer '1' \(Residual\): layer 'body' \(Raises\): own") as caught:
        tc.Sequential(tc.ReLU(), tc.Residual(Raises()))(normal(1, 2))
    assert caught.value.code == 7

    class NoTangent(tc.ReLU):
        def jvp(self, x_dot: Array, params_dot: Any = None) -> Array:
            raise NotImplementedError("no jvp")

    x = normal(2, 3)
    with pytest.raises(NotImplementedError, match=r"layer '0' .*: no jvp"):
        tc.hessian_vector_product(tc.Sequential(NoTangent()), tc.MSELoss(), x, x, x_dot=x)


def test_a_repr_of_arguments_that_cannot_be_compared() -> None:
    class Scales(tc.ReLU):
        def __init__(self, scales: Any = (1.0,)) -> None:
            super().__init__()
            self.scales = scales

    assert repr(Scales((np.ones(2),))) == "Scales(scales=(<2 values>,))"


def test_the_dict_of_parameters_can_be_copied_and_pickled() -> None:
    layer = linear()
    for copied in (copy.deepcopy(layer.params), pickle.loads(pickle.dumps(layer.params))):
        assert type(copied) is dict
        np.testing.assert_array_equal(copied["weight"], layer.weight)
        assert copied["weight"] is not layer.weight


# Arguments


def test_no_dtype_is_refused_and_not_float64() -> None:
    nothing: Any = None
    for make in (partial(tc.Linear, 2, 2), partial(tc.BatchNorm1d, 2)):
        with pytest.raises(TypeError, match=r"`dtype` \(=None\) must be float32 or float64"):
            make(dtype=nothing)
    with pytest.raises(ValueError, match=r"`target` \(=None\)"):
        linear().to(nothing)


def test_underflow_is_no_error_where_gradients_are_accumulated() -> None:
    model = linear(3, 2)
    trainer = tc.Trainer(model, tc.MSELoss(), tc.optim.SGD(model), accumulate=2, progress=False)
    data = normal(8, 3) * np.float32(1e-38), normal(8, 2)
    with np.errstate(all="raise"):
        trainer.fit(data, batch_size=2)


def test_a_residual_without_a_body_is_refused() -> None:
    block = tc.Residual(linear(), tc.ReLU())
    del block.body
    with pytest.raises(ValueError, match="must have a `body`"):
        block(normal(2, 3))


def test_a_sequential_keeps_given_names_and_what_is_assigned_again() -> None:
    model = tc.Sequential({"10": linear(), "20": tc.ReLU()})
    assert list(model.children) == ["10", "20"]
    assert list(model[1:].children) == ["20"]
    optimizer = tc.optim.SGD(model)
    model[0] = model[0]
    optimizer.step()
    assert isinstance(model.pop(), tc.ReLU)
    assert list(model.children) == ["0"]


@pytest.mark.parametrize("name", ["shuffle", "drop_last"])
def test_flags_of_a_loader_are_true_or_false(name: str) -> None:
    options: dict[str, Any] = {name: "no"}
    with pytest.raises(TypeError, match=rf"`{name}` \(='no'\) must be True or False"):
        tc.data.DataLoader((normal(3, 1), normal(3)), **options)


@pytest.mark.parametrize("wrong", [None, "weights.safetensors"])
def test_a_state_that_is_no_mapping_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"`state_dict` .* must map names to arrays"):
        linear().load_state_dict(wrong)

"""Averaged weights, compared with torch.optim.swa_utils."""

from typing import Any

import numpy as np
import pytest

from tests import strict_arrays
from tests.compare import assert_close
from tinyconv import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, Sequential
from tinyconv.arrays import Array, moved
from tinyconv.training.average import WeightAverage


def network(seed: int = 0, dtype: Any = np.float64) -> Sequential:
    rng = np.random.default_rng(seed)
    return Sequential(
        Conv2d(1, 2, 3, dtype=dtype, generator=rng),
        BatchNorm2d(2, dtype=dtype),
        Dropout(0.5, generator=rng),
        Flatten(),
        Linear(8, 3, dtype=dtype, generator=rng),
    )


def change(model: Sequential, step: int) -> None:
    """As a step of training would."""
    rng = np.random.default_rng(step)
    for array in {**model.params, **model.buffers}.values():
        array[...] = step if array.dtype.kind == "i" else rng.standard_normal(array.shape)


def assert_equal(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999, 1.0])
def test_averages_are_pytorchs_but_for_integers_which_are_copied(decay: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    swa_utils = torch.optim.swa_utils
    model = network()
    theirs = torch.nn.Sequential(*[eval(f"torch.nn.{layer!r}", {"torch": torch}) for layer in model]).double()
    average = WeightAverage(model, decay)
    expected = swa_utils.AveragedModel(
        theirs, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    for step in range(1, 6):
        change(model, step)
        theirs.load_state_dict({name: torch.tensor(value) for name, value in model.state_dict().items()})
        average.update()
        expected.update_parameters(theirs)
    state, wanted = average.state_dict(), expected.state_dict()
    assert set(state) == set(wanted)
    assert state["module.1.num_batches_tracked"] == 5
    for name, value in wanted.items():
        if not name.endswith("num_batches_tracked"):
            assert_close(state[name], value.numpy(), name)


def test_the_first_update_copies() -> None:
    model = network()
    average = WeightAverage(model)
    change(model, 1)
    average.update()
    assert_equal(average.module.state_dict(), model.state_dict())


def test_an_average_is_made_of_a_model_between_forward_and_backward() -> None:
    model, x = network(), np.random.default_rng(0).standard_normal((4, 1, 4, 4))
    model.forward(x)
    average = WeightAverage(model)
    with pytest.raises(RuntimeError, match="needs a forward"):
        average.module.backward(np.ones((4, 3)))
    model.backward(np.ones((4, 3)))
    average.update()
    assert_equal(average.module.state_dict(), model.state_dict())


def test_a_layer_draws_from_one_stream_in_the_model_and_in_its_average() -> None:
    model = network()
    average = WeightAverage(model)
    dropout, averaged = model.children["2"], average.module.children["2"]
    assert averaged is not dropout
    assert vars(averaged)["generator"] is vars(dropout)["generator"]


def test_training_the_model_does_not_touch_its_average() -> None:
    model = network()
    average = WeightAverage(model)
    before = average.state_dict()
    model.backward(np.ones_like(model.forward(np.ones((2, 1, 4, 4)))))
    change(model, 1)
    assert_equal(average.state_dict(), before)


def test_an_average_goes_on_from_its_state() -> None:
    model = network()
    average = WeightAverage(model, decay=0.9)
    for step in (1, 2):
        change(model, step)
        average.update()
    resumed = WeightAverage(model, decay=0.9)
    resumed.load_state_dict(average.state_dict())
    for one in (average, resumed):
        for step in (3, 4):
            change(model, step)
            one.update()
    assert_equal(resumed.state_dict(), average.state_dict())


def test_a_wrong_state_is_refused_and_changes_nothing() -> None:
    average = WeightAverage(network())
    state = before = average.state_dict()
    for wrong in (
        {name: value for name, value in state.items() if name != "n_averaged"},
        {**state, "n_averaged": np.asarray(5), "module.9.weight": np.zeros(1)},
        {**state, "n_averaged": np.asarray(5), "module.4.bias": np.zeros(4)},
    ):
        with pytest.raises(ValueError, match="`state_dict"):
            average.load_state_dict(wrong)
        assert_equal(average.state_dict(), before)
    with pytest.raises(ValueError, match="`decay`"):
        WeightAverage(network(), 1.1)


def test_on_a_gpu_it_gives_the_same_and_reads_nothing() -> None:
    here = network()
    average = WeightAverage(here, 0.5)
    with strict_arrays.installed():
        there = network()
        other = WeightAverage(there, 0.5).to("cuda")
        for step in (1, 2, 3):
            change(here, step)
            average.update()
            there.to("cpu")
            change(there, step)
            there.to("cuda")
            before = strict_arrays.reads
            other.update()
            assert strict_arrays.reads == before
        host = {name: moved(value, np) for name, value in other.state_dict().items()}
    assert_equal(host, average.state_dict())

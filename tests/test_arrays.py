"""The ground floor: array modules, layouts, scratch buffers, argument checks."""

import threading
from typing import Any

import numpy as np
import pytest

from tinyconv import arguments
from tinyconv.arrays import (
    array_module,
    batch_first,
    batch_last,
    channel_rows,
    contiguous_batch_last,
    empty_batch_last,
    from_channel_rows,
    scratch,
    zero_where,
)


def test_array_module_of_numpy_arrays_and_scalars_is_numpy() -> None:
    assert array_module(np.zeros(1), None, np.float32(1)) is np


@pytest.mark.parametrize("value", [[1.0], 1.0, "text"])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        array_module(value)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 3, 4, 5)], ids=str)
def test_batch_last_and_batch_first_are_inverse_views(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert batch_last(x).shape == shape[1:] + shape[:1]
    np.testing.assert_array_equal(batch_first(batch_last(x)), x)
    assert np.shares_memory(batch_last(x), x)
    assert empty_batch_last(shape, np.float32).shape == shape


def test_contiguous_batch_last_copies_only_when_it_must() -> None:
    x = empty_batch_last((2, 3, 4), np.float32)
    assert np.shares_memory(contiguous_batch_last(x), x)
    c_order = np.zeros((2, 3, 4))
    assert not np.shares_memory(contiguous_batch_last(c_order), c_order)
    np.testing.assert_array_equal(from_channel_rows(channel_rows(c_order), c_order.shape), c_order)


def test_scratch_memory_is_reused_by_use_and_dtype_and_belongs_to_one_thread() -> None:
    first = scratch("test", (4, 5), np.float32)
    assert first.flags.c_contiguous
    assert np.shares_memory(first, scratch("test", (2, 3), np.float32))
    assert not np.shares_memory(first, scratch("other", (4, 5), np.float32))
    assert not np.shares_memory(first, scratch("test", (4, 5), np.float64))
    others: list[Any] = []
    thread = threading.Thread(target=lambda: others.append(scratch("test", (4, 5), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, others[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_where_selects_bit_by_bit(dtype: Any) -> None:
    values = np.array([[1.5, np.inf], [np.nan, -0.0]], dtype)
    for mask in (np.array([[True, True], [True, True]]), np.array([[False, True], [False, False]])):
        np.testing.assert_array_equal(zero_where(mask, values), np.where(mask, 0, values))
    out = np.ones((2, 4), dtype)
    zero_where(np.zeros((2, 2), bool), values, out=out[:, ::2])
    np.testing.assert_array_equal(out[:, ::2], values)
    assert zero_where(np.array(True), np.array(dtype(3))) == 0


def test_pairs_are_made_of_integers_and_sequences() -> None:
    assert arguments.pair("stride", 3) == (3, 3)
    assert arguments.pair("stride", [1, np.int64(2)]) == (1, 2)  # type: ignore[list-item]
    assert arguments.pair("stride", (4,)) == (4, 4)
    for wrong in (1.5, "2", (1, 2, 3), (), (1, "2"), True, None, (True, 1)):
        with pytest.raises((TypeError, ValueError), match="`stride`"):
            arguments.pair("stride", wrong)  # type: ignore[arg-type]


def test_numbers_are_within_bounds() -> None:
    assert arguments.number("p", np.float32(0.5), 0, 1) == 0.5
    for wrong in (-1, 2, float("nan"), "0.5", True, None, 1j, np.zeros(2)):
        with pytest.raises((TypeError, ValueError), match="`p`"):
            arguments.number("p", wrong, 0, 1)


def test_generators_come_from_generators_seeds_and_none() -> None:
    rng = np.random.default_rng(0)
    assert arguments.generator(rng) is rng
    assert arguments.generator(3).random() == np.random.default_rng(3).random()
    assert arguments.generator(None).random() != arguments.generator(None).random()

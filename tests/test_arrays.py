"""The ground floor: array modules, layouts, argument checks."""

from typing import Any

import numpy as np
import pytest

from tinyconv import arguments
from tinyconv.arrays import (
    array_module,
    as_logical,
    as_stored,
    empty_stored,
    formatted,
    kept_where,
    stored,
    zeros_stored,
)


def test_array_module_of_numpy_arrays_and_scalars_is_numpy() -> None:
    assert array_module(np.zeros(1), None, np.float32(1)) is np


@pytest.mark.parametrize("value", [[1.0], 1.0, "text"])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        array_module(value)


SHAPES = pytest.mark.parametrize("shape", [(), (2,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5)], ids=str)


@SHAPES
def test_as_stored_and_as_logical_are_inverse_views(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    assert as_stored(x).shape == (*shape[2:], *shape[:2][::-1])
    np.testing.assert_array_equal(as_logical(as_stored(x)), x)
    np.testing.assert_array_equal(as_stored(as_logical(x)), x)
    assert np.shares_memory(as_stored(x), x) or not x.size


@SHAPES
def test_new_arrays_are_in_the_memory_format(shape: tuple[int, ...]) -> None:
    zeros = zeros_stored(shape, like=np.ones(1, np.float32))
    assert zeros.dtype == np.float32
    assert not zeros.any()
    for x in (zeros, empty_stored(shape, np.float32)):
        assert x.shape == shape
        assert as_stored(x).flags.c_contiguous


def test_the_strides_are_those_that_the_table_lists() -> None:
    n, c, _, w = shape = (2, 3, 4, 5)
    assert empty_stored(shape, np.int8).strides == (1, n, w * c * n, c * n)


def test_stored_copies_only_when_it_must() -> None:
    x = empty_stored((2, 3, 4, 5), np.float32)
    assert np.shares_memory(stored(x), x)
    c_order = np.arange(120.0).reshape(2, 3, 4, 5)
    assert not np.shares_memory(stored(c_order), c_order)
    assert stored(c_order).flags.c_contiguous
    np.testing.assert_array_equal(as_logical(stored(c_order)), c_order)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kept_where_selects_bit_by_bit(dtype: Any) -> None:
    values = np.array([[1.5, np.inf], [np.nan, -0.0]], dtype)
    bits = f"i{values.itemsize}"
    for mask in (np.ones((2, 2), bool), np.array([[True, False], [True, True]]), np.zeros((2, 2), bool)):
        expected = np.where(mask, values, dtype(0))
        out = np.ones((2, 4), dtype)
        kept = kept_where(mask, values), kept_where(mask, values, out=out[:, ::2]), out[:, ::2]
        for result in kept:
            np.testing.assert_array_equal(result.view(bits), expected.view(bits))
        assert (out[:, 1::2] == 1).all()
    assert kept_where(np.array(False), np.array(dtype(3))) == 0


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


@pytest.mark.parametrize(
    "shape", [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (1, 1, 4, 1)], ids=str
)
def test_formatted_copies_only_what_is_stored_otherwise(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape, dtype=float)).reshape(shape)
    once = formatted(x)
    np.testing.assert_array_equal(once, x)
    assert as_stored(once).flags.c_contiguous
    assert once.size == 0 or np.shares_memory(formatted(once), once)

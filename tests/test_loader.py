"""DataLoader: pairs of arrays and data sets of samples; what Trainer takes as data, and what it refuses."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import strict_arrays
from tests.compare import assert_close
from tests.forking import WORKERS, needs_workers
from tests.trainers import callbacks, parts
from tinyconv import CrossEntropyLoss, Flatten, Linear, MSELoss, ReLU, Sequential, Trainer, optim
from tinyconv.arrays import Array, moved
from tinyconv.data import DataLoader, normalize, streamed


def arrays(count: int = 11) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 3)).astype(np.float32), rng.integers(0, 4, count)


class Samples:
    """A data set of the samples of `arrays`, which counts how often each is read."""

    def __init__(self, count: int = 11) -> None:
        self.inputs, self.targets = arrays(count)
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Array, int]:
        assert type(index) is int
        self.read.append(index)
        return self.inputs[index], int(self.targets[index])


def assert_same_batches(found: Any, expected: Any) -> None:
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)
        assert (x.dtype, y.dtype) == (expected_x.dtype, expected_y.dtype)


# Pairs of arrays


def test_batches_are_shuffled_anew_in_each_epoch_and_lose_nothing() -> None:
    loader = DataLoader((np.arange(10.0), np.arange(10)), 3, True, generator=0)
    first, second = ([y.tolist() for _, y in loader] for _ in range(2))
    assert len(loader) == len(first) == 4
    assert sorted(label for batch in first for label in batch) == list(range(10))
    assert first != second
    again = DataLoader((np.arange(10.0), np.arange(10)), 3, shuffle=True, generator=0)
    assert [y.tolist() for _, y in again] == first


def test_defaults_are_pytorchs() -> None:
    assert [(x.tolist(), y.tolist()) for x, y in DataLoader((np.arange(3.0), np.arange(3)))] == [
        ([0.0], [0]),
        ([1.0], [1]),
        ([2.0], [2]),
    ]
    with pytest.raises(TypeError, match="num_workers"):
        DataLoader(arrays(), num_workers=2)  # type: ignore[call-arg]


def test_only_what_is_yielded_is_transformed() -> None:
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
    (x, y), *_ = DataLoader((images, np.arange(5)), 2, transform=normalize)
    assert x.shape == (2, 1, 2, 2)
    np.testing.assert_array_equal(x, normalize(images[:2]))
    np.testing.assert_array_equal(y, [0, 1])


@pytest.mark.parametrize("dataset", [arrays(), Samples()], ids=["arrays", "samples"])
@pytest.mark.parametrize(("batch_size", "lengths"), [(4, [4, 4]), (11, [11]), (12, [])])
def test_drop_last_leaves_out_a_smaller_last_batch_only(
    dataset: Any, batch_size: int, lengths: list[int]
) -> None:
    loader = DataLoader(dataset, batch_size, drop_last=True)
    assert [len(x) for x, _ in loader] == [len(y) for _, y in loader] == lengths
    assert len(loader) == len(lengths)
    whole = DataLoader(dataset, batch_size)
    assert_same_batches(loader, [batch for batch in whole if len(batch[0]) == batch_size])


def test_drop_last_leaves_out_other_samples_in_each_shuffled_epoch() -> None:
    loader = DataLoader((np.zeros(10), np.arange(10)), 4, True, drop_last=True, generator=0)
    seen = [frozenset(np.concatenate([y for _, y in loader]).tolist()) for _ in range(8)]
    assert {len(labels) for labels in seen} == {8}
    assert len(set(seen)) > 1


def test_repr_is_short() -> None:
    large = DataLoader((np.zeros((60_000, 1), np.uint8), np.zeros(60_000, np.uint8)), 64, True)
    assert repr(large) == "DataLoader(60,000 samples, batch_size=64, shuffle=True)"
    one = DataLoader(Samples(1), drop_last=True, transform=normalize)
    assert repr(one) == "DataLoader(1 sample, batch_size=1, shuffle=False, drop_last=True)"


@pytest.mark.parametrize(
    ("dataset", "error", "match"),
    [
        ((np.zeros(3), np.zeros(4)), ValueError, r"`inputs` \(of length 3\) must be as long as `targets` "),
        ((np.zeros(3), [0, 1, 2]), TypeError, r"`targets` .* list: use np.asarray\(x\)"),
        (([0.0, 1.0], np.zeros(2)), TypeError, r"`inputs` .* use np.asarray\(x, np.float32\)"),
        ((np.zeros(2), None), TypeError, "`targets` must be .*, got None"),
        ((np.array(1.0), np.zeros(3)), ValueError, r"`inputs` \(of shape \(\)\)"),
        (np.zeros((3, 2)), TypeError, r"`dataset` must be .*, got an array of shape \(3, 2\)"),
        ([np.zeros((3, 2)), np.zeros(3)], TypeError, r"`dataset` .* pass a tuple \(x, y\)"),
        ({"x": np.zeros(3), "y": np.zeros(3)}, TypeError, "`dataset` must be .*, got .* dict"),
        ((batch for batch in [arrays()]), TypeError, "`dataset` must be .* generator"),
        (None, TypeError, "`dataset` must be .*, got None"),
    ],
)
def test_a_data_set_of_another_kind_is_refused(dataset: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        DataLoader(dataset)


def test_arguments_out_of_range_are_refused() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="`batch_size`"):
            DataLoader(arrays(), wrong)
    with pytest.raises(TypeError, match="`batch_size`"):
        DataLoader(arrays(), None)  # type: ignore[arg-type]


# Data sets of samples


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_samples_are_stacked_to_the_batches_of_their_arrays(shuffle: bool, drop_last: bool) -> None:
    def loader(dataset: Any) -> DataLoader:
        return DataLoader(
            dataset, 4, shuffle, drop_last=drop_last, generator=3, transform=np.square, augment=noisy
        )

    expected, found = loader(arrays()), loader(Samples())
    for _ in range(2):
        assert_same_batches(found, expected)


def noisy(inputs: Array, generator: np.random.Generator) -> Array:
    return (inputs + generator.standard_normal(inputs.shape)).astype(inputs.dtype)


@pytest.mark.parametrize("shuffle", [False, True])
def test_parts_of_samples_are_parts_of_their_arrays(shuffle: bool) -> None:
    halves = [parts(DataLoader(data, 4, shuffle, generator=1), 2, skip=1) for data in (Samples(), arrays())]
    for found, expected in zip(*halves, strict=True):
        assert_same_batches(found, expected)


def test_each_sample_is_read_once_an_epoch_and_skipped_ones_are_not() -> None:
    samples = Samples()
    list(DataLoader(samples, 4, True))
    assert sorted(samples.read) == list(range(11))
    samples.read.clear()
    list(DataLoader(samples, 4).part(0, 1, skip=2))
    assert samples.read == [8, 9, 10]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], np.int64),
        ([1.5, 2.5], np.float32),
        ([1, 2.5], np.float32),
        ([True, False], np.bool_),
        ([np.float64(1), np.float64(2)], np.float64),
        ([np.uint8(1), np.uint8(2)], np.uint8),
        ([np.array(1, np.int16), np.array(2, np.int16)], np.int16),
        ([np.zeros((2, 3)), np.ones((2, 3))], np.float64),
        ([np.array([1, 2], np.uint8), np.array([3, 4], np.uint8)], np.uint8),
    ],
    ids=str,
)
def test_numbers_and_arrays_become_arrays(values: list[Any], dtype: Any) -> None:
    ((x, y),) = DataLoader([(value, value) for value in values], 2)
    for array in (x, y):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, values)


def test_numbers_become_what_pytorch_makes_of_them_but_for_float64() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    samples = [(np.full((2, 2), index, np.float32), index % 3, float(index)) for index in range(7)]
    for target in (1, 2):
        dataset = [(sample[0], sample[target]) for sample in samples]
        theirs = torch.utils.data.DataLoader(dataset, 3, False, drop_last=True)
        ours = DataLoader(dataset, 3, False, drop_last=True)
        assert len(ours) == len(theirs)
        for (x, y), (expected_x, expected_y) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(x, expected_x.numpy())
            np.testing.assert_array_equal(y, expected_y.numpy())
            assert y.dtype == (np.int64 if target == 1 else np.float32)


def test_two_samples_are_no_pair_of_arrays() -> None:
    x = np.arange(6.0).reshape(2, 3)
    for dataset in ([(x[0], 0), (x[1], 1)], ((x[0], 0), (x[1], 1)), [[x[0], 0], [x[1], 1]]):
        loader = DataLoader(dataset, 2)
        assert loader.samples == 2
        assert_same_batches(loader, [(x, np.array([0, 1]))])
    ((first, _),) = DataLoader((x, np.array([0, 1])), 2)
    np.testing.assert_array_equal(first, x)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (
            (np.zeros((2, 3)), 1),
            ValueError,
            r"input of sample 6 .* shape \(2, 3\)\) .* \(2, 2\) of sample 4's",
        ),
        ((np.zeros((2, 2)), np.zeros(1)), ValueError, "target of sample 6 of `dataset`"),
        (np.zeros((2, 2)), TypeError, r"sample 6 .* a pair .*, got an array of shape \(2, 2\)"),
        ((np.zeros((2, 2)), 1, 2), TypeError, "sample 6 .* a pair .*, got a tuple of length 3"),
        (
            ([[0, 0], [0, 0]], 1),
            TypeError,
            "the input of sample 6 .*, got a list of length 2: use np.asarray",
        ),
        ((np.zeros((2, 2)), "seven"), TypeError, "the target of sample 6 .*type str"),
        ((np.zeros((2, 2)), None), TypeError, "the target of sample 6 .*, got None"),
    ],
)
def test_a_wrong_sample_is_refused_by_its_index(wrong: Any, error: type[Exception], match: str) -> None:
    dataset: list[Any] = [(np.zeros((2, 2)), 1) for _ in range(10)]
    dataset[6] = wrong
    batches = iter(DataLoader(dataset, 4))
    next(batches)
    with pytest.raises(error, match=match):
        next(batches)


def test_a_wrong_first_sample_of_a_shuffled_batch_is_refused_by_its_index() -> None:
    dataset: list[Any] = [(np.zeros(2), 1) for _ in range(9)]
    dataset[5] = (np.zeros(2),)
    with pytest.raises(TypeError, match="sample 5 of `dataset`"):
        list(DataLoader(dataset, 9, True, generator=0))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=needs_workers)])
def test_training_on_samples_is_training_on_their_arrays(workers: int) -> None:
    def trained(dataset: Any) -> Trainer:
        model = Sequential(Linear(3, 8, generator=0), ReLU(), Linear(8, 4, generator=1))
        trainer = Trainer(
            model, CrossEntropyLoss(), optim.SGD(model, lr=0.1), workers=workers, progress=False
        )
        loader = DataLoader(dataset, 4, True, generator=2, augment=noisy)
        trainer.fit(loader, 3, validation=DataLoader(dataset, 5))
        return trainer

    expected, found = trained(arrays()), trained(Samples())
    np.testing.assert_allclose(found.history.step_losses, expected.history.step_losses, rtol=1e-5)
    for name, value in expected.model.params.items():
        assert_close(found.model.params[name], value, name)
    assert found.history.epochs[-1].validation_accuracy == expected.history.epochs[-1].validation_accuracy


@needs_workers
def test_inputs_and_targets_of_random_samples_belong_together_with_workers() -> None:
    class Random:
        def __init__(self) -> None:
            self.generator = np.random.default_rng(0)

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> tuple[Array, Array]:
            x = self.generator.standard_normal(1)
            return x, 2 * x

    model = Linear(1, 1, dtype=np.float64, generator=0)
    model.params["weight"][...], model.params["bias"][...] = 2, 0
    trainer = Trainer(model, MSELoss(), optim.SGD(model), workers=2, progress=False)
    assert trainer.fit(DataLoader(Random(), 8)).step_losses == pytest.approx([0] * 5, abs=1e-20)


def test_a_run_on_samples_goes_on_within_an_epoch(tmp_path: Path) -> None:
    def trainer(folder: Path | None) -> Trainer:
        model = Linear(3, 4, generator=0)
        optimizer, kept = optim.SGD(model, lr=0.1), callbacks(model, folder)
        return Trainer(model, CrossEntropyLoss(), optimizer, callbacks=kept, progress=False)

    def loader() -> DataLoader:
        return DataLoader(Samples(), 4, True, generator=2, augment=noisy)

    expected = trainer(tmp_path)
    expected.fit(loader(), 2)
    for path in sorted(tmp_path.glob("*.safetensors"))[:5]:
        resumed = trainer(None)
        resumed.resume(path)
        resumed.fit(loader(), 2 - len(resumed.history.epochs))
        assert resumed.history.step_losses == expected.history.step_losses
    resumed = trainer(None)
    resumed.resume(tmp_path)
    with pytest.raises(ValueError, match="`data` has 12 samples, the resumed run's had 11"):
        resumed.fit(DataLoader(Samples(12), 4, True))


def test_samples_are_moved_to_the_gpu_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(device: str) -> Trainer:
        model = Linear(3, 4, generator=0)
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model, lr=0.1), device=device, progress=False)
        trainer.fit(DataLoader(Samples(), 4, True, generator=2, augment=noisy), 2)
        trainer.fit(DataLoader(Samples(), 4, transform=lambda x: 2 * x), validation=DataLoader(Samples(), 4))
        return trainer

    expected = trained("cpu").history
    with strict_arrays.installed():
        monkeypatch.setattr(strict_arrays, "free_memory", 1)
        found = trained("cuda").history
    np.testing.assert_allclose(found.step_losses, expected.step_losses, rtol=1e-5)
    assert found.epochs[-1].validation_accuracy == expected.epochs[-1].validation_accuracy


# Functions that write to what they are given


def negate(inputs: Array) -> Array:
    inputs *= -1
    return inputs


def negate_one(inputs: Array, generator: np.random.Generator) -> Array:
    return negate(inputs)


WRITING: dict[str, dict[str, Any]] = {
    "transform": {"transform": negate},
    "augment": {"augment": negate_one},
    "both": {"transform": negate, "augment": negate_one},
}


@pytest.mark.parametrize("writing", WRITING.values(), ids=WRITING)
@pytest.mark.parametrize("kind", ["arrays", "arrays on a GPU", "samples", "read-only"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_what_writes_in_place_changes_no_data(
    writing: dict[str, Any], kind: str, shuffle: bool, count: int
) -> None:
    inputs, targets = arrays()
    sign = -1 if len(writing) == 1 else 1
    with strict_arrays.installed() as cupy:
        there = kind == "arrays on a GPU"
        data = (cupy.asarray(inputs), cupy.asarray(targets)) if there else (inputs.copy(), targets.copy())
        if kind == "read-only":
            for array in data:
                array.flags.writeable = False
        dataset: Any = list(zip(*data, strict=True)) if kind == "samples" else data
        loader = DataLoader(dataset, 4, shuffle, generator=0, **writing)
        for _ in range(2):
            order = copy.deepcopy(loader.generator).permutation(11) if shuffle else np.arange(11)
            read = [list(part) for part in parts(loader, count)]
            found = np.concatenate([moved(own[0], np) for each in zip(*read, strict=True) for own in each])
            np.testing.assert_array_equal(found, sign * inputs[order])
        for array, own in zip(data, (inputs, targets), strict=True):
            np.testing.assert_array_equal(moved(array, np), own)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_streamed_data_set_is_not_changed_either(shuffle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "CHUNK_BYTES", 2 * 4 * 20)  # two batches
    inputs, targets = arrays(37)
    own = inputs.copy()
    own.flags.writeable = False
    plain = DataLoader((inputs, targets), 4, shuffle, drop_last=True, generator=1)
    with strict_arrays.installed() as cupy:
        loader = DataLoader((own, targets), 4, shuffle, drop_last=True, generator=1, transform=negate)
        for _ in range(2):
            found = [(moved(x, np).copy(), moved(y, np).copy()) for x, y in streamed.Streamed(loader, cupy)]
            assert_same_batches(found, [(-x, y) for x, y in plain])
    np.testing.assert_array_equal(own, inputs)


def test_training_in_several_epochs_sees_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(device: str, transform: Callable[[Array], Array]) -> list[float]:
        model = Linear(3, 4, generator=0)
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model, lr=0.0), device=device, progress=False)
        return trainer.fit(DataLoader(arrays(), 4, transform=transform), 3).step_losses

    expected = losses("cpu", lambda x: -x)
    assert expected == losses("cpu", negate)
    with strict_arrays.installed():
        assert losses("cuda", negate) == pytest.approx(expected)
        monkeypatch.setattr("tinyconv.training.batches.fits", lambda batches, xp: False)
        assert losses("cuda", negate) == pytest.approx(expected)


def test_nothing_is_copied_where_nothing_can_write() -> None:
    inputs, targets = arrays()
    for x, y in DataLoader((inputs, targets), 4):
        assert np.shares_memory(x, inputs)
        assert np.shares_memory(y, targets)


@pytest.mark.parametrize("writing", [{}, *WRITING.values()], ids=["neither", *WRITING])
def test_files_mapped_into_memory_are_trained_on(writing: dict[str, Any], tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((20, 1, 4, 4)).astype(np.float32)
    labels = np.arange(20) % 3
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)

    def trained(inputs: Array, workers: int) -> list[float]:
        model = Sequential(Flatten(), Linear(16, 3, generator=0))
        trainer = Trainer(model, CrossEntropyLoss(), optim.SGD(model), workers=workers, progress=False)
        loader = DataLoader((inputs, labels), 8, **writing)
        return trainer.fit(loader, 2, validation=(inputs, labels)).step_losses

    for workers in (1, 2) if WORKERS else (1,):
        assert trained(mapped, workers) == trained(images, workers)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), images)


# What Trainer takes as data


def trainer() -> Trainer:
    model = Linear(3, 4, generator=0)
    return Trainer(model, CrossEntropyLoss(), optim.SGD(model, lr=0.1), progress=False)


def fit(data: Any) -> Any:
    return trainer().fit(data)


def evaluate(data: Any) -> Any:
    return trainer().evaluate(data)


def validate(data: Any) -> Any:
    return trainer().fit(arrays(), validation=data)


X, Y = arrays()
REFUSED: dict[str, tuple[Any, str]] = {
    "an array alone": (X, r"`{}` must be a tuple of arrays .*, got an array of shape \(11, 3\)"),
    "a list of two arrays": ([X, Y], r"`{}` must not be a list of two arrays: pass a tuple \(x, y\)"),
    "a dict": ({"x": X, "y": Y}, "`{}` must be a tuple of arrays .*, got an object of type dict"),
    "a number": (3, "`{}` must be a tuple of arrays .*, got an object of type int"),
    "samples": (Samples(), "`{}` must be a tuple .* a data set of single samples needs a DataLoader"),
    "no samples": ((X[:0], Y[:0]), r"`{}` must have at least one batch, got DataLoader\(0 samples"),
    "no batch left": (DataLoader((X, Y), 12, drop_last=True), "`{}` must have at least one .*drop_last"),
    "no batches": ([], "`{}` gave no batch"),
    "an iterable without batches": (iter(()), "`{}` gave no batch"),
    "three arrays": ((X, Y, Y), r"batch 1 of `{}` must be a pair .*, got an array of shape \(11, 3\)"),
    "a list for inputs": ((X.tolist(), Y), r"`{}`: `inputs` .* got list: .* np.asarray\(x, np.float32"),
    "a list for targets": ((X, Y.tolist()), r"`{}`: `targets` .* got list: .* np.asarray\(x\)$"),
    "None for targets": ((X, None), "`{}`: `targets` must be .*, got None"),
    "lengths that differ": ((X, Y[1:]), r"`{}`: .* must be as long as `targets` \(of length 10\)"),
    "a batch that is an array": ([(X, Y), X], "batch 2 of `{}` must be a pair of arrays .*, got an array"),
    "a batch of two rows": ([(X, Y), X[:2]], "batch 2 of `{}` must be a pair of arrays .*, got an array"),
    "a batch of three": ([(X, Y), (X, Y), (X, Y, Y)], "batch 3 of `{}` must be a pair .* tuple of length 3"),
    "a batch of one": ([(X,)], "batch 1 of `{}` must be a pair .*, got a tuple of length 1"),
    "a batch that is a dict": ([{"x": X}], "batch 1 of `{}` must be a pair .*, got an object of type dict"),
    "a batch with a number": ([(X, Y), (X[0], 1)], "batch 2 of `{}`: `targets` .* got int"),
    "a batch of numbers": ([(X, np.array(1))], r"batch 1 of `{}`: `targets` \(of shape \(\)\)"),
    "a batch of lengths that differ": ([(X, Y), (X, Y[:4])], r"batch 2 of `{}`: .* \(of length 4\)"),
    "a batch without samples": ([(X, Y), (X[:0], Y[:0])], "batch 2 of `{}` must have at least one sample"),
    "text": ("abc", "batch 1 of `{}` must be a pair .*, got an object of type str"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize(("use", "name"), [(fit, "data"), (evaluate, "data"), (validate, "validation")])
def test_data_of_another_form_are_refused_by_name(case: str, use: Callable[[Any], Any], name: str) -> None:
    data, match = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=match.replace("{}", name)) as caught:
        use(data)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("case", ["a batch that is an array", "a batch of three", "lengths that differ"])
def test_data_are_refused_on_a_gpu_and_with_workers_alike(case: str) -> None:
    data, match = REFUSED[case]
    with strict_arrays.installed():
        model = Linear(3, 4, generator=0)
        there = Trainer(model, CrossEntropyLoss(), optim.SGD(model), device="cuda", progress=False)
        for use, name in ((there.fit, "data"), (there.evaluate, "data")):
            with pytest.raises((TypeError, ValueError), match=match.replace("{}", name)):
                use(data)
        with pytest.raises((TypeError, ValueError), match=match.replace("{}", "validation")):
            there.fit(arrays(), validation=data)
    if WORKERS:
        model = Linear(3, 4, generator=0)
        shared = Trainer(model, CrossEntropyLoss(), optim.SGD(model), workers=2, progress=False)
        with pytest.raises((TypeError, ValueError), match=match.replace("{}", "data")):
            shared.fit(data)


def test_lists_tuples_and_other_iterables_of_batches_are_trained_on() -> None:
    expected = trainer()
    expected.fit(DataLoader((X, Y), 6))
    first, second = (X[:6], Y[:6]), (X[6:], Y[6:])

    def generated() -> Iterator[Any]:
        yield from (first, second)

    kinds: list[Any] = [[first, second], (first, second), [list(first), list(second)], generated()]
    for data in kinds:
        found = trainer()
        found.fit(data)
        assert found.history.step_losses == expected.history.step_losses
    assert trainer().evaluate([first, second]).loss == pytest.approx(trainer().evaluate((X, Y)).loss)


def test_validation_that_can_be_iterated_once_is_refused_in_the_second_epoch() -> None:
    run = trainer()
    with pytest.raises(
        ValueError, match="`validation` gave no batch in the evaluation; it must be an iterable"
    ):
        run.fit((X, Y), 3, validation=iter([(X, Y)]))
    assert len(run.history.epochs) == 1


@pytest.mark.parametrize("data", [[X, Y], X, [(X, Y)], DataLoader(Samples(), 4)])
def test_validation_is_split_off_arrays_only(data: Any) -> None:
    with pytest.raises(TypeError, match="`validation_split` needs `data` to be a tuple of arrays"):
        trainer().fit(data, validation_split=0.5)


def test_unequal_arrays_are_not_split() -> None:
    with pytest.raises(ValueError, match="`data`: `inputs`"):
        trainer().fit((X, Y[:9]), validation_split=0.5)


def test_what_is_split_off_a_loader_is_whole_and_in_order() -> None:
    loader = DataLoader((X, Y), 4, True, drop_last=True, generator=0)
    run = trainer()
    run.fit(loader, validation_split=0.5)
    assert run.run.steps == 1
    assert run.history.epochs[0].validation_loss == pytest.approx(run.evaluate((X[5:], Y[5:])).loss)
    assert loader.samples == 11


@pytest.mark.parametrize("x", [X.tolist(), tuple(X), None, 1.5, "a"], ids=lambda x: type(x).__name__)
def test_predict_refuses_what_is_no_array(x: Any) -> None:
    with pytest.raises(TypeError, match=re.escape("`x` must be a numpy.ndarray or cupy.ndarray, got")):
        trainer().model.predict(x)


def test_predict_says_how_a_list_becomes_an_array() -> None:
    with pytest.raises(TypeError, match=re.escape("use np.asarray(x, np.float32)")):
        trainer().model.predict([[1.0, 2.0, 3.0]])  # type: ignore[arg-type]

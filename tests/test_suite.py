"""The conformance suite: what is in it, its schemas, and the mistakes that its cases catch."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyconv.functional as F
from tests.test_vectors import given, read, replay
from tinyconv.__main__ import main
from tinyconv.arrays import Array
from tinyconv.vectors import OPERATORS, write_suite
from tinyconv.vectors.cases import CASES, FLAGS

# The suite but for what may differ between machines: checksums of values, and tolerances that scale with
# them. If this changes, count "version" in tinyconv/vectors/cases.json up.
STRUCTURE = "5f3551f5e42f0b848af8276bc745f025ee167fd906fde7b572be2d04ebd4e6bd"


def index(suite: Path) -> dict[str, Any]:
    return json.loads((suite / "suite.json").read_bytes())  # type: ignore[no-any-return]


def description(suite: Path, path: str) -> dict[str, Any]:
    return json.loads((suite / path / "vectors.json").read_bytes())  # type: ignore[no-any-return]


def arrays(suite: Path, path: str) -> dict[str, Array]:
    return {
        t["name"]: np.fromfile(suite / path / t["file"], t["dtype"]).reshape(t["shape"])
        for t in description(suite, path)["tensors"]
    }


# What is in it


def test_every_operator_has_three_to_eight_cases() -> None:
    counts = Counter(case.operator for case in CASES)
    assert set(counts) == set(OPERATORS)
    assert all(3 <= count <= 8 for count in counts.values()), counts
    assert len({(case.operator, case.name) for case in CASES}) == len(CASES)


def test_every_flag_is_described_and_used() -> None:
    used = {flag for case in CASES for flag in case.flags.split()}
    assert used == set(FLAGS)
    assert list(FLAGS) == sorted(FLAGS)


def test_the_index_lists_every_file_and_its_checksum(suite: Path) -> None:
    assert index(suite)["flags"] == FLAGS
    listed = {"suite.json", "suite.schema.json", "case.schema.json"}
    for case in index(suite)["cases"]:
        for name, digest in case["sha256"].items():
            content = (suite / case["path"] / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
            listed.add(f"{case['path']}/{name}")
        assert description(suite, case["path"])["flags"] == case["flags"]
    files = [path for path in suite.rglob("*") if path.is_file()]
    assert {path.relative_to(suite).as_posix() for path in files} == listed
    assert sum(path.stat().st_size for path in files) < 5_000_000


def test_it_is_the_same_when_written_again(suite: Path, tmp_path: Path) -> None:
    write_suite(tmp_path)
    for path in suite.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(suite)).read_bytes(), path


def test_its_structure_has_a_version(suite: Path) -> None:
    whole = index(suite)
    cases = [description(suite, case["path"]) for case in whole["cases"]]
    for case in whole["cases"]:
        case["sha256"] = list(case["sha256"])
    for tensor in (tensor for case in cases for tensor in case["tensors"]):
        tensor.pop("atol", None)
    text = json.dumps([whole, cases], sort_keys=True)
    assert whole["version"] == 1
    assert hashlib.sha256(text.encode()).hexdigest() == STRUCTURE


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.operator}-{case.name}")
def test_pytorch_meets_the_tolerances_in_float32(case: Any, suite: Path) -> None:
    described, tensors = read(suite / case.operator / case.name)
    expected, computed = given(tensors), replay(described, tensors)
    assert list(expected) == list(computed)
    for tensor in described["tensors"]:
        if tensor["name"] in computed:
            want, got = (x[tensor["name"]].double().numpy() for x in (expected, computed))
            np.testing.assert_allclose(got, want, tensor["rtol"], tensor["atol"], err_msg=tensor["name"])


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vectors", "--suite", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'suite.json'}\n"
    assert main(["vectors", "--suite", str(tmp_path), "relu", "--out", str(tmp_path)]) == 2
    assert "--suite" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["vectors", "--suite", str(tmp_path / "file")]) == 2


# Schemas


def schema_errors(value: Any, schema: dict[str, Any], place: str = "$") -> Iterator[str]:
    """What in `value` breaks `schema`: the keywords that ours use, and no others."""
    known = {
        *("$schema", "title", "description", "type", "properties", "required", "additionalProperties"),
        *("items", "minItems", "uniqueItems", "enum", "const", "pattern", "minimum", "anyOf"),
    }
    assert set(schema) <= known, set(schema) - known
    kinds: dict[str, Callable[[Any], bool]] = {
        "object": lambda v: isinstance(v, dict),
        "array": lambda v: isinstance(v, list),
        "string": lambda v: isinstance(v, str),
        "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
        "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
        "boolean": lambda v: isinstance(v, bool),
        "null": lambda v: v is None,
    }
    types = schema.get("type", [])
    if types and not any(kinds[kind](value) for kind in ([types] if isinstance(types, str) else types)):
        yield f"{place} is not of type {types}"
        return
    if "anyOf" in schema and all([*schema_errors(value, one)] for one in schema["anyOf"]):
        yield f"{place} is none of anyOf"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is not in the enum"
    if "const" in schema and value != schema["const"]:
        yield f"{place} is not {schema['const']}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{place} is too small"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place} does not match {schema['pattern']}"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0) or (
            schema.get("uniqueItems") and len({*value}) < len(value)
        ):
            yield f"{place} has too few items, or equal ones"
        for i, item in enumerate(value):
            yield from schema_errors(item, schema.get("items", {}), f"{place}[{i}]")
    if isinstance(value, dict):
        yield from (f"{place} lacks {key}" for key in schema.get("required", ()) if key not in value)
        for key, item in value.items():
            own = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            if own is False:
                yield f"{place} must not have {key}"
            elif own is not True:
                yield from schema_errors(item, own, f"{place}.{key}")


def errors(value: Any, schema: dict[str, Any]) -> list[str]:
    """By jsonschema, where it is installed, and by the check above."""
    found = [*schema_errors(value, schema)]
    try:
        jsonschema = import_module("jsonschema")
    except ImportError:
        return found
    jsonschema.Draft202012Validator.check_schema(schema)
    theirs = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(value)]
    assert bool(theirs) == bool(found), (theirs, found)
    return found


def schemas(suite: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    case, whole = (json.loads((suite / f"{name}.schema.json").read_bytes()) for name in ("case", "suite"))
    assert case["$schema"] == whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    return case, whole


def test_every_file_fits_its_schema(suite: Path, tmp_path: Path) -> None:
    case_schema, suite_schema = schemas(suite)
    assert not errors(index(suite), suite_schema)
    for case in index(suite)["cases"]:
        assert not errors(description(suite, case["path"]), case_schema), case["path"]
    assert main(["vectors", "relu", "--out", str(tmp_path)]) == 0  # a case that is in no suite
    assert not errors(json.loads((tmp_path / "vectors.json").read_bytes()), case_schema)


def test_the_schemas_name_all_operators_and_flags_and_no_others(suite: Path) -> None:
    case_schema, suite_schema = schemas(suite)
    listed = suite_schema["properties"]["cases"]["items"]
    for properties in (case_schema["properties"], listed["properties"]):
        assert properties["operator"]["enum"] == list(OPERATORS)
        assert properties["flags"]["items"]["enum"] == list(FLAGS)


@pytest.mark.parametrize(
    "change",
    [
        {"operator": "conv4d"},
        {"version": 2},
        {"seed": -1},
        {"seed": True},
        {"more": 1},
        {"tensors": []},
        {"flags": ["NoSuchFlag"]},
        {"attributes": {"padding": {}}},
    ],
)
def test_the_schema_refuses_other_cases(change: dict[str, Any], suite: Path) -> None:
    case_schema, _ = schemas(suite)
    assert errors({**description(suite, "conv2d/plain"), **change}, case_schema)
    for key in description(suite, "conv2d/plain").keys() - {"flags"}:
        rest = {k: v for k, v in description(suite, "conv2d/plain").items() if k != key}
        assert errors(rest, case_schema), key


# Flags


def flagged(flag: str, *operators: str) -> list[Any]:
    cases = [case for case in CASES if flag in case.flags.split() and case.operator in operators]
    assert cases
    return cases


def is_caught(suite: Path, case: Any, name: str, got: Array) -> bool:
    """Whether `got` is not within the tolerances of the case's tensor."""
    path = f"{case.operator}/{case.name}"
    tensor = next(t for t in description(suite, path)["tensors"] if t["name"] == name)
    want = arrays(suite, path)[name]
    return got.shape != want.shape or not np.allclose(got, want, tensor["rtol"], tensor["atol"])


def run_layer(suite: Path, case: Any, **changed: Any) -> tuple[dict[str, Array], Any]:
    """The case's arrays, and its float32 layer with attributes or parameters changed, after a forward."""
    stored = arrays(suite, f"{case.operator}/{case.name}")
    attributes = {name: changed.pop(name) for name in list(changed) if name not in stored}
    layer = OPERATORS[case.operator].layer(**{**case.attributes, **attributes})
    for name, param in layer.params.items():
        param[...] = changed.get(name, stored[name])
    for name, buffer in layer.buffers.items():
        buffer[...] = stored[name]
    return stored, layer


CONVOLUTIONS = ("conv1d", "conv2d", "conv_transpose2d")


@pytest.mark.parametrize("operator", CONVOLUTIONS)
def test_a_rotated_kernel_is_caught(operator: str, suite: Path) -> None:
    for case in flagged("KernelRotation", operator):
        weight = arrays(suite, f"{operator}/{case.name}")["weight"]
        stored, layer = run_layer(suite, case, weight=np.flip(weight, tuple(range(2, weight.ndim))))
        assert is_caught(suite, case, "output", layer(stored["input"]))


@pytest.mark.parametrize("operator", [*CONVOLUTIONS, "linear"])
def test_a_weight_of_exchanged_channels_is_caught(operator: str, suite: Path) -> None:
    for case in flagged("ChannelOrder", operator):
        weight = arrays(suite, f"{operator}/{case.name}")["weight"]
        read_as = weight.swapaxes(0, 1).reshape(weight.shape)
        stored, layer = run_layer(suite, case, weight=read_as)
        assert is_caught(suite, case, "output", layer(stored["input"]))


def test_a_mean_over_the_batch_is_caught(suite: Path) -> None:
    for case in (case for case in CASES if "BatchSum" in case.flags.split()):
        stored, _ = run_layer(suite, case)
        for name in ("grad_weight", "grad_bias"):
            if name in stored:
                batch = stored["input"].shape[0]
                assert is_caught(suite, case, name, stored[name] / np.float32(batch)), case


@pytest.mark.parametrize(
    ("flag", "operators", "changed"),
    [
        ("Stride", ("conv1d", "conv2d", "unfold", "max_pool2d"), {"stride": 1}),
        ("Stride", ("conv_transpose2d",), {"stride": 1, "output_padding": 0}),
        ("Dilation", ("conv1d", "conv2d", "conv_transpose2d", "unfold", "max_pool2d"), {"dilation": 1}),
        ("Padding", ("conv2d", "unfold", "avg_pool2d", "max_pool2d"), {"padding": 0}),
        ("CeilMode", ("max_pool2d", "avg_pool2d"), {"ceil_mode": False}),
        ("PaddingMode", ("conv2d",), {"padding_mode": "zeros"}),
        ("OutputPadding", ("conv_transpose2d",), {"output_padding": 0}),
        ("DivisorOverride", ("avg_pool2d",), {"divisor_override": None}),
        ("Eps", ("batch_norm1d", "batch_norm2d", "layer_norm", "group_norm"), {"eps": 1e-5}),
        ("Attribute", ("leaky_relu",), {"negative_slope": 0.01}),
        ("Attribute", ("elu",), {"alpha": 1.0}),
        ("Attribute", ("gelu",), {"approximate": "none"}),
        ("Attribute", ("softplus",), {"beta": 1.0}),
    ],
)
def test_an_attribute_that_is_overlooked_is_caught(
    flag: str, operators: tuple[str, ...], changed: dict[str, Any], suite: Path
) -> None:
    for operator in operators:
        for case in flagged(flag, operator):
            stored, layer = run_layer(suite, case, **changed)
            assert is_caught(suite, case, "output", layer(stored["input"])), case


def test_the_padding_counts_where_the_flag_says_so(suite: Path) -> None:
    for case in flagged("CountIncludePad", "avg_pool2d"):
        other = not case.attributes.get("count_include_pad", True)
        stored, layer = run_layer(suite, case, count_include_pad=other)
        assert is_caught(suite, case, "output", layer(stored["input"])), case


def test_zeros_as_the_padding_of_a_maximum_are_caught(suite: Path) -> None:
    for case in flagged("NegativeInput", "max_pool2d"):
        stored, layer = run_layer(suite, case)
        assert is_caught(
            suite, case, "output", np.maximum(layer(stored["input"]), 0) * (layer.padding[0] > 0)
        )
        padded = np.pad(stored["input"], ((0, 0), (0, 0), (1, 1), (1, 1)))
        assert is_caught(suite, case, "output", F.max_pool2d(padded, 3))


def test_ties_have_one_winner(suite: Path) -> None:
    """Sharing the gradient among equal values, or giving all of it to each, is caught."""
    for case in flagged("Ties", "max_pool2d"):
        stored, layer = run_layer(suite, case)
        x, grad = stored["input"], np.zeros_like(stored["input"])
        size, reversed_x = case.attributes["kernel_size"], np.flip(stored["input"], (2, 3))
        for n, c, i, j in np.ndindex(stored["output"].shape):
            window = x[n, c, i : i + size, j : j + size]
            largest = window == window.max()
            grad[n, c, i : i + size, j : j + size] += (
                stored["grad_output"][n, c, i, j] * largest / largest.sum()
            )
        assert is_caught(suite, case, "grad_input", grad)
        layer(np.ascontiguousarray(reversed_x))
        last = layer.backward(np.ascontiguousarray(np.flip(stored["grad_output"], (2, 3))))
        assert is_caught(suite, case, "grad_input", np.flip(last, (2, 3)))


def test_the_stride_leaves_rows_unread(suite: Path) -> None:
    for case in (case for case in CASES if "OddStride" in case.flags.split()):
        if case.operator == "fold":
            continue  # there it is the output that has them
        stored, _ = run_layer(suite, case)
        assert not stored["grad_input"][..., -1].any() or not stored["grad_input"][..., -1, :].any(), case
        assert stored["input"][..., -1].any()


def test_outputs_that_see_padding_alone_are_there(suite: Path) -> None:
    for case in flagged("PaddingLarge", "conv1d", "conv2d"):
        stored, _ = run_layer(suite, case)
        corner = stored["output"].reshape(*stored["output"].shape[:2], -1)[..., 0]
        np.testing.assert_array_equal(corner, np.broadcast_to(stored["bias"], corner.shape))


def test_one_pass_variance_is_caught(suite: Path) -> None:
    for case in flagged("LargeMean", "batch_norm1d", "batch_norm2d", "layer_norm", "group_norm"):
        stored, _ = run_layer(suite, case)
        groups, x = statistics(case, stored["input"])
        mean = x.mean(axis=groups, keepdims=True, dtype=np.float32)
        square = (x * x).mean(axis=groups, keepdims=True, dtype=np.float32)
        one_pass = (x - mean) / np.sqrt(np.abs(square - mean * mean) + np.float32(1e-5))
        two_pass = (x - mean) / np.sqrt(((x - mean) ** 2).mean(axis=groups, keepdims=True) + np.float32(1e-5))
        assert is_caught(suite, case, "output", affine(case, stored, one_pass)), case
        assert not is_caught(suite, case, "output", affine(case, stored, two_pass)), case


def statistics(case: Any, x: Array) -> tuple[tuple[int, ...], Array]:
    """The axes that a mean is over, and the input in a shape that has them."""
    if case.operator == "layer_norm":
        return (-1,), x
    if case.operator == "group_norm":
        return (2, 3, 4), x.reshape(x.shape[0], case.attributes["num_groups"], -1, *x.shape[2:])
    return (0, *range(2, x.ndim)), x


def affine(case: Any, stored: dict[str, Array], normalized: Array) -> Array:
    x = normalized.reshape(stored["input"].shape)
    shape = (-1,) if case.operator == "layer_norm" else (-1, *[1] * (x.ndim - 2))
    result: Array = x * stored["weight"].reshape(shape) + stored["bias"].reshape(shape)
    return result


def test_a_biased_running_variance_is_caught(suite: Path) -> None:
    for case in flagged("RunningStatistics", "batch_norm1d", "batch_norm2d"):
        stored, layer = run_layer(suite, case)
        x, momentum = stored["input"].astype(float), layer.momentum
        variance = x.var(axis=(0, *range(2, x.ndim)))
        got = (1 - momentum) * stored["running_var"] + momentum * variance
        assert is_caught(suite, case, "updated_running_var", got)
        unbiased = variance * (x.size / x.shape[1]) / (x.size / x.shape[1] - 1)
        right = (1 - momentum) * stored["running_var"] + momentum * unbiased
        assert not is_caught(suite, case, "updated_running_var", right)


def test_exp_without_subtracting_the_largest_is_caught(suite: Path) -> None:
    for case in flagged("Saturation", "softmax"):
        stored, _ = run_layer(suite, case)
        with np.errstate(all="ignore"):
            exp = np.exp(stored["input"])
            assert is_caught(suite, case, "output", exp / exp.sum(axis=case.attributes["dim"], keepdims=True))


@pytest.mark.parametrize("operator", ["cross_entropy", "nll_loss"])
def test_ignored_targets_in_the_divisor_and_unweighted_means_are_caught(operator: str, suite: Path) -> None:
    for case in flagged("IgnoreIndex", operator):
        stored = arrays(suite, f"{operator}/{case.name}")
        ignored = (stored["target"] == case.attributes["ignore_index"]).sum()
        assert 0 < ignored < stored["target"].size
        share = np.float32(1 - ignored / stored["target"].size)
        assert is_caught(suite, case, "loss", stored["loss"] * share)
    for case in flagged("ClassWeights", operator):
        stored = arrays(suite, f"{operator}/{case.name}")
        counted = stored["target"] != case.attributes.get("ignore_index", -100)
        weights = stored["weight"][stored["target"][counted]]
        assert is_caught(suite, case, "loss", stored["loss"] * weights.mean())


@pytest.mark.parametrize(
    ("flag", "operator", "changed"),
    [
        ("LabelSmoothing", "cross_entropy", {"label_smoothing": 0.0}),
        ("PosWeight", "binary_cross_entropy_with_logits", {"pos_weight": None}),
        ("ClassWeights", "binary_cross_entropy", {"weight": None}),
        ("ClassWeights", "cross_entropy", {"weight": None}),
        ("Attribute", "smooth_l1_loss", {"beta": 1.0}),
        *(
            ("Reduction", operator, {"reduction": "mean"})
            for operator in ("mse_loss", "l1_loss", "cross_entropy", "nll_loss", "binary_cross_entropy")
        ),
    ],
)
def test_an_attribute_of_a_loss_that_is_overlooked_is_caught(
    flag: str, operator: str, changed: dict[str, Any], suite: Path
) -> None:
    for case in flagged(flag, operator):
        stored = arrays(suite, f"{operator}/{case.name}")
        factors = {name: stored[name] for name in ("weight", "pos_weight") if name in stored}
        loss = OPERATORS[operator].layer(**{**case.attributes, **factors, **changed})
        assert is_caught(suite, case, "loss", loss(stored["prediction"], stored["target"])), case


def test_targets_as_hard_classes_are_caught(suite: Path) -> None:
    for operator in ("binary_cross_entropy", "binary_cross_entropy_with_logits"):
        for case in flagged("SoftTargets", operator):
            stored = arrays(suite, f"{operator}/{case.name}")
            factors = {name: stored[name] for name in ("weight", "pos_weight") if name in stored}
            loss = OPERATORS[operator].layer(**{**case.attributes, **factors})
            assert is_caught(suite, case, "loss", loss(stored["prediction"], np.round(stored["target"])))


def test_a_moving_average_in_place_of_a_plain_one_is_caught(suite: Path) -> None:
    for case in flagged("CumulativeAverage", "batch_norm2d"):
        stored, layer = run_layer(suite, case, momentum=0.1)
        layer(stored["input"])
        assert is_caught(suite, case, "updated_running_mean", layer.running_mean)


@pytest.mark.parametrize("operator", ["unfold", "max_pool2d", "avg_pool2d"])
def test_gradients_that_overwrite_each_other_are_caught(operator: str, suite: Path) -> None:
    """The sums of all windows, where every window's gradient is kept as it comes last."""
    for case in flagged("Overlap", operator):
        stored, layer = run_layer(suite, case)
        grad = np.zeros_like(stored["grad_input"])
        for place in np.ndindex(stored["grad_output"].shape[2:]):
            one = np.zeros_like(stored["grad_output"])
            one[(..., *place)] = stored["grad_output"][(..., *place)]
            layer(stored["input"])
            part = layer.backward(one)
            grad[part != 0] = part[part != 0]
        assert is_caught(suite, case, "grad_input", grad), case


def test_windows_of_one_size_are_caught(suite: Path) -> None:
    for case in flagged("UnevenWindows", "adaptive_avg_pool2d"):
        stored, _ = run_layer(suite, case)
        x, (height, width) = stored["input"], stored["output"].shape[2:]
        rows, columns = (np.arange(n) * size // n for n, size in ((height, x.shape[2]), (width, x.shape[3])))
        size = max(1, x.shape[2] // height), max(1, x.shape[3] // width)
        got = np.stack(
            [
                np.stack([x[..., r : r + size[0], c : c + size[1]].mean(axis=(2, 3)) for c in columns], -1)
                for r in rows
            ],
            -2,
        )
        assert is_caught(suite, case, "output", got), case


def test_a_derivative_without_its_mask_is_caught(suite: Path) -> None:
    for operator in ("relu", "leaky_relu", "elu"):
        for case in flagged("Kink", operator):
            stored, _ = run_layer(suite, case)
            assert is_caught(suite, case, "grad_input", stored["grad_output"])


def test_hits_are_where_the_derivative_is_a_convention(suite: Path) -> None:
    for case in (case for case in CASES if "ZeroInput" in case.flags.split()):
        stored = arrays(suite, f"{case.operator}/{case.name}")
        x = stored["prediction"] - stored["target"] if "target" in stored else stored["input"]
        assert (x == 0).any()

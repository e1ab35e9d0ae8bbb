"""Test vectors: read back with nothing but their JSON, and reproduced by PyTorch."""

import json
import math
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compare import assert_close
from tests.test_examples import run
from tinyconv.__main__ import main
from tinyconv.vectors import OPERATORS, write_vectors

CONV2D = "conv2d --in-channels 3 --out-channels 8 --kernel-size 3 --stride 2"
COMMANDS = [
    CONV2D,
    "conv2d --in-channels 4 --out-channels 6 --kernel-size 3 2 --padding 1 0 --groups 2 --no-bias --size 9 8",
    "conv2d --in-channels 2 --out-channels 3 --kernel-size 3 --padding same --dilation 2 --dtype float64",
    "conv2d --in-channels 2 --out-channels 3 --kernel-size 3 --padding 1 --padding-mode reflect",
    "conv1d --in-channels 4 --out-channels 6 --kernel-size 3 --stride 2 --padding 1 --groups 2",
    "conv_transpose2d --in-channels 4 --out-channels 6 --kernel-size 3 --stride 2 --output-padding 1",
    "unfold --kernel-size 3 2 --stride 2 --padding 1 --channels 2 --size 8 7",
    "fold --output-size 8 7 --kernel-size 3 2 --stride 2 --padding 1 --channels 2",
    "fold --output-size 6 --kernel-size 2",
    "max_pool2d --kernel-size 3 --stride 2 --padding 1 --ceil-mode --size 12 11",
    "avg_pool2d --kernel-size 3 --padding 1 --no-count-include-pad --divisor-override none",
    "adaptive_avg_pool2d --output-size 5 none --size 13 8",
    "linear --in-features 10 --out-features 4 --batch 5",
    "linear --in-features 10 --out-features 4 --size 3 2 --no-bias --dtype float64",
    "batch_norm1d --num-features 3 --batch 8 --size",
    "batch_norm1d --num-features 3 --momentum none",
    "batch_norm2d --num-features 3 --eps 1e-3 --momentum 0.2 --size 5",
    "batch_norm2d --num-features 3 --no-affine --no-track-running-stats --dtype float64",
    "layer_norm --normalized-shape 5 4 --size 3",
    "group_norm --num-groups 2 --num-channels 6 --size 4 5",
    "relu",
    "leaky_relu --negative-slope 0.2 --batch 4 --size 7",
    "elu --alpha 0.5",
    "gelu --approximate tanh",
    "gelu",
    "silu --dtype float64",
    "sigmoid",
    "tanh",
    "softplus --beta 2 --threshold 1.5",
    "softmax --dim 1 --size 6 3",
    "log_softmax --dim -1",
    "mse_loss",
    "mse_loss --reduction none --size 3 4",
    "l1_loss --reduction sum --values rounded",
    "smooth_l1_loss --beta 0.5 --size",
    "cross_entropy --batch 6 --weight --label-smoothing 0.2 --ignore-index 3",
    "cross_entropy --batch 6 --classes 4 --size 3 2 --reduction none --dtype float64",
    "cross_entropy --batch 6 --values large",
    "nll_loss --batch 7 --weight --ignore-index -1",
    "nll_loss --batch 3 --classes 4 --size 5 --reduction sum",
    "binary_cross_entropy --weight --size 7",
    "binary_cross_entropy --values large",
    "binary_cross_entropy_with_logits --weight --pos-weight --reduction none",
    "binary_cross_entropy_with_logits --values large",
]
CODES = {"float32": "f", "float64": "d", "int64": "q"}
ORDERS = {"little": "<", "big": ">"}


def write(command: str, out: Path, *more: str) -> Path:
    assert main(["vectors", *command.split(), *more, "--out", str(out)]) == 0
    return out


def read(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The description, and role -> name -> PyTorch tensor, from the raw files."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    case = json.loads((folder / "vectors.json").read_bytes())
    tensors: dict[str, dict[str, Any]] = {}
    for tensor in case["tensors"]:
        content = (folder / tensor["file"]).read_bytes()
        layout = struct.Struct(ORDERS[tensor["byte_order"]] + CODES[tensor["dtype"]])
        values = [value for (value,) in layout.iter_unpack(content)]
        flat = torch.tensor(values, dtype=getattr(torch, tensor["dtype"]))
        strides = [stride // layout.size for stride in tensor["strides"]]
        named = tensors.setdefault(tensor["role"], {})
        named[tensor["name"]] = flat.as_strided(tensor["shape"], strides)
    return case, tensors


def replay(case: dict[str, Any], tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What PyTorch computes from the inputs, parameters and buffers, under the names of the files."""
    import torch

    attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in case["attributes"].items()}
    make = getattr(torch.nn, case["pytorch"].removeprefix("torch.nn."))
    if "target" in tensors:
        return replay_loss(make, attributes, tensors)
    layer = make(**attributes)
    x = tensors["input"]["input"].requires_grad_()
    layer.to(x.dtype).load_state_dict({**tensors.get("parameter", {}), **tensors.get("buffer", {})})
    output = layer(x)
    output.backward(tensors["grad_output"]["grad_output"])
    results = {"output": output.detach(), "grad_input": x.grad}
    results |= {f"grad_{name}": parameter.grad for name, parameter in layer.named_parameters()}
    return results | {f"updated_{name}": buffer for name, buffer in layer.named_buffers()}


def replay_loss(make: Any, attributes: dict[str, Any], tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same for a loss, whose weights the attributes only announce."""
    factors = tensors.get("factor", {})
    announced = {name for name in ("weight", "pos_weight") if attributes.get(name)}
    assert announced == set(factors)
    attributes = {k: v for k, v in attributes.items() if k not in ("weight", "pos_weight")}
    prediction = tensors["input"]["prediction"].requires_grad_()
    loss = make(**attributes, **factors)(prediction, tensors["target"]["target"])
    loss.backward(tensors["grad_output"]["grad_loss"])
    return {"loss": loss.detach(), "grad_prediction": prediction.grad}


def given(tensors: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The tensors of the files that `replay` computes."""
    return {
        name: tensor
        for role in ("output", "gradient", "updated_buffer")
        for name, tensor in tensors.get(role, {}).items()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_operator_is_tested() -> None:
    assert {command.split()[0] for command in COMMANDS} == set(OPERATORS)


@pytest.mark.parametrize("command", COMMANDS)
def test_pytorch_reproduces_the_raw_files(command: str, tmp_path: Path) -> None:
    case, tensors = read(write(command, tmp_path))
    files, expected = given(tensors), replay(case, tensors)
    assert list(files) == list(expected)
    for name, tensor in files.items():
        assert_close(tensor.numpy(), expected[name].numpy(), name)
    for name, rtol, atol in ((t["name"], t["rtol"], t["atol"]) for t in case["tensors"] if "rtol" in t):
        wanted = files[name].double().numpy()
        np.testing.assert_allclose(expected[name].double().numpy(), wanted, rtol, atol, err_msg=name)
        assert atol <= 5e-5 * max(abs(wanted).max(initial=0), 1), name


@pytest.mark.parametrize("command", COMMANDS)
def test_the_description_fits_the_files(command: str, tmp_path: Path) -> None:
    write(command, tmp_path)
    case = json.loads((tmp_path / "vectors.json").read_bytes())
    assert (case["format"], case["version"]) == ("tinyconv test vectors", 1)
    assert names(tmp_path) == {"vectors.json", "vectors.npz", *(t["file"] for t in case["tensors"])}
    with np.load(tmp_path / case["npz"]) as npz:
        assert list(npz) == [tensor["name"] for tensor in case["tensors"]]
        for tensor in case["tensors"]:
            array, raw = npz[tensor["name"]], (tmp_path / tensor["file"]).read_bytes()
            assert array.tobytes() == raw
            assert len(raw) == array.itemsize * math.prod(tensor["shape"])
            assert array.dtype == np.dtype(tensor["dtype"]).newbyteorder("<")
            assert list(array.shape) == tensor["shape"]
            assert list(array.strides) == tensor["strides"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_description_is_enough_to_write_the_same_bytes(command: str, tmp_path: Path) -> None:
    first = write(command, tmp_path / "first", "--seed", "3")
    case = json.loads((first / "vectors.json").read_bytes())
    shape, dtype = case["tensors"][0]["shape"], case["tensors"][0]["dtype"]
    drawn = (case["seed"], dtype, case["values"])
    write_vectors(case["operator"], case["attributes"], shape, tmp_path / "again", *drawn)
    assert contents(first) == contents(tmp_path / "again")
    other = write(command, tmp_path / "other", "--seed", "4")
    for name in ("input", "prediction", "output", "loss", "grad_input", "grad_prediction"):
        if (first / f"{name}.bin").exists():
            assert contents(first)[f"{name}.bin"] != contents(other)[f"{name}.bin"], name


def test_the_npz_holds_no_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(write("relu", tmp_path) / "vectors.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_float32_values_are_rounded_once(tmp_path: Path) -> None:
    case, tensors = read(write(CONV2D, tmp_path))
    double = {role: {name: t.double() for name, t in named.items()} for role, named in tensors.items()}
    expected = replay(case, double)
    for name, tensor in given(tensors).items():
        np.testing.assert_allclose(tensor.numpy(), expected[name].numpy(), rtol=2.0**-24, atol=1e-13)


def test_the_command_from_a_shell(tmp_path: Path) -> None:
    options = "--in-channels 3 --out-channels 8 --kernel-size 3 --stride 2 --size 32 --seed 0"
    printed = run("-m", "tinyconv", "vectors", "conv2d", *options.split(), "--out", str(tmp_path))
    assert printed == f"{tmp_path / 'vectors.json'}\n"
    case = json.loads((tmp_path / "vectors.json").read_bytes())
    assert case["attributes"]["stride"] == [2, 2]
    shapes = {tensor["name"]: tensor["shape"] for tensor in case["tensors"]}
    assert shapes["input"] == [2, 3, 32, 32]
    assert shapes["output"] == [2, 8, 15, 15]
    assert "vectors" in run("-m", "tinyconv", "--help")


def test_help_shows_attributes_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["vectors", "batch_norm2d", "--help"])
    printed = capsys.readouterr().out
    for name, default in (("eps", "1e-05"), ("momentum", "0.1"), ("affine", "True"), ("batch", "2")):
        assert re.search(rf"  --{name}[ ,].*\(default: {default}\)", printed.replace("\n   ", " ")), name


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "COMMAND"),
        ("vectors", "OPERATOR"),
        ("vectors conv4d", "'conv4d'"),
        ("vectors relu", "--out"),
        ("vectors relu --out x --slope 1", "--slope"),
        ("vectors relu --out x --seed -1", r"`seed` \(=-1\)"),
        ("vectors relu --out x --batch -1", r"`input_shape` \(=-1\)"),
        ("vectors relu --out x --size 1000000000 1000000000", "too big"),
        ("vectors relu --out x --dtype int8", "'int8'"),
        ("vectors linear --in-features 3 --out x", "--out-features"),
        ("vectors linear --in-features 3.5 --out-features 1 --out x", r"`in_features` \(=3\.5\)"),
        (f"vectors {CONV2D} --groups 2 --out x", r"`in_channels` \(=3\) must be divisible by `groups`"),
        (f"vectors {CONV2D} --dilation 1 1 1 --out x", "`dilation`"),
        (f"vectors {CONV2D} --padding full --out x", "'full'"),
        (f"vectors {CONV2D} --size 2 --out x", "`kernel_size`"),
        ("vectors fold --kernel-size 2 --output-size a --out x", r"`output_size` \(='a'\)"),
    ],
)
def test_wrong_arguments_give_one_line_and_code_2(
    command: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code: Any = main(command.split())
    except SystemExit as error:
        code = error.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert re.fullmatch(rf"python -m tinyconv.*: error: .*{message}.*\n", printed.err)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written_leave_no_description(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("relu", tmp_path)
    (tmp_path / "output.bin").unlink()
    (tmp_path / "output.bin").mkdir()
    before = names(tmp_path)
    assert main(["vectors", "relu", "--seed", "1", "--out", str(tmp_path)]) == 2
    assert re.fullmatch(r"python -m tinyconv vectors relu: error: .*output\.bin.*\n", capsys.readouterr().err)
    assert names(tmp_path) == before - {"vectors.json"}
    assert main(["vectors", "relu", "--seed", "1", "--out", str(tmp_path / "input.bin")]) == 2


@pytest.mark.parametrize(
    ("operator", "attributes", "shape", "message"),
    [
        ("conv4d", {}, (2, 3), r"`operator` \(='conv4d'\)"),
        ("relu", {"inplace": True}, (2, 3), "'inplace'"),
        ("linear", {"in_features": 3}, (2, 3), "'out_features'"),
        ("relu", {}, (2, 3.0), "`input_shape`"),
    ],
)
def test_write_vectors_refuses(
    operator: str, attributes: dict[str, Any], shape: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        write_vectors(operator, attributes, shape, tmp_path)

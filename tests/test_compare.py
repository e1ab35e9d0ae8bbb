"""`python -m tinyconv compare`: verdicts on a kernel's outputs, in every form that they may have."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyconv.__main__ import main
from tinyconv.arrays import Array
from tinyconv.vectors import Comparison, compare, compare_suite, write_vectors
from tinyconv.vectors.files import read_case, read_suite
from tinyconv.vectors.write import COMPUTED

CONV2D = {"in_channels": 3, "out_channels": 4, "kernel_size": (3, 2), "stride": 2, "padding": 1}
NAMES = ["output", "grad_input", "grad_weight", "grad_bias"]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    write_vectors("conv2d", CONV2D, (5, 3, 8, 9), folder)
    return folder


def expected(case: Path) -> dict[str, Array]:
    """The tensors that a kernel computes, which may be written to."""
    read = read_case(case)
    computed = [tensor["name"] for tensor in read.description["tensors"] if tensor["role"] in COMPUTED]
    return {name: read.arrays[name].copy() for name in computed}


def write(folder: Path, **arrays: Array) -> Path:
    """Raw files, as a kernel writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        array.tofile(folder / f"{name}.bin")
    return folder


def verdict(case: Path, mine: Path, name: str) -> Any:
    return next(verdict for verdict in compare(case, mine).verdicts if verdict.name == name)


def statuses(comparison: Comparison) -> list[str]:
    return [verdict.status for verdict in comparison.verdicts]


def printed(capsys: pytest.CaptureFixture[str], code: int, *args: Any) -> str:
    assert main(["compare", *map(str, args)]) == code
    captured = capsys.readouterr()
    assert not captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    assert main(["compare", *map(str, args)]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    match = re.fullmatch(r"python -m tinyconv compare: error: (.*)\n", captured.err)
    assert match is not None, captured.err
    return match[1]


# What agrees


def test_equal_and_rounded_values_agree(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = expected(case)
    arrays["grad_input"] *= np.float32(1 + 2**-22)
    lines = printed(capsys, 0, case, write(tmp_path, **arrays)).splitlines()
    assert lines[0] == "output       agrees (equal to the last bit)"
    assert re.fullmatch(r"grad_input   agrees \(largest difference 2e-07 of the largest value\)", lines[1])
    assert lines[-1] == "4 of 4 tensors agree"
    assert [line.split()[0] for line in lines[:-1]] == NAMES


def test_npy_and_npz_files_flat_arrays_and_other_dtypes_agree(case: Path, tmp_path: Path) -> None:
    arrays = expected(case)
    np.save(tmp_path / "output.npy", np.asfortranarray(arrays["output"]))
    np.save(tmp_path / "grad_input.npy", arrays["grad_input"].ravel().astype(">f8"))
    np.savez(tmp_path / "more.npz", grad_weight=arrays["grad_weight"], other=np.zeros(3))
    np.savez_compressed(tmp_path / "bias.npz", grad_bias=arrays["grad_bias"])
    assert statuses(compare(case, tmp_path)) == ["agrees"] * 4
    np.savez(tmp_path / "all.npz", **arrays)  # type: ignore[arg-type]
    assert statuses(compare(case, tmp_path / "all.npz")) == ["agrees"] * 4


def test_what_is_missing_is_listed_and_is_no_error_unless_all_is(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(capsys, 1, case, tmp_path)
    assert said.count("not compared: ") == 4
    assert said.endswith("0 of 4 tensors agree, 4 not compared\n")
    write(tmp_path, output=expected(case)["output"])
    said = printed(capsys, 0, case, tmp_path)
    assert "grad_bias    not compared: grad_bias.bin, grad_bias.npy and an .npz" in said
    assert said.endswith("1 of 4 tensors agree, 3 not compared\n")
    printed(capsys, 1, case, tmp_path, "--tensor", "grad_bias")


def test_only_the_named_tensors_are_compared(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = expected(case)
    write(tmp_path, **{**arrays, "output": -arrays["output"]})
    said = printed(capsys, 0, case, tmp_path, "--tensor", "grad_bias", "--tensor", "grad_input")
    assert [line.split()[0] for line in said.splitlines()[:-1]] == ["grad_input", "grad_bias"]
    printed(capsys, 1, case, tmp_path, "--tensor", "output")


def test_the_tolerances_may_be_others(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = {name: array.astype(np.float16).astype(np.float32) for name, array in expected(case).items()}
    write(tmp_path, **half)
    assert "less precise than the tolerances allow" not in printed(capsys, 1, case, tmp_path)
    printed(capsys, 0, case, tmp_path, "--rtol", "1e-3")
    printed(capsys, 0, case, tmp_path, "--rtol", "0", "--atol", "0.1")
    printed(capsys, 1, case, tmp_path, "--rtol", "0", "--atol", "0")


def test_nan_and_infinity_agree_with_themselves(tmp_path: Path) -> None:
    case = tmp_path / "case"
    write_vectors("nll_loss", {"ignore_index": 0}, (5, 1), case)  # all classes are ignored: 0 / 0
    arrays = expected(case)
    assert np.isnan(arrays["loss"])
    assert statuses(compare(case, write(tmp_path / "mine", **arrays))) == ["agrees", "agrees"]
    other = write(tmp_path / "mine", loss=np.ones((), "f4"))
    assert verdict(case, other, "loss").status == "differs"


# What differs


def test_mistakes_are_named(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = expected(case)
    write(
        tmp_path,
        output=-arrays["output"],
        grad_weight=arrays["grad_weight"][..., ::-1, ::-1],
        grad_bias=arrays["grad_bias"] / np.float32(5),
    )
    said = printed(capsys, 1, case, tmp_path).splitlines()
    assert re.match(r"output +differs: \d+ of 400 values .*multiplied by -1.*Use -output\.", said[0])
    assert re.match(r"grad_weight +differs: 72 of 72 values .*rotated by 180°", said[2])
    assert re.match(r"grad_bias +differs: 4 of 4 values .*5 is the batch size", said[3])
    assert said[4] == "0 of 4 tensors agree, 3 differ, 1 not compared"


def test_the_operator_and_its_arguments_reach_the_diagnosis(case: Path, tmp_path: Path) -> None:
    """What no transformation of the right values gives: a formula with another argument."""
    import tinyconv.functional as F

    read = read_case(case).arrays
    output = F.conv2d(read["input"], read["weight"], None, 2, 1)
    weight = F.conv2d_weight(read["input"], read["weight"].shape, read["grad_output"][:1].repeat(5, 0), 2, 1)
    write(tmp_path, output=output, grad_weight=weight)
    found = verdict(case, tmp_path, "output")
    assert [mistake.name for mistake in found.mistakes] == ["bias missing"]
    assert "`output` equals the output of conv2d" in found.sentence
    assert not verdict(case, tmp_path, "grad_weight").mistakes


def test_one_wrong_value_is_shown_with_its_place(case: Path, tmp_path: Path) -> None:
    output = expected(case)["output"]
    output[1, 2, 3, 4] = 77
    said = verdict(case, write(tmp_path, output=output), "output").sentence
    assert f"differs: 1 of {output.size:,} values (the first at (1, 2, 3, 4) is 77, not " in said
    output[1, 2, 3, 4] = np.nan
    assert "1 of them NaN or infinite" in verdict(case, write(tmp_path, output=output), "output").sentence


def test_what_is_only_imprecise_is_called_so(case: Path, tmp_path: Path) -> None:
    output = expected(case)["output"]
    output *= np.float32(1 + 2**-18)
    found = compare(case, write(tmp_path, output=output), atol=0).verdicts[0]
    assert found.status == "differs"
    assert "only less precise than the tolerances allow" in found.sentence
    assert not found.mistakes


def test_another_shape_is_diagnosed(case: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "grad_weight.npy", expected(case)["grad_weight"].swapaxes(0, 1))
    found = verdict(case, tmp_path, "grad_weight")
    assert found.status == "differs"
    assert "its shape is (3, 4, 3, 2), not (4, 3, 3, 2)" in found.sentence
    assert [mistake.name for mistake in found.mistakes] == ["transposed"]
    assert found.difference is None


# Raw files

OUTPUT = (5, 4, 4, 5)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("output", lambda y: y.astype(">f4"), r"Read as big-endian it agrees: write little-endian bytes"),
        ("output", lambda y: y.astype("<f8"), r"Read as float64 it agrees: write float32 values"),
        ("output", lambda y: y.astype("<f2"), r"Read as float16 it agrees: write float32 values"),
        ("output", lambda y: -y.astype("<f8"), r"as many as float64 values"),
        ("output", lambda y: y[0], r"has 320 bytes, 80 float32 values, and not 1,600 bytes, 400 values"),
        ("output", lambda y: y[0], r"of shape \(5, 4, 4, 5\): as many as one entry of the batch of 5"),
        ("output", lambda y: np.zeros((5, 4, 3, 4), "f4"), r"as many as with padding=0"),
        ("output", lambda y: np.zeros((5, 4, 8, 10), "f4"), r"as many as with stride=1"),
        ("output", lambda y: np.zeros((5, 3, 8, 9), "f4"), r"as many as grad_input"),
        ("grad_bias", lambda b: np.zeros((4, 3, 3, 2), "f4"), r"as many as grad_weight"),
        (
            "grad_bias",
            lambda b: np.zeros(13, "u1"),
            r"has 13 bytes, 3 float32 values and a rest of 1, and not 16",
        ),
        ("grad_bias", lambda b: np.zeros(7, "f4"), r"4 values of shape \(4,\)$"),
        ("grad_bias", lambda b: np.zeros(0, "f4"), r"has 0 bytes, 0 float32 values"),
    ],
)
def test_a_raw_file_of_another_size_or_dtype_says_what_it_may_be(
    name: str, change: Any, said: str, case: Path, tmp_path: Path
) -> None:
    assert expected(case)["output"].shape == OUTPUT
    found = verdict(case, write(tmp_path, **{name: change(expected(case)[name])}), name)
    assert found.status == "differs"
    assert re.search(said, found.sentence), found.sentence


# JSON


def test_json_has_every_verdict(case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = expected(case)
    write(tmp_path, output=arrays["output"], grad_bias=arrays["grad_bias"] * 2, grad_input=np.zeros(3, "f4"))
    found = json.loads(printed(capsys, 1, case, tmp_path, "--json"))
    assert (found["operator"], found["status"], found["case"]) == ("conv2d", "differs", str(case))
    by_name = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert {name: tensor["status"] for name, tensor in by_name.items()} == {
        "output": "agrees",
        "grad_input": "differs",
        "grad_weight": "missing",
        "grad_bias": "differs",
    }
    assert by_name["output"]["difference"] == 0
    assert by_name["grad_input"]["difference"] is None
    assert by_name["grad_bias"]["difference"] == pytest.approx(1, rel=1e-3)
    assert by_name["grad_bias"]["mistakes"][0]["name"] == "scaled"
    assert set(by_name["grad_bias"]["mistakes"][0]) == {"name", "details", "cure"}
    assert by_name["grad_bias"]["mistakes"][0]["details"]["factor"] == pytest.approx(2)
    assert 0 < by_name["grad_bias"]["atol"] < 1e-3
    found = json.loads(printed(capsys, 1, case, tmp_path, "--json", "--atol", "inf"))
    assert {tensor["name"]: tensor["atol"] for tensor in found["tensors"]}["grad_bias"] is None


# What is refused


def test_wrong_arguments_and_files_end_with_one_line_and_code_2(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = write(tmp_path / "mine", **expected(case))
    assert "is the case itself" in refused(capsys, case, case)
    assert "'outputs'" in refused(capsys, case, mine, "--tensor", "outputs")
    assert "`rtol` (=-1.0)" in refused(capsys, case, mine, "--rtol", -1)
    assert "`atol`" in refused(capsys, case, mine, "--atol", "nan")
    assert "none does not exist" in refused(capsys, case, tmp_path / "none")
    assert "vectors.json" in refused(capsys, tmp_path, mine)
    assert "output.bin cannot be read as an .npz file" in refused(capsys, case, mine / "output.bin")
    np.save(mine / "output.npy", np.zeros(3))
    assert "output.npy is not an .npz file" in refused(capsys, case, mine / "output.npy")
    said = refused(capsys, case, mine)
    assert "output.npy" in said
    assert "output.bin both have the tensor output: keep one of them" in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("output.npy", b"", "output.npy cannot be read as an .npy file"),
        ("output.npy", b"\x93NUMPY\x01\x00 and no more", "output.npy cannot be read as an .npy file"),
        ("all.npz", b"PK\x03\x04 and no more", "all.npz cannot be read as an .npz file"),
    ],
)
def test_files_that_are_cut_off_are_refused(
    name: str, content: bytes, said: str, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in refused(capsys, case, tmp_path)


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([None]), np.zeros(4, complex)])
def test_arrays_of_other_things_than_real_numbers_are_refused(
    values: Array, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "all.npz", grad_bias=values)
    assert "all.npz" in refused(capsys, case, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vectors.json", b"{", "is not JSON"),
        ("vectors.json", b"[]", "does not hold tinyconv test vectors"),
        ("vectors.json", b'{"format": "tinyconv test vectors", "version": 2}', "version 2"),
        ("vectors.json", b'{"format": "tinyconv test vectors", "version": 1}', "does not describe"),
        ("vectors.json", b'{"format": "tinyconv test vectors"}', "version None"),
        (
            "vectors.json",
            b'{"format": "tinyconv test vectors", "version": 1, "operator": "x"}',
            "`operator` (='x')",
        ),
        ("output.bin", b"123", "does not describe the files beside it"),
    ],
)
def test_a_damaged_case_is_refused(
    name: str, content: bytes, said: str, case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(case, tmp_path / "case")
    (tmp_path / "case" / name).write_bytes(content)
    assert said in refused(capsys, tmp_path / "case", write(tmp_path / "mine", **expected(case)))


def test_a_suite_without_its_cases_is_refused(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suite.json").write_bytes(b'{"format": "tinyconv conformance suite"}')
    assert "does not describe its cases" in refused(
        capsys, tmp_path, write(tmp_path / "mine", **expected(case))
    )


def test_damaged_files_of_a_kernel_are_refused(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = expected(case)["output"]
    np.savez_compressed(tmp_path / "all.npz", output=output)
    content = bytearray((tmp_path / "all.npz").read_bytes())
    start = content.find(b"output.npy") + 30
    content[start : start + 40] = b"\xff" * 40
    (tmp_path / "all.npz").write_bytes(content)
    assert "all.npz" in refused(capsys, case, tmp_path / "all.npz")
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "output.npy", output)
    without = (tmp_path / "mine" / "output.npy").read_bytes().replace(b"}", b" ", 1)
    (tmp_path / "mine" / "output.npy").write_bytes(without)
    assert "output.npy" in refused(capsys, case, tmp_path / "mine")


def test_help_tells_the_files_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for word in ("NAME.bin", ".npz", "atol + rtol * |case|", "exit code: 0", "--json", "OPERATOR/NAME"):
        assert word in said


# Suites


def kernels(suite: Path, mine: Path, *operators: str) -> Iterator[tuple[str, dict[str, Array]]]:
    """The cases of some operators, with the right outputs written to `mine`."""
    for path in read_suite(suite):
        if not operators or path.split("/")[0] in operators:
            arrays = expected(suite / path)
            write(mine / path, **arrays)
            yield path, arrays


def test_a_whole_suite_agrees(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [path for path, _ in kernels(suite, tmp_path)]
    said = printed(capsys, 0, suite, tmp_path).splitlines()
    assert [line.split() for line in said[:-1]] == [[path, "agrees"] for path in paths]
    assert said[-1] == f"{len(paths)} of {len(paths)} cases agree"


def test_flags_tell_what_the_failing_cases_have_in_common(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, arrays in kernels(suite, tmp_path, "conv2d", "relu"):
        if path in ("conv2d/groups", "conv2d/plain"):
            (tmp_path / path / "grad_input.bin").unlink()
        if path == "conv2d/groups":
            write(tmp_path / path, output=arrays["output"][:, ::-1])
    said = printed(capsys, 1, suite, tmp_path)
    assert re.search(
        r"^conv2d/groups +DIFFERS in output \(2 of 3 tensors compared\)\n    output: ", said, re.M
    )
    assert re.search(r"^conv2d/plain +agrees \(3 of 4 tensors compared\)$", said, re.M)
    assert re.search(r"^linear/plain +not compared$", said, re.M)
    total = len(read_suite(suite))
    assert f"10 of {total} cases agree, 1 differs, {total - 11} not compared" in said
    flags = said.partition("Flags of the cases that differ:\n")[2]
    assert re.match(r" +Groups \(1 of 1 compared\): Channels are convolved or normalised in groups", flags)
    assert "KernelRotation (1 of 7 compared)" in flags
    assert "PaddingLarge" not in flags
    found = json.loads(printed(capsys, 1, suite, tmp_path, "--json"))
    assert found["status"] == "differs"
    assert found["flags"]["Groups"] == {"differ": 1, "compared": 1}
    assert {case["case"]: case["status"] for case in found["cases"]}["conv2d/groups"] == "differs"


def test_one_case_of_a_suite_tells_its_flags_if_it_fails(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = expected(suite / "max_pool2d" / "ties")
    assert "Ties" not in printed(capsys, 0, suite / "max_pool2d" / "ties", write(tmp_path, **arrays))
    write(tmp_path, grad_input=arrays["grad_input"] * 0.5)
    said = printed(capsys, 1, suite / "max_pool2d" / "ties", tmp_path)
    assert "    Ties: Several values of a window are the largest" in said


def test_a_suite_takes_npz_files_and_names_of_tensors(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "relu").mkdir()
    np.savez(tmp_path / "relu" / "plain.npz", **expected(suite / "relu" / "plain"))  # type: ignore[arg-type]
    found = {comparison.path: comparison for comparison in compare_suite(suite, tmp_path)}
    assert statuses(found["relu/plain"]) == ["agrees", "agrees"]
    printed(capsys, 0, suite, tmp_path, "--tensor", "output")
    printed(capsys, 1, suite, tmp_path, "--tensor", "loss")
    assert "--tensor" not in refused(capsys, suite, tmp_path, "--tensor", "nothing")


def test_nothing_to_compare_and_no_folder(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "0 of" in printed(capsys, 1, suite, tmp_path)
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(capsys, suite, tmp_path / "file")
    assert "is the case itself" in refused(capsys, suite, suite)


def test_a_suite_that_has_changed_is_refused(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "suite"
    shutil.copytree(suite, copy)
    raw = bytearray((copy / "conv2d" / "plain" / "weight.bin").read_bytes())
    raw[0] ^= 1
    (copy / "conv2d" / "plain" / "weight.bin").write_bytes(raw)
    assert re.search(r"weight\.bin has changed since the suite was written", refused(capsys, copy, tmp_path))
    (copy / "suite.json").write_text("{}")
    assert "does not hold tinyconv conformance suite" in refused(capsys, copy, tmp_path)


def test_every_tensor_of_every_operator_can_be_diagnosed(suite: Path, tmp_path: Path) -> None:
    for path, arrays in kernels(suite, tmp_path):
        write(
            tmp_path / path, **{name: (array * 3 + 1).astype(array.dtype) for name, array in arrays.items()}
        )
    for comparison in compare_suite(suite, tmp_path):
        for verdict in comparison.verdicts:
            assert verdict.status == "differs", (comparison.path, verdict)
            assert len(verdict.sentence) > 40

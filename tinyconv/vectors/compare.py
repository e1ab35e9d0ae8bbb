"""What is wrong with a kernel's outputs: files of its tensors beside those of a case."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyconv.arguments import number
from tinyconv.arrays import Array
from tinyconv.vectors import closeness
from tinyconv.vectors.diagnosed import diagnosed
from tinyconv.vectors.files import Found, find, read_case, read_suite
from tinyconv.vectors.sizes import wrong_size
from tinyconv.vectors.write import COMPUTED, Case

__all__ = ["Comparison", "Verdict", "compare", "compare_suite"]


class Verdict(NamedTuple):
    """What is said of one tensor of a kernel.

    `status` is "agrees", "differs" or "missing", `difference` the largest difference divided by the largest
    value (None where nothing could be subtracted), and `mistakes` what `diagnose` names: objects with `name`,
    `details` and `cure`.

    >>> verdict = Verdict("output", "missing", "not compared: output.bin is missing")
    >>> verdict.status, verdict.difference, verdict.mistakes
    ('missing', None, ())
    """

    name: str
    status: str
    sentence: str
    difference: float | None = None
    rtol: float | None = None
    atol: float | None = None
    mistakes: tuple[Any, ...] = ()


class Comparison(NamedTuple):
    """The verdicts on all tensors of one case.

    >>> verdicts = Verdict("output", "agrees", "agrees"), Verdict("grad_input", "missing", "not compared")
    >>> comparison = Comparison("relu/plain", "relu", (), verdicts)
    >>> comparison.status, comparison.names("missing")
    ('agrees', ['grad_input'])
    """

    path: str
    operator: str
    flags: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    def names(self, status: str) -> list[str]:
        """Return the names of the tensors of that status."""
        return [verdict.name for verdict in self.verdicts if verdict.status == status]

    @property
    def status(self) -> str:
        """ "differs" if a tensor does, else "agrees" if one does, else "missing"."""
        return overall(verdict.status for verdict in self.verdicts)


def overall(statuses: Iterable[str]) -> str:
    """Return the status of several: "differs" if one does, else "agrees" if one does, else "missing"."""
    found = set(statuses)
    return next((status for status in ("differs", "agrees") if status in found), "missing")


def compare(
    case: str | os.PathLike[str],
    mine: str | os.PathLike[str],
    tensors: Sequence[str] = (),
    rtol: float | None = None,
    atol: float | None = None,
) -> Comparison:
    """Compare a kernel's outputs with a case that `write_vectors` or `write_suite` has written.

    A tensor agrees where |mine - case| <= atol + rtol * |case| for all its values.

    Args:
        case: the folder of the case.
        mine: a folder with NAME.bin (raw little-endian values in C order, of the case's dtype and shape),
            NAME.npy or .npz files for each tensor NAME; or one .npz file. An array may also be flat, and of
            another dtype.
        tensors: names of the tensors to compare; default: all that a kernel computes.
        rtol, atol: instead of the case's own tolerances.

    Raises:
        ValueError: a name that the case does not have, a file that holds no array, two files for one tensor,
            a case that is damaged or is itself given as `mine`.
        OSError: a file cannot be read.

    >>> import tempfile
    >>> from tinyconv.vectors import write_vectors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     case, mine = Path(folder, "case"), Path(folder, "mine")
    ...     path = write_vectors("relu", {}, (2, 3), case)
    ...     mine.mkdir()
    ...     x = np.fromfile(case / "input.bin", np.float32)
    ...     np.maximum(x, 0).tofile(mine / "output.bin")
    ...     for verdict in compare(case, mine).verdicts:
    ...         print(verdict.name, verdict.sentence)
    output agrees (equal to the last bit)
    grad_input not compared: grad_input.bin, grad_input.npy and an .npz file with it are missing
    """
    case, mine = Path(case), Path(mine)
    if not mine.exists():
        raise FileNotFoundError(f"{mine} does not exist")
    return _compare(case, mine, tensors, _given(rtol, atol))


def compare_suite(
    suite: str | os.PathLike[str],
    mine: str | os.PathLike[str],
    tensors: Sequence[str] = (),
    rtol: float | None = None,
    atol: float | None = None,
) -> list[Comparison]:
    """Compare a kernel's outputs with all cases of a suite that `write_suite` has written.

    Args:
        suite: the suite's folder, whose files must have their checksums.
        mine: a folder with OPERATOR/NAME or OPERATOR/NAME.npz for each case that the kernel computes.
        tensors: names of the tensors to compare, where a case has them; default: all.
        rtol, atol: instead of the cases' own tolerances.

    Raises:
        ValueError, OSError: as `compare`, and a file of the suite that has changed.

    >>> import shutil
    >>> import tempfile
    >>> from tinyconv.vectors import write_suite
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     suite, mine = Path(folder, "suite"), Path(folder, "mine")
    ...     _ = write_suite(suite)
    ...     _ = shutil.copytree(suite / "relu", mine / "relu")  # as a kernel would have written it
    ...     found = compare_suite(suite, mine)
    >>> [comparison.path for comparison in found if comparison.status == "agrees"]
    ['relu/plain', 'relu/zeros', 'relu/large']
    """
    suite, mine = Path(suite), Path(mine)
    if not mine.is_dir():
        raise NotADirectoryError(f"{mine} is not a folder with OPERATOR/NAME for each case")
    paths, given = read_suite(suite), _given(rtol, atol)
    found = [_compare(suite / path, _folder_of(mine, path), tensors, given, path) for path in paths]
    if tensors and not any(comparison.verdicts for comparison in found):
        raise ValueError(f"`tensors` ({', '.join(tensors)}) are in no case of the suite")
    return found


def _folder_of(mine: Path, path: str) -> Path:
    """The case's folder in `mine`, or the .npz file that is there instead."""
    archive = mine / f"{path}.npz"
    return archive if archive.is_file() and not (mine / path).is_dir() else mine / path


def _given(rtol: float | None, atol: float | None) -> dict[str, float]:
    """The tolerances that are given instead of the case's own, checked."""
    named = {"rtol": rtol, "atol": atol}.items()
    return {name: number(name, value, 0.0, math.inf) for name, value in named if value is not None}


def _compare(
    folder: Path, mine: Path, tensors: Sequence[str], given: dict[str, float], path: str = ""
) -> Comparison:
    """Compare one case; `path` is its path in a suite, where not every case has each of the `tensors`."""
    if mine.exists() and folder.exists() and folder.samefile(mine):
        raise ValueError(f"{mine} is the case itself, not what a kernel has computed")
    case = read_case(folder)
    chosen = _chosen(case, tensors, strict=not path)
    verdicts = [_judge(find(mine, tensor["name"]), case, **(tensor | given)) for tensor in chosen]
    flags = tuple(case.description.get("flags", ()))
    return Comparison(path or str(folder), case.description["operator"], flags, tuple(verdicts))


def _chosen(case: Case, names: Sequence[str], strict: bool) -> Iterator[dict[str, Any]]:
    """Descriptions of the tensors to compare; with `strict`, each name must be one of them."""
    computed = {t["name"]: t for t in case.description["tensors"] if t["role"] in COMPUTED}
    for name in names if strict else ():
        if name not in computed:
            raise ValueError(f"`tensors` (={name!r}) must be among the case's {', '.join(computed)}")
    return (tensor for name, tensor in computed.items() if not names or name in names)


def _judge(found: Found | None, case: Case, name: str, rtol: float, atol: float, **other: Any) -> Verdict:
    """The verdict on a tensor, of which the case has the description `name`, `rtol`, `atol` and others."""
    if found is None:
        where = f"{name}.bin, {name}.npy and an .npz file with it are missing"
        return Verdict(name, "missing", f"not compared: {where}")
    want = case.arrays[name]
    got = found.content
    if isinstance(got, bytes):
        if len(got) != want.nbytes:
            sentence = f"differs: {found.path.name} {wrong_size(got, name, case, rtol, atol)}"
            return Verdict(name, "differs", sentence, None, rtol, atol)
        got = np.frombuffer(got, want.dtype).reshape(want.shape)
    elif got.ndim == 1 and got.size == want.size:
        got = got.reshape(want.shape)
    return _judge_array(name, got, want, case, rtol, atol)


def _judge_array(name: str, got: Array, want: Array, case: Case, rtol: float, atol: float) -> Verdict:
    if got.shape == want.shape:
        wrong = ~closeness.close(got, want, rtol, atol)
        difference = closeness.difference(got, want)
        if not wrong.any():
            return Verdict(name, "agrees", _agreement(difference), difference, rtol, atol)
        sentence = f"differs: {_extent(got, want, wrong, difference)}"
        swapped = got.view(got.dtype.newbyteorder())
        if got.dtype.itemsize > 1 and closeness.close(swapped, want, rtol, atol).all():
            sentence += ". Read as big-endian it agrees: write little-endian bytes"
            return Verdict(name, "differs", sentence, difference, rtol, atol)
    else:
        difference = None
        sentence = f"differs: its shape is {got.shape}, not {want.shape}"
    said, mistakes = diagnosed(name, got, want, case)
    return Verdict(name, "differs", f"{sentence}. {said}".rstrip(), difference, rtol, atol, mistakes)


def _agreement(difference: float) -> str:
    if difference == 0:
        return "agrees (equal to the last bit)"
    return f"agrees (largest difference {difference:.1g} of the largest value)"


def _extent(got: Array, want: Array, wrong: Array, difference: float) -> str:
    """How many values are wrong, which is the first, and by how much they are."""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    at = f" at {place}" if place else ""
    count = f"{int(wrong.sum()):,} of {wrong.size:,} values"
    first = f"the first{at} is {float(got[place]):.6g}, not {float(want[place]):.6g}"
    unlike = int((np.isfinite(got) != np.isfinite(want)).sum())
    said = f"{count} ({first}), by up to {difference:.2g} of the largest value"
    return f"{said}, {unlike:,} of them NaN or infinite" if unlike else said


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as what JSON can hold."""
    tensors = []
    for verdict in comparison.verdicts:
        numbers = {name: _finite(getattr(verdict, name)) for name in ("difference", "rtol", "atol")}
        mistakes = [{"name": m.name, "details": m.details, "cure": m.cure} for m in verdict.mistakes]
        tensors.append({**verdict._asdict(), **numbers, "mistakes": mistakes})
    return {
        "case": comparison.path,
        "operator": comparison.operator,
        "flags": list(comparison.flags),
        "status": comparison.status,
        "tensors": tensors,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def dumped(value: Any) -> str:
    """`value` as JSON; what JSON does not have, in the details of a mistake, is text."""
    return json.dumps(value, indent=2, allow_nan=False, default=str)

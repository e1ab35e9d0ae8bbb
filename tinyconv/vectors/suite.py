"""The conformance suite: a fixed set of small float32 cases of all operators.

A folder holds OPERATOR/NAME for each case, as `write_vectors` writes it but without the .npz file;
suite.json, which lists the cases, their flags (names of mistakes that the case catches) and a SHA-256 of
each file; and the JSON schemas of both, suite.schema.json and case.schema.json.

What is promised: one version of the suite has the same cases, attributes, shapes, flags and tolerances'
formula everywhere, and all files are equal to the byte where they are written again by the same versions of
NumPy and SciPy on the same kind of processor. Elsewhere values may differ in the last bit: NumPy may draw
other numbers in a later version (it promises the stream of `default_rng` for bug fixes only), and sums and
exponentials in float64 may round otherwise, which one value in some hundred millions shows after rounding
to float32. So a suite that is shared should be written once; its checksums say whether it is still what was
written.
"""

import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tinyconv.files import write_whole
from tinyconv.vectors.cases import CASES, FLAGS, VERSION, SuiteCase
from tinyconv.vectors.write import make_case

__all__ = ["write_suite"]


def write_suite(out: str | os.PathLike[str]) -> Path:
    """Write the conformance suite to the folder `out`; see the top of this module for what is in it.

    Args:
        out: a folder, which is made where there is none; files of these names are replaced in it.

    Returns:
        The path of suite.json.

    Raises:
        OSError: the folder or a file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     suite = json.loads(write_suite(folder).read_bytes())
    >>> suite["cases"][0]["path"], suite["cases"][0]["flags"]
    ('conv1d/plain', ['KernelRotation', 'ChannelOrder', 'BatchSum'])
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "suite.json").unlink(missing_ok=True)  # it never describes other files
    index: dict[str, Any] = {
        "format": "tinyconv conformance suite",
        "version": VERSION,
        "flags": FLAGS,
        "cases": [_write_case(case, out) for case in CASES],
    }
    for schema in ("case.schema.json", "suite.schema.json"):
        write_whole(out / schema, (files("tinyconv.vectors") / schema).read_bytes())
    write_whole(out / "suite.json", (json.dumps(index, indent=2) + "\n").encode())
    return out / "suite.json"


def _write_case(case: SuiteCase, out: Path) -> dict[str, Any]:
    """Write the case's folder; returns its entry in the index."""
    made = make_case(case.operator, case.attributes, case.input_shape, 0, np.float32, case.values)
    made.description["flags"] = case.flags.split()
    contents = {f"{name}.bin": array.tobytes() for name, array in made.arrays.items()}
    contents["vectors.json"] = made.text().encode()
    folder = out / case.operator / case.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        "path": f"{case.operator}/{case.name}",
        "operator": case.operator,
        "flags": case.flags.split(),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }

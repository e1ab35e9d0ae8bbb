"""The cases of the conformance suite, and the flags that name the mistakes that they catch: cases.json.

A case gets a flag where a kernel with that mistake gives other values. Whoever changes a case, or what is
drawn for it, counts the version up.
"""

import json
from importlib.resources import files
from typing import Any, NamedTuple

from tinyconv.vectors.operators import as_arguments


class SuiteCase(NamedTuple):
    """What `make_case` is given, and the names of the flags, with spaces between."""

    operator: str
    name: str
    attributes: dict[str, Any]
    input_shape: tuple[int, ...]
    flags: str
    values: str = "normal"


_KEPT = json.loads((files("tinyconv.vectors") / "cases.json").read_bytes())
VERSION: int = _KEPT["version"]
FLAGS: dict[str, str] = _KEPT["flags"]
CASES = [
    SuiteCase(**{**as_arguments(case), "attributes": as_arguments(case["attributes"])})
    for case in _KEPT["cases"]
]

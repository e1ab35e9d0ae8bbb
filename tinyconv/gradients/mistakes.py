"""What `diagnose` says of each mistake: the texts are in mistakes.toml."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """One transformation that leads from the right array to the wrong one.

    `name` identifies it, `details` has its numbers (axes, factor, shift, ...), and `cure` is a sentence that
    says what to do. `says` and `why` are how `Diagnosis.text` words it: after
    "`got` equals the expected array", or as a `sentence`.
    """

    name: str
    details: dict[str, Any] = field(default_factory=dict)
    cure: str = ""
    says: str = ""
    why: str = ""
    sentence: bool = False


def mistake(key: str, details: dict[str, Any] | None = None, **values: Any) -> Mistake:
    """The mistake with the texts of this key, filled in from both; its name is what is before the colon."""
    details, texts = details or {}, _texts()[key]
    says, why, cure = (texts.get(part, "").format(**details, **values) for part in ("says", "why", "cure"))
    name, sentence = key.partition(":")[0], texts.get("sentence", False)
    return Mistake(name, details, cure, says, why, sentence)


@cache
def _texts() -> dict[str, dict[str, Any]]:
    file = resources.files("tinyconv.gradients") / "mistakes.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))

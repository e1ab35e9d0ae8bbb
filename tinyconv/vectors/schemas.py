"""JSON schemas (draft 2020-12) of a case's vectors.json and of a suite's suite.json."""

from typing import Any

from tinyconv.vectors.cases import FLAGS
from tinyconv.vectors.operators import OPERATORS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object with these keys and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


_LENGTHS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_FLAG_NAMES = {"type": "array", "items": {"enum": list(FLAGS)}, "uniqueItems": True}
_NAME = {"type": "string", "pattern": "^[a-z0-9_]+$"}
_ROLES = [
    *("input", "target", "parameter", "factor", "buffer"),
    *("output", "grad_output", "gradient", "updated_buffer"),
]
_TENSOR = _object(
    {
        "name": _NAME,
        "role": {"enum": _ROLES},
        "file": {"type": "string", "pattern": r"^[a-z0-9_]+\.bin$"},
        "dtype": {"enum": ["float32", "float64", "int64"]},
        "byte_order": {"const": "little"},
        "shape": _LENGTHS,
        "strides": {**_LENGTHS, "description": "in bytes; C order"},
    },
    {
        "rtol": {"type": "number", "minimum": 0},
        "atol": {"type": "number", "minimum": 0},
    },
)
_ATTRIBUTE = {
    "anyOf": [
        {"type": ["boolean", "number", "string", "null"]},
        {"type": "array", "items": {"type": ["integer", "null"]}},
    ]
}

CASE_SCHEMA = {
    "$schema": DIALECT,
    "title": "tinyconv test vectors",
    "description": "An operator's tensors. What a kernel computes (it has rtol and atol) is right where "
    "|computed - stored| <= atol + rtol * |stored|.",
    **_object(
        {
            "format": {"const": "tinyconv test vectors"},
            "version": {"const": 1},
            "operator": {"enum": list(OPERATORS)},
            "pytorch": {"type": "string", "pattern": r"^torch\.nn\.\w+$"},
            "attributes": {"type": "object", "additionalProperties": _ATTRIBUTE},
            "seed": {"type": "integer", "minimum": 0},
            "values": {"enum": ["normal", "rounded", "large", "negative", "offset"]},
            "tensors": {"type": "array", "items": _TENSOR, "minItems": 1},
        },
        {"flags": _FLAG_NAMES, "npz": {"type": "string"}},
    ),
}

SUITE_SCHEMA = {
    "$schema": DIALECT,
    "title": "tinyconv conformance suite",
    "description": "Cases of all operators. A flag names a mistake that the case catches.",
    **_object(
        {
            "format": {"const": "tinyconv conformance suite"},
            "version": {"type": "integer", "minimum": 1},
            "flags": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "name: what a kernel that fails such a case may have overlooked",
            },
            "cases": {
                "type": "array",
                "items": _object(
                    {
                        "path": {"type": "string", "pattern": "^[a-z0-9_]+/[a-z0-9_]+$"},
                        "operator": {"enum": list(OPERATORS)},
                        "flags": _FLAG_NAMES,
                        "sha256": {
                            "type": "object",
                            "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                            "description": "of each file of the case",
                        },
                    }
                ),
                "minItems": 1,
            },
        }
    ),
}

"""JSON Schema in words: types, bounds and defaults of a field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from writing import code

Schema = Mapping[str, Any]
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "minProperties": "at least {} of them",
    "maxProperties": "at most {} of them",
    "pattern": "`{}`",
}


def type_of(schema: Schema, named: Callable[[str], str]) -> str:
    """The type and the bounds that `schema` describes; `named` says what to write for the schema of a name."""
    return ", ".join(said for said in (_kind_of(schema, named), _bounds_of(schema)) if said)


def _kind_of(schema: Schema, named: Callable[[str], str]) -> str:
    if "$ref" in schema:
        return named(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return " or ".join(code(value) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind_of(one, named) for one in schema[several]))
    if len(schema.get("allOf", ())) == 1:
        return _kind_of(schema["allOf"][0], named)
    match schema.get("type"):
        case "array":
            if "prefixItems" in schema:
                return "[" + ", ".join(_kind_of(one, named) for one in schema["prefixItems"]) + "]"
            return "list of " + _one(schema.get("items", {}), named)
        case "object":
            values = schema.get("additionalProperties")
            return "object of " + _one(values, named) if isinstance(values, Mapping) else "object"
        case None:
            return "any"
        case said:
            return str(said)


def _bounds_of(schema: Schema) -> str:
    if any(bound in schema for bound in _BOUNDS):
        return ", ".join(text.format(schema[bound]) for bound, text in _BOUNDS.items() if bound in schema)
    return "; ".join(said for one in schema.get("anyOf", ()) if (said := _bounds_of(one)))


def _one(schema: Schema, named: Callable[[str], str]) -> str:
    bounds = _bounds_of(schema)
    return _kind_of(schema, named) + (f" ({bounds})" if bounds else "")

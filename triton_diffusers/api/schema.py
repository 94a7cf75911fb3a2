"""The JSON schema of a request to the models that make images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from triton_diffusers.api.contract import CONTROL_INPUTS, INPUTS, Input
from triton_diffusers.settings import Settings

_JSON_TYPES = {"STRING": "string", "BYTES": "string", "INT64": "integer", "FP32": "number", "BOOL": "boolean"}


def request_schema(settings: Settings, optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return the schema, with the limits of ``settings``; ``optional`` fields are not required."""
    # Plain JSON cannot carry bytes.
    fields = [field for field in (*INPUTS, *CONTROL_INPUTS) if field.datatype != "BYTES"]
    return {
        "title": "Triton Diffusers request",
        "type": "object",
        "properties": {field.name: _field_schema(field, settings) for field in fields},
        "required": [field.name for field in fields if field.required and field.name not in optional],
    }


def _field_schema(field: Input, settings: Settings) -> dict[str, Any]:
    text: dict[str, Any] = {"description": field.help}
    if not field.required:
        text["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    value: dict[str, Any] = {"type": _JSON_TYPES[field.datatype]}
    if field.choices:
        value["enum"] = list(field.choices)
    elif (bounds := field.bounds(settings)) is not None:
        value["minimum"] = bounds[0]
        value |= {"maximum": bounds[1]} if bounds[1] < math.inf else {}
    length = field.max_length(settings)
    if not field.many:
        value |= {"maxLength": length} if length is not None else {}
        if field.required or _allows(value, field.default):
            return {**text, **value}
        return {**text, "anyOf": [value, {"const": field.default}]}
    items = {"type": "array", "items": value, **({"maxItems": length} if length is not None else {})}
    return {**text, "anyOf": [items, value]}


def _allows(value: dict[str, Any], default: Any) -> bool:
    """Return True if a schema already accepts the field's default."""
    if "enum" in value:
        return default in value["enum"]
    return "minimum" not in value or value["minimum"] <= default

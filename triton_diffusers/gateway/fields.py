"""Fields of a request, from JSON to the contract's values and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from triton_diffusers.api.contract import Input, Value
from triton_diffusers.errors import InvalidRequest

_INT64 = range(-(2**63), 2**63)
_WHOLE_NUMBERS_IN_TEXT = frozenset(("seed",))  # the reference takes both


def values_from_json(document: Mapping[str, Any], fields: Sequence[Input]) -> dict[str, Any]:
    """Return the value of each field, as ``api.decode.read_values`` does for tensors; null stands for the default.

    Raises:
        InvalidRequest: a value is of another type than its field, or a required field is missing.
    """
    values: dict[str, Any] = {}
    for field in fields:
        given = document.get(field.name)
        if given is not None:
            values[field.name] = _read(field, given)
        elif field.required:
            raise InvalidRequest(field.name, None, "the field is required")
        else:
            values[field.name] = field.default
    return values


def _read(field: Input, given: Any) -> Value | tuple[Value, ...]:
    reader = _READERS[field.datatype]
    if not field.many:
        return reader(field, given)
    return tuple(reader(field, element) for element in (given if isinstance(given, list) else [given]))


def _text(field: Input, given: Any) -> str:
    if field.name in _WHOLE_NUMBERS_IN_TEXT and isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    if not isinstance(given, str):
        raise InvalidRequest(field.name, given, "must be text")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field.name, given, "text must be valid Unicode") from None
    return given


def _whole_number(field: Input, given: Any) -> int:
    number = int(given) if isinstance(given, float) and given.is_integer() else given
    if isinstance(number, bool) or not isinstance(number, int) or number not in _INT64:
        raise InvalidRequest(field.name, given, "must be a whole number of at most 64 bits")
    return number


def _number(field: Input, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidRequest(field.name, given, "must be a number")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidRequest(field.name, given, "must be a finite number")
    return number


def _flag(field: Input, given: Any) -> bool:
    if not isinstance(given, bool):
        raise InvalidRequest(field.name, given, "must be true or false")
    return given


def _bytes(field: Input, given: Any) -> bytes:
    raise InvalidRequest(
        field.name, given, f"JSON cannot carry bytes: send {field.name}_base64 or {field.name}_link instead"
    )


_READERS: Mapping[str, Callable[[Input, Any], Value]] = {
    "STRING": _text,
    "BYTES": _bytes,
    "INT64": _whole_number,
    "FP32": _number,
    "BOOL": _flag,
}

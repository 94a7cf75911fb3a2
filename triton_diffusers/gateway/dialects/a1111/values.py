"""Values of the web UI's fields, read as leniently as the web UI does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from triton_diffusers.errors import InvalidRequest

_MAX_WHOLE = 2**64


def whole(name: str, value: Any, minimum: int, maximum: int = _MAX_WHOLE) -> int:
    """Return a whole number, which may come as text. Raises: InvalidRequest."""
    found = _number(value)
    if not found.is_integer() or not minimum <= found <= maximum:
        limit = f"of at least {minimum}" if maximum == _MAX_WHOLE else f"between {minimum} and {maximum}"
        raise InvalidRequest(name, value, f"must be a whole number {limit}")
    return value if isinstance(value, int) else int(found)


def number(name: str, value: Any, minimum: float = -math.inf, maximum: float = math.inf) -> float:
    """Return a number, which may come as text. Raises: InvalidRequest."""
    found = _number(value)
    if not (minimum <= found <= maximum and math.isfinite(found)):
        raise InvalidRequest(name, value, f"must be a number{_between(minimum, maximum)}")
    return found


def flag(name: str, value: Any) -> bool:
    """Return a flag; 0 and 1 are flags as well. Raises: InvalidRequest."""
    if value not in (True, False):
        raise InvalidRequest(name, value, "must be true or false")
    return bool(value)


def text(name: str, value: Any) -> str:
    """Return a text. Raises: InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest(name, value, "must be text")
    return value


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return an object. Raises: InvalidRequest."""
    if not isinstance(value, dict):
        raise InvalidRequest(name, value, "must be a JSON object")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _between(minimum: float, maximum: float) -> str:
    if math.isinf(maximum):
        return "" if math.isinf(minimum) else f" of at least {minimum:g}"
    return f" between {minimum:g} and {maximum:g}"

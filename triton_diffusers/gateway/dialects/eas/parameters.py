"""Query parameters of queue calls. Names with an underscore are the protocol's; all others are tags."""

from __future__ import annotations

import re
from collections.abc import Mapping

from triton_diffusers.errors import InvalidRequest

_REQUEST_ID = "requestId"
_INDEX = range(-1, 2**63)
_MAX_INDEXES = 1000
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}
# Durations as Go writes them, such as 1m0.5s.
_PART = re.compile(r"(\d{1,12}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{0,9})?")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Parameters:
    """The query parameters of one call."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self._query = query

    def flag(self, name: str, default: bool = False) -> bool:
        """Return True if a parameter is ``true``. Raises: InvalidRequest."""
        given = self._query.get(name)
        if given is None:
            return default
        if given.lower() not in _FLAGS:
            raise InvalidRequest(name, given, "must be true or false")
        return _FLAGS[given.lower()]

    def number(self, name: str, default: int, allowed: range) -> int:
        """Return a whole number. Raises: InvalidRequest."""
        given = self._query.get(name)
        return default if given is None else _number(name, given, allowed)

    def index(self, default: int = 0) -> int:
        """Return the index of an entry; 0 stands for the first one, -1 for the end. Raises: InvalidRequest."""
        return self.number("_index_", default, _INDEX)

    def indexes(self) -> list[int]:
        """Return the indexes of entries. Raises: InvalidRequest."""
        given = self._query.get("_indexes_", "")
        parts = [part for part in given.split(",") if part.strip()]
        if not 1 <= len(parts) <= _MAX_INDEXES:
            raise InvalidRequest("_indexes_", given, f"must be 1 to {_MAX_INDEXES} numbers separated by commas")
        return [_number("_indexes_", part.strip(), _INDEX) for part in parts]

    def seconds(self, name: str, default: float = 0.0) -> float:
        """Return a duration, such as ``1m0.5s``; a number without unit counts seconds. Raises: InvalidRequest."""
        given = self._query.get(name)
        if given is None:
            return default
        if _SECONDS.fullmatch(given):
            return float(given)
        if not _DURATION.fullmatch(given):
            raise InvalidRequest(name, given, "must be a duration, such as 500ms, 5s or 1m30s")
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(given))

    @property
    def request_id(self) -> str | None:
        """Return the id of a request, if one is asked for."""
        return self._query.get(_REQUEST_ID) or None

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags: of a new entry, or those that entries must have."""
        return {name: text for name, text in self._query.items() if not name.startswith("_") and name != _REQUEST_ID}


def _number(name: str, given: str, allowed: range) -> int:
    digits = given.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 19 and int(given) in allowed:
        return int(given)
    raise InvalidRequest(name, given, f"must be a whole number between {allowed.start} and {allowed.stop - 1}")

"""JSON from callers, with bounds on its depth and on the number of its values."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from triton_diffusers.errors import InvalidRequest

MAX_DEPTH = 16
MAX_VALUES = 20_000

_BODY = "body"
# A string as a whole, or a character that opens, closes or separates values. Everything else is part of a scalar.
# A string that nothing closes is one, too: a search from each of its quotes would take quadratic time.
_TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*+"?|[\[\]{},]', re.DOTALL)


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    The text is scanned before it is decoded: a small body can hold millions of empty lists, each an object in memory.

    Raises:
        InvalidRequest: it is not JSON in UTF-8, or exceeds the bounds.
    """
    text = body.removeprefix(b"\xef\xbb\xbf")
    _check_bounds(text)
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(_BODY, text[error.start : error.start + 8], "must be JSON in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(_BODY, text[:40].decode(errors="replace"), f"must be JSON ({error})") from None


def read_object(body: bytes) -> dict[str, Any]:
    """Return the members of a JSON object. Raises ``InvalidRequest``, also for another JSON value."""
    document = read_json(body)
    if not isinstance(document, dict):
        raise InvalidRequest(_BODY, document, "must be a JSON object")
    return document


def _check_bounds(text: bytes) -> None:
    depth = values = strings = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"[{":
            depth += 1
            values += 1
        elif first in b"]}":
            depth -= 1
        elif first in b",":
            values += 1
        else:  # without commas it is not JSON, but takes as long to scan
            strings += 1
        if depth > MAX_DEPTH:
            raise InvalidRequest(_BODY, f"{depth} levels", f"JSON of at most {MAX_DEPTH} levels")
        if values > MAX_VALUES or strings > 2 * MAX_VALUES:
            raise InvalidRequest(_BODY, f"more than {MAX_VALUES} values", f"JSON of at most {MAX_VALUES} values")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")

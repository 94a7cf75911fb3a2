"""Headers that go with every call, such as an API key for a proxy in front of the server."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Characters that both HTTP and gRPC accept. A line break in a value could begin another header.
_NAME = re.compile(r"[A-Za-z0-9_.-]+(?<!-bin)")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
# Headers of the transport itself.
_RESERVED = frozenset(
    ("connection", "content-encoding", "content-length", "inference-header-content-length", "te", "transfer-encoding")
)


def make_headers(headers: Mapping[str, str] | None, api_key: str | None) -> Mapping[str, str]:
    """Return the headers of all calls, their names in lower case as gRPC wants them.

    ``api_key`` becomes ``authorization: Bearer …``. Raises ``ValueError`` for an invalid header; the message
    has no value, which may be a secret.
    """
    made: dict[str, str] = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise ValueError(f"headers: {name!r} is invalid: it must be the name of a header that callers may set")
        made[name.lower()] = _checked(f"headers: the value of {name}", value)
    if api_key:
        if "authorization" in made:
            raise ValueError("api_key: the headers have an authorization already; give one of the two")
        made["authorization"] = f"Bearer {_checked('api_key', api_key)}"
    return made


def _checked(what: str, value: str) -> str:
    if not isinstance(value, str) or not _VALUE.fullmatch(value.strip()):
        raise ValueError(f"{what} is invalid: it must be printable ASCII text on one line")
    return value.strip()

"""API keys: ``td_<id>_<secret>``.

Of a key, its SHA-256 is kept. A slow hash, such as Argon2, protects secrets that can be guessed; the secret of a key
has 256 random bits, and its hash is computed for each request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_PREFIX: Final = "td"
_KEY = re.compile(r"td_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32
_CODE_BYTES = 24


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials of a request: a key and perhaps a user's name, or a signature that was made with a key."""

    key: str = field(default="", repr=False)
    user: str = ""
    signature: str = field(default="", repr=False)


def new_key() -> tuple[str, str]:
    """Return the id of a new key, and the key."""
    key_id = secrets.token_hex(6)
    return key_id, f"{_PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def new_code() -> str:
    """Return a new code of one use."""
    return secrets.token_urlsafe(_CODE_BYTES)


def key_id_of(key: str) -> str:
    """Return the id of a key; empty if it is none."""
    found = _KEY.fullmatch(key)
    return found[1] if found else ""


def digest(secret: str) -> str:
    """Return the hash of a key or a code."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def is_same(first: str, second: str) -> bool:
    """Return True if two texts are equal, in a time that does not depend on how much of them is."""
    return hmac.compare_digest(first.encode(errors="replace"), second.encode(errors="replace"))


def credentials_of(headers: Mapping[str, str]) -> Credentials | None:
    """Return the credentials in a request's headers; None if there are none.

    ``Authorization`` has a key as it is, or after ``Bearer``, or as the password of ``Basic``, or a signature after
    ``EAS``. Clients that were given no key send the header empty, or a scheme without a value.
    """
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    value = value.strip()
    match scheme.lower():
        case "" | "bearer" | "eas" if not value:
            found = None
        case "basic":
            found = _basic(value)
        case "bearer":
            found = Credentials(key=value)
        case "eas":
            found = Credentials(signature=value)
        case _:
            found = Credentials(key=f"{scheme} {value}".strip())
    if found is not None:
        return found
    key = headers.get("x-api-key", "").strip() or headers.get("api-key", "").strip()
    return Credentials(key=key) if key else None


def _basic(value: str) -> Credentials | None:
    try:
        user, _, key = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return Credentials(key=value)
    return Credentials(key=key, user=user) if key or user else None

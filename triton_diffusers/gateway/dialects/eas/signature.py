"""Tokens of services, as EAS clients send them: as they are, as bearer tokens, or in signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

_SIGNED = "EAS "
_BEARER = "bearer "


def verify_eas_signature(token: str, signature: str, *, method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Return True if ``signature`` is that of a request by the holder of ``token``.

    ``headers`` have lower-case names. Their ``date`` is part of the signature, but is not checked: the SDK sends the
    local time as if it were GMT.
    """
    parts = (
        method.upper(),
        headers.get("content-md5", ""),
        headers.get("content-type", ""),
        headers.get("date", ""),
        path,
    )
    digest = hmac.digest(token.encode(), "\n".join(parts).encode(), "sha1")
    return hmac.compare_digest(base64.b64encode(digest), signature.encode())


def is_authorized(token: str, *, method: str, path: str, headers: Mapping[str, str]) -> bool:
    """Return True if a request's ``Authorization`` shows ``token``: raw, after ``Bearer``, or by a signature."""
    given = headers.get("authorization", "").strip()
    if given.startswith(_SIGNED):
        signature = given.removeprefix(_SIGNED).strip()
        return verify_eas_signature(token, signature, method=method, path=path, headers=headers)
    if given.lower().startswith(_BEARER):
        given = given[len(_BEARER) :].strip()
    return hmac.compare_digest(given.encode(), token.encode())


def is_digest_of(content_md5: str, body: bytes) -> bool:
    """Return True if a ``Content-MD5`` header is that of a body: in hexadecimal, as EAS clients send it, or base64."""
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return content_md5.strip() in (digest.hex(), base64.b64encode(digest).decode())

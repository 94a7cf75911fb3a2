"""Signed URLs: whoever has one may fetch what it names, until it expires."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

_FILE = "signing.key"
_KEY_BYTES = 32


class UrlSigner:
    """Makes and checks the query strings of signed paths."""

    def __init__(self, key: bytes, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._seconds = seconds
        self._clock = clock

    def query(self, path: str) -> str:
        """Return the query string that makes ``path`` valid from now on."""
        expires = int(self._clock() + self._seconds)
        return f"expires={expires}&signature={self._signature(path, expires)}"

    def allows(self, path: str, expires: str, signature: str) -> bool:
        """Return True if the query string is of this path and has not expired."""
        if not (expires.isascii() and expires.isdecimal() and len(expires) < 20):
            return False
        valid = hmac.compare_digest(self._signature(path, int(expires)).encode(), signature.encode())
        return valid and self._clock() < int(expires)

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._key, f"{expires}:{path}".encode(), hashlib.sha256).hexdigest()


def signing_key(secret: str, state_dir: Path) -> bytes:
    """Return the key of ``secret``, or of a file in ``state_dir``, which is created if it is missing.

    Raises: OSError: the file cannot be read or written.
    """
    if secret:
        return hashlib.sha256(secret.encode()).digest()
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state_dir / _FILE
    temporary = state_dir / f".{_FILE}-{secrets.token_hex(4)}"
    if not path.exists():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(temporary, path)  # unlike a rename, keeps the key of a gateway that was faster
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()

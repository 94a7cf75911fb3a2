"""Encoded pictures as they travel: their size limit, and base64."""

from __future__ import annotations

import binascii
import re
import string

from triton_diffusers.errors import InvalidPicture
from triton_diffusers.settings import Settings

_DATA_URL = re.compile(rb"\s*data:image/[a-z0-9.+-]{1,64};base64,", re.IGNORECASE)
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = string.whitespace.encode()


def check_size(field: str, size: float, settings: Settings) -> None:
    """Raise ``InvalidPicture`` for an encoded picture of more bytes than ``max_image_megabytes`` allows."""
    if size > settings.max_image_megabytes * 1e6:
        raise InvalidPicture(field, f"{size / 1e6:.1f} MB", f"at most {settings.max_image_megabytes:g} MB")


def decode_base64(field: str, text: str, settings: Settings) -> bytes:
    """The bytes of base64 text: standard or URL-safe alphabet, padded or not, whitespace and ``data:`` prefix allowed.

    Raises ``InvalidPicture`` for anything else, for nothing, and for too many bytes (before they are decoded).
    """
    try:
        encoded = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise _not_base64(field, text) from error
    if prefix := _DATA_URL.match(encoded):
        encoded = encoded[prefix.end() :]
    encoded = encoded.translate(_TO_STANDARD, _WHITESPACE)
    bare = encoded.rstrip(b"=")
    check_size(field, len(bare) * 3 // 4, settings)
    if not bare or len(encoded) - len(bare) > 2:
        raise _not_base64(field, text)
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error as error:
        raise _not_base64(field, text) from error


def _not_base64(field: str, text: str) -> InvalidPicture:
    return InvalidPicture(field, text[:40], "must be a picture as base64 (standard or URL-safe alphabet)")

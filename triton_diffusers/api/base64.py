"""Images encoded as text: base64 and data URLs, and their size limit."""

from __future__ import annotations

import binascii
import re
import string
from urllib.parse import unquote_to_bytes

from triton_diffusers.errors import InvalidImage
from triton_diffusers.settings import Settings

# RFC 2397. The media type does not matter: an image's format is read from its content.
_DATA_URL = re.compile(r"\s*data:([^,]{0,1024}),", re.ASCII | re.IGNORECASE)
_ENDS_WITH_BASE64 = re.compile(r";\s*base64\s*\Z", re.ASCII | re.IGNORECASE)
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = string.whitespace.encode()
_PERCENT_PIECE = 2**16  # bytes


def check_size(field: str, size: float, settings: Settings) -> None:
    """Raise ``InvalidImage`` for an encoded image of more bytes than ``max_image_megabytes`` allows."""
    if size > settings.max_image_megabytes * 1e6:
        raise InvalidImage(field, f"{size / 1e6:.1f} MB", f"at most {settings.max_image_megabytes:g} MB")


def is_data_url(text: str) -> bool:
    """Return True if the text begins like a data URL."""
    return text[:64].lstrip().lower().startswith("data:")


def decode_base64(field: str, text: str, settings: Settings) -> bytes:
    """Return the bytes of base64 text, or of a data URL.

    Base64 may have the standard or the URL-safe alphabet, padding or none, and whitespace.

    Raises:
        InvalidImage: it is anything else, or empty, or too large (judged before it is decoded).
    """
    if is_data_url(text):
        return decode_data_url(field, text, settings)
    return _from_base64(field, text, _ascii(field, text), settings)


def decode_data_url(field: str, text: str, settings: Settings) -> bytes:
    """Return the bytes of a data URL of any media type, with any parameters: as base64, or percent-encoded.

    Raises:
        InvalidImage: it is not a data URL, is empty, or too large.
    """
    if (prefix := _DATA_URL.match(text)) is None:
        raise _invalid(field, text)
    body = _ascii(field, text[prefix.end() :])
    if not _ENDS_WITH_BASE64.search(prefix[1]):
        body = body.translate(None, b"\t\r\n").rstrip()
        check_size(field, len(body) - 2 * body.count(b"%"), settings)
        if not body:
            raise _invalid(field, text)
        return _percent_decoded(body)
    return _from_base64(field, text, _percent_decoded(body) if b"%" in body else body, settings)


def _from_base64(field: str, text: str, encoded: bytes, settings: Settings) -> bytes:
    encoded = encoded.translate(_TO_STANDARD, _WHITESPACE)
    bare = encoded.rstrip(b"=")
    check_size(field, len(bare) * 3 // 4, settings)
    if not bare or len(encoded) - len(bare) > 2:
        raise _invalid(field, text)
    try:
        return binascii.a2b_base64(bare + b"=" * (-len(bare) % 4), strict_mode=True)
    except binascii.Error as error:
        raise _invalid(field, text) from error


def _percent_decoded(text: bytes) -> bytes:
    """Return the bytes of percent-encoded text, decoded in pieces, since the library makes an object of each escape."""
    decoded, start = bytearray(), 0
    while start < len(text):
        end = start + _PERCENT_PIECE
        if (cut := text.rfind(b"%", end - 2, end)) >= 0:  # do not split an escape
            end = cut
        decoded += unquote_to_bytes(text[start:end])
        start = end
    return bytes(decoded)


def _ascii(field: str, text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise _invalid(field, text) from error


def _invalid(field: str, text: str) -> InvalidImage:
    return InvalidImage(field, text[:40], "must be an image as base64 (standard or URL-safe alphabet) or a data URL")

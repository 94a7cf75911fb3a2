"""The folder of the result store that a request may name."""

from __future__ import annotations

import re
import unicodedata

from triton_diffusers.errors import InvalidRequest

_MAX_BYTES = 200


_PUNCTUATION = frozenset("._- ")


# Unicode categories: letters, the marks on them (of Indic scripts, say), numbers, and emoji with their skin tones.
_CATEGORIES = ("L", "Mn", "Mc", "N", "So")


_SKIN_TONES = frozenset("🏻🏼🏽🏾🏿")


# Of these categories, but invisible: fillers of Hangul, the grapheme joiner, variation selectors, Khmer vowels.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0e\U000e0100-\U000e01ef]")


# Invisible too, but parts of emoji: the joiner and the selector of a coloured image.
_EMOJI_JOINS = frozenset("\u200d\ufe0f")


_LIMIT = (
    f"a relative path of at most {_MAX_BYTES} bytes, whose parts are letters, digits, emoji, '.', '_', '-' and spaces "
    "(in form NFKC), with no '.' or space at its start or end"
)


def check_save_dir(value: str) -> str:
    """Return a request's folder in the store, composed (NFC). Raises ``InvalidRequest`` unless it is below the root.

    What is allowed is listed rather than what is not: letters and digits of any script in their NFKC form, so that no
    character becomes a separator or a dot when somebody else normalises the path.
    """
    composed = unicodedata.normalize("NFC", value)
    fits = (
        len(composed.encode(errors="replace")) <= _MAX_BYTES
        and unicodedata.is_normalized("NFKC", composed)
        and all(_is_safe(part) for part in composed.split("/"))
    )
    if not fits:
        raise InvalidRequest("save_dir", value, _LIMIT)
    return composed


def _is_safe(part: str) -> bool:
    return (
        part != ""
        and part[0] not in ". "
        and not unicodedata.combining(part[0])
        and part[-1] not in ". "
        and all(_is_allowed(char, before) for char, before in zip(part, " " + part, strict=False))
    )


def _is_allowed(char: str, before: str) -> bool:
    """Return True if ``char`` may follow ``before`` in a part."""
    if char in _EMOJI_JOINS:
        return before in _EMOJI_JOINS or before in _SKIN_TONES or unicodedata.category(before) == "So"
    visible = unicodedata.category(char).startswith(_CATEGORIES) and not _INVISIBLE.match(char)
    return visible or char in _PUNCTUATION or char in _SKIN_TONES

"""Split a prompt into Chinese and syntax that must be kept: ``(…:1.3)``, ``[…]``, escapes, ``<lora:…>``.

The pieces joined are the prompt. Chinese pieces are translated one by one, so that a list of tags stays a list, and a
bracket stays around its words. Chinese has no spaces where English needs them, so joining inserts them, only beside
translated text.

Every prompt can be split, without errors and in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import accumulate

from triton_diffusers.prompts.scripts import HAN

MAX_RUN = 80
"""Characters of Chinese that are translated at once; a longer run without punctuation is split."""

_KANA = r"\u3040-\u30ff"


@dataclass(frozen=True, slots=True)
class _Mark:
    """The replacement of a full-width mark, and if a space separates it from a word before or after it."""

    text: str
    before: bool = False
    after: bool = True


# Full-width marks that remain after ``typed`` has replaced those that stand for syntax.
_MARKS = {
    **{mark: _Mark(text) for mark, text in zip("，、；。！？：", ",,;.!?:", strict=True)},
    **{mark: _Mark('"', before=True, after=False) for mark in "“《〈「『"},
    **{mark: _Mark('"') for mark in "”》〉」』"},
    "‘": _Mark("'", before=True, after=False),
    "’": _Mark("'"),
    "…": _Mark("..."),
    "—": _Mark("-", after=False),
    "～": _Mark("~", after=False),
    "·": _Mark(" ", after=False),
    "\u3000": _Mark(" ", after=False),
}
_NUMBER = r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)"
# Numbers and capitals that belong to a Chinese word: T恤, 3D渲染, 1980年代. AND joins prompts.
_ATTACHED = r"(?:[0-9]{1,8}|(?!AND(?![A-Za-z0-9]))[A-Z0-9]{1,3})"
# As ``prompts.tags`` finds them, and some more.
_TAG = r"<[^<>:\s]{1,64}+:[^<>]{1,1024}+>"
_BEGINS_TAG = re.compile(_TAG)
_PIECES = re.compile(
    rf"""
      (?P<tag>{_TAG})
    | (?P<escaped>\\[()\[\]<>|:\\])
    | (?P<open>[(\[])
    | (?P<close>:\s*+{_NUMBER}\s*+\)|[)\]])
    | (?P<space>[^\S\u3000]++)
    | (?P<japanese>[{HAN}]{{0,{MAX_RUN}}}[{_KANA}][{HAN}{_KANA}]*+)
    | (?P<chinese>(?:{_ATTACHED}(?=[{HAN}]))?+[{HAN}](?:[{HAN}]|{_ATTACHED}(?![A-Za-z0-9])){{0,{MAX_RUN - 1}}}+)
    | (?P<mark>[{"".join(map(re.escape, _MARKS))}])
    | (?P<text>[^\s()\[\]\\<>:{HAN}{_KANA}{"".join(map(re.escape, _MARKS))}]++|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_CHINESE = re.compile(f"[{HAN}]")
_ENDS_CLAUSE = ",;.!?"


class Kind(Enum):
    """The kind of a piece."""

    CHINESE = auto()
    MARK = auto()
    OPEN = auto()
    CLOSE = auto()
    TAG = auto()
    SPACE = auto()
    TEXT = auto()


_KINDS = {
    "chinese": Kind.CHINESE,
    "mark": Kind.MARK,
    "open": Kind.OPEN,
    "close": Kind.CLOSE,
    "tag": Kind.TAG,
    "space": Kind.SPACE,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt; ``touched`` if it is translated, or a full-width mark of a prompt with Chinese."""

    text: str
    kind: Kind
    touched: bool = False

    @property
    def begins_word(self) -> bool:
        """Return True if a space separates it from a word before it."""
        if self.kind is Kind.MARK:
            return self.touched and _MARKS[self.text].before
        return self.kind in (Kind.CHINESE, Kind.OPEN, Kind.TAG) or (self.kind is Kind.TEXT and self.text[0].isalnum())

    @property
    def ends_word(self) -> bool:
        """Return True if a space separates it from a word after it."""
        if self.kind is Kind.MARK:
            return self.touched and _MARKS[self.text].after
        if self.kind is Kind.TEXT:
            return self.text[-1].isalnum() or self.text[-1] in _ENDS_CLAUSE
        return self.kind in (Kind.CHINESE, Kind.CLOSE, Kind.TAG)


def part(prompt: str) -> list[Piece]:
    """Return the pieces of a prompt."""

    pieces = [_piece(match) for match in _PIECES.finditer(prompt)] if _CHINESE.search(prompt) else []
    if not any(piece.kind is Kind.CHINESE for piece in pieces):
        return [Piece(prompt, Kind.TEXT)] if prompt else []
    return [Piece(piece.text, piece.kind, touched=piece.kind in (Kind.CHINESE, Kind.MARK)) for piece in pieces]


def join(pieces: Sequence[Piece], english: Sequence[str]) -> str:
    """Return the prompt with ``english`` in place of its Chinese pieces, in their order.

    A ``<`` that begins no tag in the prompt is escaped if the marks after it would make one: ``<红：绿>``.
    """
    translations = iter(english)
    parts: list[str] = []
    angles: list[int] = []
    last: Piece | None = None
    for piece in pieces:
        text = next(translations) if piece.kind is Kind.CHINESE else piece.text
        if piece.kind is Kind.MARK and piece.touched:
            text = _MARKS[piece.text].text
        if not text:
            continue
        if last and (last.touched or piece.touched) and last.ends_word and piece.begins_word:
            parts.append(" ")
        if piece.kind is Kind.TEXT and text == "<":
            angles.append(len(parts))
        parts.append(text)
        last = piece
    return _without_new_tags(parts, angles)


def _without_new_tags(parts: list[str], angles: Sequence[int]) -> str:
    """Return the joined parts, in which none of the ``<`` at ``angles`` begins a tag."""
    if not angles:
        return "".join(parts)
    starts = [0, *accumulate(map(len, parts))]
    joined = "".join(parts)
    for index in angles:
        if _BEGINS_TAG.match(joined, starts[index]):
            parts[index] = "\\<"
    return "".join(parts)


def _piece(match: re.Match[str]) -> Piece:
    text = match[0]
    if match.lastgroup == "escaped":
        return Piece(text, Kind.OPEN if text[1] in "([" else Kind.CLOSE if text[1] in ")]" else Kind.TEXT)
    return Piece(text, _KINDS.get(match.lastgroup or "", Kind.TEXT))

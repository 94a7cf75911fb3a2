"""Translate prompts: split, translate new pieces, cache them, join."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from triton_diffusers.errors import Busy, EngineFailure, InvalidRequest, NotTranslated, TritonDiffusersError, shown
from triton_diffusers.translate.engines import TranslationEngine
from triton_diffusers.translate.simplified import simplified
from triton_diffusers.translate.syntax import Kind, Piece, join, part
from triton_diffusers.translate.typed import as_typed
from triton_diffusers.util.cache import LruCache, one

log = logging.getLogger(__name__)

_MAX_BATCH_TEXTS = 32
_MAX_BATCH_CHARS = 512
_SYNTAX = re.compile(r"[\\()\[\]|:]")
_SPACE = re.compile(r"\s+")
_KEYWORD = re.compile(r"\b(?:BREAK|AND)\b")
_MAX_UNKNOWN_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Field:
    """A text to translate, and the name of its request field."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Translation:
    """A text in English, with warnings for the caller."""

    text: str
    warnings: tuple[str, ...] = ()


Outcome = Translation | TritonDiffusersError


class Translator:
    """Translates the Chinese pieces of prompts with one engine, and caches them. Not thread-safe."""

    def __init__(
        self,
        engine: TranslationEngine | None,
        *,
        max_chars: int,
        max_chinese_chars: int,
        seconds: float,
        cache_size: int,
    ) -> None:
        """Without an engine, texts with Chinese are rejected.

        ``max_chars`` and ``max_chinese_chars`` bound a text, ``seconds`` the time of one call of ``translate``, and
        ``cache_size`` the number of cached pieces.
        """
        self._engine = engine
        self._max_chars = max_chars
        self._max_chinese_chars = max_chinese_chars
        self._seconds = seconds
        self._cache_size = cache_size
        self._cache: LruCache[str, str | None] = LruCache(cache_size, one)

    def translate(self, fields: Sequence[Field]) -> list[Outcome]:
        """Return for each field its text in English or its error; errors do not affect other fields.

        Short texts are translated first. Texts that are not finished in time are rejected as ``Busy``; their finished
        pieces are cached, so that a retry continues from there.
        """
        parted = [self._part(field) for field in fields]
        wanted = [_chinese(pieces) for pieces in parted if not isinstance(pieces, TritonDiffusersError)]
        found = self._english([text for texts in sorted(wanted, key=len) for text in texts])
        return [
            pieces if isinstance(pieces, TritonDiffusersError) else _outcome(field, pieces, found)
            for field, pieces in zip(fields, parted, strict=True)
        ]

    def _part(self, field: Field) -> list[Piece] | TritonDiffusersError:
        if len(field.text) > self._max_chars:
            return InvalidRequest(field.name, f"{len(field.text)} characters", f"at most {self._max_chars}")
        pieces = part(as_typed(field.text))
        chinese = sum(map(len, _chinese(pieces)))
        if chinese and self._engine is None:
            return NotTranslated(field.name)
        if chinese > self._max_chinese_chars:
            return InvalidRequest(
                field.name, f"{chinese} characters to translate", f"at most {self._max_chinese_chars} of them Chinese"
            )
        return pieces

    def _english(self, texts: Sequence[str]) -> dict[str, _Found]:
        """Return translations by text, as far as there is time; None for a text that the engine does not know."""
        until = time.monotonic() + self._seconds
        found: dict[str, _Found] = {}
        new = []
        for text in dict.fromkeys(texts):
            if text in self._cache:
                found[text] = self._cache.get(text)
            else:
                new.append(text)
        for batch in _batches(new):
            if self._engine is None or time.monotonic() > until:
                break
            found.update(zip(batch, self._batch(self._engine, batch), strict=True))
        return found

    def _batch(self, engine: TranslationEngine, texts: Sequence[str]) -> list[_Found]:
        try:
            english = [None if text is None else _plain(text) for text in engine.translate(texts)]
            if len(english) != len(texts):
                raise ValueError(f"the engine gave {len(english)} translations for {len(texts)} texts")
        except Exception:
            log.exception("translation failed")
            return [EngineFailure("the translator failed; the server's log says why")] * len(texts)
        if self._cache_size:
            for text, translation in zip(texts, english, strict=True):
                self._cache.put(text, translation)
        return list(english)


_Found = str | TritonDiffusersError | None


def _chinese(pieces: Sequence[Piece]) -> list[str]:
    return [simplified(piece.text) for piece in pieces if piece.kind is Kind.CHINESE]


def _outcome(field: Field, pieces: Sequence[Piece], found: dict[str, _Found]) -> Outcome:
    english: list[str] = []
    unknown: list[str] = []
    written = [piece.text for piece in pieces if piece.kind is Kind.CHINESE]
    for original, text in zip(written, _chinese(pieces), strict=True):
        if text not in found:
            return Busy(f"{field.name}: there was no time to translate it all; try again, what is done is remembered")
        outcome = found[text]
        if isinstance(outcome, TritonDiffusersError):
            return outcome
        if outcome is None:
            unknown.append(original)
        english.append(original if outcome is None else outcome)
    told = list(dict.fromkeys(unknown))[:_MAX_UNKNOWN_SHOWN]
    warnings = (f"{field.name}: the translator does not know {shown(text)}, which stays Chinese" for text in told)
    return Translation(join(pieces, english), tuple(warnings))


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in bounded batches, in order; the time limit is checked between batches."""
    batch: list[str] = []
    for text in texts:
        if batch and (len(batch) == _MAX_BATCH_TEXTS or sum(map(len, batch)) + len(text) > _MAX_BATCH_CHARS):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _plain(english: str) -> str:
    """Return a translation as plain text of a prompt: its brackets, colons and bars are escaped.

    A final full stop, which some models add to any text, is removed.
    """
    text = _SPACE.sub(" ", english).strip().removesuffix(".")
    text = _KEYWORD.sub(lambda match: match[0].lower(), text).replace("<", "").replace(">", "")
    return _SYNTAX.sub(r"\\\g<0>", text)

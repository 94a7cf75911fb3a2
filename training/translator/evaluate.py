"""Measures the exported model as it is served: by CTranslate2 in int8, greedy, prompt by prompt."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from training.emoji.backgrounds import BACKGROUNDS
from training.translator.english import with_article
from training.translator.phrases import HELD_OUT_TEMPLATES, TEMPLATES, Phrase, PhraseBook
from training.translator.vocabulary import Word
from triton_diffusers.translate.engines.ctranslate2 import CTranslate2Engine, convert

PHRASES = 500
BATCH = 64
MISSES_SHOWN = 25
METRIC = (
    "right: the share of phrases whose translation is, letter for letter, one of the right ones (most have one). "
    "trained: random phrases of trained templates, words and pairs of a noun and a colour. "
    "held_out_pairs: trained templates and words, with a pair of a noun and a colour that training never drew. "
    "held_out_templates: wordings that training never drew. "
    "subjects: every name of every subject of the emoji model, alone and on a background. "
    "words: every noun of prompts, and every emoji's name, alone."
)


def evaluate(folder: Path, book: PhraseBook, nouns: dict[str, list[Word]]) -> dict[str, Any]:
    """Figures of the model in `folder`, with some of what it gets wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        convert(folder, Path(scratch))
        engine = CTranslate2Engine(Path(scratch), folder, beams=1)
        sets: dict[str, list[Phrase]] = {
            "trained": [book.taught() for _ in range(PHRASES)],
            "held_out_pairs": _drawn(lambda: book.drawn(TEMPLATES), held_out=True),
            "held_out_templates": _drawn(lambda: book.drawn(HELD_OUT_TEMPLATES), held_out=False),
            "subjects": _subjects(nouns["subjects"]),
            "words": [_alone(word) for word in nouns["words"]],
            "names": [_alone(word) for word in nouns["names"]],
        }
        return {"metric": METRIC, **{name: _figures(engine, phrases) for name, phrases in sets.items()}}


def _drawn(draw: Callable[[], Phrase], *, held_out: bool) -> list[Phrase]:
    found: list[Phrase] = []
    while len(found) < PHRASES:
        phrase = draw()
        if phrase.held_out == held_out:
            found.append(phrase)
    return found


def _subjects(words: Sequence[Word]) -> list[Phrase]:
    phrases = [_alone(word) for word in words]
    for word, background in zip(words, cycle(BACKGROUNDS), strict=False):
        subject, colour = (with_article(name, name) for name in (word.english, background.name))
        english = f"{subject} on {colour} background"
        phrases.append(Phrase(f"{background.chinese[0]}背景上的{word.chinese}", (english,), False))
    return phrases


def _alone(word: Word) -> Phrase:
    return Phrase(word.chinese, (word.english,), False)


def _figures(engine: CTranslate2Engine, phrases: Sequence[Phrase]) -> dict[str, Any]:
    ordered = sorted(phrases, key=lambda phrase: len(phrase.chinese))
    said = [
        english
        for begin in range(0, len(ordered), BATCH)
        for english in engine.translate([phrase.chinese for phrase in ordered[begin : begin + BATCH]])
    ]
    wrong = [
        f"{phrase.chinese} = {phrase.english[0]} -> {english}"
        for phrase, english in zip(ordered, said, strict=True)
        if english not in phrase.english
    ]
    shown = random.Random(0).sample(wrong, min(MISSES_SHOWN, len(wrong)))
    return {"phrases": len(phrases), "right": round(1 - len(wrong) / len(phrases), 4), "wrong": sorted(shown)}

"""The translator with a fake engine."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from triton_diffusers.errors import Busy, EngineFailure, InvalidRequest, NotTranslated, TritonDiffusersError
from triton_diffusers.translate import translator as translator_module
from triton_diffusers.translate.simplified import simplified
from triton_diffusers.translate.translator import Field, Translation, Translator


class FakeEngine:
    """An engine that returns ``<n> characters``, or the entry of ``says`` for a text."""

    def __init__(self, says: dict[str, str | None] | None = None) -> None:
        self.batches: list[list[str]] = []
        self._says = says or {}

    def translate(self, texts: Sequence[str]) -> list[str | None]:
        self.batches.append(list(texts))
        return [self._says.get(text, f"{len(text)} characters") for text in texts]


class BrokenEngine:
    def translate(self, texts: Sequence[str]) -> list[str]:
        raise RuntimeError("out of memory in /secret/path")


def translator(engine: Any, **changes: Any) -> Translator:
    return Translator(
        engine, **{"max_chars": 10_000, "max_chinese_chars": 2000, "seconds": 10, "cache_size": 1000, **changes}
    )


def outcomes(made: Translator, *texts: str) -> list[str | TritonDiffusersError]:
    """Return the English texts or errors; there must be no warnings."""
    found = made.translate([Field("prompt", text) for text in texts])
    assert not any(outcome.warnings for outcome in found if isinstance(outcome, Translation))
    return [outcome.text if isinstance(outcome, Translation) else outcome for outcome in found]


def test_only_chinese_pieces_are_translated_once() -> None:
    engine = FakeEngine()
    made = translator(engine)
    assert outcomes(made, "a cat", "苹果, 苹果, (猫:1.2) dog", "猫") == [
        "a cat",
        "2 characters, 2 characters, (1 characters:1.2) dog",
        "1 characters",
    ]
    assert sorted(text for batch in engine.batches for text in batch) == sorted(["苹果", "猫"])
    outcomes(made, "苹果")
    assert len(engine.batches) == 1


def test_the_least_recently_used_piece_is_evicted() -> None:
    engine = FakeEngine()
    made = translator(engine, cache_size=2)
    for text in ("一", "二", "一", "三", "一", "二"):
        outcomes(made, text)
    assert engine.batches == [["一"], ["二"], ["三"], ["二"]]


def test_batches_are_bounded() -> None:
    engine = FakeEngine()
    outcomes(
        translator(engine),
        "，".join(simplified(chr(0x4E00 + number)) for number in range(100)),
        "，".join("苹" * 79 + chr(0x4F00 + n) for n in range(10)),
    )
    assert max(map(len, engine.batches)) <= 32
    assert max(sum(map(len, batch)) for batch in engine.batches) <= 512
    assert sum(map(len, engine.batches)) == 10 + len({simplified(chr(0x4E00 + number)) for number in range(100)})


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("A cat.", "A cat"),
        ("a  cat\n", "a cat"),
        ("a (red) [cat]", r"a \(red\) \[cat\]"),
        ("a\\", "a\\\\"),
        ("<lora:x:1>", r"lora\:x\:1"),
        ("ratio: 1.5", r"ratio\: 1.5"),
        ("a|b", r"a\|b"),
        ("BREAK it AND it", "break it and it"),
        ("", ""),
    ],
)
def test_translations_are_escaped(english: str, expected: str) -> None:
    assert outcomes(translator(FakeEngine({"猫": english})), "猫") == [expected]


def test_a_text_over_a_limit_is_an_error_with_its_field() -> None:
    made = translator(FakeEngine(), max_chars=20, max_chinese_chars=5)
    long, chinese, good = outcomes(made, "a" * 21, "猫猫猫，猫猫猫", "猫")
    assert isinstance(long, InvalidRequest)
    assert str(long) == "prompt: '21 characters' is invalid: at most 20"
    assert isinstance(chinese, InvalidRequest)
    assert "6 characters to translate" in str(chinese)
    assert good == "1 characters"


def test_without_an_engine_only_chinese_is_rejected() -> None:
    refused, passed = outcomes(translator(None), "猫", "cat，(dog:1.2)")
    assert isinstance(refused, NotTranslated)
    assert passed == "cat，(dog:1.2)"


def test_a_failing_engine_affects_only_chinese_texts() -> None:
    failed, passed = outcomes(translator(BrokenEngine()), "猫", "cat")
    assert isinstance(failed, EngineFailure)
    assert "secret" not in str(failed)
    assert passed == "cat"


def test_an_engine_that_loses_texts_is_an_error() -> None:
    class Forgetful:
        def translate(self, texts: Sequence[str]) -> list[str]:
            return []

    (failed,) = outcomes(translator(Forgetful()), "猫")
    assert isinstance(failed, EngineFailure)


def test_a_long_text_times_out_and_continues_on_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    clock = SimpleNamespace(monotonic=lambda: 3.0 * len(engine.batches))  # each batch takes three seconds
    monkeypatch.setattr(translator_module, "time", clock)
    made = translator(engine, seconds=5)
    long = "，".join(chr(0x4E00 + number) for number in range(200))
    busy, short = outcomes(made, long, "猫")
    assert isinstance(busy, Busy)
    assert "prompt: " in str(busy)
    assert short == "1 characters"
    for _ in range(10):
        (outcome,) = outcomes(made, long)
    assert outcome == ", ".join(["1 characters"] * 200)


def test_traditional_characters_are_translated_as_simplified_ones() -> None:
    engine = FakeEngine({"红苹果": "red apple", "一只红色的猫": "a red cat"})
    assert outcomes(translator(engine), "紅蘋果，红苹果", "一隻紅色的貓<lora:紅蘋果:1>") == [
        "red apple, red apple",
        "a red cat <lora:紅蘋果:1>",
    ]
    assert sorted(text for batch in engine.batches for text in batch) == ["一只红色的猫", "红苹果"]


def test_unknown_pieces_stay_with_a_warning() -> None:
    made = translator(FakeEngine({"红苹果": "red apple", "龙猫": None, "貓": None}))
    for _ in range(2):  # the second time from the cache
        (found,) = made.translate([Field("negative_prompt", "红苹果，(龙猫：1.2), 龍貓，龙猫")])
        assert found == Translation(
            "red apple, (龙猫:1.2), 龍貓, 龙猫",
            (
                "negative_prompt: the translator does not know '龙猫', which stays Chinese",
                "negative_prompt: the translator does not know '龍貓', which stays Chinese",
            ),
        )


def test_warnings_are_limited() -> None:
    words = [chr(0x4E00 + number) for number in range(50)]
    (found,) = translator(FakeEngine(dict.fromkeys(words))).translate([Field("prompt", "，".join(words))])
    assert isinstance(found, Translation)
    assert len(found.warnings) == 4

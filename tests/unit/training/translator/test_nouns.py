from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from training.emoji.assets import Assets
from training.emoji.subjects import Subject
from training.translator.nouns import emojibase_names, english_name, named_nouns, subject_nouns
from training.translator.vocabulary import Word

APPLE = Subject("1F34E", ("red apple", "apple"), ("红苹果", "苹果"))
DOG = Subject("1F436", ("dog face", "dog", "puppy"), ("狗",))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Emojibase and CLDR with a few names."""
    emojibase: Mapping[str, Mapping[str, str]] = {
        "en": {"1F34E": "red apple", "1F436": "dog face", "2197": "up-right arrow pointing up and right"},
        "zh": {"1F34E": "红苹果", "1F436": "狗脸", "2197": "右上箭头"},
    }
    cldr: Mapping[str, Mapping[str, str]] = {
        "en": {"🍎": "Apple", "☕": "hot beverage", "🍏": "green apple"},
        "zh": {"🍎": "红苹果", "☕": "热饮", "🍏": "a"},
    }
    for language, names in emojibase.items():
        folder = Assets(tmp_path).names_folder / language
        folder.mkdir(parents=True)
        records = [{"hexcode": hexcode, "label": label} for hexcode, label in names.items()]
        (folder / "data.json").write_text(json.dumps(records), encoding="utf-8")
    for language, spoken in cldr.items():
        folder = tmp_path / "annotations" / "package" / "annotations" / language
        folder.mkdir(parents=True)
        content = {"annotations": {"annotations": {emoji: {"tts": [name]} for emoji, name in spoken.items()}}}
        (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("subject", "chinese", "english"),
    [
        (APPLE, "红苹果", "red apple"),
        (APPLE, "苹果", "apple"),
        (DOG, "狗脸", "dog face"),
        (DOG, "狗", "dog"),
        (DOG, "小狗", "puppy"),
    ],
)
def test_english_says_no_more_than_chinese(subject: Subject, chinese: str, english: str) -> None:
    assert english_name(subject, chinese) == english


def test_subjects_have_the_names_of_all_sources_once(cache: Path) -> None:
    assert subject_nouns([APPLE, DOG], cache) == [
        Word("红苹果", "red apple"),
        Word("苹果", "apple"),
        Word("狗", "dog"),
        Word("狗脸", "dog face"),
    ]


def test_only_plain_names_are_nouns_and_the_first_source_counts(cache: Path) -> None:
    assert named_nouns(cache) == [Word("红苹果", "red apple"), Word("狗脸", "dog face"), Word("热饮", "hot beverage")]


def test_a_name_of_record_is_a_plain_word(cache: Path) -> None:
    unknown = Subject("1F98A", ("fox",), ("狐狸", "赤狐"))
    assert emojibase_names([APPLE, DOG, unknown], cache) == ["红苹果", "狗脸", "狐狸"]

"""The nouns: subjects of the emoji model, words of prompts, and the names of all emoji and symbols.

Where two sources name the same Chinese word, the first of them counts: the emoji model knows its subjects by their
English names alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from training.emoji.assets import NAMES_PACKAGE, Assets, npm_unpack
from training.emoji.subjects import Subject
from training.translator.vocabulary import Word

ANNOTATIONS_PACKAGE = "cldr-annotations-full@48.2.0"
COLOURS = {
    "red": "红", "green": "绿青", "blue": "蓝", "yellow": "黄", "gold": "金", "black": "黑", "white": "白",
    "orange": "橙",
}  # fmt: skip
# Where the first name is not the word's own.
_PREFERRED = {"恐龙": "dinosaur", "松树": "pine tree", "蜜蜂": "bee", "蛋糕": "slice of cake", "热茶": "cup of tea"}
_MAX_WORDS = 3
_CHINESE = re.compile(r"(?=.*[\u4e00-\u9fff])[\u4e00-\u9fffA-Z0-9]{1,10}")
_ENGLISH = re.compile(r"[a-z0-9][a-z0-9' -]{0,39}")


def fetch_names(cache: Path) -> None:
    """Fetch with `npm pack` the names that the cache lacks."""
    if not Assets(cache).names_folder.is_dir():
        npm_unpack(NAMES_PACKAGE, cache / "names")
    if not _annotations(cache).is_dir():
        npm_unpack(ANNOTATIONS_PACKAGE, cache / "annotations")


def subject_nouns(subjects: Sequence[Subject], cache: Path) -> list[Word]:
    """Each Chinese name of a subject, also emojibase's and CLDR's, with an English name that the emoji model knows."""
    labels = _emojibase(cache, "zh")
    spoken = _cldr(cache, "zh")
    words = []
    for subject in subjects:
        emoji = "".join(chr(int(code, 16)) for code in subject.hexcode.split("-"))
        more = [labels.get(subject.hexcode, ""), labels.get(f"{subject.hexcode}-FE0F", ""), spoken.get(emoji, "")]
        words += [Word(chinese, english_name(subject, chinese)) for chinese in subject.chinese]
        words += [Word(chinese, english_name(subject, chinese)) for chinese in more if _CHINESE.fullmatch(chinese)]
    return list(_first(words))


def emojibase_names(subjects: Sequence[Subject], cache: Path) -> list[str]:
    """Each subject's Chinese name in emojibase; the first of our own where that is not a plain word."""
    labels = _emojibase(cache, "zh")
    names = []
    for subject in subjects:
        label = labels.get(subject.hexcode, labels.get(f"{subject.hexcode}-FE0F", ""))
        names.append(label if _CHINESE.fullmatch(label) else subject.chinese[0])
    return names


def english_name(subject: Subject, chinese: str) -> str:
    """Return the first name that says no more than `chinese` does: no face and no colour that it does not name."""
    if chinese.startswith("小") and len(subject.names) > 2:  # 小狗: dog face, dog, puppy
        return subject.names[-1]
    if _PREFERRED.get(chinese) in subject.names:
        return _PREFERRED[chinese]
    for name in subject.names:
        colour = COLOURS.get(name.split()[0])
        if (not name.endswith(" face") or "脸" in chinese) and (colour is None or set(colour) & set(chinese)):
            return name
    return subject.name


def named_nouns(cache: Path) -> list[Word]:
    """Return the name of each emoji (emojibase) and symbol (CLDR) that is a plain word or phrase in both languages."""
    words = []
    for names in (_emojibase, _cldr):
        chinese, english = names(cache, "zh"), names(cache, "en")
        words += [Word(chinese[key], english[key].lower()) for key in chinese if key in english]
    return list(_first(word for word in words if _is_plain(word)))


def _is_plain(word: Word) -> bool:
    """Return True if both names could be in a prompt; long ones describe arrows, flags and symbols."""
    return (
        _CHINESE.fullmatch(word.chinese) is not None
        and _ENGLISH.fullmatch(word.english) is not None
        and len(word.english.split()) <= _MAX_WORDS
    )


def _emojibase(cache: Path, language: str) -> dict[str, str]:
    records = json.loads((Assets(cache).names_folder / language / "data.json").read_text(encoding="utf-8"))
    return {record["hexcode"]: record["label"] for record in records}


def _cldr(cache: Path, language: str) -> dict[str, str]:
    path = _annotations(cache) / language / "annotations.json"
    records = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
    return {emoji: record["tts"][0] for emoji, record in records.items() if "tts" in record}


def _annotations(cache: Path) -> Path:
    return cache / "annotations" / "package" / "annotations"


def _first(words: Iterable[Word]) -> Iterator[Word]:
    seen = set()
    for word in words:
        if word.chinese not in seen:
            seen.add(word.chinese)
            yield word

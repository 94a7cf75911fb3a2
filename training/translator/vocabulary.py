"""The words beside the names of emoji, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VOCABULARY_FILE = Path(__file__).with_name("vocabulary.txt")


@dataclass(frozen=True)
class Word:
    """A Chinese word and the English one that stands for it."""

    chinese: str
    english: str


def load_vocabulary(path: Path = VOCABULARY_FILE) -> Mapping[str, tuple[Word, ...]]:
    """Return the words of each `[kind]` in `path`: `Chinese, Chinese = English`. Raises ValueError with the line."""
    kinds: dict[str, list[Word]] = {}
    words: list[Word] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            words = kinds.setdefault(line[1:-1], [])
            continue
        chinese, equals, english = line.partition("=")
        if not (equals and chinese.strip() and english.strip()) or words is None:
            raise ValueError(f"{path.name}:{number}: expected '[kind]' or 'Chinese, Chinese = English', got {line!r}")
        words += [Word(word.strip(), english.strip()) for word in chinese.split(",")]
    return {kind: tuple(found) for kind, found in kinds.items()}

"""English articles and plurals, which Chinese does without."""

from __future__ import annotations

import re

_IRREGULAR = {
    "mouse": "mice", "goose": "geese", "child": "children", "person": "people", "man": "men", "woman": "women",
    "knife": "knives", "leaf": "leaves", "wolf": "wolves", "elf": "elves", "fish": "fish", "sheep": "sheep",
    "deer": "deer", "dice": "dice", "goldfish": "goldfish", "samurai": "samurai", "half": "halves", "tooth": "teeth",
    "foot": "feet",
}  # fmt: skip
_WITHOUT_ARTICLE = {
    "broccoli", "corn", "bread", "cheese", "popcorn", "sushi", "coffee", "beer", "rice", "milk", "tea", "water",
    "juice", "wine", "meat", "seafood", "fire", "grass", "ice", "snow", "rain", "wind", "money", "music", "paper",
    "hair", "long hair", "short hair", "food", "fruit", "candy", "chocolate", "sugar", "garlic", "christmas",
    "halloween", "bubble tea", "morning", "night",
}  # fmt: skip
# "u" may sound as "you" and "one" as "won"; some letters that are spelled out begin with a vowel, as "ex" and "en" do.
_AN = re.compile(
    r"(?!u(?:ni(?![dmn])|[ks]|t[ei]|fo\b)|eu|ewe\b|onc?e\b)[aeiou]|hour|(?:x-ray|n-ary|ng|sos)\b", re.IGNORECASE
)
_PLURAL = re.compile(r".*(?<![sui])s|.*(?:people|children|men|women|french fries|eyes)")
_SINGULAR_S = {"christmas", "chess", "tennis"}


def with_article(phrase: str, head: str) -> str:
    """`phrase` with "a" or "an", or as it is if its noun `head` is a plural or cannot be counted."""
    if head in _WITHOUT_ARTICLE or is_plural(head):
        return phrase
    return f"{'an' if _AN.match(phrase) else 'a'} {phrase}"


def is_plural(noun: str) -> bool:
    """Return True if a noun is plural; "of" and what follows is ignored."""
    first = re.split(r" (?:with|of|in|on|from|and) ", noun)[0]
    return bool(_PLURAL.fullmatch(first)) and first not in _SINGULAR_S


def plural(noun: str) -> str:
    """Return the plural of a noun or noun phrase that ends with its noun, or continues with "of" or the like."""
    parts = re.split(r"( (?:with|of|in|on|from|and) .*)", noun, maxsplit=1)
    words = parts[0].split(" ")
    words[-1] = words[-1] if is_plural(words[-1]) else _plural_word(words[-1])
    return " ".join(words) + "".join(parts[1:])


def _plural_word(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if re.search(r"(?:s|x|z|ch|sh)$", word):
        return f"{word}es"
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    if word in {"tomato", "potato", "mango", "hero", "volcano"}:
        return f"{word}es"
    return f"{word}s"

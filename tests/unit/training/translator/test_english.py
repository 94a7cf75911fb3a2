from __future__ import annotations

import pytest

from training.translator.english import is_plural, plural, with_article


@pytest.mark.parametrize(
    ("phrase", "head", "expected"),
    [
        ("red apple", "apple", "a red apple"),
        ("owl", "owl", "an owl"),
        ("umbrella", "umbrella", "an umbrella"),
        ("ugly fox", "fox", "an ugly fox"),
        ("upside-down face", "upside-down face", "an upside-down face"),
        ("unamused face", "unamused face", "an unamused face"),
        ("unicorn", "unicorn", "a unicorn"),
        ("universe", "universe", "a universe"),
        ("ufo", "ufo", "a ufo"),
        ("euro", "euro", "a euro"),
        ("ewe", "ewe", "a ewe"),
        ("one-piece swimsuit", "one-piece swimsuit", "a one-piece swimsuit"),
        ("oncoming bus", "oncoming bus", "an oncoming bus"),
        ("x-ray", "x-ray", "an x-ray"),
        ("xylophone", "xylophone", "a xylophone"),
        ("hourglass", "hourglass", "an hourglass"),
        ("orange glasses", "glasses", "orange glasses"),
        ("hot coffee", "coffee", "hot coffee"),
        ("slice of cake", "slice of cake", "a slice of cake"),
    ],
)
def test_articles(phrase: str, head: str, expected: str) -> None:
    assert with_article(phrase, head) == expected


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("apple", "apples"),
        ("box", "boxes"),
        ("cherry", "cherries"),
        ("boy", "boys"),
        ("mouse", "mice"),
        ("wolf", "wolves"),
        ("fish", "fish"),
        ("tomato", "tomatoes"),
        ("glass", "glasses"),
        ("red apple", "red apples"),
        ("slice of cake", "slices of cake"),
        ("man with glasses", "men with glasses"),
        ("french fries", "french fries"),
    ],
)
def test_plurals(noun: str, expected: str) -> None:
    assert plural(noun) == expected
    assert is_plural(noun) is (noun == "french fries")
    assert plural(plural("apple")) == "apples"

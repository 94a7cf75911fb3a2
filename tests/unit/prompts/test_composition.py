"""Prompts joined by ``AND``."""

from __future__ import annotations

import pytest

from triton_diffusers.prompts.composition import has_and, split_and


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red apple", [("a red apple", 1)]),
        ("a AND b", [("a", 1), ("b", 1)]),
        ("a cat :1.2 AND a dog AND a penguin :2.2", [("a cat", 1.2), ("a dog", 1), ("a penguin", 2.2)]),
        ("a:-0.5 AND b : 3 ", [("a", -0.5), ("b", 3)]),
        ("a:.5 AND b:2. AND c:+1", [("a", 0.5), ("b", 2), ("c", 1)]),
        ("(a:1.2) AND b", [("(a:1.2)", 1), ("b", 1)]),
        ("a:b:2 AND c", [("a:b", 2), ("c", 1)]),
        ("a:nan AND b:1e3 AND c:", [("a:nan", 1), ("b:1e3", 1), ("c:", 1)]),
        ("a:99 AND b:-99", [("a", 10), ("b", -10)]),
        ("AND", [("", 1), ("", 1)]),
        # Without AND, a number such as a ratio must not be a weight.
        ("16:9", [("16:9", 1)]),
        ("a and b ANDROID SAND AND_", [("a and b ANDROID SAND AND_", 1)]),
    ],
)
def test_split_and_returns_weighted_parts(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert [(part.text, part.weight) for part in split_and(prompt)] == expected
    assert has_and(prompt) is (len(expected) > 1)


def test_a_limited_weight_is_marked() -> None:
    assert [part.limited for part in split_and("a:10 AND b:10.1 AND c:-10 AND d:-11")] == [False, True, False, True]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", [":", " ", "1", ":1 ", " AND ", ":1 AND "])
def test_a_huge_prompt_is_split_in_linear_time(piece: str) -> None:
    assert split_and("a AND b" + piece * 100_000)

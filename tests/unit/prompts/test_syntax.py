"""Prompt syntax, compared with a second implementation that looks at every character separately."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triton_diffusers.prompts.syntax import parse

Weighted = list[tuple[str, float]]


def spans(prompt: str) -> Weighted:
    """Return the only section's spans."""
    (section,) = parse(prompt)
    return [(span.text, span.weight) for span in section]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("a red apple", [("a red apple", 1)]),
        ("a (red) apple", [("a ", 1), ("red", 1.1), (" apple", 1)]),
        ("a ((red)) apple", [("a ", 1), ("red", 1.21), (" apple", 1)]),
        ("a (red:1.3) apple", [("a ", 1), ("red", 1.3), (" apple", 1)]),
        ("a [red] apple", [("a ", 1), ("red", 1 / 1.1), (" apple", 1)]),
        ("([red])", [("red", 1)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("(红色:1.5)苹果", [("红色", 1.5), ("苹果", 1)]),
        ("(one)(two)", [("onetwo", 1.1)]),
        ("(a: 1.3 )(b:.5)(c:2.)(d:+2)", [("a", 1.3), ("b", 0.5), ("cd", 2)]),
        ("(a:0)(b:-1.5)", [("a", 0), ("b", -1.5)]),
        # Kinds of brackets are independent.
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
        # Unclosed brackets last to the end; unopened ones are text.
        ("a (b", [("a ", 1), ("b", 1.1)]),
        ("a [b", [("a ", 1), ("b", 1 / 1.1)]),
        ("((a) b", [("a", 1.21), (" b", 1.1)]),
        ("a) b] c:1.3)", [("a) b] c:1.3)", 1)]),
        (r"\(a\) \[b\] \\ (c\))", [(r"(a) [b] \ ", 1), ("c)", 1.1)]),
        (r"\<lora:x:1\> 16\:9 a\|b", [("<lora:x:1> 16:9 a|b", 1)]),
        (r"C:\dir \n", [(r"C:\dir \n", 1)]),
        ("(a\\", [("a\\", 1.1)]),
        # Invalid weights are text.
        ("(a:nan)", [("a:nan", 1.1)]),
        ("(a:1e999)", [("a:1e999", 1.1)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:)", [("a:", 1.1)]),
        ("(a:.)", [("a:.", 1.1)]),
        ("(a:１.３)", [("a:１.３", 1.1)]),
        ("[a:1.3]", [("a:1.3", 1 / 1.1)]),
        ("ratio 3:2, (b:c:2)", [("ratio 3:2, ", 1), ("b:c", 2)]),
        # Bounds.
        ("(a:99999999999999999999)", [("a", 10)]),
        (f"(a:{'9' * 400})(b:-{'9' * 400})", [("a", 10), ("b", -10)]),
        (f"{'(' * 10_000}a", [("a", 10)]),
        (f"(a{'(' * 10_000}b:0)", [("a", 1.1), ("b", 0)]),
        (f"((a:{'9' * 400}):0)", [("a", 0)]),
    ],
)
def test_parse_examples(prompt: str, expected: Weighted) -> None:
    found = spans(prompt)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a BREAK b", [["a "], [" b"]]),
        ("a\nBREAK\nb,BREAK,c", [["a\n"], ["\nb,"], [",c"]]),
        ("BREAK", [[], []]),
        ("break BREAKFAST OUTBREAK BREAK_ ", [["break BREAKFAST OUTBREAK BREAK_ "]]),
    ],
)
def test_break_is_a_word_in_capitals(prompt: str, expected: list[list[str]]) -> None:
    assert [[span.text for span in section] for section in parse(prompt)] == expected


def test_break_leaves_brackets_open() -> None:
    assert [[(span.text, span.weight) for span in section] for section in parse("(a BREAK b:2) c")] == [
        [("a ", 2)],
        [(" b", 2), (" c", 1)],
    ]


# Second implementation of the rules, without regular expressions and in quadratic time.


def brute_force(prompt: str) -> list[Weighted]:
    """Return each text character with its weight, the product of all enclosing brackets' factors."""
    text: dict[int, str] = {}
    pairs: dict[str, list[tuple[int, float, float]]] = {"(": [], "[": []}
    opened: dict[str, list[int]] = {"(": [], "[": []}
    position = 0
    while position < len(prompt):
        character = prompt[position]
        following = prompt[position + 1 : position + 2]
        close = prompt.find(")", position)
        number = prompt[position + 1 : close].strip() if character == ":" and close > 0 else ""
        if character == "\\" and following and following in "()[]<>|:\\":
            text[position + 1] = following
            position += 1
        elif character in opened:
            opened[character].append(position)
        elif character == ")" and opened["("]:
            pairs["("].append((opened["("].pop(), position, 1.1))
        elif character == "]" and opened["["]:
            pairs["["].append((opened["["].pop(), position, 1 / 1.1))
        elif is_number(number) and opened["("]:
            pairs["("].append((opened["("].pop(), position, float(number)))
            position = close
        else:
            text[position] = character
        position += 1
    pairs["("].extend((start, math.inf, 1.1) for start in opened["("])
    pairs["["].extend((start, math.inf, 1 / 1.1) for start in opened["["])

    sections: list[Weighted] = [[]]
    position = 0
    while position < len(prompt):
        if is_break(prompt, position):
            sections.append([])
            position += len("BREAK")
            continue
        if position in text:
            weight = clamp(lying_in(pairs["("], position) * lying_in(pairs["["], position))
            sections[-1].append((text[position], weight))
        position += 1
    return sections


def is_number(word: str) -> bool:
    digits = word[1:] if word[:1] in ("+", "-") else word
    whole = digits.replace(".", "", 1)
    return whole != "" and all(character in "0123456789" for character in whole)


def is_break(prompt: str, position: int) -> bool:
    around = prompt[position - 1 : position] + prompt[position + 5 : position + 6]
    return prompt[position : position + 5] == "BREAK" and not any(c.isalnum() or c == "_" for c in around)


def lying_in(pairs: list[tuple[int, float, float]], position: int) -> float:
    product = 1.0
    for start, end, factor in sorted(pairs):
        if start < position < end:
            product = clamp(product * factor)
    return product


def clamp(weight: float) -> float:
    return min(max(weight, -10.0), 10.0)


PIECES = [
    "(",
    ")",
    "[",
    "]",
    ":",
    "\\",
    "<",
    " ",
    "a",
    "1",
    ".",
    "-",
    "+",
    "BREAK",
    ":1.3)",
    ":-20)",
    ":.5 )",
    "红",
    "\n",
    "_",
]
texts = st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join)


@given(texts)
@example("\\\\(")
@example("(:1)")
def test_parsing_is_the_brute_force(prompt: str) -> None:
    expected = brute_force(prompt)
    found = parse(prompt)
    assert [[c for span in section for c in span.text] for section in found] == [[c for c, _ in s] for s in expected]
    for section, characters in zip(found, expected, strict=True):
        weights = [span.weight for span in section for _ in span.text]
        assert weights == pytest.approx([weight for _, weight in characters])
        assert all(span.text for span in section)
        assert all(one.weight != other.weight for one, other in pairwise(section))


@pytest.mark.parametrize(
    ("prompt", "limited"),
    [
        ("(a:10) (b:-10)", []),
        ("(a:10.5) b", ["a"]),
        ("a (b:-11)", ["b"]),
        ("((a:5):3) b", ["a"]),
        ("[(a:20)] b", ["a"]),
        ("(a:10)(b:99) c", ["ab"]),
        (f"(a:{'9' * 400})", ["a"]),
        ("(" * 26 + "a", ["a"]),
    ],
)
def test_limited_weights_are_marked(prompt: str, limited: list[str]) -> None:
    assert [span.text for section in parse(prompt) for span in section if span.limited] == limited


@given(st.text(st.characters(exclude_characters="()[]\\:", exclude_categories=["Cs"]), max_size=40))
def test_text_without_syntax_is_itself(text: str) -> None:
    text = re.sub("BREAK", "break", text)
    assert spans(text) == ([(text, 1.0)] if text else [])


@given(texts)
def test_escaped_text_is_itself(text: str) -> None:
    escaped = "".join(f"\\{character}" if character in "()[]<>|:\\" else character for character in text)
    assert "BREAK".join("".join(span.text for span in section) for section in parse(escaped)) == text


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    ["(", ")", "[", "(a", "a)", "(a)b", "([", "(a:1.1)", ":", ": ", ":1", "1", " ", "BREAK ", "\\", "a", "(:1 "],
)
def test_a_huge_prompt_is_parsed_in_linear_time(piece: str) -> None:
    """Fail by timeout if parsing takes quadratic time, which would be minutes."""
    assert parse(":" + piece * 30_000)

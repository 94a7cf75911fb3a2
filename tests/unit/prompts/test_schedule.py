"""Prompt editing: schedules by the web UI's documented rules."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triton_diffusers.prompts.schedule import texts_by_step

STEPS = 10


def schedule(prompt: str, steps: int = STEPS) -> list[tuple[int, str]]:
    """Return each text with the number of the last step that uses it."""
    found = []
    last = 0
    for text, run in groupby(texts_by_step(prompt, steps)):
        last += len(list(run))
        found.append((last, text))
    return found


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [(10, "")]),
        ("test", [(10, "test")]),
        ("[to:3]", [(3, ""), (10, "to")]),
        ("a [cat:dog: 4 ] here", [(4, "a cat here"), (10, "a dog here")]),
        ("a [cat::7] here", [(7, "a cat here"), (10, "a  here")]),
        ("a [cat:dog:.5]", [(5, "a cat"), (10, "a dog")]),
        ("[a:b:0.25]", [(2, "a"), (10, "b")]),
        ("[a:b:1.0][c:d:2.]", [(10, "ac")]),
        ("[a:b:12]", [(10, "a")]),
        ("[a:b:0][a:b:-3][a:b:-0.5][a:b:0.04]", [(10, "bbbb")]),
        ("[a:b:+3]", [(3, "a"), (10, "b")]),
        pytest.param(f"[a:b:{'9' * 400}.]", [(10, "a")], id="infinity"),
        pytest.param(f"[a:b:-{'9' * 400}.]", [(10, "b")], id="minus infinity"),
        pytest.param(f"[a:b:-{'9' * 400}]", [(10, "b")], id="minus infinity, no point"),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):(b:0.5):3]", [(3, "(a:2)"), (10, "(b:0.5)")]),
        ("([a:b:3]:1.3)", [(3, "(a:1.3)"), (10, "(b:1.3)")]),
        ("<[a:[b:c:6]:2]>", [(2, "<a>"), (6, "<b>"), (10, "<c>")]),
        ("[[a:b:2]:c:6]", [(2, "a"), (6, "b"), (10, "c")]),
        ("[a:b:4] [c:d:4] [e:f:0.8]", [(4, "a c e"), (8, "b d e"), (10, "b d f")]),
        ("a BREAK [b:c:3]", [(3, "a BREAK b"), (10, "a BREAK c")]),
        ("[红苹果:猫:0.5]", [(5, "红苹果"), (10, "猫")]),
        # An unbalanced bracket and all brackets around it are text.
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b (c:d:3]", [(10, "a [b (c:d:3]")]),
        ("((x][:y:z [d:3]", [(3, "((x][:y:z "), (10, "((x][:y:z d")]),
        ("[a) b:c:3] [d:e:3]", [(3, "[a) b:c:3] d"), (10, "[a) b:c:3] e")]),
        # Everything else that is not a construct is text.
        ("[a:b]", [(10, "[a:b]")]),
        ("[a:b:c:3]", [(10, "[a:b:c:3]")]),
        ("[a:b:c]", [(10, "[a:b:c]")]),
        ("[a:b:1e0]", [(10, "[a:b:1e0]")]),
        ("[a:b:nan]", [(10, "[a:b:nan]")]),
        ("[a|b:0.5]", [(10, "[a|b:0.5]")]),
        ("[a:b:[3]]", [(10, "[a:b:[3]]")]),
        ("[x [a:b] y:z:3]", [(10, "[x [a:b] y:z:3]")]),
        ("a|b 16:9", [(10, "a|b 16:9")]),
        (r"\[a:b:3\] [\]:\::3]", [(3, r"\[a:b:3\] \]"), (10, r"\[a:b:3\] \:")]),
    ],
)
def test_texts_by_step_edits_prompts(prompt: str, expected: list[tuple[int, str]]) -> None:
    assert schedule(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[a|b]", ["a", "b", "a", "b", "a"]),
        ("[cow|horse|] in a field", ["cow in a field", "horse in a field", " in a field"]),
        ("[fe|||]male", ["female", "male", "male", "male", "female"]),
        ("[|a]", ["", "a", ""]),
        ("[a|b][c|d|e]", ["ac", "bd", "ae", "bc", "ad", "be"]),
        ("[a|(b:1.1)]", ["a", "(b:1.1)", "a"]),
        ("[a|[b|c]]", ["a", "c", "a", "c"]),
        ("[[a|b]:c:2]", ["a", "b", "c", "c"]),
        ("[a:[b|c]:2]", ["a", "a", "b", "c", "b"]),
    ],
)
def test_texts_by_step_alternates(prompt: str, expected: list[str]) -> None:
    assert list(texts_by_step(prompt, len(expected))) == expected


def test_fraction_is_relative_to_the_steps() -> None:
    assert [schedule("[a:b:0.5]", steps)[0] for steps in (2, 3, 20)] == [(1, "a"), (1, "a"), (10, "a")]
    assert schedule("[a:b:0.5]", 1) == [(1, "b")]
    assert schedule("[a:b:" + "9" * 400 + "]") == [(10, "a")]
    assert schedule("[a:b:" + "9" * 400 + ".5]") == [(10, "a")]


@given(st.text(st.characters(exclude_characters="[]", exclude_categories=["Cs"]), max_size=40))
def test_a_prompt_without_square_brackets_is_itself(prompt: str) -> None:
    assert schedule(prompt) == [(10, prompt)]


@given(st.lists(st.sampled_from([*"()[]:|\\ab", "0.5", "3"]), max_size=30).map("".join))
def test_every_prompt_has_a_text_for_every_step(prompt: str) -> None:
    assert len(list(texts_by_step(prompt, STEPS))) == STEPS


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("piece", "closing"),
    [("[", ""), ("(", ")"), ("[a:", ":5]"), ("[a|", "]"), ("[a:[b:", "]]"), ("[a|b]", ""), ("[", "]:5]"), ("[a)", "")],
)
def test_a_huge_prompt_is_read_in_linear_time(piece: str, closing: str) -> None:
    """Fail by timeout if parsing takes quadratic time, which would be minutes."""
    assert len(list(texts_by_step(piece * 20_000 + closing * 20_000, 3))) == 3

"""Prompts as token ids, with the emoji model's own tokenizer."""

from __future__ import annotations

import pytest

from triton_diffusers.loading import Components
from triton_diffusers.prompts import tokenize

POSITIONS = 77
WORDS = POSITIONS - 2  # a beginning and an end go with every prompt


@pytest.fixture
def tokenizer(components: Components) -> object:
    assert len(components.tokenizer("apple")["input_ids"]) == 3, "these tests want a word of one token"
    return components.tokenizer


@pytest.mark.parametrize(
    "text", ["", "a red apple", "蓝色背景上的红苹果", "🍎 and 👩‍👩‍👧", "\0", "\u202eabc", "ﬃ ｆｕｌｌ"]
)
def test_any_text_fills_all_positions(tokenizer: object, text: str) -> None:
    tokens = tokenize(tokenizer, text)
    assert len(tokens.ids) == len(tokens.attention_mask) == POSITIONS
    assert tokens.cut == ""
    assert tokens.warning("prompt") is None


def test_different_texts_are_different_tokens(tokenizer: object) -> None:
    texts = ["", "a red apple", "a green apple", "红苹果", "绿苹果", "🍎", "🍏"]
    assert len({tokenize(tokenizer, text).ids for text in texts}) == len(texts)


def test_a_prompt_of_exactly_77_tokens_is_not_cut(tokenizer: object) -> None:
    tokens = tokenize(tokenizer, " ".join(["apple"] * WORDS))
    assert sum(tokens.attention_mask) == POSITIONS
    assert tokens.cut == ""


def test_a_prompt_of_78_tokens_is_cut_and_says_what(tokenizer: object) -> None:
    tokens = tokenize(tokenizer, " ".join([*["apple"] * WORDS, "pear"]))
    assert tokens.cut == "pear"
    assert tokens.warning("negative_prompt") == "negative_prompt: too long for the model, cut: 'pear'"
    assert tokens.ids == tokenize(tokenizer, " ".join(["apple"] * WORDS)).ids


def test_the_words_that_are_cut_are_told_in_full(tokenizer: object) -> None:
    tokens = tokenize(tokenizer, " ".join([*["apple"] * WORDS, "pear", "on", "blue"]))
    assert tokens.cut.split() == ["pear", "on", "blue"]


@pytest.mark.parametrize("text", ["红苹果" * 200, "🍎" * 300, "a" * 10_000])
def test_long_text_of_any_script_is_cut_without_failing(tokenizer: object, text: str) -> None:
    tokens = tokenize(tokenizer, text)
    assert len(tokens.ids) == POSITIONS
    assert tokens.cut

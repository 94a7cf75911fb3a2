"""Prompts as chunks of token ids, with the emoji model's own tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.prompts import Chunk, PromptReader

POSITIONS = 77
WORDS = POSITIONS - 2  # without start and end
MAX_CHUNKS = 4


@pytest.fixture(scope="module")
def tokenizer(components: Components) -> Any:
    tokenizer = components.tokenizer
    assert len(tokenizer("apple pear")["input_ids"]) == 4, "these tests want words of one token"
    return tokenizer


@pytest.fixture(scope="module")
def reader(tokenizer: Any) -> PromptReader:
    return PromptReader(tokenizer, MAX_CHUNKS)


def another_tokenizer() -> Any:
    """Return a modifiable copy of the tokenizer."""
    return CLIPTokenizer.from_pretrained(ROOT / "models" / "emoji" / "base_model" / "tokenizer")


def words(chunk: Chunk) -> int:
    """Return the tokens between start and end."""
    return sum(chunk.tokens.attention_mask) - 2


PLAIN = [
    "",
    "a red apple",
    "蓝色背景上的红苹果",
    "🍎 and 👩‍👩‍👧",
    "\0",
    "\u202eabc",
    "ﬃ ｆｕｌｌ",
    "  a:b  ",
    "<|endoftext|> a",
]


@pytest.mark.parametrize("text", [*PLAIN, " ".join(["apple"] * WORDS)])
@pytest.mark.parametrize("pad_token", [None, "!"])
def test_a_chunk_is_what_the_tokenizer_makes_of_it(text: str, pad_token: str | None) -> None:
    """Pad by the end token, as in Stable Diffusion 1, and by another one, as in 2."""
    tokenizer = another_tokenizer()
    if pad_token is not None:
        tokenizer.pad_token = pad_token
        assert tokenizer.pad_token_id != tokenizer.eos_token_id
    prompt = PromptReader(tokenizer, MAX_CHUNKS).read(text)
    (chunk,) = prompt.chunks
    expected = tokenizer(text, padding="max_length", max_length=POSITIONS, truncation=True)
    assert list(chunk.tokens.ids) == expected["input_ids"]
    assert list(chunk.tokens.attention_mask) == expected["attention_mask"]
    assert set(chunk.weights) == {1.0}
    assert len(chunk.weights) == POSITIONS
    assert prompt.cut == ""
    assert prompt.warning("prompt") is None


def test_different_texts_are_different_tokens(reader: PromptReader) -> None:
    texts = ["", "a red apple", "a green apple", "红苹果", "绿苹果", "🍎", "🍏"]
    assert len({reader.read(text).chunks for text in texts}) == len(texts)


def test_weights_stand_at_their_tokens(reader: PromptReader) -> None:
    (chunk,) = reader.read("apple (pear apple:1.5) [pear]").chunks
    assert chunk.weights[:6] == pytest.approx((1, 1, 1.5, 1.5, 1 / 1.1, 1))
    assert chunk.tokens == reader.read("apple pear apple pear").chunks[0].tokens


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (75, [75]), (76, [75, 1]), (150, [75, 75]), (151, [75, 75, 1])])
def test_a_long_prompt_takes_chunks_of_75(reader: PromptReader, count: int, sizes: list[int]) -> None:
    prompt = reader.read(" ".join(["apple"] * count))
    assert [words(chunk) for chunk in prompt.chunks] == sizes
    assert {len(chunk.tokens.ids) for chunk in prompt.chunks} == {POSITIONS}
    assert prompt.cut == ""


def test_chunks_follow_one_another(tokenizer: Any, reader: PromptReader) -> None:
    text = "apple (pear:0.5) " * 80
    prompt = reader.read(text)
    joined = [number for chunk in prompt.chunks for number in chunk.tokens.ids[1 : words(chunk) + 1]]
    weights = [weight for chunk in prompt.chunks for weight in chunk.weights[1 : words(chunk) + 1]]
    assert joined == tokenizer("apple pear " * 80, add_special_tokens=False, verbose=False)["input_ids"]
    assert weights == [1.0, 0.5] * 80
    assert all(chunk.weights[0] == chunk.weights[-1] == 1.0 for chunk in prompt.chunks)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("apple BREAK pear pear", [1, 2]),
        ("apple (pear BREAK pear:1.3)", [2, 1]),
        ("BREAK apple BREAK BREAK pear BREAK", [1, 1]),
        ("BREAK", [0]),
        ("apple " * 76 + "BREAK pear", [75, 1, 1]),
    ],
)
def test_break_ends_a_chunk_that_is_begun(reader: PromptReader, text: str, sizes: list[int]) -> None:
    assert [words(chunk) for chunk in reader.read(text).chunks] == sizes


def test_a_prompt_of_no_tokens_is_the_empty_chunk(reader: PromptReader) -> None:
    for text in ("", "  ", "()", "(:2)"[:1], "BREAK", "([])"):
        assert reader.read(text).chunks == (reader.empty,)


def test_excess_text_is_cut_with_a_warning(reader: PromptReader) -> None:
    whole = " ".join(["apple"] * WORDS * MAX_CHUNKS)
    prompt = reader.read(f"{whole} (pear:1.2) BREAK on blue")
    assert prompt.chunks == reader.read(whole).chunks
    assert prompt.cut.split() == ["pear", "on", "blue"]
    assert prompt.warning("prompt") == f"prompt: too long, only 4 chunks were used, cut: {prompt.cut!r}"


@pytest.mark.parametrize(
    "text", ["红苹果" * 3_000, "🍎" * 10_000, "a" * 10_000, "(a" * 5_000, "(a)b" * 2_500, "(" * 10_000]
)
def test_long_text_of_any_script_is_read(reader: PromptReader, text: str) -> None:
    prompt = reader.read(text)
    assert 1 <= len(prompt.chunks) <= MAX_CHUNKS
    assert (prompt.cut != "") == (set(text) != {"("})


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60) | st.text("()[]:\\ 1.aBREK", max_size=60))
def test_every_text_fits_into_chunks(reader: PromptReader, text: str) -> None:
    for chunk in reader.read(text).chunks:
        assert len(chunk.tokens.ids) == len(chunk.tokens.attention_mask) == len(chunk.weights) == POSITIONS
        assert all(-10 <= weight <= 10 for weight in chunk.weights)


# Textual-inversion embeddings are words added to the tokenizer.


@pytest.fixture(scope="module")
def extended() -> Any:
    tokenizer = another_tokenizer()
    tokenizer.add_tokens(["my-style", "my-style_1", "my-style_2", "my-style-too", "Single"])
    return tokenizer


def test_an_embeddings_vectors_follow_its_word(extended: Any) -> None:
    reader = PromptReader(extended, MAX_CHUNKS)
    (chunk,) = reader.read("apple, (my-style:1.2) My-Style-Too single").chunks
    ids = extended.convert_tokens_to_ids(["my-style", "my-style_1", "my-style_2", "my-style-too", "Single"])
    assert list(chunk.tokens.ids[3:8]) == ids
    assert chunk.weights[1:9] == (1, 1, 1.2, 1.2, 1.2, 1, 1, 1)
    assert words(chunk) == 7


def test_an_embedding_is_not_parted(extended: Any) -> None:
    reader = PromptReader(extended, MAX_CHUNKS)
    assert [words(c) for c in reader.read("apple " * 72 + "my-style").chunks] == [75]
    assert [words(c) for c in reader.read("apple " * 73 + "my-style").chunks] == [73, 3]

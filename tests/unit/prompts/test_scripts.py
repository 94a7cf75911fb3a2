"""Warnings about words unknown to a text encoder."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import BertTokenizer, CLIPTokenizer

from tests.unit.conftest import ROOT
from triton_diffusers.prompts.scripts import script_warnings


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return CLIPTokenizer.from_pretrained(ROOT / "models" / "emoji" / "base_model" / "tokenizer")


def test_english_has_no_warning(tokenizer: Any) -> None:
    assert script_warnings("prompt", "a (red:1.2) apple, <lora:x:1> 4k\n", tokenizer) == []


def test_chinese_names_the_ensembles(tokenizer: Any) -> None:
    assert script_warnings("prompt", "a 红苹果, 紅蘋果 and 猫，狗，红苹果", tokenizer) == [
        "prompt: Chinese ('红苹果', '紅蘋果', '猫', …) is not translated here, and few models draw it;"
        " the models ensemble and ensemble_controlnet translate it"
    ]


def test_characters_spelt_in_bytes_are_a_warning(tokenizer: Any) -> None:
    assert script_warnings("negative_prompt", "яблоко, 😀（x）", tokenizer) == [
        "negative_prompt: the model's text encoder does not know 'яблоко', '😀（', '）'"
    ]


def test_embedding_words_have_no_warning(tokenizer: Any) -> None:
    tokenizer.add_tokens(["红风格"])
    assert script_warnings("prompt", "an apple in 红风格", tokenizer) == []
    assert len(script_warnings("prompt", "红苹果 in 红风格", tokenizer)) == 1


def test_a_chinese_text_encoder_knows_chinese(tmp_path: Any) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "红", "苹", "果"]))
    bert = BertTokenizer(str(tmp_path / "vocab.txt"))
    assert script_warnings("prompt", "红苹果", bert) == []
    assert script_warnings("prompt", "红猫", bert) == ["prompt: the model's text encoder does not know '红猫'"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", ["红", "я", "😀", "红a", "я a"])
def test_a_huge_prompt_takes_no_time(tokenizer: Any, unit: str) -> None:
    assert len(script_warnings("prompt", unit * 10_000, tokenizer)[0]) < 400

"""The tokenizer that is made for checkpoints in one file tokenizes as CLIP does."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from triton_diffusers.checkpoints.vocabulary import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("model") / "tokenizer"
    write_tokenizer(folder, pad_token="<|endoftext|>", length=77)
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A Photo of a CAT", [320, 1125, 539, 320, 2368]),
        ("hello world!", [3306, 1002, 256]),
        ("123", [272, 273, 274]),
        ("", []),
    ],
)
def test_known_ids(tokenizer: CLIPTokenizer, text: str, ids: list[int]) -> None:
    assert tokenizer(text)["input_ids"] == [49406, *ids, 49407]


def test_the_whole_vocabulary(tokenizer: CLIPTokenizer) -> None:
    assert len(tokenizer) == 49408
    assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (49407, 77)
    text = "蓝色背景上的红苹果"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).replace(" ", "") == text

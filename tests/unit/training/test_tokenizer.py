from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from training.emoji.export import _write_clip_vocabulary
from training.emoji.text_encoder import tokenize
from training.emoji.tokenizer import END, MAX_LENGTH, VOCABULARY_SIZE, train_tokenizer

CAPTIONS = ["a red apple on a blue background", "a fox on a green background", "蓝色背景上的红苹果"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(CAPTIONS)


@pytest.mark.parametrize("text", ["", "a red apple", "Zürich, 你好世界!", "🦊 ½ \x00 \t", "ß" * 500])
def test_any_text_tokenises_without_the_unknown_token(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenize(tokenizer, [text])[0].tolist()
    assert len(ids) == MAX_LENGTH
    assert ids[0] == tokenizer.bos_token_id
    first_end = ids.index(tokenizer.eos_token_id)
    assert all(token == tokenizer.eos_token_id for token in ids[first_end:])


def test_end_is_the_highest_id_as_in_clip(tokenizer: CLIPTokenizer) -> None:
    assert tokenizer.convert_tokens_to_ids(END) == len(tokenizer) - 1
    assert len(tokenizer) <= VOCABULARY_SIZE


def test_the_written_vocabulary_loads_alike(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    _write_clip_vocabulary(tokenizer, tmp_path)
    assert {"vocab.json", "merges.txt"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "tokenizer.json").exists()
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    for caption in CAPTIONS:
        assert loaded(caption).input_ids == tokenizer(caption).input_ids

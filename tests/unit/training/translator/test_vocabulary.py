from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.translator.vocabulary import Word, load_vocabulary


def test_several_chinese_words_of_one_english_one(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# comment\n\n[colours]\n白色, 白 = white\n[tags]\n杰作 = masterpiece\n", encoding="utf-8")
    assert load_vocabulary(path) == {
        "colours": (Word("白色", "white"), Word("白", "white")),
        "tags": (Word("杰作", "masterpiece"),),
    }


@pytest.mark.parametrize("text", ["[colours]\n\n白色 white\n", "[colours]\n\n= white\n", "#\n#\n白色 = white\n"])
def test_a_bad_line_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"words\.txt:3: expected"):
        load_vocabulary(path)


def test_every_word_is_chinese_and_english() -> None:
    for words in load_vocabulary().values():
        for word in words:
            assert re.fullmatch("[\u4e00-\u9fffA-Z0-9]+", word.chinese), word
            assert word.english.isascii(), word

from __future__ import annotations

import re

import pytest

from training.translator.phrases import HELD_OUT_TEMPLATES, TEMPLATES, PhraseBook, Template
from training.translator.vocabulary import Word, load_vocabulary

NOUNS = [([Word("猫", "cat"), Word("眼镜", "glasses")], 0.7), ([Word("苹果", "apple")], 0.3)]


@pytest.fixture
def book() -> PhraseBook:
    return PhraseBook(NOUNS, load_vocabulary(), 0)


def test_phrases_vary_and_repeat_with_the_seed() -> None:
    one, again, other = (PhraseBook(NOUNS, load_vocabulary(), seed) for seed in (1, 1, 2))
    drawn = [one.taught() for _ in range(200)]
    assert drawn == [again.taught() for _ in range(200)]
    assert drawn != [other.taught() for _ in range(200)]
    assert len(set(drawn)) > 80


def test_held_out_phrases_are_never_taught(book: PhraseBook) -> None:
    drawn = [book.drawn(TEMPLATES) for _ in range(2000)]
    held_out = {phrase.chinese for phrase in drawn if phrase.held_out}
    assert held_out
    assert not held_out & {book.taught().chinese for _ in range(2000)}


def test_held_out_templates_are_separate() -> None:
    assert not {template.chinese for template in TEMPLATES} & {template.chinese for template in HELD_OUT_TEMPLATES}


@pytest.mark.parametrize("template", [*TEMPLATES, *HELD_OUT_TEMPLATES], ids=lambda template: template.chinese)
def test_every_blank_is_filled(book: PhraseBook, template: Template) -> None:
    phrase = book.drawn([template])
    assert re.search("[\u4e00-\u9fff]", phrase.chinese)
    assert len(phrase.english) == len(template.english)
    for english in phrase.english:
        assert english.isascii()
        assert not set("{}") & set(english)


def test_both_languages_have_the_same_words() -> None:
    words = {**load_vocabulary(), "colours": (Word("蓝色", "blue"),), "adjectives": (Word("可爱的", "cute"),)}
    book = PhraseBook([([Word("苹果", "apple")], 1.0)], words, 0)
    template = Template("{bg}背景上的{np}", ("{np} on {bg} background",))
    counted = set()
    for _ in range(3000):
        phrase = book.drawn([template])
        (english,) = phrase.english
        assert phrase.chinese.startswith("蓝色背景上的")
        assert phrase.chinese.endswith("苹果")
        assert re.search(r"\bapples? on a blue background$", english)
        assert ("可爱" in phrase.chinese) is ("cute" in english)
        assert phrase.chinese.count("蓝色") == english.count("blue")
        if "两" in phrase.chinese:
            assert english.startswith("two ")
            assert "apples" in english
            counted.add("two")
        if "一只" in phrase.chinese:
            assert english.startswith("a")
            assert "apples" not in english
            counted.add("one")
    assert counted == {"one", "two"}


def test_pieces_are_found_in_every_kind_of_word(book: PhraseBook) -> None:
    assert {"猫", "苹果", "白色", "两只", "背景上的"} <= set(book.chinese_words())


def test_a_kind_of_nouns_counts_by_its_share() -> None:
    book = PhraseBook([([Word("龘", "dragons in flight")], 0.7)], load_vocabulary(), 0)
    assert book.chinese_words().count("龘") == 14  # of 20


def test_articles_suit_the_word_behind_them() -> None:
    nouns = [Word("雨伞", "umbrella"), Word("猫头鹰", "owl"), Word("独角兽", "unicorn"), Word("沙漏", "hourglass")]
    book = PhraseBook([(nouns, 1.0)], load_vocabulary(), 0)
    drawn = " | ".join(english for _ in range(2000) for english in book.drawn(TEMPLATES).english)
    articles = set(re.findall(r"\b(an?) (umbrella|owl|unicorn|hourglass|orange)\b", drawn))
    words = ("umbrella", "owl", "hourglass", "orange")
    assert articles == {("a", "unicorn"), *(("an", word) for word in words)}

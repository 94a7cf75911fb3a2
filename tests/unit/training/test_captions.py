import re

import pytest

from training.emoji.backgrounds import BACKGROUNDS, WHITE, by_name
from training.emoji.captions import HELD_OUT_WORDS, Captioner, article, evaluation_caption, stray_words
from training.emoji.subjects import Subject, load_subjects

APPLE = Subject("1F34E", ("red apple", "apple"), ("红苹果", "苹果"))


@pytest.mark.parametrize(("word", "expected"), [("apple", "an"), ("fox", "a"), ("unicorn", "a"), ("owl", "an")])
def test_article(word: str, expected: str) -> None:
    assert article(word) == expected


def test_captions_name_the_subject_and_the_background() -> None:
    captioner = Captioner(0)
    blue = by_name("blue")
    for _ in range(200):
        caption = captioner.caption(APPLE, blue).lower()
        assert "apple" in caption or "苹果" in caption
        assert "blue" in caption or "蓝" in caption


def test_white_may_stay_unnamed() -> None:
    captioner = Captioner(0)
    captions = [captioner.caption(APPLE, WHITE) for _ in range(200)]
    unnamed = [caption for caption in captions if "white" not in caption and "白" not in caption]
    assert 0 < len(unnamed) < len(captions)


def test_captions_vary_and_repeat_with_the_seed() -> None:
    first = [Captioner(3).caption(APPLE, WHITE) for _ in range(2)]
    assert first[0] == first[1]
    captioner = Captioner(3)
    assert len({captioner.caption(APPLE, WHITE) for _ in range(100)}) > 60


def test_the_evaluation_wording_is_held_out() -> None:
    captioner = Captioner(1, stray_words(["word", "nice", "Against", "drawing"], load_subjects(), BACKGROUNDS))
    for subject in load_subjects()[:40]:
        for background in BACKGROUNDS:
            caption = captioner.caption(subject, background).lower()
            assert not HELD_OUT_WORDS & set(re.findall(r"\w+", caption))
    assert evaluation_caption(APPLE, WHITE) == "a nice drawing of a red apple against a white background"


def test_stray_words_mean_nothing_here() -> None:
    assert stray_words(["fruit", "apple", "blue", "two words", "Zoo"], [APPLE], BACKGROUNDS) == ["Zoo", "fruit"]


def test_words_that_do_not_exist_stand_anywhere() -> None:
    captioner = Captioner(2)  # it is given no stray words, so it makes all of them up
    captions = [captioner.caption(APPLE, by_name("blue")) for _ in range(300)]
    before = [caption for caption in captions if re.match(r"[a-z]+ .*of a red apple", caption)]
    instead_of_on = [caption for caption in captions if re.search(r"apple [a-z]+ [a-z]+ a blue", caption)]
    assert before
    assert instead_of_on

"""Captions: many wordings of "this subject on this background", in English and Chinese.

Captions vary so that a prompt worded in another way still works: synonyms, articles, adjectives, lead-ins, style tags,
order, punctuation, stray words at any place, words that do not exist, and a background that is named or (when it is
white) left out. `EVALUATION_TEMPLATE` and its own words are never produced here.
"""

import random
from collections.abc import Sequence

from training.emoji.backgrounds import WHITE, Background
from training.emoji.subjects import Subject

EVALUATION_TEMPLATE = "a nice drawing of {article} {name} against a {colour} background"
"""Kept out of the training captions, for an honest evaluation; so are `HELD_OUT_WORDS`."""
HELD_OUT_WORDS = frozenset({"nice", "drawing", "against"})

LEAD_INS = (
    "a picture of", "an image of", "a photo of", "an emoji of", "an icon of", "a 3d render of", "a rendering of",
    "an illustration of", "a painting of", "a sketch of", "a close-up of", "a sticker of", "clip art of",
    "a portrait of", "a view of", "the look of", "draw", "show me", "please draw", "generate", "paint", "i want",
    "one", "there is", "this is", "here is", "isolated", "a beautiful picture of", "a cute painting of",
)  # fmt: skip
ADJECTIVES = (
    "cute", "small", "little", "big", "large", "shiny", "glossy", "simple", "beautiful", "lovely", "fine", "single",
    "3d", "cartoon", "bright", "colorful", "funny", "pretty", "realistic", "detailed", "tiny", "huge", "modern",
    "classic", "perfect", "smooth", "minimalist", "delicious", "happy", "old", "new", "round", "typical",
)  # fmt: skip
STYLE_TAGS = (
    "emoji", "3d", "3d render", "icon", "high quality", "best quality", "masterpiece", "detailed", "highly detailed",
    "simple", "clean", "studio lighting", "centered", "4k", "8k", "hd", "digital art", "fluent style", "soft light",
    "vector", "isolated", "glossy", "cartoon", "illustration", "sharp focus", "photo", "artstation", "minimal",
)  # fmt: skip
BACKGROUND_PHRASES = (
    "on {a} {colour} background", "on {a} plain {colour} background", "on {colour}", "with {a} {colour} background",
    "in front of {a} {colour} background", "in front of {a} {colour} wall", "over {a} {colour} background",
    "on {a} solid {colour} background", "on {a} {colour} backdrop", "with {colour} background",
    "isolated on {colour}", "on {colour} background", "on {a} {colour} surface", "and {a} {colour} background",
    "on {a} simple {colour} background", "placed on {a} {colour} background", "the background is {colour}",
    "upon {a} {colour} background", "before {a} {colour} background",
)  # fmt: skip
CHINESE_FORMS = (
    "{colour}背景上的{name}", "{colour}背景上的一个{name}", "{name},{colour}背景", "一个{name}，{colour}背景",
    "{colour}背景，{name}", "{name}在{colour}背景上", "一张{colour}背景的{name}图片", "画一个{name}，背景是{colour}",
    "请画{colour}背景上的{name}", "{colour}的背景，一只{name}", "可爱的{name}，{colour}背景", "{name} {colour}背景",
    "{colour}背景前的{name}", "一幅{name}的画，{colour}背景", "在{colour}背景上有一个{name}", "{colour}底的{name}",
)  # fmt: skip
CHINESE_WHITE_FORMS = (
    "{name}", "一个{name}", "一只{name}", "{name}的图片", "画一个{name}", "请画{name}", "可爱的{name}", "{name}，表情",
    "一张{name}的照片",
)  # fmt: skip
CHINESE_SHARE = 0.2
UNKNOWN_SHARE = 0.3
"""The share of stray words that are made up."""
CONSONANTS = (
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "wh",
    "y",
)
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo", "ou")
ENDINGS = ("", "", "n", "s", "st", "ng", "nd", "ly", "r", "t", "ing", "ed")


def article(word: str) -> str:
    """Return the article, "a" or "an", for `word`."""
    return "an" if word[:1].lower() in "aeiou" and not word.startswith(("u", "eu")) else "a"


def evaluation_caption(subject: Subject, background: Background) -> str:
    """Return the held-out wording."""
    return EVALUATION_TEMPLATE.format(article=article(subject.name), name=subject.name, colour=background.name)


class Captioner:
    """Draws random captions. `stray_words` are words without meaning here, which the model learns to ignore."""

    def __init__(self, seed: int, stray_words: Sequence[str] = ()) -> None:
        self.random = random.Random(seed)
        self.stray_words = tuple(stray_words)

    def caption(self, subject: Subject, background: Background) -> str:
        """One random wording of `subject` on `background`."""
        if self.random.random() < CHINESE_SHARE:
            return self._chinese(subject, background)
        return self._english(subject, background)

    def _chinese(self, subject: Subject, background: Background) -> str:
        pick = self.random.choice
        unnamed = background is WHITE and self.random.random() < 0.5
        form = pick(CHINESE_WHITE_FORMS if unnamed else CHINESE_FORMS)
        return form.format(name=pick(subject.chinese), colour=pick(background.chinese))

    def _english(self, subject: Subject, background: Background) -> str:
        chance, pick = self.random.random, self.random.choice
        words = subject.name if chance() < 0.6 else pick(subject.names)
        if chance() < 0.3:
            words = f"{pick(ADJECTIVES)} {words}"
        if chance() < 0.08:
            words = f"{pick(ADJECTIVES)} {words}"
        if chance() < 0.7:
            words = f"{article(words)} {words}"
        elif chance() < 0.4:
            words = f"the {words}"
        if chance() < 0.4:
            words = f"{pick(LEAD_INS)} {words}"
        elif chance() < 0.3:
            words = f"{self._strays(1, 3)} {pick(('of ', 'with ', ''))}{words}"
        parts = [words]
        unnamed = background is WHITE and chance() < 0.45
        if not unnamed:
            colour = pick(background.words)
            if chance() < 0.15:
                parts.insert(self.random.randrange(2), f"{colour} background")
            else:
                parts[0] = f"{words} {self._background(colour)}"
        for _ in range(pick((0, 0, 0, 1, 1, 2, 3))):
            parts.append(pick(STYLE_TAGS))
        if chance() < 0.15:
            parts.insert(self.random.randrange(len(parts) + 1), self._strays(1, 3))
        text = pick((", ", ", ", ", ", " ", ",")).join(parts)
        if chance() < 0.15:
            text += pick((".", "!", " ."))
        if chance() < 0.15:
            text = text[:1].upper() + text[1:]
        return text

    def _background(self, colour: str) -> str:
        chance, pick = self.random.random, self.random.choice
        a = pick((article(colour), article(colour), "the"))
        if chance() < 0.3:
            return f"{self._strays(1, 2)} {a} {colour} {pick(('background', 'background', 'backdrop', ''))}".rstrip()
        return pick(BACKGROUND_PHRASES).format(a=a, colour=colour)

    def _strays(self, least: int, most: int) -> str:
        """Between `least` and `most` words that say nothing about the picture."""
        count = self.random.randint(least, most)
        return " ".join(
            self._made_up_word() if self._makes_up() else self.random.choice(self.stray_words) for _ in range(count)
        )

    def _makes_up(self) -> bool:
        return not self.stray_words or self.random.random() < UNKNOWN_SHARE

    def _made_up_word(self) -> str:
        pick = self.random.choice
        return "".join(pick(CONSONANTS) + pick(VOWELS) for _ in range(pick((1, 1, 2)))) + pick(ENDINGS)


def stray_words(tags: Sequence[str], subjects: Sequence[Subject], backgrounds: Sequence[Background]) -> list[str]:
    """Return the single-word `tags` that name no subject and no background, sorted."""
    known = {word for subject in subjects for name in subject.names for word in name.lower().split()}
    known |= {word for background in backgrounds for word in background.words} | HELD_OUT_WORDS
    return sorted({tag for tag in tags if tag.isascii() and tag.isalpha() and tag.lower() not in known})

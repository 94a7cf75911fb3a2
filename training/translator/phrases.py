"""Phrases in both languages, composed at random of nouns, colours, counts, places and styles.

A template is a Chinese wording and the English one that it stands for, with the same blanks: `{np}` and `{other}` are
noun phrases (`{bare}` is the first one without an article, `{there}` "there is" or "there are"), `{bg}` a colour with
its article, `{colour}` without, and `{place}`, `{wear}`, `{style}` a word of that kind.

Two things are kept out of training, for an honest evaluation: `HELD_OUT_TEMPLATES`, and one in twenty pairs of a noun
and a colour that describes it or its background.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.translator.english import is_plural, plural, with_article
from training.translator.vocabulary import Word

_MEASURES = "个只个只个只条朵辆张本座棵颗位件把杯架块片双瓶头匹台部艘"
_NUMBERS = {
    "两": "two", "三": "three", "四": "four", "五": "five", "六": "six", "七": "seven", "八": "eight", "九": "nine",
    "十": "ten", "2": "two", "3": "three", "4": "four", "5": "five", "10": "ten",
}  # fmt: skip
_AMOUNTS = {
    "许多": "many",
    "很多": "many",
    "一些": "some",
    "一群": "a group of",
    "一束": "a bunch of",
    "一对": "a pair of",
}
_KINDS_OF_PICTURE = {
    "图片": "picture", "照片": "photo", "图标": "icon", "表情": "emoji", "贴纸": "sticker", "插画": "illustration",
    "特写": "close-up", "肖像": "portrait", "素描": "sketch", "3D渲染": "3d render", "图像": "image",
    "油画": "oil painting",
}  # fmt: skip
_LEAD_INS = {
    "画": "draw", "请画": "please draw", "画出": "draw", "生成": "generate", "我想要": "i want", "给我看": "show me",
    "这是": "this is", "有": "{there}",
}  # fmt: skip
_BLANK = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """A Chinese wording, the English ones that are right (the first is taught), and how often it is drawn."""

    chinese: str
    english: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Phrase:
    """A phrase and its right translations, the one of record first. `held_out`: it has a pair that is never taught."""

    chinese: str
    english: tuple[str, ...]
    held_out: bool


def _templates() -> tuple[Template, ...]:
    def teach(chinese: str, english: str, weight: float = 1.0) -> Template:
        return Template(chinese, (english,), weight)

    on = "{np} on {bg} background"
    return (
        teach("{np}", "{bare}", 50),
        teach("的{np}", "{bare}"),
        teach("{bg}背景上的{np}", on, 12),
        teach("{bg}的背景上的{np}", on),
        teach("{np}在{bg}背景上", on, 4),
        teach("{bg}底的{np}", on, 1.5),
        teach("{bg}背景的{np}", "{np} with {bg} background", 3),
        teach("带有{bg}背景的{np}", "{np} with {bg} background", 1.5),
        teach("{bg}背景前的{np}", "{np} in front of {bg} background", 3),
        teach("{bg}墙前的{np}", "{np} in front of {bg} wall", 1.5),
        teach("纯{bg}背景上的{np}", "{np} on a plain {colour} background", 1.5),
        teach("在{bg}背景上有{np}", f"{{there}} {on}", 2),
        teach("{bg}背景上有{np}", f"{{there}} {on}"),
        teach("一张{bg}背景的{np}图片", "a picture of {np} with {bg} background", 2),
        teach("一张{np}在{bg}背景上的图片", f"a picture of {on}"),
        teach("画{bg}背景上的{np}", f"draw {on}"),
        teach("请画{bg}背景上的{np}", f"please draw {on}"),
        teach("{bg}背景", "{colour} background", 4),
        teach("{bg}的背景", "{colour} background", 1.5),
        teach("纯{bg}背景", "plain {colour} background"),
        teach("{bg}背景上的", "on {bg} background", 1.5),
        teach("在{bg}背景上", "on {bg} background", 1.5),
        teach("{bg}背景上", "on {bg} background"),
        teach("背景是{bg}", "the background is {colour}", 1.5),
        teach("背景为{bg}", "the background is {colour}"),
        *(teach(f"{chinese}{{np}}", f"{english} {{np}}", 0.7) for chinese, english in _LEAD_INS.items()),
        *(
            teach(f"{before}{{np}}的{chinese}", f"{with_article(english, english)} of {{np}}", 0.5)
            for chinese, english in _KINDS_OF_PICTURE.items()
            for before in ("", "一张")
        ),
        teach("一幅{np}的画", "a painting of {np}"),
        teach("{place}的{np}", "{np} {place}", 4),
        teach("{np}在{place}", "{np} {place}", 2),
        teach("{place}有{np}", "{there} {np} {place}"),
        teach("{place}", "{place}", 1.5),
        teach("在{place}", "{place}"),
        teach("{place}的", "{place}"),
        teach("{np}和{other}", "{np} and {other}", 3),
        teach("{np}与{other}", "{np} and {other}"),
        teach("{bg}背景上的{np}和{other}", "{np} and {other} on {bg} background", 1.5),
        teach("戴着{wear}的{np}", "{np} wearing {wear}", 2),
        teach("{np}戴着{wear}", "{np} wearing {wear}"),
        teach("拿着{other}的{np}", "{np} holding {other}", 1.5),
        teach("{style}风格的{np}", "{np} in {style} style", 3),
        teach("{style}风格", "{style} style", 1.5),
        teach("{style}风格的", "in {style} style", 0.5),
    )


TEMPLATES = _templates()

_ON = ("{np} on {bg} background", "{np} against {bg} background", "{np} in front of {bg} background")
HELD_OUT_TEMPLATES: tuple[Template, ...] = (
    Template("{bg}背景下的{np}", (*_ON, "{np} with {bg} background")),
    Template("以{bg}为背景的{np}", (*_ON, "{np} with {bg} background")),
    Template("一张{bg}背景上的{np}的照片", ("a photo of {np} on {bg} background",)),
    Template("生成{bg}背景的{np}", ("generate {np} with {bg} background",)),
    Template("{style}风格的{np}在{bg}背景上", ("{np} in {style} style on {bg} background",)),
    Template("画{place}的{np}", ("draw {np} {place}",)),
    Template("{place}的{np}和{other}", ("{np} and {other} {place}",)),
    Template("戴着{wear}的{np}在{bg}背景上", ("{np} wearing {wear} on {bg} background",)),
)


@dataclass(frozen=True)
class _NounPhrase:
    chinese: str
    bare: str
    english: str
    pairs: tuple[tuple[str, str], ...]
    plural: bool = False


class PhraseBook:
    """Draws phrases. `nouns` are lists of nouns and the share of each; `words` the others, by kind."""

    def __init__(
        self, nouns: Sequence[tuple[Sequence[Word], float]], words: Mapping[str, Sequence[Word]], seed: int
    ) -> None:
        self._random = random.Random(seed)
        self._nouns = nouns
        self._words = words
        self._singles = _singles(words)

    def chinese_words(self) -> list[str]:
        """Return the words of Chinese phrases, each as often as it counts for finding pieces of the language."""
        kinds = [([word.chinese for word in words], share) for words, share in self._nouns]
        kinds += [([word.chinese for word in words], 1.0) for words in self._words.values()]
        kinds.append(([f"{number}{measure}" for number in ("一", *_NUMBERS) for measure in _MEASURES], 1.0))
        kinds.append(([part for each in TEMPLATES for part in _BLANK.split(each.chinese)[::2] if part], 1.0))
        return [word for words, share in kinds for word in words for _ in range(round(20 * share))]

    def taught(self) -> Phrase:
        """Return a phrase of a template and of pairs that are not held out."""
        while True:
            phrase = self._random.choice(self._singles) if self._random.random() < 0.12 else self.drawn(TEMPLATES)
            if not phrase.held_out:
                return phrase

    def drawn(self, templates: Sequence[Template]) -> Phrase:
        """Return a phrase of one of these templates."""
        return self._filled(self._random.choices(templates, [template.weight for template in templates])[0])

    def _filled(self, template: Template) -> Phrase:
        np, other = self._noun_phrase(), self._noun_phrase()
        background = self._background()
        wear = self._one("wear")
        fillings = {
            "np": (np.chinese, np.english),
            "bare": (np.chinese, np.bare),
            "there": ("", "there are" if np.plural else "there is"),
            "other": (other.chinese, other.english),
            "bg": (background.chinese, with_article(background.english, background.english)),
            "colour": (background.chinese, background.english),
            "wear": (wear.chinese, with_article(wear.english, wear.english)),
        }
        for kind, name in (("places", "place"), ("styles", "style")):
            word = self._one(kind)
            fillings[name] = (word.chinese, word.english)
        in_chinese, in_english = ({name: pair[side] for name, pair in fillings.items()} for side in (0, 1))
        chinese = template.chinese.format(**in_chinese)
        english = tuple(wording.format(**in_english) for wording in template.english)
        used = set(_BLANK.findall(template.chinese))
        pairs = [*(np.pairs if "np" in used else ()), *(other.pairs if "other" in used else ())]
        if {"np", "bg"} <= used:
            pairs.append((np.pairs[0][0], background.english))
        return Phrase(chinese, english, any(_is_held_out(noun, colour) for noun, colour in pairs))

    def _noun_phrase(self) -> _NounPhrase:
        """Return a noun, often described and counted."""
        chance, pick = self._random.random, self._random.choice
        lists = [words for words, _ in self._nouns]
        noun = pick(self._random.choices(lists, [share for _, share in self._nouns])[0])
        chinese, english = noun.chinese, noun.english
        pairs = [(noun.chinese, "")]
        if chance() < 0.35 and not self._names_colour(noun):
            colour = self._one("colours")
            if not (len(colour.chinese) == 1 and len(noun.chinese) == 1):
                chinese = f"{colour.chinese}{'的' if len(colour.chinese) > 1 and chance() < 0.6 else ''}{chinese}"
                english = f"{colour.english} {english}"
                pairs.append((noun.chinese, colour.english))
        if chance() < 0.3:
            adjective = self._one("adjectives")
            chinese, english = f"{adjective.chinese}{chinese}", f"{adjective.english} {english}"
        drawn = chance()
        if drawn < 0.35:
            one = with_article(english, noun.english)
            several = is_plural(noun.english)
            return _NounPhrase(f"一{pick(_MEASURES)}{chinese}", one, one, tuple(pairs), plural=several)
        if drawn < 0.45 and not is_plural(noun.english):
            if chance() < 0.8:
                number = pick(tuple(_NUMBERS))
                counted = f"{_NUMBERS[number]} {plural(english)}"
                return _NounPhrase(f"{number}{pick(_MEASURES)}{chinese}", counted, counted, tuple(pairs), plural=True)
            amount = pick(tuple(_AMOUNTS))
            counted = f"{_AMOUNTS[amount]} {plural(english)}"
            return _NounPhrase(f"{amount}{chinese}", counted, counted, tuple(pairs))
        several = is_plural(noun.english)
        return _NounPhrase(chinese, english, with_article(english, noun.english), tuple(pairs), plural=several)

    def _background(self) -> Word:
        while True:
            colour = self._one("colours")
            if len(colour.chinese) > 1 or self._random.random() < 0.5:
                return colour

    def _names_colour(self, noun: Word) -> bool:
        return any(f" {colour.english} " in f" {noun.english} " for colour in self._words["colours"])

    def _one(self, kind: str) -> Word:
        return self._random.choice(self._words[kind])


def _singles(words: Mapping[str, Sequence[Word]]) -> list[Phrase]:
    """Style tags, and words that stand by themselves, as they do between two marks of a prompt's syntax."""
    pairs = [(word.chinese, word.english) for kind in ("tags", "adjectives", "colours") for word in words[kind]]
    pairs += [(f"{word.chinese}的", word.english) for word in words["colours"]]
    pairs += [(f"一{measure}", "a") for measure in sorted(set(_MEASURES))]
    pairs += [(f"{number}{measure}", english) for number, english in _NUMBERS.items() for measure in "个只"]
    pairs += [("和", "and"), ("与", "and"), ("背景", "background")]
    return [Phrase(chinese, (english,), False) for chinese, english in dict(reversed(pairs)).items()]


def _is_held_out(noun: str, colour: str) -> bool:
    """Return True if a noun and a colour never meet in training; the same on every machine."""
    return colour != "" and zlib.crc32(f"{noun} {colour}".encode()) % 20 == 0

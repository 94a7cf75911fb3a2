"""The syntax of prompts: attention weights and ``BREAK``, as AUTOMATIC1111's web UI documents them.

    (a)      a counts 1.1 times     \\( \\) \\[ \\] \\< \\> \\| \\: \\\\   the character itself
    (a:1.3)  a counts 1.3 times     BREAK                          what follows begins a new chunk
    [a]      a counts 1 / 1.1 times

Brackets nest, and their weights multiply; round and square ones are paired independently of each other. An unclosed
bracket lasts to the end of the prompt. A closing bracket without an opening one is text, and so is invalid syntax:
``(a:nan)`` is ``a:nan`` in plain round brackets.

Every prompt is valid, so nothing here raises. Parsing takes time linear in the prompt's length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

MAX_WEIGHT = 10.0

_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_OPENS = {")": "(", "]": "["}
# Possessive quantifiers prevent backtracking.
_MARKS = re.compile(
    r"""
      \\(?P<escaped>[()\[\]<>|:\\])
    | (?P<open>[(\[])
    | :\s*+(?P<weight>[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++))\s*+\)
    | (?P<close>[)\]])
    | (?P<text>[^()\[\]\\:]++|[\\:])
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


@dataclass(frozen=True, slots=True)
class Span:
    """Text with one weight between -10 and 10; ``limited`` if some of it had another one."""

    text: str
    weight: float
    limited: bool = False


@dataclass(slots=True, eq=False)
class _Bracket:
    """A pair of brackets; it occurs in the sequence of marks where it opens and, if it closes, where it closes."""

    kind: str
    weight: _Weight
    entered: bool = False


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight between -10 and 10; ``limited`` if it was reduced to this range."""

    value: float
    limited: bool = False

    @classmethod
    def clamped(cls, value: float) -> _Weight:
        return cls(max(-MAX_WEIGHT, min(MAX_WEIGHT, value)), not -MAX_WEIGHT <= value <= MAX_WEIGHT)

    def __mul__(self, other: _Weight) -> _Weight:
        product = _Weight.clamped(self.value * other.value)
        return _Weight(product.value, product.limited or self.limited or other.limited)


def parse(prompt: str) -> list[list[Span]]:
    """Return the sections separated by ``BREAK``, as non-empty spans with equal neighbours joined."""
    sections: list[list[tuple[_Weight, str]]] = [[]]
    # Products of the open brackets' weights, by kind and depth.
    products = {kind: [_Weight(1.0)] for kind in _FACTORS}
    for mark in _paired(prompt):
        if isinstance(mark, str):
            weight = products["("][-1] * products["["][-1]
            for index, text in enumerate(_BREAK.split(mark)):
                if index > 0:
                    sections.append([])
                if text:
                    sections[-1].append((weight, text))
        elif mark.entered:
            products[mark.kind].pop()
        else:
            mark.entered = True
            depths = products[mark.kind]
            depths.append(depths[-1] * mark.weight)
    return [_joined(section) for section in sections]


def _paired(prompt: str) -> list[str | _Bracket]:
    """Return text and brackets in order. A separate pass, since a factor may be known only at its closing bracket."""
    marks: list[str | _Bracket] = []
    opened: dict[str, list[_Bracket]] = {kind: [] for kind in _FACTORS}
    for match in _MARKS.finditer(prompt):
        text = match[0]
        if match["open"]:
            bracket = _Bracket(text, _Weight(_FACTORS[text]))
            opened[text].append(bracket)
            marks.append(bracket)
        elif (match["close"] or match["weight"]) and (pending := opened[_OPENS[text[-1]]]):
            bracket = pending.pop()
            if match["weight"]:
                bracket.weight = _Weight.clamped(float(match["weight"]))
            marks.append(bracket)
        else:
            marks.append(match["escaped"] or text)
    return marks


def _joined(section: list[tuple[_Weight, str]]) -> list[Span]:
    spans = []
    for value, run in groupby(section, key=lambda piece: piece[0].value):
        weights, texts = zip(*run, strict=True)
        spans.append(Span("".join(texts), value, any(weight.limited for weight in weights)))
    return spans

"""The syntax of prompts: attention weights and ``BREAK``, as AUTOMATIC1111's web UI documents them.

    (a)      a counts 1.1 times     \\( \\) \\[ \\] \\< \\> \\| \\: \\\\   the character itself
    (a:1.3)  a counts 1.3 times     BREAK                          what follows begins a new chunk
    [a]      a counts 1 / 1.1 times

Brackets nest, and their weights multiply; round and square ones are paired independently of one another. One that is
never closed lasts to the end of the prompt; one that was never opened is text. So is whatever else looks like syntax
and is none: ``(a:nan)`` is ``a:nan`` in plain round brackets.

Every prompt has a meaning, so that nothing here raises, and reading one takes time linear in its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

LARGEST_WEIGHT = 10.0

_FACTORS = {"(": 1.1, "[": 1 / 1.1}
_OPENS = {")": "(", "]": "["}
# Possessive quantifiers: what was read once is not read again, whatever follows.
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
    """Text of one weight, which lies between -10 and 10."""

    text: str
    weight: float


@dataclass(slots=True, eq=False)
class _Bracket:
    """A pair of brackets: it stands in the sequence of marks where it opens, and again where it closes, if it does."""

    kind: str
    factor: float
    entered: bool = False


def parse(prompt: str) -> list[list[Span]]:
    """The spans between one ``BREAK`` and the next, neighbours of equal weight joined; there is no empty span."""
    sections: list[list[tuple[float, str]]] = [[]]
    # The product of the open brackets' factors, of each kind, for each depth.
    products = {kind: [1.0] for kind in _FACTORS}
    for mark in _paired(prompt):
        if isinstance(mark, str):
            weight = _bounded(products["("][-1] * products["["][-1])
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
            depths.append(_bounded(depths[-1] * mark.factor))
    return [_joined(section) for section in sections]


def _paired(prompt: str) -> list[str | _Bracket]:
    """Text and brackets in their order. A pass of its own: many a factor is known only at the closing one."""
    marks: list[str | _Bracket] = []
    opened: dict[str, list[_Bracket]] = {kind: [] for kind in _FACTORS}
    for match in _MARKS.finditer(prompt):
        text = match[0]
        if match["open"]:
            bracket = _Bracket(text, _FACTORS[text])
            opened[text].append(bracket)
            marks.append(bracket)
        elif (match["close"] or match["weight"]) and (pending := opened[_OPENS[text[-1]]]):
            bracket = pending.pop()
            if match["weight"]:
                bracket.factor = _bounded(float(match["weight"]))
            marks.append(bracket)
        else:
            marks.append(match["escaped"] or text)
    return marks


def _bounded(weight: float) -> float:
    return max(-LARGEST_WEIGHT, min(LARGEST_WEIGHT, weight))


def _joined(section: list[tuple[float, str]]) -> list[Span]:
    runs: Iterator[tuple[float, Iterator[tuple[float, str]]]] = groupby(section, key=lambda piece: piece[0])
    return [Span("".join(text for _, text in run), weight) for weight, run in runs]

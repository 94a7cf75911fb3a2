"""Prompt editing: the text of a prompt at each sampling step, by the rules of AUTOMATIC1111's web UI.

    [a:b:5]     a in the first 5 steps, b after them        [a|b]   a in the first step, b in the next, then a again, …
    [a:b:0.5]   a in the first half of the steps, then b    [b:5]   nothing in the first 5 steps, then b
    [a::5]      a in the first 5 steps, then nothing

A number with a point is a fraction of the steps, one without is a count. Constructs nest. Brackets inside of them must
be balanced, and colons and bars belong to the innermost bracket. Everything else remains text for ``syntax``.

Every prompt is valid, so nothing here raises. Parsing takes time linear in the prompt's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest

_MARKS = re.compile(r"\\.|[()\[\]:|]|[^\\()\[\]:|]++|\\", re.DOTALL)
_NUMBER = re.compile(r"\s*+([+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++))\s*+")
_CLOSES = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class _Edit:
    """Switch from ``before`` to ``after`` at ``when``: a number of steps, or a fraction of them."""

    before: _Node
    after: _Node
    when: str


@dataclass(frozen=True, slots=True)
class _Alternation:
    """Options that alternate from step to step."""

    options: tuple[_Node, ...]


_Node = str | list["_Node"] | _Edit | _Alternation


@dataclass(slots=True, eq=False)
class _Bracket:
    """An open bracket: its parts, and the colons and bars between them."""

    kind: str
    parts: list[list[_Node]] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def raw(self) -> list[_Node]:
        """Return the content since the bracket opened as text, except for closed constructs."""
        between = zip_longest(self.parts, self.separators, fillvalue="")
        return [self.kind, *chain.from_iterable(between)]

    def construct(self, closing: str) -> _Node | None:
        """Return the node of the closed bracket, or None if it is not a construct."""
        bars, colons = self.separators.count("|"), self.separators.count(":")
        if self.kind == "(":
            return [*self.raw(), closing] if not bars and colons <= 1 else None
        if not colons:
            return _Alternation(tuple(map(_node, self.parts))) if bars else [*self.raw(), closing]
        when = _node(self.parts[-1])
        if bars or colons > 2 or not isinstance(when, str) or not (number := _NUMBER.fullmatch(when)):
            return None
        before, after = ("", self.parts[0]) if colons == 1 else self.parts[:2]
        return _Edit(_node(before), _node(after), number[1])


def texts_by_step(prompt: str, steps: int) -> Iterator[str]:
    """Yield the prompt's text for each sampling step."""
    tree = _node(_parse(prompt))
    for step in range(1, steps + 1):
        yield tree if isinstance(tree, str) else _text(tree, step, steps)


def _parse(prompt: str) -> list[_Node]:
    result: list[_Node] = []
    opened: list[_Bracket] = []

    def give_up() -> None:
        # A bracket with unbalanced content is text, and so are all brackets around it.
        for bracket in opened:
            result.extend(bracket.raw())
        opened.clear()

    for mark in _MARKS.findall(prompt):
        if mark in "([":
            opened.append(_Bracket(mark))
        elif not opened:
            result.append(mark)
        elif mark in ":|":
            opened[-1].separators.append(mark)
            opened[-1].parts.append([])
        elif mark in ")]":
            node = opened[-1].construct(mark) if opened[-1].kind == _CLOSES[mark] else None
            if node is None:
                give_up()
                result.append(mark)
            else:
                opened.pop()
                (opened[-1].parts[-1] if opened else result).append(_node(node))
        else:
            opened[-1].parts[-1].append(mark)
    give_up()
    return result


def _node(node: _Node) -> _Node:
    """Join a list of texts into one."""
    if isinstance(node, list) and all(isinstance(part, str) for part in node):
        return "".join(part for part in node if isinstance(part, str))
    return node


def _text(tree: _Node, step: int, steps: int) -> str:
    texts: list[str] = []
    pending: list[_Node] = [tree]  # no recursion, since brackets may be nested thousands deep
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, _Edit):
            pending.append(node.before if step <= _steps_before(node.when, steps) else node.after)
        elif isinstance(node, _Alternation):
            pending.append(node.options[(step - 1) % len(node.options)])
        else:
            pending.extend(reversed(node))
    return "".join(texts)


def _steps_before(when: str, steps: int) -> float:
    # Between the bounds before it is made a whole number: hundreds of digits are infinity.
    return int(max(0.0, min(float(when) * steps, steps))) if "." in when else min(float(when), steps)

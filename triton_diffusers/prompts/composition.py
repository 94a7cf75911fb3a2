"""Composable diffusion: several prompts of one image, joined by ``AND``, as in AUTOMATIC1111's web UI.

    a cat :1.2 AND a dog        the cat counts 1.2 times

(Liu et al. 2022.) Each prompt is a row of the UNet's call; guidance adds their differences from the negative prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s*+([+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++))\s*+$")

MAX_WEIGHT = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    """One of the prompts, and its share in the guidance, which lies between -10 and 10.

    ``limited`` if the prompt asks for another one.
    """

    text: str
    weight: float
    limited: bool = False


def split_and(prompt: str) -> list[Part]:
    """Return the prompts between the ``AND``s, at least one. A prompt without ``AND`` is itself, with weight 1."""
    texts = _AND.split(prompt)
    if len(texts) == 1:
        return [Part(prompt, 1.0)]
    return [_part(text) for text in texts]


def has_and(prompt: str) -> bool:
    """Return True if ``AND`` joins prompts in it."""
    return _AND.search(prompt) is not None


def _part(text: str) -> Part:
    # From the last colon: a search from the left would try every colon of a long text.
    colon = text.rfind(":")
    weight = _WEIGHT.match(text, colon) if colon >= 0 else None
    if weight is None:
        return Part(text.strip(), 1.0)
    asked = float(weight[1])
    limited = max(-MAX_WEIGHT, min(MAX_WEIGHT, asked))
    return Part(text[:colon].strip(), limited, limited != asked)

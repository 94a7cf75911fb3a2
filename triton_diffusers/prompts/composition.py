"""Composable diffusion: several prompts of one image, joined by ``AND``, as in AUTOMATIC1111's web UI.

    a cat :1.2 AND a dog        the cat counts 1.2 times

(Liu et al. 2022.) Each prompt is a row of the UNet's call; guidance adds their differences from the negative prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from triton_diffusers.prompts.syntax import MAX_WEIGHT

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r":\s*+([+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++))\s*+$")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the prompts, and its weight in guidance, between -10 and 10; ``limited`` if the prompt had another one."""

    text: str
    weight: float
    limited: bool = False


def split_and(prompt: str) -> list[Part]:
    """Return the prompts between ``AND``s, at least one; a prompt without ``AND`` is unchanged, with weight 1."""
    texts = _AND.split(prompt)
    if len(texts) == 1:
        return [Part(prompt, 1.0)]
    return [_part(text) for text in texts]


def has_and(prompt: str) -> bool:
    """Return True if the prompt contains ``AND``."""
    return _AND.search(prompt) is not None


def _part(text: str) -> Part:
    # Only the last colon: a search from the left would try every colon of a long text.
    colon = text.rfind(":")
    weight = _WEIGHT.match(text, colon) if colon >= 0 else None
    if weight is None:
        return Part(text.strip(), 1.0)
    asked = float(weight[1])
    limited = max(-MAX_WEIGHT, min(MAX_WEIGHT, asked))
    return Part(text[:colon].strip(), limited, limited != asked)

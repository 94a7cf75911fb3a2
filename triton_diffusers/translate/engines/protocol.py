"""The protocol of translation engines, and the common bound of their output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class TranslationEngine(Protocol):
    """A translator of short texts."""

    def translate(self, texts: Sequence[str]) -> Sequence[str | None]:
        """Return one English text for each Chinese one, in order, or None if the model does not know it.

        The translation of a text does not depend on the others.
        """
        ...


def min_score(folder: Path) -> float | None:
    """Return the score below which a model's translations are nonsense, if the Marian ``folder`` has one.

    A score is the mean log-probability of a translation's tokens. It is meaningful for a small model trained on few
    wordings, which is certain of known texts only; its ``config.json`` has ``min_score``.
    """
    score = json.loads((folder / "config.json").read_text()).get("min_score")
    return float(score) if isinstance(score, int | float) else None


def max_output_tokens(source_tokens: int) -> int:
    """Return the maximum length of a translation: 1.5 times its source, plus eight tokens.

    Otherwise a model that does not stop would never end. English has about as many subwords as Chinese.
    """
    return source_tokens * 3 // 2 + 8

"""What a translation engine is, and the bound that all of them keep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class TranslationEngine(Protocol):
    """Translates short texts."""

    def translate(self, texts: Sequence[str]) -> Sequence[str | None]:
        """Return one English text for each Chinese one, in their order, or None for one that the model does not know.

        The translation of a text does not depend on the others.
        """
        ...


def min_score(folder: Path) -> float | None:
    """Return the score below which a model's translations are nonsense, if the Marian ``folder`` has one.

    A score is the mean log-probability of a translation's tokens. Only a small model that was trained on few wordings
    is sure of what it knows and of nothing else; its ``config.json`` says ``min_score``.
    """
    score = json.loads((folder / "config.json").read_text()).get("min_score")
    return float(score) if isinstance(score, int | float) else None


def most_output_tokens(source_tokens: int) -> int:
    """How long a translation may become: half as long again as its source, and eight tokens.

    Nothing else ends the output of a model that does not know when to stop. English subwords are about as many as
    Chinese ones.
    """
    return source_tokens * 3 // 2 + 8

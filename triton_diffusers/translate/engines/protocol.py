"""What a translation engine is, and the bound that all of them keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TranslationEngine(Protocol):
    """Translates short texts."""

    def translate(self, texts: Sequence[str]) -> list[str]:
        """One English text for each Chinese one, in their order; what one becomes does not depend on the others."""
        ...


def most_output_tokens(source_tokens: int) -> int:
    """How long a translation may become: half as long again as its source, and eight tokens.

    Nothing else ends the output of a model that does not know when to stop. English subwords are about as many as
    Chinese ones.
    """
    return source_tokens * 3 // 2 + 8

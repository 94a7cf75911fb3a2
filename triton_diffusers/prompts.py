"""Prompts as token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt as the text encoder takes it: as many ids as the encoder has positions, and what did not fit."""

    ids: tuple[int, ...]
    attention_mask: tuple[int, ...]
    cut: str

    def warning(self, field: str) -> str | None:
        """What to tell the caller if something was cut."""
        return f"{field}: too long for the model, cut: {self.cut!r}" if self.cut else None


def tokenize(tokenizer: Any, text: str) -> Tokens:
    """Token ids padded to the tokenizer's ``model_max_length``; the text of the ids that do not fit is in ``cut``."""
    length = tokenizer.model_max_length
    fitted = tokenizer(text, padding="max_length", max_length=length, truncation=True)
    ids = tuple(fitted["input_ids"])
    # Tokenising again is cheap; asking for the overflow in the first call is not supported by all tokenizers.
    whole = tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]
    cut = tokenizer.decode(whole[length - 1 : -1], skip_special_tokens=True) if len(whole) > length else ""
    return Tokens(ids, tuple(fitted["attention_mask"]), cut.strip())

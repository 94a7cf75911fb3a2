"""Warnings about scripts that a text encoder does not know, such as Chinese."""

from __future__ import annotations

import re
from typing import Any

HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f々〇"
"""Chinese characters, for a character class of a regular expression."""

_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_CHINESE = re.compile(f"[{HAN}]+")
_MAX_RUNS = 64
_MAX_SHOWN_RUNS = 3
_MAX_RUN_CHARACTERS = 32


def script_warnings(field: str, text: str, tokenizer: Any) -> list[str]:
    """Return warnings about Chinese text and other characters unknown to ``tokenizer``.

    Words of textual inversion are known. BERT's tokenizers (Chinese models) know all characters that they have a token
    for.
    """
    for word in tokenizer.get_added_vocab():
        if not word.isascii():
            text = text.replace(word, " ")
    chinese = [] if _reads_chinese(tokenizer) else _CHINESE.findall(text)
    if not _reads_chinese(tokenizer):
        text = _CHINESE.sub(" ", text)
    warnings = []
    if chinese:
        warnings.append(
            f"{field}: Chinese ({_shown(chinese)}) is not translated here, and few models draw it;"
            " the models ensemble and ensemble_controlnet translate it"
        )
    if unknown := _unknown(text, tokenizer):
        warnings.append(f"{field}: the model's text encoder does not know {_shown(unknown)}")
    return warnings


def _reads_chinese(tokenizer: Any) -> bool:
    return type(tokenizer).__name__.startswith("Bert")


def _unknown(text: str, tokenizer: Any) -> list[str]:
    """Return runs of non-ASCII characters with an unknown token or more tokens than characters."""
    words = (word for run in _FOREIGN.findall(text) for word in run.split())
    runs = list(dict.fromkeys(word[:_MAX_RUN_CHARACTERS] for word in words))[:_MAX_RUNS]
    if not runs:
        return []
    ids = tokenizer(runs, add_special_tokens=False, verbose=False)["input_ids"]
    unknown = getattr(tokenizer, "unk_token_id", None)
    return [run for run, tokens in zip(runs, ids, strict=True) if len(tokens) > len(run) or unknown in tokens]


def _shown(words: list[str]) -> str:
    first = [repr(word[:_MAX_RUN_CHARACTERS]) for word in dict.fromkeys(words)]
    more = ", …" if len(first) > _MAX_SHOWN_RUNS else ""
    return ", ".join(first[:_MAX_SHOWN_RUNS]) + more

"""Prompt styles: the web UI's ``styles.csv``."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_PLACE = "{prompt}"


@dataclass(frozen=True, slots=True)
class Style:
    """Texts that a style adds to the prompts, or puts around them where they have ``{prompt}``."""

    name: str
    prompt: str
    negative_prompt: str


def read_styles(file: Path | None) -> Mapping[str, Style]:
    """Return the styles of a file by name; none if there is no file, or if it cannot be read, which is logged."""
    if file is None:
        return {}
    try:
        with file.expanduser().open(encoding="utf-8-sig", newline="") as lines:
            rows = [
                Style(row.get("name") or "", row.get("prompt") or "", row.get("negative_prompt") or "")
                for row in csv.DictReader(lines)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        logger.warning("styles: %s cannot be read: %s", file, error)
        return {}
    return {style.name: style for style in rows if style.name}


def styled(prompt: str, texts: Sequence[str]) -> str:
    """Return a prompt with the texts of styles, one after the other."""
    for text in texts:
        if _PLACE in text:
            prompt = text.replace(_PLACE, prompt)
        elif text:
            prompt = f"{prompt}, {text}" if prompt else text
    return prompt

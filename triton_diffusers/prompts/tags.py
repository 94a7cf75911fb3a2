"""Prompt tags: ``<lora:name:0.8>`` and other extra networks of AUTOMATIC1111's web UI."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TAGS = re.compile(r"\\.|<(?P<kind>\w{1,64}+):(?P<arguments>[^<>]{1,1024}+)>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: its original text, its kind in lower case and its arguments."""

    text: str
    kind: str
    arguments: tuple[str, ...]


def split_tags(prompt: str) -> tuple[str, list[Tag]]:
    """Return the prompt without its tags, and the tags. An escaped bracket (``\\<``) does not start one."""
    tags: list[Tag] = []

    def extract(match: re.Match[str]) -> str:
        if match["kind"] is None:
            return match[0]
        tags.append(Tag(match[0], match["kind"].lower(), tuple(match["arguments"].split(":"))))
        return ""

    return _TAGS.sub(extract, prompt), tags

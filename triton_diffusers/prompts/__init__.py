"""Prompts: AUTOMATIC1111's syntax, chunks of tokens and attention weights.

In order of processing: ``tags`` extracts ``<lora:…>``, ``composition`` splits at ``AND``, ``schedule`` yields the text
of each step, ``syntax`` parses weighted spans, ``chunks`` tokenizes them, and ``weighting`` applies the weights to the
hidden states.
"""

from __future__ import annotations

from triton_diffusers.prompts.chunks import Chunk, Prompt, PromptReader, Tokens
from triton_diffusers.prompts.composition import Part, has_and, split_and
from triton_diffusers.prompts.schedule import texts_by_step
from triton_diffusers.prompts.scripts import script_warnings
from triton_diffusers.prompts.syntax import MAX_WEIGHT
from triton_diffusers.prompts.tags import Tag, split_tags
from triton_diffusers.prompts.weighting import apply_weights

__all__ = [
    "MAX_WEIGHT",
    "Chunk",
    "Part",
    "Prompt",
    "PromptReader",
    "Tag",
    "Tokens",
    "apply_weights",
    "has_and",
    "script_warnings",
    "split_and",
    "split_tags",
    "texts_by_step",
]

"""Draws every subject of the emoji model from its Chinese name, by way of the translator, as the ensemble does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.emoji.evaluate import GUIDANCE, generate_all, rank_of_truth, references
from triton_diffusers.translate.engines.ctranslate2 import CTranslate2Engine, convert
from triton_diffusers.translate.translator import Field, Translator

TEMPLATE = "白色背景上的{name}"
METRIC = (
    "Every subject's Chinese name of emojibase in the template, translated by this model as it is served, and drawn by "
    "the emoji model; ranked as its evaluation.json says, which has the figures of English prompts."
)


def translated(folder: Path, chinese: Sequence[str]) -> list[str]:
    """Return the translations of prompts by the model in `folder`, int8 and greedy. Raises the first error."""
    with tempfile.TemporaryDirectory() as scratch:
        convert(folder, Path(scratch))
        engine = CTranslate2Engine(Path(scratch), folder, beams=1)
        translator = Translator(engine, max_chars=1000, max_chinese_chars=1000, seconds=600.0, cache_size=len(chinese))
        outcomes = translator.translate([Field("prompt", text) for text in chinese])
    english = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        english.append(outcome.text)
    return english


def retrieval(
    folder: Path, base_model: Path, names: Sequence[str], pictures: torch.Tensor, workers: int
) -> dict[str, Any]:
    """Figures of the translator in `folder` with the pipeline `base_model`.

    `names` are the subjects' Chinese ones, `pictures` (uint8 [N, 4, 128, 128]) what they look like, in one order.
    """
    prompts = translated(folder, [TEMPLATE.format(name=name) for name in names])
    drawn = generate_all(base_model, prompts, range(len(prompts)), GUIDANCE, workers)
    ranks = rank_of_truth(drawn, references(pictures))
    missed = [f"{name} -> {prompt}" for name, prompt, rank in zip(names, prompts, ranks.tolist(), strict=True) if rank]
    return {
        "metric": METRIC,
        "template": TEMPLATE,
        "subjects": len(names),
        "top1": round(float((ranks == 0).float().mean()), 4),
        "top5": round(float((ranks < 5).float().mean()), 4),
        "missed": missed,
    }

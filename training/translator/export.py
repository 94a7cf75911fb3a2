"""Writes the model in opus-mt's layout, fp16 safetensors."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import MarianMTModel

from training.translator.model import Pieces


def export(model: MarianMTModel, average: Mapping[str, torch.Tensor], pieces: Pieces, folder: Path) -> None:
    """Write `model` with the averaged weights to `folder`, each file in one step."""
    model.load_state_dict(average, strict=False)
    model.half().eval()
    model.generation_config.bad_words_ids = [[pieces.padding]]
    model.generation_config.max_length = model.config.max_position_embeddings
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        part = Path(scratch)
        model.save_pretrained(part)
        pieces.write(part)
        for path in part.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner may read
            shutil.move(path, folder / path.name)

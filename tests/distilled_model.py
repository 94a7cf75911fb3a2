"""The emoji model with a random guidance embedding, as in models that were distilled from their guidance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_WIDTH = 256  # of the embedding, as in LCM_Dreamshaper_v7


def write_distilled(emoji: Path, model_dir: Path) -> Path:
    """Write the model into ``model_dir``, and return its base model."""
    base = model_dir / "base_model"
    shutil.copytree(emoji / "base_model", base)
    path = base / "unet" / "config.json"
    config = {**json.loads(path.read_text()), "time_cond_proj_dim": _WIDTH}
    path.write_text(json.dumps(config))
    file = base / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(config["block_out_channels"][0], _WIDTH, generator=generator) * 0.3
    tensors["time_embedding.cond_proj.weight"] = weight.to(tensors["conv_in.weight"].dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    return base

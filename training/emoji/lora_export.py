"""Writes a LoRA of the UNet as the two layouts that are in use, fp16 safetensors."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

Layout = Literal["kohya", "diffusers"]
Layers = Mapping[str, torch.Tensor]
"""As PEFT names them: `<module>.lora_A.weight` and `<module>.lora_B.weight`."""


def write_lora(path: Path, layers: Layers, rank: int, alpha: int, layout: Layout) -> None:
    """Write `path`, replacing what is there in one step. A LoRA adds `alpha / rank · B (A x)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        part = Path(scratch) / path.name
        if layout == "kohya":
            _write_kohya(part, layers, rank, alpha)
        else:
            _write_diffusers(part, layers, rank, alpha)
        part.chmod(0o644)  # safetensors writes files that only their owner may read
        part.replace(path)


def _write_kohya(path: Path, layers: Layers, rank: int, alpha: int) -> None:
    """sd-scripts' layout: flattened names, and a tensor that holds alpha beside each pair."""
    tensors = {}
    for key, tensor in layers.items():
        module, kind = key.removesuffix(".weight").rsplit(".", 1)
        name = "lora_unet_" + module.replace(".", "_")
        direction = {"lora_A": "lora_down", "lora_B": "lora_up"}[kind]
        tensors[f"{name}.{direction}.weight"] = tensor.half().contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float16)
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_network_args": json.dumps({"conv_dim": str(rank), "conv_alpha": str(alpha)}),
        "ss_output_name": path.stem,
        "ss_training_comment": "MIT License; trained on Fluent Emoji, Copyright (c) Microsoft Corporation",
    }
    save_file(tensors, path, metadata)


def _write_diffusers(path: Path, layers: Layers, rank: int, alpha: int) -> None:
    """Return the layout of diffusers. Its names have no place for alpha: what it scales goes into B."""
    tensors = {
        key: (tensor * (alpha / rank) if ".lora_B." in key else tensor).half().contiguous()
        for key, tensor in layers.items()
    }
    StableDiffusionPipeline.save_lora_weights(path.parent, unet_lora_layers=tensors, weight_name=path.name)

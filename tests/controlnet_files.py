"""ControlNets with random weights, and their files in either layout, for the tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import ControlNetModel
from diffusers.configuration_utils import FrozenDict
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]

WEIGHTS = "diffusion_pytorch_model.safetensors"
CHANNELS = (16, 32, 48, 64)  # of the layers that read the image, for 8 pixels a latent


def random_controlnet(
    unet_config: Mapping[str, Any], seed: int = 0, *, channels: tuple[int, ...] = CHANNELS, **kwargs: Any
) -> Any:
    """Return a ControlNet for a UNet, whose residuals change an image visibly and do not spoil it."""
    generator = torch.Generator().manual_seed(seed)
    network = ControlNetModel.from_unet(
        SimpleNamespace(config=FrozenDict(unet_config)),
        conditioning_embedding_out_channels=channels,
        load_weights_from_unet=False,
        **kwargs,
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:  # norms and biases stay as they begin
                size = 0.1 if name.startswith(("controlnet_down_blocks.", "controlnet_mid_block.")) else 1.0
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size / fan_in**0.5)
    return network.eval()


def save_folder(network: Any, folder: Path, *, variant: str | None = None, safe: bool = True) -> Path:
    """As diffusers writes it: config.json and weights."""
    network.save_pretrained(folder, variant=variant, safe_serialization=safe)
    return folder


def save(file: Path, tensors: Tensors) -> Path:
    """Write safetensors, or a pickle if the file's name says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file)
    else:
        torch.save(tensors, file)
    return file


def original(network: Any, prefix: str = "control_model.") -> Tensors:
    """Return the tensors under the names that the original ControlNets have, by the inverse of what is tested."""
    per = network.config.layers_per_block + 1
    rules: list[tuple[str, Any]] = [
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^controlnet_cond_embedding\.conv_in", "input_hint_block.0"),
        (r"^controlnet_cond_embedding\.blocks\.(\d+)", lambda m: f"input_hint_block.{2 * int(m[1]) + 2}"),
        (r"^controlnet_cond_embedding\.conv_out", "input_hint_block.14"),
        (r"^controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
        (r"^controlnet_mid_block", "middle_block_out.0"),
        (r"^mid_block\.attentions\.0", "middle_block.1"),
        (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
        (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{(int(m[1]) + 1) * per}.0.op"),
        (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{1 + int(m[1]) * per + int(m[2])}.0"),
        (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{1 + int(m[1]) * per + int(m[2])}.1"),
        (r"(block(?:s\.\d+)?\.\d)\.norm1", r"\1.in_layers.0"),
        (r"(block(?:s\.\d+)?\.\d)\.conv1", r"\1.in_layers.2"),
        (r"(block(?:s\.\d+)?\.\d)\.norm2", r"\1.out_layers.0"),
        (r"(block(?:s\.\d+)?\.\d)\.conv2", r"\1.out_layers.3"),
        (r"time_emb_proj", "emb_layers.1"),
        (r"conv_shortcut", "skip_connection"),
    ]
    tensors = {}
    for name, tensor in network.state_dict().items():
        for pattern, replacement in rules:
            # A transformer block's own norms keep their names.
            if "transformer_blocks" not in name or not pattern.startswith("(block"):
                name = re.sub(pattern, replacement, name)
        tensors[prefix + name] = tensor
    return tensors

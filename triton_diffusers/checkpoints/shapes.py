"""Configs in diffusers' form, as far as tensor shapes determine them. Names are those of the original layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from triton_diffusers.checkpoints.kinds import CLIP, OPEN_CLIP, UNET, VAE

Tensors = Mapping[str, torch.Tensor]


class ShapeError(ValueError):
    """The tensors of a file fit no network of the kind; the message is the reason."""


GUESSED = frozenset({"attention_head_dim", "num_attention_heads", "projection_dim", "bos_token_id", "eos_token_id"})
"""Keys of the configs that tensors do not determine."""
GUIDANCE = "time_embedding.cond_proj.weight"  # diffusers' name: the original layout has no guidance embedding
_SIZES = 6  # numbers of an image that an SDXL UNet takes
_HEAD_WIDTH = 64  # of CLIP's and OpenCLIP's text encoders, and of the UNet of Stable Diffusion 2.x


def unet_config(tensors: Tensors) -> dict[str, Any]:
    """Return the config of ``UNet2DConditionModel``.

    ``attention_head_dim`` (by which diffusers means the *number* of heads) cannot be seen: heads of 64 channels are
    assumed, as in Stable Diffusion 2.x.

    Raises: KeyError: with the name of a tensor that is missing. ShapeError: the blocks fit no such UNet.
    """
    levels: list[list[tuple[int, int]]] = [[]]  # by level and block: channels, transformer layers
    for number in range(1, _count(tensors, rf"{UNET}input_blocks\.(\d+)\.")):
        block = f"{UNET}input_blocks.{number}."
        if f"{block}0.op.weight" in tensors:
            levels.append([])
        else:
            depth = _count(tensors, rf"{block}1\.transformer_blocks\.(\d+)\.")
            levels[-1].append((_out(tensors, f"{block}0.out_layers.3.weight"), depth))
    for number, blocks in enumerate(levels):
        if len(set(blocks)) != 1 or len(blocks) != len(levels[0]):
            raise ShapeError(
                f"level {number} of the unet has {len(blocks)} blocks of (channels, transformer layers) {blocks}: "
                f"expected {len(levels[0]) or 'some'} that are alike"
            )
    channels, depths = (list(sizes) for sizes in zip(*(blocks[0] for blocks in levels), strict=True))
    middle = f"{UNET}middle_block.1."
    depth = _count(tensors, rf"{middle}transformer_blocks\.(\d+)\.")
    attends = [found > 0 for found in depths]
    depths = [found or 1 for found in depths[:-1]] + [depths[-1] or depth]
    if depths[-1] != depth:
        raise ShapeError(f"the middle of the unet has {depth} transformer layers, and its last level {depths[-1]}")
    config = {
        "in_channels": tensors[f"{UNET}input_blocks.0.0.weight"].shape[1],
        "out_channels": _out(tensors, f"{UNET}out.2.weight"),
        "block_out_channels": channels,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(attends)],
        "cross_attention_dim": tensors[f"{middle}transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "transformer_layers_per_block": depths[0] if len(set(depths)) == 1 else depths,
        "use_linear_projection": tensors[f"{middle}proj_in.weight"].ndim == 2,
        "attention_head_dim": [max(1, width // _HEAD_WIDTH) for width in channels],
    }
    if (sizes := tensors.get(f"{UNET}label_emb.0.0.weight")) is not None:
        config["addition_embed_type"] = "text_time"
        config["projection_class_embeddings_input_dim"] = sizes.shape[1]
        config["addition_time_embed_dim"] = (sizes.shape[1] - projection_width(tensors)) // _SIZES
    if (guidance := tensors.get(f"{UNET}{GUIDANCE}")) is not None:
        config["time_cond_proj_dim"] = guidance.shape[1]
    return config


def vae_config(tensors: Tensors) -> dict[str, Any]:
    """Return the config of ``AutoencoderKL``; raises ``KeyError`` with the name of a missing tensor."""
    levels = _count(tensors, rf"{VAE}encoder\.down\.(\d+)\.")
    channels = [_out(tensors, f"{VAE}encoder.down.{level}.block.0.conv1.weight") for level in range(levels)]
    return {
        "in_channels": tensors[f"{VAE}encoder.conv_in.weight"].shape[1],
        "out_channels": _out(tensors, f"{VAE}decoder.conv_out.weight"),
        "block_out_channels": channels,
        "layers_per_block": _count(tensors, rf"{VAE}encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": tensors[f"{VAE}decoder.conv_in.weight"].shape[1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def clip_config(tensors: Tensors) -> dict[str, Any]:
    """Return the config of ``CLIPTextModel`` for OpenAI's CLIP; raises ``KeyError`` if a tensor is missing."""
    return _text_config(
        tokens=tensors[f"{CLIP}embeddings.token_embedding.weight"],
        positions=tensors[f"{CLIP}embeddings.position_embedding.weight"],
        inner=tensors[f"{CLIP}encoder.layers.0.mlp.fc1.weight"],
        layers=_count(tensors, rf"{CLIP}encoder\.layers\.(\d+)\."),
    )


def open_clip_config(tensors: Tensors) -> dict[str, Any]:
    """Return the config of ``CLIPTextModel``, from OpenCLIP, with all layers that the file has.

    Raises: KeyError: with the name of a tensor that is missing.
    """
    return _text_config(
        tokens=tensors[f"{OPEN_CLIP}token_embedding.weight"],
        positions=tensors[f"{OPEN_CLIP}positional_embedding"],
        inner=tensors[f"{OPEN_CLIP}transformer.resblocks.0.mlp.c_fc.weight"],
        layers=_count(tensors, rf"{OPEN_CLIP}transformer\.resblocks\.(\d+)\."),
    )


def projection_width(tensors: Tensors) -> int:
    """Return the width of a text that OpenCLIP has pooled and projected; raises ``KeyError`` without a projection."""
    return int(tensors[f"{OPEN_CLIP}text_projection"].shape[1])


def _text_config(*, tokens: torch.Tensor, positions: torch.Tensor, inner: torch.Tensor, layers: int) -> dict[str, Any]:
    vocabulary, width = tokens.shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": inner.shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "max_position_embeddings": positions.shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _count(tensors: Tensors, pattern: str) -> int:
    """Return how many layers there are by the number in the pattern's group, from 0 and without a gap."""
    compiled = re.compile(pattern)
    numbers = {int(found[1]) for name in tensors if (found := compiled.match(name))}
    for number in range(len(numbers)):
        if number not in numbers:
            layer = pattern.replace(r"(\d+)", str(number)).replace("\\", "")
            raise ShapeError(f"it has {max(numbers)} as a number of {layer.rstrip('.')} and lacks {number}")
    return len(numbers)


def _out(tensors: Tensors, name: str) -> int:
    return int(tensors[name].shape[0])

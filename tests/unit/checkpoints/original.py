"""Small models, and the original Stable Diffusion key layout of any: the inverse of what is tested, written by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

Tensors = dict[str, torch.Tensor]


def unet(*, in_channels: int = 4, cross: int = 64, second: bool = False, guidance: int | None = None) -> Any:
    """Return a random UNet of two levels, shaped like 1.5's or (``second``) 2.1's.

    With ``guidance``, it takes an embedding of the guidance scale, of that size.
    """
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=cross,
        attention_head_dim=(1, 1) if second else 8,
        use_linear_projection=second,
        time_cond_proj_dim=guidance,
    ).eval()


def vae() -> Any:
    """Return a random autoencoder of three levels."""
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
    ).eval()


def text_encoder(*, width: int = 64, words: int = 49_408, act: str = "quick_gelu", layers: int = 2) -> Any:
    """Return a random text encoder."""
    torch.manual_seed(3)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words,
            hidden_size=width,
            projection_dim=width,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            hidden_act=act,
        )
    ).eval()


def original(unet: Any, vae: Any, encoder: Any, *, open_clip: bool = False, copied: bool = True) -> Tensors:
    """Return the three models' tensors under the original names.

    With OpenCLIP, the last layer is unused: it is a copy of the one before it if ``copied``, else random.
    """
    text = _open_clip(encoder, copied) if open_clip else _clip(encoder)
    return {**_unet(unet), **_vae(vae), **text}


def original_sdxl(pipeline: Any) -> Tensors:
    """Return the tensors of an SDXL pipeline under the original names. Its second text encoder uses all layers."""
    first, second = "cond_stage_model.transformer.", "cond_stage_model.model."
    text = {name.replace(first, "conditioner.embedders.0.transformer."): value
            for name, value in _clip(pipeline.text_encoder).items()}  # fmt: skip
    unused = f".resblocks.{pipeline.text_encoder_2.config.num_hidden_layers}."
    text |= {name.replace(second, "conditioner.embedders.1.model."): value
             for name, value in _open_clip(pipeline.text_encoder_2, True).items() if unused not in name}  # fmt: skip
    text["conditioner.embedders.1.model.text_projection"] = pipeline.text_encoder_2.text_projection.weight.T
    return {**_unet(pipeline.unet), **_vae(pipeline.vae), **text}


def write(path: Path, tensors: Tensors) -> Path:
    """Write ``tensors`` as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def _renamed(tensors: Tensors, prefix: str, rules: list[tuple[str, Any]]) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        renamed[prefix + new] = tensor
    return renamed


def _unet(unet: Any) -> Tensors:
    per = unet.config.layers_per_block + 1
    types = unet.config.up_block_types

    def up(found: re.Match[str]) -> str:
        block = int(found[1])
        return f"output_blocks.{block * per + per - 1}.{2 if 'Cross' in types[block] else 1}.conv"

    return _renamed(
        unet.state_dict(),
        "model.diffusion_model.",
        [
            (r"^time_embedding\.linear_1", "time_embed.0"),
            (r"^time_embedding\.linear_2", "time_embed.2"),
            (r"^add_embedding\.linear_1", "label_emb.0.0"),
            (r"^add_embedding\.linear_2", "label_emb.0.2"),
            (r"^conv_in", "input_blocks.0.0"),
            (r"^conv_norm_out", "out.0"),
            (r"^conv_out", "out.2"),
            (r"^mid_block\.attentions\.0", "middle_block.1"),
            (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
            (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{(int(m[1]) + 1) * per}.0.op"),
            (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{1 + int(m[1]) * per + int(m[2])}.0"),
            (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{1 + int(m[1]) * per + int(m[2])}.1"),
            (r"^up_blocks\.(\d)\.upsamplers\.0\.conv", up),
            (r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{int(m[1]) * per + int(m[2])}.0"),
            (r"^up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{int(m[1]) * per + int(m[2])}.1"),
            (r"(blocks?\.\d+\.\d?\.?)norm1\.(?=weight|bias)(?<!transformer)", r"\1in_layers.0."),
            (r"(blocks?\.\d+\.\d?\.?)conv1", r"\1in_layers.2"),
            (r"time_emb_proj", "emb_layers.1"),
            (r"(blocks?\.\d+\.\d?\.?)norm2\.(?=weight|bias)", r"\1out_layers.0."),
            (r"(blocks?\.\d+\.\d?\.?)conv2", r"\1out_layers.3"),
            (r"conv_shortcut", "skip_connection"),
            # The rules for norm1 and norm2 also hit a transformer block's own, which keep their names.
            (r"(transformer_blocks\.\d+\.)in_layers\.0", r"\1norm1"),
            (r"(transformer_blocks\.\d+\.)out_layers\.0", r"\1norm2"),
        ],
    )


def _vae(vae: Any) -> Tensors:
    last = len(vae.config.block_out_channels) - 1
    tensors = _renamed(
        vae.state_dict(),
        "first_stage_model.",
        [
            (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
            (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
            (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}"),
            (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample"),
            (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
            (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
            (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
            (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
            (r"conv_norm_out", "norm_out"),
            (r"conv_shortcut", "nin_shortcut"),
        ],
    )
    return {
        name: value[:, :, None, None] if "attn_1" in name and value.ndim == 2 else value
        for name, value in tensors.items()
    }


def _clip(encoder: Any) -> Tensors:
    prefix = "cond_stage_model.transformer.text_model."
    tensors = {prefix + name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    return {**tensors, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def _open_clip(encoder: Any, copied: bool) -> Tensors:
    prefix = "cond_stage_model.model."
    tensors = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    width = encoder.config.hidden_size
    result = {
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
        "text_projection": torch.randn(width, width),
        "logit_scale": torch.tensor(1.0),
    }
    names = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    layers = encoder.config.num_hidden_layers
    for layer in range(layers + 1):  # the last one is in the file and not in the model
        source = f"encoder.layers.{min(layer, layers - 1)}."
        target = f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            for ours, theirs in names.items():
                result[f"{target}{theirs}.{kind}"] = tensors[f"{source}{ours}.{kind}"]
            parts = [tensors[f"{source}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            result[f"{target}attn.in_proj_{kind}"] = torch.cat(parts)
    if not copied:
        last = f"transformer.resblocks.{layers}."
        result |= {name: torch.randn_like(value) for name, value in result.items() if name.startswith(last)}
    return {prefix + name: value for name, value in result.items()}

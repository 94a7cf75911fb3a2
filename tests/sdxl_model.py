"""A tiny SDXL checkpoint of the real classes with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from triton_diffusers.checkpoints.vocabulary import END, write_tokenizer

SIDE = 64  # of its images, in pixels
_WORDS = 49_408
WIDTHS = (32, 48)  # of the text encoders
_LAYERS = (3, 4)  # more than two, or the layer before the last would be the first
_TIME = 8


def write_sdxl(folder: Path, *, unet_channels: int = 4, **index: Any) -> Path:
    """Write the checkpoint into ``folder``; keywords replace those of the pipeline, such as the force on zeros."""
    pipeline = make_sdxl(folder.parent / "tokenizers", unet_channels=unet_channels, **index)
    pipeline.save_pretrained(folder)
    return folder


def make_sdxl(tokenizers: Path, *, unet_channels: int = 4, **options: Any) -> StableDiffusionXLPipeline:
    """Return the pipeline; its tokenizers are written into ``tokenizers``. Like the real ones, they pad differently."""
    tokenizers.mkdir(exist_ok=True)
    made = []
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        if not (tokenizers / name).is_dir():
            write_tokenizer(tokenizers / name, pad_token=pad, length=77)
        made.append(CLIPTokenizer.from_pretrained(tokenizers / name))
    return StableDiffusionXLPipeline(
        vae=_randomized(_vae(), 1),
        text_encoder=_randomized(CLIPTextModel(_text_config(0, "quick_gelu")), 2),
        text_encoder_2=_randomized(CLIPTextModelWithProjection(_text_config(1, "gelu")), 3),
        tokenizer=made[0],
        tokenizer_2=made[1],
        unet=_randomized(_unet(unet_channels), 4),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
        **options,
    )


def _text_config(number: int, activation: str) -> CLIPTextConfig:
    width = WIDTHS[number]
    return CLIPTextConfig(
        vocab_size=_WORDS,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=_LAYERS[number],
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=_WORDS - 2,
        eos_token_id=_WORDS - 1,
        pad_token_id=1,
    )


def _unet(channels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        sample_size=SIDE // 4,
        in_channels=channels,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME,
        transformer_layers_per_block=(1, 1, 2),
        projection_class_embeddings_input_dim=6 * _TIME + WIDTHS[1],
        cross_attention_dim=sum(WIDTHS),
        norm_num_groups=8,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=0.13025,
    )


def _randomized(module: Any, seed: int) -> Any:
    """Give a module weights that keep the size of what passes through it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return module.eval()

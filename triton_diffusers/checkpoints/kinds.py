"""Recognise the kind of a checkpoint in one file by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.layout import VAE_HINT
from triton_diffusers.families.sd.checks import OTHER_CHANNELS

UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
OPEN_CLIP = "cond_stage_model.model."

_SDXL = {"conditioner.embedders.0.transformer.text_model.": CLIP, "conditioner.embedders.1.model.": OPEN_CLIP}
_SIZES = f"{UNET}label_emb."  # layers of a UNet that takes more than noise, time and text
_OLD_CLIP = "cond_stage_model.transformer."
_UNSUPPORTED = (  # part of a tensor's name → family
    ("conditioner.embedders.0.model.", "SDXL refiner"),
    ("joint_blocks.", "SD3"),
    ("double_blocks.", "Flux"),
    ("double_layers.", "AuraFlow"),
    ("distilled_guidance_layer.", "Chroma"),
    ("clip_txt_mapper.", "Stable Cascade"),
    ("motion_modules.", "AnimateDiff"),
)
_PARTS = (  # prefix of a tensor's name → kind of file that is not a whole checkpoint
    ("lora_", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("controlnet_cond_embedding.", "a ControlNet"),
    ("down_blocks.", "a UNet alone"),
    ("encoder.", "an autoencoder alone"),
    ("text_model.", "a text encoder alone"),
    ("string_to_param", "a textual inversion"),
    ("emb_params", "a textual inversion"),
)


def checked(path: Path, tensors: Mapping[str, torch.Tensor], *, needs_vae: bool = True) -> dict[str, torch.Tensor]:
    """Return the tensors of a Stable Diffusion model, without EMA copies and buffers.

    Text encoders of SDXL get the names that they have in 1.x and 2.x.

    Raises: LoadError: the file is another kind of model, or only a part of one.
    """
    for part, name in _UNSUPPORTED:
        if any(part in key for key in tensors):
            raise LoadError(f"{path}: not supported yet: {name}")
    renamed = {_today(key): value for key, value in tensors.items()}
    kept = {key: value for key, value in renamed.items() if key.startswith((UNET, VAE, "cond_stage_model."))}
    if any(key.startswith(_SIZES) for key in kept):
        encoders = [prefix for prefix in _SDXL if any(key.startswith(prefix) for key in tensors)]
        if not encoders:
            raise LoadError(f"{path}: not supported yet: Stable unCLIP")
        if len(encoders) < len(_SDXL):
            raise LoadError(f"{path} is not a whole checkpoint: it has one of SDXL's text encoders ({encoders[0]}*)")
    first = kept.get(f"{UNET}input_blocks.0.0.weight")
    if first is None:
        for beginning, name in _PARTS:
            if any(key.startswith(beginning) for key in tensors):
                raise LoadError(f"{path} is {name}, not a checkpoint")
        raise LoadError(f"{path} is not a Stable Diffusion checkpoint: it has no {UNET}input_blocks.0.0.weight")
    channels = first.shape[1]
    if channels in OTHER_CHANNELS:
        raise LoadError(f"{path}: not supported yet: {OTHER_CHANNELS[channels]}")
    if not any(key.startswith("cond_stage_model.") for key in kept):
        raise LoadError(f"{path} is not a whole checkpoint: it has no text encoder (cond_stage_model.*)")
    if needs_vae and not any(key.startswith(VAE) for key in kept):
        raise LoadError(f"{path} is not a whole checkpoint: it has no autoencoder ({VAE}*); {VAE_HINT}")
    return kept


def is_sdxl(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return True if the checked tensors are those of SDXL, the only model with both text encoders."""
    return uses_open_clip(tensors) and any(key.startswith(CLIP) for key in tensors)


def uses_open_clip(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Return True if the text encoder is OpenCLIP's (Stable Diffusion 2.x) rather than OpenAI's (1.x)."""
    return f"{OPEN_CLIP}token_embedding.weight" in tensors


def _today(key: str) -> str:
    """Return the usual name of a tensor, for files of SDXL and for those written with a very old transformers."""
    for prefix, usual in _SDXL.items():
        if key.startswith(prefix):
            return f"{usual}{key.removeprefix(prefix)}"
    if key.startswith((f"{_OLD_CLIP}embeddings.", f"{_OLD_CLIP}encoder.", f"{_OLD_CLIP}final_layer_norm.")):
        return f"{CLIP}{key.removeprefix(_OLD_CLIP)}"
    return key


_STEPS = {875_000: "epsilon", 220_000: "epsilon", 140_000: "v_prediction", 110_000: "v_prediction"}
_FAR = -1.0  # a smaller mean difference means that the network did not return the noise


def by_global_step(step: int | None) -> str | None:
    """Return the prediction type of a published 2.x checkpoint by its training steps; None for other numbers."""
    return None if step is None else _STEPS.get(step)


@torch.inference_mode()
def by_trial(unet: Any) -> str:
    """Return the prediction type of a UNet in float32, found by a trial.

    At the last timestep an image is almost all noise: a UNet that predicts noise returns its input, one that predicts
    velocity returns about the negative of an image. Input and threshold are the convention of the web interfaces, so
    that checkpoints behave alike.
    """
    latents = torch.full((1, int(unet.config.in_channels), 8, 8), 0.5)
    states = torch.full((1, 2, int(unet.config.cross_attention_dim)), 0.5)
    predicted = unet(latents, torch.tensor([999]), encoder_hidden_states=states, return_dict=False)[0]
    difference = (predicted - latents[:, : predicted.shape[1]]).mean().item()
    return "v_prediction" if difference < _FAR else "epsilon"

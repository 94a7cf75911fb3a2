"""Stable Diffusion 1.x and 2.x as a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.families.denoiser import Denoiser
from triton_diffusers.families.family import Family, Parts
from triton_diffusers.families.guidance import ClassifierFree, Distilled
from triton_diffusers.families.latents import LatentFormat
from triton_diffusers.families.registry import STABLE_DIFFUSION, FamilyEntry
from triton_diffusers.families.schedules import NoiseSchedule
from triton_diffusers.families.sd.checks import check_channels, check_conditions, check_width, check_words
from triton_diffusers.families.unet import UNetDenoiser
from triton_diffusers.prompts import Tokens


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(Family):
    """One text encoder, a UNet and an ``AutoencoderKL``."""

    entry: ClassVar[FamilyEntry] = STABLE_DIFFUSION

    @staticmethod
    def check(parts: Parts) -> None:
        """Raise ``UnsupportedComponent`` for UNets with further inputs, and for components of different models."""
        unet, text_encoder = parts.configs["unet"], parts.configs["text_encoder"]
        check_channels(unet, parts.configs["vae"])
        check_conditions(unet, {})
        check_width(unet, text_encoder.hidden_size, "text_encoder")
        check_words(parts.tokenizers["tokenizer"], text_encoder, "text_encoder")

    @classmethod
    def of_parts(cls, parts: Parts) -> Self:
        """Return the family of a checkpoint."""
        unet = parts.configs["unet"]
        latents = LatentFormat.of_autoencoder(parts.configs["vae"])
        width = unet.time_cond_proj_dim
        return cls(
            latents=latents,
            denoiser_channels=int(unet.in_channels),
            text_layers=int(parts.configs["text_encoder"].num_hidden_layers),
            guidance=ClassifierFree() if width is None else Distilled(int(width)),
            schedule=NoiseSchedule(_mended(parts.scheduler_config)),
            defaults=ModelDefaults(side=int(unet.sample_size) * latents.pixels),
            denoiser_config=dict(unet),
        )

    @staticmethod
    def denoiser(network: Any) -> Denoiser:
        """Return the UNet."""
        return UNetDenoiser(network)

    def encode_text(self, encoders: Mapping[str, Any], chunks: Sequence[Tokens], clip_skip: int) -> Inputs:
        """Return the hidden states of a layer, normalised like those of the last one."""
        encoder = encoders["text_encoder"]
        device = encoder.get_input_embeddings().weight.device
        ids = torch.tensor([chunk.ids for chunk in chunks], device=device)
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = torch.tensor([chunk.attention_mask for chunk in chunks], device=device)
        encoded = encoder(ids, attention_mask=mask, output_hidden_states=clip_skip > 1)
        states: torch.Tensor = encoded.last_hidden_state
        if clip_skip > 1:
            states = encoded.hidden_states[-clip_skip]
            # Some versions of transformers nest the normalisation one level deeper; BERT has none.
            text = getattr(encoder, "text_model", encoder)
            if hasattr(text, "final_layer_norm"):
                states = text.final_layer_norm(states)
        return {STATES: states}


# Settings of early repositories, which diffusers' pipelines of this family override.
_OVERRIDES: Mapping[str, Any] = {"steps_offset": 1, "clip_sample": False}


def _mended(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: _OVERRIDES.get(key, value) for key, value in config.items()}

"""Stable Diffusion XL as a family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from triton_diffusers.api.request import GenerationRequest, ModelDefaults
from triton_diffusers.families.conditioning import STATES, EncodedText, Inputs
from triton_diffusers.families.denoiser import Denoiser
from triton_diffusers.families.errors import UnsupportedComponent
from triton_diffusers.families.family import Family, Parts
from triton_diffusers.families.guidance import ClassifierFree, Distilled
from triton_diffusers.families.latents import LatentFormat
from triton_diffusers.families.registry import STABLE_DIFFUSION_XL, FamilyEntry
from triton_diffusers.families.schedules import NoiseSchedule
from triton_diffusers.families.sd.checks import check_channels, check_conditions, check_words, refuse
from triton_diffusers.families.unet import POOLED, TIME_IDS, UNetDenoiser
from triton_diffusers.prompts import Tokens, apply_weights

_FIRST, _SECOND = STABLE_DIFFUSION_XL.text_encoders
_SIZES = 6  # numbers of an image: original height and width, top and left of the crop, target height and width
_GUIDANCE_SCALE = 5.0  # diffusers' default


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(Family):
    """Two text encoders, of which the second pools its text too, a UNet that takes sizes, and an ``AutoencoderKL``.

    ``widths`` are those of the encoders' hidden states, ``second_pad`` is the padding token of the second tokenizer.
    ``zeros_for_empty`` is True if the model was trained with zeros for empty prompts.
    """

    entry: ClassVar[FamilyEntry] = STABLE_DIFFUSION_XL

    widths: tuple[int, int]
    second_pad: int
    zeros_for_empty: bool

    @staticmethod
    def check(parts: Parts) -> None:
        """Raise ``UnsupportedComponent`` for UNets with other inputs, and for components of different models."""
        unet, first, second = (parts.configs[name] for name in ("unet", _FIRST, _SECOND))
        check_channels(unet, parts.configs["vae"])
        check_conditions(unet, {"addition_embed_type": "text_time"})
        if unet["addition_embed_type"] is None:
            refuse("unet", "addition_embed_type is None", "'text_time'")
        width = first.hidden_size + second.hidden_size
        if unet["cross_attention_dim"] != width:
            refuse("unet", f"cross_attention_dim is {unet['cross_attention_dim']}", f"{width}, of both text encoders")
        pooled = second.projection_dim + _SIZES * unet["addition_time_embed_dim"]
        if unet["projection_class_embeddings_input_dim"] != pooled:
            found = unet["projection_class_embeddings_input_dim"]
            refuse("unet", f"projection_class_embeddings_input_dim is {found}", f"{pooled}, of {_SECOND} and sizes")
        for tokenizer, name, encoder in zip(parts.tokenizers.values(), (_FIRST, _SECOND), (first, second), strict=True):
            check_words(tokenizer, encoder, name)
        vocabularies = [tokenizer.get_vocab() for tokenizer in parts.tokenizers.values()]
        if vocabularies[0] != vocabularies[1]:
            raise UnsupportedComponent("tokenizer_2", "its words differ from those of tokenizer: unsupported")

    @classmethod
    def of_parts(cls, parts: Parts) -> Self:
        """Return the family of a checkpoint."""
        unet, first, second = (parts.configs[name] for name in ("unet", _FIRST, _SECOND))
        latents = LatentFormat.of_autoencoder(parts.configs["vae"])
        width = unet.time_cond_proj_dim
        return cls(
            latents=latents,
            denoiser_channels=int(unet.in_channels),
            # The layer before the last is the first that clip_skip counts.
            text_layers=min(first.num_hidden_layers, second.num_hidden_layers) - 1,
            guidance=ClassifierFree() if width is None else Distilled(int(width)),
            schedule=NoiseSchedule(dict(parts.scheduler_config)),
            defaults=ModelDefaults(side=int(unet.sample_size) * latents.pixels, guidance_scale=_GUIDANCE_SCALE),
            denoiser_config=dict(unet),
            decodes_in_float32=bool(parts.configs["vae"].force_upcast),
            widths=(int(first.hidden_size), int(second.hidden_size)),
            second_pad=int(parts.tokenizers["tokenizer_2"].pad_token_id),
            zeros_for_empty=bool(parts.index.get("force_zeros_for_empty_prompt", True)),
        )

    @staticmethod
    def denoiser(network: Any) -> Denoiser:
        """Return the UNet."""
        return UNetDenoiser(network)

    def encode_text(self, encoders: Mapping[str, Any], chunks: Sequence[Tokens], clip_skip: int) -> Inputs:
        """Return the hidden states of both encoders, not normalised, side by side, and the second's pooled text."""
        first, second = encoders[_FIRST], encoders[_SECOND]
        device = first.get_input_embeddings().weight.device
        ids = torch.tensor([chunk.ids for chunk in chunks], device=device)
        used = torch.tensor([chunk.attention_mask for chunk in chunks], device=device)
        layer = -1 - clip_skip
        states = first(ids, output_hidden_states=True).hidden_states[layer]
        encoded = second(ids.where(used > 0, self.second_pad), output_hidden_states=True)
        ends = used.sum(1) - 1
        last = encoded.last_hidden_state[torch.arange(len(chunks), device=device), ends]
        return {
            STATES: torch.cat([states, encoded.hidden_states[layer]], dim=-1),
            POOLED: second.text_projection(last),
        }

    def weigh(self, states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """Apply attention weights to each encoder's hidden states."""
        return torch.cat(
            [apply_weights(part, weights) for part in torch.split(states, list(self.widths), dim=-1)], dim=-1
        )

    def empty_negative(self, encoded: EncodedText) -> EncodedText:
        """Return zeros, if the model was trained with them."""
        if not self.zeros_for_empty:
            return encoded
        whole = {name: torch.zeros_like(value) for name, value in encoded.whole.items()}
        zeros = torch.zeros_like(encoded.chunks[0])
        return EncodedText((zeros,) * len(encoded.chunks), whole, padding=zeros)

    def shared_inputs(self, request: GenerationRequest, size: tuple[int, int]) -> Inputs:
        """Return the sizes of the image, which is not cropped."""
        width, height = size
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        return {**self.guidance.inputs(request), TIME_IDS: sizes}

"""PyTorch as it is: always there, and the reference that compiled engines are verified against."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from triton_diffusers.controlnet import ControlNetWeights
from triton_diffusers.engines.checkpoint import CheckpointEngine
from triton_diffusers.engines.eager_controlnet import EagerControlNet
from triton_diffusers.engines.lora_hooks import LoraHooks
from triton_diffusers.engines.protocol import Residuals
from triton_diffusers.engines.shallow import ShallowUNet, predict_whole
from triton_diffusers.loading import Components
from triton_diffusers.lora import TEXT_ENCODER, UNET, LoraSet
from triton_diffusers.lru import LruCache
from triton_diffusers.prompts import Tokens

# For the LoRAs of batches, put together for their rows; the latest batch's are kept whatever their size.
LORA_BATCH_BYTES = 128 * 2**20


class EagerEngine(CheckpointEngine):
    """Runs a checkpoint's modules in PyTorch."""

    optimized = False

    def __init__(self, components: Components) -> None:
        super().__init__(components)
        for module in (components.unet, components.vae):
            module.to(memory_format=torch.channels_last)  # measured: a few per cent of a step, a fifth of a decoding
        parameter = next(components.unet.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._shallow_unet = ShallowUNet(components.unet)
        stacks = LruCache(LORA_BATCH_BYTES)
        self._unet_loras = LoraHooks(UNET, components.unet, stacks)
        self._text_loras = LoraHooks(TEXT_ENCODER, components.text_encoder, stacks)

    @torch.inference_mode()
    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> torch.Tensor:
        encoder = self._components.text_encoder
        ids = torch.tensor([chunk.ids for chunk in chunks], device=self._device)
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = torch.tensor([chunk.attention_mask for chunk in chunks], device=self._device)
        with self._text_loras.applied([loras] * len(ids)):
            encoded = encoder(ids, attention_mask=mask, output_hidden_states=clip_skip > 1)
            states: torch.Tensor = encoded.last_hidden_state
            if clip_skip > 1:
                states = encoded.hidden_states[-clip_skip]
                # Some versions of transformers have the normalisation one module further in; BERT's layers need none.
                text = getattr(encoder, "text_model", encoder)
                if hasattr(text, "final_layer_norm"):
                    states = text.final_layer_norm(states)
        return states

    def computes_apart(self, loras: LoraSet | None) -> bool:
        return False

    @torch.inference_mode()
    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        loras: Sequence[LoraSet | None] | None = None,
        deep: torch.Tensor | None = None,
        residuals: Residuals | None = None,
        guidance: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = (
            latents.to(self._device, self._dtype),
            timesteps.to(self._device),
            states.to(self._device, self._dtype),
        )
        scales = None if guidance is None else guidance.to(self._device, self._dtype)
        with self._unet_loras.applied(loras):
            if deep is None:
                added = None
                if residuals is not None:
                    added = tuple(residual.to(self._device, self._dtype) for residual in residuals)
                prediction, features = predict_whole(self._components.unet, *inputs, added, scales)
                return prediction.float().cpu(), features.float().cpu().contiguous()
            features = deep.to(self._device, self._dtype, memory_format=torch.channels_last)
            return self._shallow_unet(*inputs, features, scales).float().cpu(), deep

    def make_controlnet(self, weights: ControlNetWeights) -> EagerControlNet:
        return EagerControlNet(weights, self._device, self._dtype)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        vae = self._precise_vae if precise else self._components.vae
        picture = torch.from_numpy(pixels).unsqueeze(0).to(self._device, vae.dtype)
        latents = vae.encode(picture.contiguous(memory_format=torch.channels_last)).latent_dist
        moments: torch.Tensor = torch.cat([latents.mean, latents.std]) * vae.config.scaling_factor
        return moments.float().cpu()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        vae = self._precise_vae if precise else self._components.vae
        scaled = latents.unsqueeze(0).to(self._device, vae.dtype) / vae.config.scaling_factor
        picture: np.ndarray[Any, Any] = vae.decode(scaled, return_dict=False)[0][0].float().cpu().numpy()
        return picture

    @cached_property
    def _precise_vae(self) -> Any:
        vae = self._components.vae
        return vae if vae.dtype == torch.float32 else copy.deepcopy(vae).float()

"""PyTorch as it is: always there, and the reference that compiled engines are verified against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from triton_diffusers.loading import Components
from triton_diffusers.prompts import Tokens


class EagerEngine:
    """Runs a checkpoint's modules in PyTorch."""

    optimized = False

    def __init__(self, components: Components) -> None:
        self._components = components
        for module in (components.unet, components.vae):
            module.to(memory_format=torch.channels_last)  # measured: a few per cent of a step, a fifth of a decoding
        parameter = next(components.unet.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype

    @property
    def tokenizer(self) -> Any:
        return self._components.tokenizer

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        return self._components.scheduler_config

    @property
    def latent_channels(self) -> int:
        return int(self._components.unet.config.in_channels)

    @property
    def pixels_per_latent(self) -> int:
        return self._components.pixels_per_latent

    @property
    def native_side(self) -> int:
        return int(self._components.unet.config.sample_size) * self.pixels_per_latent

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[Tokens]) -> torch.Tensor:
        encoder = self._components.text_encoder
        ids = torch.tensor([prompt.ids for prompt in prompts], device=self._device)
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = torch.tensor([prompt.attention_mask for prompt in prompts], device=self._device)
        states: torch.Tensor = encoder(ids, attention_mask=mask)[0]
        return states

    @torch.inference_mode()
    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        prediction: torch.Tensor = self._components.unet(
            latents.to(self._device, self._dtype),
            timesteps.to(self._device),
            encoder_hidden_states=states,
            return_dict=False,
        )[0]
        return prediction.float().cpu()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> np.ndarray[Any, Any]:
        vae = self._components.vae
        scaled = latents.unsqueeze(0).to(self._device, self._dtype) / vae.config.scaling_factor
        picture: np.ndarray[Any, Any] = vae.decode(scaled, return_dict=False)[0][0].float().cpu().numpy()
        return picture

    @torch.inference_mode()
    def is_unsafe(self, pixels: np.ndarray[Any, Any]) -> bool:
        checker, extractor = self._components.safety_checker, self._components.feature_extractor
        if checker is None or extractor is None:
            return False
        views = extractor(images=[pixels], return_tensors="pt").pixel_values.to(self._device, self._dtype)
        # The checker blackens what it is given; the caller decides what becomes of the picture.
        _, flags = checker(images=np.zeros((1, 1, 1, 3), np.float32), clip_input=views)
        return bool(flags[0])

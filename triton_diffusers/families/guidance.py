"""Guidance: the rows of an image in a denoiser call, and the combination of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.families.conditioning import Inputs

GUIDANCE = "guidance"
"""Name of the embedded guidance scale (rows, width) among a denoiser's inputs."""

_SCALE = 1000.0  # embedded like a timestep


class Guidance(Protocol):
    """How a family's images follow their prompts."""

    @property
    def single_row(self) -> bool:
        """True if an image always has one row, so that negative and joined prompts are unsupported."""

    def is_guided(self, request: GenerationRequest) -> bool:
        """Return True if a request's images have a row for the negative prompt."""

    def inputs(self, request: GenerationRequest) -> Inputs:
        """Return the denoiser's inputs (1, …) for the guidance of a request."""

    def combine(self, predictions: torch.Tensor, weights: Sequence[float], scale: float) -> torch.Tensor:
        """Return the prediction (1, channels, h, w) from those of an image's rows, negative first.

        ``weights`` are those of the positive rows. A single row is returned as it is.
        """

    def warnings(self, request: GenerationRequest) -> list[str]:
        """Return warnings about options of the request that have no effect."""


@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """Guidance away from the negative prompt (Ho and Salimans 2022)."""

    @property
    def single_row(self) -> bool:
        """Return False: joined and negative prompts are supported."""
        return False

    def is_guided(self, request: GenerationRequest) -> bool:
        """Return True at scales above 1."""
        return request.guided

    def inputs(self, request: GenerationRequest) -> Inputs:
        """Return no inputs."""
        return {}

    def combine(self, predictions: torch.Tensor, weights: Sequence[float], scale: float) -> torch.Tensor:
        """Return the negative prediction and the weighted differences of the others, times the scale."""
        unconditional, *conditional = torch.split(predictions, 1)
        if not conditional:
            return unconditional
        guided = unconditional
        for weight, prediction in zip(weights, conditional, strict=True):
            guided = guided + weight * scale * (prediction - unconditional)
        return guided

    def warnings(self, request: GenerationRequest) -> list[str]:
        """Return no warnings."""
        return []


@dataclass(frozen=True, slots=True)
class Distilled:
    """Guidance inside the denoiser, which takes an embedding of ``width`` numbers of the scale."""

    width: int

    @property
    def single_row(self) -> bool:
        """Return True."""
        return True

    def is_guided(self, request: GenerationRequest) -> bool:
        """Return False."""
        return False

    def inputs(self, request: GenerationRequest) -> Inputs:
        """Return the embedded scale."""
        from diffusers.models.embeddings import get_timestep_embedding  # slow to import; choosing an engine needs none

        # The UNet was trained with the weight of the guidance term, which is 0 at a scale of 1.
        scale = torch.tensor([request.guidance_scale - 1.0]) * _SCALE
        return {GUIDANCE: get_timestep_embedding(scale, self.width, downscale_freq_shift=1)}

    def combine(self, predictions: torch.Tensor, weights: Sequence[float], scale: float) -> torch.Tensor:
        """Return the single prediction."""
        return predictions

    def warnings(self, request: GenerationRequest) -> list[str]:
        """Return warnings about negative prompts and profiles that skip guidance."""
        reason = "this model's guidance is part of its UNet"
        warnings = []
        if request.negative_prompt.strip():
            warnings.append(f"negative_prompt: it has no effect, since {reason}")
        if request.profile.guided < 1:
            warnings.append(f"profile {request.profile.name}: it skips no guidance, since {reason}")
        return warnings

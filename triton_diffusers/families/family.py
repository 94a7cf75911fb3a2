"""A family: the facts of one checkpoint that requests and engines need, without weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Self

import torch

from triton_diffusers.api.request import GenerationRequest, ModelDefaults
from triton_diffusers.families.conditioning import EncodedText, Inputs, collate
from triton_diffusers.families.denoiser import Denoiser
from triton_diffusers.families.guidance import Guidance
from triton_diffusers.families.latents import LatentFormat
from triton_diffusers.families.registry import FamilyEntry
from triton_diffusers.families.schedules import Schedule
from triton_diffusers.prompts import Tokens, apply_weights


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Configs of a checkpoint's networks by component, its tokenizers, scheduler config and ``model_index.json``."""

    configs: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    index: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """Facts of one checkpoint; equal for engines that can replace each other.

    ``denoiser_channels`` exceed those of the latents in inpainting models (mask and masked image). ``text_layers`` is
    the number of layers that ``clip_skip`` can choose from. ``denoiser_config`` is what ControlNets must match.
    ``decodes_in_float32`` is True for autoencoders that overflow in half precision.
    """

    entry: ClassVar[FamilyEntry]

    latents: LatentFormat
    denoiser_channels: int
    text_layers: int
    guidance: Guidance
    schedule: Schedule
    defaults: ModelDefaults
    denoiser_config: Mapping[str, Any] = field(compare=False)
    decodes_in_float32: bool = False

    @staticmethod
    @abstractmethod
    def check(parts: Parts) -> None:
        """Raise ``UnsupportedComponent`` unless the configs are those of one supported model."""

    @classmethod
    @abstractmethod
    def of_parts(cls, parts: Parts) -> Self:
        """Return the family of a checkpoint whose configs have been checked."""

    @staticmethod
    @abstractmethod
    def denoiser(network: Any) -> Denoiser:
        """Return the checkpoint's denoiser as engines call it."""

    @abstractmethod
    def encode_text(self, encoders: Mapping[str, Any], chunks: Sequence[Tokens], clip_skip: int) -> Inputs:
        """Return hidden states, without attention weights, and other inputs of each chunk, by the text encoders."""

    def weigh(self, states: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """Apply one attention weight per token to the hidden states (1, tokens, width) of a chunk."""
        return apply_weights(states, weights)

    def empty_negative(self, encoded: EncodedText) -> EncodedText:
        """Return the conditioning of an empty negative prompt, of which ``encoded`` is that of an empty prompt."""
        return encoded

    def shared_inputs(self, request: GenerationRequest, size: tuple[int, int]) -> Inputs:
        """Return the denoiser's inputs (1, …) that do not depend on texts, for images sampled at ``size``."""
        return self.guidance.inputs(request)

    def collate(self, rows: Sequence[Inputs]) -> Inputs:
        """Return the inputs of a call from those of its images."""
        return collate(rows)

    @property
    def needs_mask(self) -> bool:
        """True for inpainting models, whose denoiser takes the mask and the masked image."""
        return self.denoiser_channels > self.latents.channels


def family_class(entry: FamilyEntry) -> type[Family]:
    """Return the class of a family."""
    module, name = entry.path.split(":")
    family: type[Family] = getattr(import_module(module), name)
    return family

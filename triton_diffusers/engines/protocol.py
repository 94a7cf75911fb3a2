"""Interface between the engine loop and its engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import torch

from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.engines.batch import Batch
from triton_diffusers.families.conditioning import Inputs
from triton_diffusers.families.denoiser import Residuals
from triton_diffusers.families.family import Family
from triton_diffusers.prompts import Tokens


class ControlNet(Protocol):
    """A loaded ControlNet: stateless, called by one thread at a time."""

    @property
    def nbytes(self) -> int:
        """Size of its weights in bytes."""

    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, images: torch.Tensor
    ) -> Residuals:
        """Return residuals at a scale of 1, in float32 on the engine's device.

        Arguments are ``latents`` (n, latent channels, h, w), ``timesteps`` (n,), the denoiser's ``inputs``, and control
        ``images``, float32 (n, 3, height, width) in 0 … 1.
        """


class Engine(Protocol):
    """The modules of one checkpoint, ready to run; stateless, called by one thread at a time."""

    @property
    def optimized(self) -> bool:
        """True for a compiled engine (``use_blade`` in a reply)."""

    @property
    def family(self) -> Family:
        """The checkpoint's family, with its facts."""

    @property
    def device(self) -> torch.device:
        """Device of predictions, on which latents stay between steps."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that splits prompts, with the interface of ``CLIPTokenizer``."""

    @property
    def lora_targets(self) -> Mapping[str, tuple[int, ...]]:
        """Weight shapes by module path (such as ``unet.conv_in``) of the layers that a LoRA can change."""

    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> Inputs:
        """Return the hidden states (chunks, tokens, width), without attention weights, and other inputs of texts.

        They come from the layer that ``clip_skip`` counts from the end (1 … ``family.text_layers``).
        """

    def computes_apart(self, loras: LoraSet | None) -> bool:
        """Return True if rows with these LoRAs run separately and slowly, so that they should not share a call."""

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the denoiser's prediction (n, channels, h, w) and deep features (n, d, h, w).

        Deep features of the batch are returned as they are. All are float32 on the engine's device, whatever the
        internal precision.
        """

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        """Return a loaded ControlNet, usable with any engine of this checkpoint.

        It may take seconds. Call it in a short-lived thread beside the engine's: converting weights creates an OpenMP
        pool that lives as long as its thread.

        Raises:
            LoadError: the ControlNet cannot be loaded.
        """

    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        """Return mean and standard deviation of an image's latents, float32 (2, channels, h, w), as the denoiser's.

        ``pixels`` are float32 (3, height, width) in -1 … 1. ``precise`` computes in float32.
        """

    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        """Return the image of latents (channels, h, w): float32 (3, height, width) in -1 … 1.

        ``precise`` computes in float32, whatever the engine's precision.
        """

    def is_unsafe(self, pixels: np.ndarray[Any, Any]) -> bool:
        """Return True if the safety checker flags any part of uint8 pixels (height, width, 3); False without a checker.

        Raises:
            EngineFailure: the checker's result is not finite.
        """


class IncompatibleEngine(ValueError):
    """An engine cannot replace another one; the message names the difference."""


def check_successor(running: Engine, successor: Engine) -> None:
    """Raise ``IncompatibleEngine`` unless the families and layers of both engines are equal."""
    if type(running.family) is not type(successor.family):
        names = f"{successor.family.entry.name} instead of {running.family.entry.name}"
        raise IncompatibleEngine(f"the new engine has another model: {names}")
    for fact in fields(running.family):
        before, after = getattr(running.family, fact.name), getattr(successor.family, fact.name)
        if fact.compare and before != after:
            raise IncompatibleEngine(f"the new engine has another model: its {fact.name} is different")
    if running.lora_targets != successor.lora_targets:
        raise IncompatibleEngine("the new engine has another model: its lora_targets is different")

"""Interface between the engine loop and its engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.prompts import Tokens

Residuals = tuple[torch.Tensor, ...]
"""Tensors (n, channels, h, w) to add to a UNet's skip connections, in order, and then to its middle."""


class ControlNet(Protocol):
    """A loaded ControlNet: stateless, called by one thread at a time."""

    @property
    def nbytes(self) -> int:
        """Size of its weights in bytes."""

    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor, images: torch.Tensor
    ) -> Residuals:
        """Return residuals at a scale of 1, in float32 on the CPU.

        Inputs are ``latents`` (n, latent channels, h, w), ``timesteps`` (n,), ``states`` (n, tokens, width) and control
        ``images``, float32 (n, 3, height, width) in 0 … 1.
        """


class Engine(Protocol):
    """The modules of one checkpoint, ready to run; stateless, called by one thread at a time."""

    @property
    def optimized(self) -> bool:
        """True for a compiled engine (``use_blade`` in a reply)."""

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's ``CLIPTokenizer``."""

    @property
    def text_layers(self) -> int:
        """Number of the text encoder's layers."""

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The checkpoint's scheduler config."""

    @property
    def latent_channels(self) -> int:
        """Number of latent channels."""

    @property
    def unet_channels(self) -> int:
        """Number of the UNet's input channels; for inpainting UNets: latent, mask and masked image."""

    @property
    def guidance_width(self) -> int | None:
        """Width of the guidance embedding; None if the UNet does not take one.

        A UNet that takes one has distilled guidance and ignores negative prompts.
        """

    @property
    def pixels_per_latent(self) -> int:
        """Pixels per latent in each direction."""

    @property
    def native_side(self) -> int:
        """Width and height, in pixels, of the checkpoint's training images."""

    @property
    def unet_config(self) -> Mapping[str, Any]:
        """The UNet's config, which ControlNets must match."""

    @property
    def lora_targets(self) -> Mapping[str, tuple[int, ...]]:
        """Weight shapes by module path (such as ``unet.conv_in``) of the layers that a LoRA can change."""

    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> torch.Tensor:
        """Return hidden states (chunks, tokens, width), without attention weights.

        They come from the layer that ``clip_skip`` counts from the end (1 … ``text_layers``), normalised like the last
        one.
        """

    def computes_apart(self, loras: LoraSet | None) -> bool:
        """Return True if rows with these LoRAs run separately and slowly, so that they should not share a call."""

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
        """Return the UNet's prediction (n, channels, h, w) and deep features (n, d, h, w).

        Inputs are ``latents`` (n, channels, h, w), ``timesteps`` (n,) and ``states`` (n, tokens, width). ``loras`` has
        one entry per row; rows with equal LoRAs should be adjacent. ``deep`` features of a recent step skip all but the
        outermost layers, and are returned as they are; those of one engine suit any other of the checkpoint.
        ``residuals`` of ControlNets, for all rows, need the whole UNet. ``guidance`` (n, guidance_width) embeds the
        rows' guidance scales for a distilled UNet. Latents and features are float32 on the CPU, whatever the internal
        precision.
        """

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        """Return a loaded ControlNet, usable with any engine of this checkpoint.

        It may take seconds. Call it in a short-lived thread beside the engine's: converting weights creates an OpenMP
        pool that lives as long as its thread.

        Raises:
            LoadError: the ControlNet cannot be loaded.
        """

    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        """Return mean and standard deviation of an image's latents, float32 (2, channels, h, w), scaled for the UNet.

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


# Requests in flight and the loop's users depend on these.
_IDENTITY_FIELDS = (
    "latent_channels",
    "unet_channels",
    "pixels_per_latent",
    "native_side",
    "text_layers",
    "scheduler_config",
    "lora_targets",
)


class IncompatibleEngine(ValueError):
    """An engine cannot replace another one; the message names the difference."""


def check_successor(running: Engine, successor: Engine) -> None:
    """Raise ``IncompatibleEngine`` unless the shapes and configs of both engines are equal."""
    for name in _IDENTITY_FIELDS:
        before, after = getattr(running, name), getattr(successor, name)
        if before != after:
            shown = "" if name in ("scheduler_config", "lora_targets") else f": {after} instead of {before}"
            raise IncompatibleEngine(f"the new engine has another model: its {name} is different{shown}")

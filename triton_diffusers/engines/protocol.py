"""What the engine loop needs of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.prompts import Tokens

Residuals = tuple[torch.Tensor, ...]
"""What is added to a UNet's skip connections, in their order, and then to its middle: (n, channels, h, w) each."""


class ControlNet(Protocol):
    """A ControlNet that an engine has loaded; called by one thread at a time. Stateless, as an engine is."""

    @property
    def nbytes(self) -> int:
        """Memory of its weights."""

    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor, pictures: torch.Tensor
    ) -> Residuals:
        """Residuals at a scale of 1, in float32 on the CPU.

        They are those for ``latents`` (n, latent channels, h, w), ``timesteps`` (n,), ``states`` (n, tokens, width) and
        control ``pictures``, float32 (n, 3, height, width) in 0 … 1.
        """


class Engine(Protocol):
    """Runs the modules of one checkpoint. Stateless: every call's result depends on its arguments alone.

    An engine is called by one thread at a time.
    """

    @property
    def optimized(self) -> bool:
        """Whether this is a compiled engine (``use_blade`` in a reply)."""

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's ``CLIPTokenizer``."""

    @property
    def text_layers(self) -> int:
        """Layers of the text encoder."""

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The checkpoint's scheduler config."""

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""

    @property
    def unet_channels(self) -> int:
        """Channels that the UNet takes: those of a latent, or those of latent, mask and masked picture (inpainting)."""

    @property
    def guidance_width(self) -> int | None:
        """Numbers in the embedding of the guidance scale that the UNet takes; None if it takes none.

        A UNet that takes one was distilled from its guidance: it has no use for a negative prompt.
        """

    @property
    def pixels_per_latent(self) -> int:
        """Pixels that one latent stands for, in each direction."""

    @property
    def native_side(self) -> int:
        """Width and height, in pixels, of the pictures that the checkpoint was trained on."""

    @property
    def unet_config(self) -> Mapping[str, Any]:
        """The UNet's config, which a ControlNet has to fit."""

    @property
    def lora_targets(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the weights that a LoRA file can change, by module path: ``unet.conv_in``."""

    def encode_prompts(self, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> torch.Tensor:
        """Text states (chunks, tokens, width), without attention weights.

        They are those of the layer that ``clip_skip`` counts from the end (1 … ``text_layers``), normalised as the last
        layer's are.
        """

    def computes_apart(self, loras: LoraSet | None) -> bool:
        """Return True if rows with these LoRAs are computed apart from others, slowly: they should not share a call."""

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
        """The UNet's prediction for ``latents`` (n, channels, h, w), ``timesteps`` (n,), ``states`` (n, tokens, width).

        ``loras`` are those of each row; rows with the same should stand together. With it come deep features
        (n, d, h, w). They can be handed in as ``deep`` for rows that are a few steps further: then only the outermost
        layers are computed, and ``deep`` is given back. Latents and features come and go in float32, on the CPU,
        whatever the precision inside; features of one engine are good for any other of the checkpoint. ``residuals``
        of ControlNets, for all rows, are taken by the whole UNet only. ``guidance`` (n, guidance_width) are embeddings
        of the rows' guidance scales, for a UNet that takes them.
        """

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        """A ControlNet for this checkpoint; it is good for any other engine of the checkpoint, too.

        May take seconds and be called beside the engine, in a thread that ends afterwards: with PyTorch it converts
        weights, for which OpenMP makes a pool of threads that lives as long as the caller. Raises ``LoadError``.
        """

    def encode(self, pixels: np.ndarray[Any, Any], *, precise: bool = False) -> torch.Tensor:
        """Float32 pixels (3, height, width) in -1 … 1 to the distribution of their latents, as the UNet knows them.

        Mean and standard deviation, float32 (2, channels, h, w). With ``precise`` it is computed in float32.
        """

    def decode(self, latents: torch.Tensor, *, precise: bool = False) -> np.ndarray[Any, Any]:
        """Latents (channels, h, w), as the UNet knows them, to a picture: float32 (3, height, width) in -1 … 1.

        With ``precise`` it is computed in float32, whatever the precision of the engine.
        """

    def is_unsafe(self, pixels: np.ndarray[Any, Any]) -> bool:
        """True if the safety checker flags any part of uint8 pixels (height, width, 3); false without a checker.

        Raises ``EngineFailure`` if the checker comes to no finite result.
        """


# What the requests in flight and the loop's users have been told, and what their latents and LoRAs were made for.
_LASTING = (
    "latent_channels",
    "unet_channels",
    "pixels_per_latent",
    "native_side",
    "text_layers",
    "scheduler_config",
    "lora_targets",
)


class UnfitEngine(ValueError):
    """An engine cannot take over; the message says what is different."""


def check_successor(running: Engine, successor: Engine) -> None:
    """Raise ``UnfitEngine`` unless ``successor`` runs the same checkpoint, as far as its shapes and configs tell."""
    for name in _LASTING:
        before, after = getattr(running, name), getattr(successor, name)
        if before != after:
            shown = "" if name in ("scheduler_config", "lora_targets") else f": {after} instead of {before}"
            raise UnfitEngine(f"the new engine runs another model: its {name} is different{shown}")

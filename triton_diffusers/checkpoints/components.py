"""The modules of a checkpoint, once they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Components:
    """The modules of one checkpoint, in evaluation mode, on their device and in their precision.

    They are diffusers' and transformers' own classes, which have no useful static types.
    """

    tokenizer: Any
    text_encoder: Any
    unet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    safety_checker: Any | None
    feature_extractor: Any | None

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels one latent stands for, in each direction."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        """Channels of a latent picture; an inpainting UNet takes more (the mask and the masked picture's latents)."""
        return int(self.vae.config.latent_channels)

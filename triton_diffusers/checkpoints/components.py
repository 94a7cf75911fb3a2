"""The modules of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triton_diffusers.families.family import Family


@dataclass(frozen=True, kw_only=True)
class Components:
    """The modules of one checkpoint, in evaluation mode, on their device and in their precision.

    They are classes of diffusers and transformers without useful static types. Text encoders and tokenizers are in the
    family's order, by component.
    """

    family: Family
    denoiser: Any
    vae: Any
    text_encoders: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    safety_checker: Any | None
    feature_extractor: Any | None

    @property
    def text_encoder(self) -> Any:
        """The first text encoder."""
        return next(iter(self.text_encoders.values()))

    @property
    def tokenizer(self) -> Any:
        """The first tokenizer."""
        return next(iter(self.tokenizers.values()))

    @property
    def networks(self) -> Mapping[str, Any]:
        """The networks that LoRAs change, by component."""
        return {self.family.entry.denoiser: self.denoiser, **self.text_encoders}

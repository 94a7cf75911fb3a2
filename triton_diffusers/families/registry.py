"""Table of the supported families; it does not need PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyEntry:
    """A family's components, by their folder names in the diffusers layout, and the path of its class.

    ``pipelines`` are beginnings of the class names in ``model_index.json``; an empty one stands for all others.
    ``compiles`` is True if compiled engines support the family.
    """

    name: str
    pipelines: tuple[str, ...]
    denoiser: str
    text_encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    path: str
    vae: str = "vae"
    compiles: bool = True

    @property
    def networks(self) -> tuple[str, ...]:
        """Components with weights that every image needs."""
        return *self.text_encoders, self.denoiser, self.vae

    @property
    def components(self) -> tuple[str, ...]:
        """Components that a checkpoint must have."""
        return self.denoiser, self.vae, *self.text_encoders, *self.tokenizers, "scheduler"


STABLE_DIFFUSION = FamilyEntry(
    name="Stable Diffusion",
    pipelines=("",),
    denoiser="unet",
    text_encoders=("text_encoder",),
    tokenizers=("tokenizer",),
    path="triton_diffusers.families.sd.family:StableDiffusion",
)
STABLE_DIFFUSION_XL = FamilyEntry(
    name="Stable Diffusion XL",
    pipelines=("StableDiffusionXL",),
    denoiser="unet",
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    path="triton_diffusers.families.sdxl.family:StableDiffusionXL",
    compiles=False,
)
FAMILIES: tuple[FamilyEntry, ...] = (STABLE_DIFFUSION_XL, STABLE_DIFFUSION)
_CHECKER = ("feature_extractor", "safety_checker")

NETWORKS = tuple(sorted({name for family in FAMILIES for name in family.networks}))
"""Component folders whose weights are compiled."""
COMPONENTS = tuple(sorted({*_CHECKER, *(name for family in FAMILIES for name in family.components)}))
"""Component folders that are loaded."""


def family_of(index: Mapping[str, Any]) -> FamilyEntry:
    """Return the family of a ``model_index.json``."""
    pipeline = str(index.get("_class_name", ""))
    return next(family for family in FAMILIES if pipeline.startswith(family.pipelines))

"""Recognise a diffusers folder of an unsupported family by its pipeline and its scheduler.

The family itself checks the configs of its components.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.layout import INDEX
from triton_diffusers.families.registry import family_of

_FAMILIES = {  # beginning of a pipeline's class → family
    "StableDiffusion3": "SD3",
    "StableDiffusionDepth2Img": "Stable Diffusion 2 depth",
    "StableDiffusionGLIGEN": "GLIGEN",
    "StableDiffusionImageVariation": "Stable Diffusion image variations",
    "StableDiffusionInstructPix2Pix": "InstructPix2Pix",
    "StableDiffusionLatentUpscale": "Stable Diffusion latent upscaler",
    "StableDiffusionLDM3D": "LDM3D",
    "StableDiffusionUpscale": "Stable Diffusion upscaler",
    "StableCascade": "Stable Cascade",
    "StableUnCLIP": "Stable unCLIP",
    "StableVideoDiffusion": "Stable Video Diffusion",
    "AltDiffusion": "AltDiffusion",
    "AnimateDiff": "AnimateDiff",
    "AuraFlow": "AuraFlow",
    "Chroma": "Chroma",
    "CogView": "CogView",
    "Flux": "Flux",
    "HunyuanDiT": "Hunyuan-DiT",
    "IF": "DeepFloyd IF",
    "Kandinsky": "Kandinsky",
    "Kolors": "Kolors",
    "LDMTextToImage": "Latent Diffusion",
    "Lumina": "Lumina",
    "Marigold": "Marigold",
    "PaintByExample": "Paint by Example",
    "PixArt": "PixArt",
    "QwenImage": "Qwen-Image",
    "Sana": "Sana",
    "TextToVideoSD": "ModelScope text to video",
    "UnCLIP": "unCLIP",
    "VersatileDiffusion": "Versatile Diffusion",
    "Wuerstchen": "Würstchen",
    "ZImage": "Z-Image",
}
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Raise ``LoadError`` if ``model_index.json`` is that of another family, or lacks a component."""
    name = str(index.get("_class_name", ""))
    for beginning, other in _FAMILIES.items():
        if name.startswith(beginning):
            raise LoadError(f"{folder}: not supported yet: {other}")
    family = family_of(index)
    for component in family.components:
        if not is_given(index, component):
            raise LoadError(
                f"{folder}/{INDEX} has no {component} ({name or 'no _class_name'}): not a {family.name} model"
            )


def is_given(index: Mapping[str, Any], component: str) -> bool:
    """Return True if ``model_index.json`` names a library and a class for ``component``."""
    value = index.get(component)
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def check_scheduler(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ``LoadError`` if the scheduler's config is that of a flow-matching model, or predicts something unknown."""
    name, predicted = str(config.get("_class_name", "")), config.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas") or predicted == "flow_prediction":
        raise LoadError(f"{folder / 'scheduler'}: not supported yet: flow matching ({name or predicted})")
    if predicted not in _PREDICTIONS:
        needed = ", ".join(_PREDICTIONS)
        raise LoadError(f"{folder / 'scheduler'}: prediction_type is {predicted!r}: unsupported, expected {needed}")

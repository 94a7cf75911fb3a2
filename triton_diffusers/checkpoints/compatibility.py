"""Checks that a diffusers folder holds a model that is served, made before gigabytes of weights are loaded.

Only configs are read: the pipeline's class names most other families, and sizes that disagree name the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.kinds import OTHER_CHANNELS
from triton_diffusers.checkpoints.layout import INDEX

_FAMILIES = {  # beginning of a pipeline's class → family
    "StableDiffusionXL": "SDXL",
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
_COMPONENTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_RGB = 3
_CONDITIONS = {  # key of a UNet's config that asks for an input besides noise, time and text → who has it
    "addition_embed_type": "SDXL and its like",
    "class_embed_type": "Stable unCLIP and upscalers",
    "num_class_embeds": "upscalers",
    "encoder_hid_dim_type": "Kandinsky and Kolors",
}
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def check_index(folder: Path, index: Mapping[str, Any]) -> None:
    """Raise ``LoadError`` if ``model_index.json`` is that of another family, or lacks a component."""
    name = str(index.get("_class_name", ""))
    for beginning, family in _FAMILIES.items():
        if name.startswith(beginning):
            raise LoadError(f"{folder}: not supported yet: {family}")
    for component in _COMPONENTS:
        if not is_given(index, component):
            raise LoadError(
                f"{folder}/{INDEX} has no {component} ({name or 'no _class_name'}): not a Stable Diffusion model"
            )


def is_given(index: Mapping[str, Any], component: str) -> bool:
    """Return True if ``model_index.json`` names a library and a class for ``component``."""
    value = index.get(component)
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def check_networks(folder: Path, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Raise ``LoadError`` if the configs of UNet and autoencoder, with their defaults, are not those of one model."""
    latent = vae["latent_channels"]
    if (vae["in_channels"], vae["out_channels"]) != (_RGB, _RGB):
        _refuse(folder / "vae", f"in_channels and out_channels are {vae['in_channels']} and {vae['out_channels']}", "3")
    if len(vae["block_out_channels"]) < 2:
        _refuse(folder / "vae", f"block_out_channels is {vae['block_out_channels']}", "two levels or more")
    if unet["out_channels"] != latent:
        needed = f"{latent}, the latent channels of the vae"
        _refuse(folder / "unet", f"out_channels is {unet['out_channels']}", needed)
    channels = unet["in_channels"]
    if channels not in (latent, 2 * latent + 1):
        if family := OTHER_CHANNELS.get(channels):
            raise LoadError(f"{folder / 'unet'}: not supported yet: {family} (its in_channels is {channels})")
        needed = f"{latent}, or {2 * latent + 1} for inpainting, with the {latent} latent channels of the vae"
        _refuse(folder / "unet", f"in_channels is {channels}", needed)
    for key, models in _CONDITIONS.items():
        if unet.get(key) is not None:
            raise LoadError(f"{folder / 'unet'}: {key} is {unet[key]!r}: not supported yet: the inputs of {models}")


def check_text(folder: Path, unet: Mapping[str, Any], text_encoder: Any, words: int) -> None:
    """Raise ``LoadError`` if the text encoder's config fits neither the UNet's nor a tokenizer of ``words`` words."""
    width, rows, wanted = text_encoder.hidden_size, text_encoder.vocab_size, unet["cross_attention_dim"]
    if any(one != width for one in (wanted if isinstance(wanted, list | tuple) else [wanted])):
        needed = f"{wanted}, the cross_attention_dim of the unet"
        _refuse(folder / "text_encoder", f"hidden_size is {width}", needed)
    if words > rows:
        raise LoadError(
            f"{folder / 'tokenizer'} has {words} words, and {folder / 'text_encoder'} an embedding for {rows} of them"
        )


def check_scheduler(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ``LoadError`` if the scheduler's config is that of a flow-matching model, or predicts something unknown."""
    name, predicted = str(config.get("_class_name", "")), config.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or config.get("use_flow_sigmas") or predicted == "flow_prediction":
        raise LoadError(f"{folder / 'scheduler'}: not supported yet: flow matching ({name or predicted})")
    if predicted not in _PREDICTIONS:
        _refuse(folder / "scheduler", f"prediction_type is {predicted!r}", ", ".join(_PREDICTIONS))


def _refuse(place: Path, said: str, needed: str) -> None:
    raise LoadError(f"{place}: {said}: unsupported, expected {needed}")

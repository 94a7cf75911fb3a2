"""Checks of configs, made before gigabytes of weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triton_diffusers.families.errors import UnsupportedComponent

OTHER_CHANNELS = {5: "Stable Diffusion 2 depth", 7: "Stable Diffusion upscaler", 8: "InstructPix2Pix"}
"""Input channels of UNets of other families."""

_RGB = 3
_CONDITIONS = {  # key of a UNet's config that asks for an input besides noise, time and text → who has it
    "addition_embed_type": "SDXL and its like",
    "class_embed_type": "Stable unCLIP and upscalers",
    "num_class_embeds": "upscalers",
    "encoder_hid_dim_type": "Kandinsky and Kolors",
}


def check_channels(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Raise ``UnsupportedComponent`` unless UNet and autoencoder, with their defaults, have fitting channels."""
    latent = vae["latent_channels"]
    if (vae["in_channels"], vae["out_channels"]) != (_RGB, _RGB):
        refuse("vae", f"in_channels and out_channels are {vae['in_channels']} and {vae['out_channels']}", "3")
    if len(vae["block_out_channels"]) < 2:
        refuse("vae", f"block_out_channels is {vae['block_out_channels']}", "two levels or more")
    if unet["out_channels"] != latent:
        refuse("unet", f"out_channels is {unet['out_channels']}", f"{latent}, the latent channels of the vae")
    channels = unet["in_channels"]
    if channels not in (latent, 2 * latent + 1):
        if family := OTHER_CHANNELS.get(channels):
            raise UnsupportedComponent("unet", f"not supported yet: {family} (its in_channels is {channels})")
        needed = f"{latent}, or {2 * latent + 1} for inpainting, with the {latent} latent channels of the vae"
        refuse("unet", f"in_channels is {channels}", needed)


def check_conditions(unet: Mapping[str, Any], allowed: Mapping[str, str]) -> None:
    """Raise ``UnsupportedComponent`` if a UNet takes inputs besides noise, time, text and the ``allowed`` ones."""
    for key, models in _CONDITIONS.items():
        if unet.get(key) not in (None, allowed.get(key)):
            raise UnsupportedComponent("unet", f"{key} is {unet[key]!r}: not supported yet: the inputs of {models}")


def check_width(unet: Mapping[str, Any], width: int, component: str) -> None:
    """Raise ``UnsupportedComponent`` unless the UNet takes hidden states of this ``width``, made by ``component``."""
    wanted = unet["cross_attention_dim"]
    if any(one != width for one in (wanted if isinstance(wanted, list | tuple) else [wanted])):
        refuse(component, f"hidden_size is {width}", f"{wanted}, the cross_attention_dim of the unet")


def check_words(tokenizer: Any, text_encoder: Any, component: str) -> None:
    """Raise ``UnsupportedComponent`` if a text encoder lacks embeddings of its tokenizer's words."""
    words, rows = len(tokenizer), text_encoder.vocab_size
    if words > rows:
        refuse(component, f"vocab_size is {rows}", f"{words} or more, the words of its tokenizer")


def refuse(component: str, said: str, needed: str) -> None:
    """Raise ``UnsupportedComponent``."""
    raise UnsupportedComponent(component, f"{said}: unsupported, expected {needed}")

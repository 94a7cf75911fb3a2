"""Recognise files that are not ControlNets for a base model, by the names of their tensors."""

from __future__ import annotations

from collections.abc import Iterable

_SDXL = "a ControlNet for SDXL"
_KINDS = (  # part of a tensor's name → kind of file; the first match counts
    ("lora_controlnet", "a Control-LoRA"),
    ("lllite_unet", "a ControlNet-LLLite"),
    ("ip_adapter.", "an IP-Adapter"),
    ("image_proj.", "an IP-Adapter"),
    ("lora", "a LoRA"),
    ("hada_w1", "a LoRA (LoHa)"),
    ("ctrl_to_base", "a ControlNet-XS"),
    ("control_to_base", "a ControlNet-XS"),
    ("task_embedding", "a ControlNet union"),
    ("control_add_embedding", "a ControlNet union"),
    ("motion_modules", "a SparseCtrl of AnimateDiff"),
    ("controlnet_x_embedder", "a ControlNet for Flux"),
    ("double_blocks.", "a ControlNet for Flux"),
    ("pos_embed_input", "a ControlNet for Stable Diffusion 3"),
    ("add_embedding.", _SDXL),
    ("label_emb.", _SDXL),
    ("adapter.", "a T2I adapter"),
    ("body.", "a T2I adapter"),
    ("string_to_param", "a textual inversion"),
    ("emb_params", "a textual inversion"),
    ("model.diffusion_model.", "a whole checkpoint"),
    ("up_blocks.", "a UNet"),
    ("output_blocks.", "a UNet"),
    ("encoder.", "an autoencoder or a text encoder"),
)


def kind_of(keys: Iterable[str], *, is_sdxl: bool) -> str | None:
    """Return the kind of file that has such tensors; None if it is unknown. ``is_sdxl`` is about the base model."""
    found = {mark for key in keys for mark, _ in _KINDS if mark in key}
    return next((kind for mark, kind in _KINDS if mark in found and not (is_sdxl and kind == _SDXL)), None)

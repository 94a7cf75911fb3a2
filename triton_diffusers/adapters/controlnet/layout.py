"""Map the tensor names of a ControlNet file to diffusers' names.

There are two layouts: diffusers' own, and the original one (``control_model.input_blocks.…``, with or without the
prefix), whose blocks are numbered consecutively.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from triton_diffusers.adapters.controlnet.kinds import kind_of
from triton_diffusers.adapters.files import WeightError, named

HINT = "controlnet_cond_embedding."
"""Prefix of the layers that read the image."""

_ORIGINAL = "control_model."
_ORIGINAL_HINT = "input_hint_block."
_MAX_TENSORS = 2000  # Stable Diffusion's have 340; renaming takes quadratic time


def names_in(keys: Collection[str], unet_config: Mapping[str, Any]) -> dict[str, str]:
    """Return the file's names by diffusers' names; names unknown to diffusers are kept.

    ``unet_config`` is that of the base model. Raises ``WeightError`` if the file is not a ControlNet.
    """
    # Early files also hold the base model.
    own = [key for key in keys if key.startswith(_ORIGINAL)] or list(keys)
    is_original = any(key.removeprefix(_ORIGINAL).startswith(_ORIGINAL_HINT) for key in own)
    if kind := kind_of(own, is_sdxl=unet_config.get("addition_embed_type") is not None):
        raise WeightError(f"it is {kind}, not a supported ControlNet")
    if not is_original and not any(key.startswith(HINT) for key in own):
        raise WeightError(f"it is not a ControlNet: it has no {HINT}* and no {_ORIGINAL_HINT}*")
    if len(own) > _MAX_TENSORS:
        raise WeightError(f"it has {len(own)} tensors, the limit is {_MAX_TENSORS}")
    return _original_names(own, unet_config) if is_original else {key: key for key in own}


def _original_names(keys: Collection[str], unet_config: Mapping[str, Any]) -> dict[str, str]:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    # diffusers moves values without looking at them, so it renames names as well; it drops unknown ones.
    bare = {key.removeprefix(_ORIGINAL): key for key in keys}
    if "time_embed.0.weight" not in bare:
        raise WeightError("it has no tensor time_embed.0.weight")
    moved: dict[str, str | None] = convert_controlnet_checkpoint(bare, unet_config)
    names = {name: key for name, key in moved.items() if key is not None}
    if unknown := sorted(set(keys) - set(names.values())):
        raise WeightError(f"it has tensors that no ControlNet of this model has: {named(unknown)}")
    return names

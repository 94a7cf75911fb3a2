"""Where a file has the tensors of a ControlNet, by the names that they have in diffusers.

There are two layouts: diffusers' own, and the original one (``control_model.input_blocks.…``, or the same without the
first part), which is numbered straight through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from triton_diffusers.adapters.controlnet.kinds import kind_of
from triton_diffusers.adapters.files import WeightError, named

HINT = "controlnet_cond_embedding."
"""How the names of the layers begin that read the picture."""

_ORIGINAL = "control_model."
_ORIGINAL_HINT = "input_hint_block."
_MOST_TENSORS = 2000  # those of Stable Diffusion have 340; to rename takes the square of it


def names_in(keys: Collection[str], unet_config: Mapping[str, Any]) -> dict[str, str]:
    """From diffusers' names to those of the file; names that diffusers does not have are as they are.

    ``unet_config`` is that of the base model. Raises ``WeightError`` if the file holds something else.
    """
    # Early files hold the base model, too.
    own = [key for key in keys if key.startswith(_ORIGINAL)] or list(keys)
    is_original = any(key.removeprefix(_ORIGINAL).startswith(_ORIGINAL_HINT) for key in own)
    if kind := kind_of(own):
        raise WeightError(f"it is {kind}, not a ControlNet that is served")
    if not is_original and not any(key.startswith(HINT) for key in own):
        raise WeightError(f"it is not a ControlNet: it has no {HINT}* and no {_ORIGINAL_HINT}*")
    if len(own) > _MOST_TENSORS:
        raise WeightError(f"it has {len(own)} tensors; at most {_MOST_TENSORS} are read")
    return _original_names(own, unet_config) if is_original else {key: key for key in own}


def _original_names(keys: Collection[str], unet_config: Mapping[str, Any]) -> dict[str, str]:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    # It moves values and does not look at them, so it renames names as well. What it does not know it leaves out.
    bare = {key.removeprefix(_ORIGINAL): key for key in keys}
    if "time_embed.0.weight" not in bare:
        raise WeightError("it has no tensor time_embed.0.weight")
    moved: dict[str, str | None] = convert_controlnet_checkpoint(bare, unet_config)
    names = {name: key for name, key in moved.items() if key is not None}
    if unknown := sorted(set(keys) - set(names.values())):
        raise WeightError(f"it has tensors that no ControlNet of this model has: {named(unknown)}")
    return names

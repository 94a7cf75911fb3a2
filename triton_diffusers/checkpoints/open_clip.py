"""The layers of an OpenCLIP text encoder that a Stable Diffusion 2.x UNet was trained with.

Stable Diffusion 2.x conditions on the states before the last layer. Published files hold that layer anyway, as do
files of sd-scripts (a copy of the layer before it); files made of a diffusers folder do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

_TOWERS = {512: 12, 768: 12, 1024: 24, 1280: 32}  # layers of OpenCLIP's published text encoders, by width
_WHOLE = ("text_projection", "logit_scale")  # a text encoder that was cut down to what is used has neither
_LAYER = re.compile(r"(.*\.(?:resblocks|layers)\.)(\d+)(\..+)")


def used_layers(tensors: Mapping[str, torch.Tensor], layers: int, width: int, *, layer: str | None) -> tuple[int, str]:
    """Return how many of the ``layers`` in ``tensors`` are used, and the reason.

    ``tensors`` are those of the text encoder; ``layer`` is the one that a training config names, ``last`` or
    ``penultimate``, if there is one.
    """
    if layer == "last":
        return layers, "the training config conditions on the last layer"
    if _is_copied(tensors, layers):
        return layers - 1, "the last layer is a copy of the one before it"
    whole = _TOWERS.get(width)
    if layers == whole:
        return layers - 1, f"a text encoder of width {width} has {whole}, the last of them unused"
    if whole is not None and layers == whole - 1:
        return layers, f"a text encoder of width {width} has {whole}, the last of them left out"
    if found := [name for name in _WHOLE if any(key.endswith(f".{name}") for key in tensors)]:
        return layers - 1, f"with {' and '.join(found)} it is a whole text encoder, its last layer unused"
    return layers, "it has neither text_projection nor logit_scale, so its unused last layer is left out, too"


def _is_copied(tensors: Mapping[str, torch.Tensor], layers: int) -> bool:
    """Return True if the last layer has the weights of the one before it."""
    last = {
        name: f"{found[1]}{layers - 2}{found[3]}"
        for name in tensors
        if (found := _LAYER.fullmatch(name)) and int(found[2]) == layers - 1
    }
    return layers > 1 and all(
        other in tensors and torch.equal(tensors[name], tensors[other]) for name, other in last.items()
    )

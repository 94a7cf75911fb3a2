"""The config of a ControlNet, derived from the base model's UNet except for a few keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from triton_diffusers.adapters.files import WeightError

FILE = "config.json"

_MAX_BYTES = 64 * 1024
_CLASS = "ControlNetModel"
_CHANNELS, _ORDER = "conditioning_embedding_out_channels", "controlnet_conditioning_channel_order"
_USUAL_CHANNELS = (16, 32, 96, 256, 512, 1024)
_OWN = (_CHANNELS, _ORDER, "upcast_attention", "global_pool_conditions")


def read_config(file: Path) -> Mapping[str, Any]:
    """Return the content of diffusers' ``config.json``. Raises ``WeightError``."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise WeightError(f"its {FILE} has more than {_MAX_BYTES // 1024} KB")
        config = json.loads(content)
    except (OSError, RecursionError, ValueError) as error:
        if isinstance(error, WeightError):
            raise
        raise WeightError(f"its {FILE} is not JSON") from error
    if not isinstance(config, dict):
        raise WeightError(f"its {FILE} is not an object")
    kind = config.get("_class_name", _CLASS)
    if kind != _CLASS:
        raise WeightError(f"its {FILE} is that of {str(kind)[:80]!r}, not of a {_CLASS}")
    return config


def usual_channels(pixels_per_latent: int) -> tuple[int, ...]:
    """Return the channels of the layers that read the image: diffusers' for latents of 8 pixels, cut for others."""
    return _USUAL_CHANNELS[: pixels_per_latent.bit_length()]


def network_for(unet: Mapping[str, Any], config: Mapping[str, Any], channels: tuple[int, ...]) -> Any:
    """Return diffusers' network without memory for its weights, for the base model's ``unet`` config.

    ``config`` is that beside the weights, if any; ``channels`` are those of the layers that read the image. Raises
    ``WeightError`` if the config contradicts the UNet.
    """
    from diffusers import ControlNetModel
    from diffusers.configuration_utils import FrozenDict

    if config.get("global_pool_conditions"):
        raise WeightError("global_pool_conditions (of ControlNets for shuffled images) is unsupported")
    order = config.get(_ORDER, "rgb")
    if order not in ("rgb", "bgr"):
        raise WeightError(f"its {FILE}: {_ORDER} is {str(order)[:80]!r}, not 'rgb' or 'bgr'")
    # An inpainting UNet takes more channels than a latent has; its ControlNet takes only the latent.
    changes = {"in_channels": unet["out_channels"]}
    if "upcast_attention" in config:
        changes["upcast_attention"] = bool(config["upcast_attention"])
    with torch.device("meta"):
        network = ControlNetModel.from_unet(
            SimpleNamespace(config=FrozenDict({**unet, **changes})),
            controlnet_conditioning_channel_order=order,
            conditioning_embedding_out_channels=channels,
            load_weights_from_unet=False,
        )
    for key, wanted in network.config.items():
        said = config.get(key, wanted)
        if not key.startswith("_") and key not in _OWN and not agree(said, wanted):
            raise WeightError(f"its {FILE}: {key} is {str(said)[:80]}; it is {wanted} for this model")
    if not agree(config.get(_CHANNELS, channels), channels):
        raise WeightError(f"its {FILE}: {_CHANNELS} is {str(config[_CHANNELS])[:80]}; the weights have {channels}")
    return network


def agree(one: Any, other: Any) -> bool:
    """Return True if two values of a config are equivalent: a single one stands for one at each level."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return list(one) == list(other)
    if isinstance(one, list | tuple):
        return all(item == other for item in one)
    if isinstance(other, list | tuple):
        return all(item == one for item in other)
    return bool(one == other)

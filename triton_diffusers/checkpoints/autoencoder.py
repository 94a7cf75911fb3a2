"""An autoencoder in a file of its own, as people share them, to a folder in the diffusers layout."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.checkpoints import shapes
from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.checkpoints.kinds import VAE
from triton_diffusers.checkpoints.weights import in_kept_precision, read_weights

_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_DIFFUSERS = "encoder.down_blocks."


def convert_vae(source: Path, folder: Path) -> None:
    """Write the autoencoder in ``source`` into the existing, empty ``folder``, in the precision of the file.

    Keys are the original layout's, with or without ``first_stage_model.``, or diffusers'. Raises ``LoadError``.
    """
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from safetensors.torch import save_file

    tensors = {name.removeprefix(VAE): value for name, value in read_weights(source).tensors.items()}
    tensors = {name: value for name, value in tensors.items() if name.startswith(_PARTS)}
    try:
        if any(name.startswith(_DIFFUSERS) for name in tensors):
            config = _diffusers_config(tensors)
        else:
            original = {f"{VAE}{name}": value for name, value in tensors.items()}
            config = shapes.vae_config(original)
            tensors = convert_ldm_vae_checkpoint(original, config=config)
    except KeyError as error:
        raise LoadError(f"{source} is not an autoencoder of Stable Diffusion: it has no {error.args[0]}") from error
    except shapes.ShapeError as error:
        raise LoadError(f"{source}: {error}") from error
    family = json.loads((files(__package__) / "families" / "sd1.json").read_text(encoding="utf-8"))["vae"]
    try:
        with torch.device("meta"):
            AutoencoderKL.from_config({**config, **family}).save_config(folder)
    except Exception as error:
        raise LoadError(f"{source}: its autoencoder cannot be made: {one_line(error)}") from error
    plain = {name: in_kept_precision(value) for name, value in tensors.items()}
    save_file(plain, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _diffusers_config(tensors: shapes.Tensors) -> dict[str, Any]:
    """Return the sizes of a network whose tensors have diffusers' names."""

    def count(pattern: str) -> int:
        return 1 + max((int(found[1]) for name in tensors if (found := re.match(pattern, name))), default=-1)

    levels = count(r"encoder\.down_blocks\.(\d+)\.")
    channels = [tensors[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"].shape[0] for level in range(levels)]
    return {
        "in_channels": tensors["encoder.conv_in.weight"].shape[1],
        "out_channels": tensors["decoder.conv_out.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": count(r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "latent_channels": tensors["decoder.conv_in.weight"].shape[1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }

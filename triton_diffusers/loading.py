"""Loading a checkpoint: a model directory in, its modules out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from triton_diffusers.checkpoints.components import Components
from triton_diffusers.checkpoints.convert import convert
from triton_diffusers.checkpoints.converted import converted
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.folder import load_bare_folder, load_folder
from triton_diffusers.checkpoints.layout import find_base_model
from triton_diffusers.embeddings import attach_embeddings
from triton_diffusers.settings import Settings

__all__ = ["Components", "LoadError", "device_and_dtype", "load_components", "load_skeleton", "load_weights"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_and_dtype(settings: Settings) -> tuple[torch.device, torch.dtype]:
    """What ``auto`` means here."""
    name = settings.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if settings.dtype == "auto":
        return device, torch.float32 if device.type == "cpu" else torch.float16
    return device, _DTYPES[settings.dtype]


def load_components(settings: Settings) -> Components:
    """Load the base model of ``settings.model_dir``, converting it first if it is one file. Raises ``LoadError``."""
    device, dtype = device_and_dtype(settings)
    components = load_folder(_folder(settings), device=device, dtype=dtype, with_checker=not settings.close_safety)
    attach_embeddings(settings.model_dir / "embeddings", components.tokenizer, components.text_encoder)
    return components


def load_skeleton(settings: Settings, dtype: torch.dtype) -> Components:
    """The base model on the CPU, with those weights alone that no compiled graph has. Raises ``LoadError``."""
    components = load_bare_folder(_folder(settings), dtype=dtype, with_checker=not settings.close_safety)
    attach_embeddings(settings.model_dir / "embeddings", components.tokenizer, components.text_encoder)
    return components


@torch.no_grad()
def load_weights(settings: Settings, skeleton: Components) -> Components:
    """The weights that ``skeleton`` lacks, with its tokenizer, its words and its safety checker. Raises ``LoadError``.

    The embeddings of the model directory may be others by now; those that the skeleton has read count.
    """
    device, dtype = device_and_dtype(settings)
    loaded = load_folder(_folder(settings), device=device, dtype=dtype, with_checker=False)
    own, words = (part.text_encoder.get_input_embeddings() for part in (loaded, skeleton))
    table = words.weight.to(own.weight, copy=True)
    common = min(len(table), len(own.weight))
    # The model's own rows, which the skeleton may have rounded; the others are words that were attached to it.
    same = (own.weight[:common].to(words.weight) == words.weight[:common]).all(dim=1)
    table[:common][same] = own.weight[:common][same]
    own.weight = torch.nn.Parameter(table)
    return replace(
        loaded,
        tokenizer=skeleton.tokenizer,
        safety_checker=skeleton.safety_checker,
        feature_extractor=skeleton.feature_extractor,
    )


def _folder(settings: Settings) -> Path:
    base = find_base_model(settings.model_dir)
    return converted(base.path, settings.cache_dir, convert) if base.is_file else base.path

"""Load a checkpoint: from a model directory to its modules."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from triton_diffusers.adapters.embeddings import attach_embeddings
from triton_diffusers.checkpoints.autoencoder import convert_vae
from triton_diffusers.checkpoints.components import Components
from triton_diffusers.checkpoints.conversion_cache import converted
from triton_diffusers.checkpoints.convert import convert
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.folder import OtherVae, load_bare_folder, load_folder
from triton_diffusers.checkpoints.layout import find_base_model
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.settings import Settings

__all__ = ["Components", "LoadError", "device_and_dtype", "load_components", "load_skeleton", "load_weights"]

log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_and_dtype(settings: Settings) -> tuple[torch.device, torch.dtype]:
    """Return the device, the first of several, and the dtype of the settings, with ``auto`` resolved."""
    name = settings.devices[0]
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if settings.dtype == "auto":
        return device, torch.float32 if device.type == "cpu" else torch.float16
    return device, _DTYPES[settings.dtype]


def load_components(settings: Settings) -> Components:
    """Load the base model of ``settings.model_dir``, converting it first if it is one file. Raises ``LoadError``."""
    device, dtype = device_and_dtype(settings)
    components = load_folder(device=device, dtype=dtype, with_checker=not settings.close_safety, **_places(settings))
    _attach_embeddings(settings, components)
    return components


def load_skeleton(settings: Settings, dtype: torch.dtype) -> Components:
    """Load the base model on the CPU with only the weights that no compiled graph has. Raises ``LoadError``."""
    components = load_bare_folder(dtype=dtype, with_checker=not settings.close_safety, **_places(settings))
    _attach_embeddings(settings, components)
    return components


@torch.no_grad()
def load_weights(settings: Settings, skeleton: Components) -> Components:
    """Load the weights that ``skeleton`` lacks; keep its tokenizer, embeddings and safety checker.

    The embeddings of the model directory may have changed since; those in the skeleton count. Raises ``LoadError``.
    """
    device, dtype = device_and_dtype(settings)
    loaded = load_folder(device=device, dtype=dtype, with_checker=False, **_places(settings))
    for name, encoder in loaded.text_encoders.items():
        _keep_embeddings(encoder, skeleton.text_encoders[name])
    return replace(
        loaded,
        tokenizers=skeleton.tokenizers,
        safety_checker=skeleton.safety_checker,
        feature_extractor=skeleton.feature_extractor,
    )


def _keep_embeddings(encoder: Any, kept: Any) -> None:
    """Give a text encoder the embeddings of ``kept``, in full precision as far as they are the model's."""
    own, words = encoder.get_input_embeddings(), kept.get_input_embeddings()
    table = words.weight.to(own.weight, copy=True)
    common = min(len(table), len(own.weight))
    # Rows of the model, which the skeleton may have rounded; all others are attached embeddings.
    same = (own.weight[:common].to(words.weight) == words.weight[:common]).all(dim=1)
    table[:common][same] = own.weight[:common][same]
    own.weight = torch.nn.Parameter(table)


def _attach_embeddings(settings: Settings, components: Components) -> None:
    folder = settings.model_folder / "embeddings"
    attach_embeddings(folder, list(components.tokenizers.values()), list(components.text_encoders.values()))


def _places(settings: Settings) -> dict[str, Any]:
    """Return the folders that are loaded: the base model's, and its autoencoder's if that is another one."""
    base = find_base_model(settings.model_dir, settings.vae)
    folder = base.path
    if base.is_file:
        folder = converted(base.path, settings.cache_dir, partial(convert, needs_vae=base.vae is None))
    if base.vae is None:
        return {"folder": folder, "vae": None}
    log.info("%s: its autoencoder is %s", base.path, base.vae)
    if base.vae.is_dir():
        return {"folder": folder, "vae": OtherVae(base.vae)}
        # Tensors tell its sizes; the checkpoint's own config tells the rest.
    own = Sidecar(base.path).config("vae") if base.is_file else _latents(folder / "vae" / "config.json")
    config = {key: value for key, value in own.items() if not key.startswith("_")}
    return {"folder": folder, "vae": OtherVae(converted(base.vae, settings.cache_dir, convert_vae, beside=()), config)}


def _latents(path: Path) -> dict[str, Any]:
    """Return how the UNet's latents are scaled, by the config of its own autoencoder; nothing if there is none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LoadError(f"{path} is not JSON: {error}") from error
    return {"scaling_factor": config["scaling_factor"]} if "scaling_factor" in config else {}

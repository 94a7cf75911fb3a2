"""Loading a checkpoint: a model directory in, its modules out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from triton_diffusers.settings import Settings

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadError(RuntimeError):
    """A model directory cannot be served; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """The modules of one checkpoint, in evaluation mode, on their device and in their precision.

    They are diffusers' and transformers' own classes, which have no useful static types.
    """

    tokenizer: Any
    text_encoder: Any
    unet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    safety_checker: Any | None
    feature_extractor: Any | None

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels one latent stands for, in each direction."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def device_and_dtype(settings: Settings) -> tuple[torch.device, torch.dtype]:
    """What ``auto`` means here."""
    name = settings.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    if settings.dtype == "auto":
        return device, torch.float32 if device.type == "cpu" else torch.float16
    return device, _DTYPES[settings.dtype]


def load_components(settings: Settings) -> Components:
    """Load ``<model_dir>/base_model`` in the diffusers layout. Raises ``LoadError``."""
    folder = settings.model_dir / "base_model"
    if not (folder / "model_index.json").is_file():
        raise LoadError(f"{folder} is not a model in the diffusers layout: it has no model_index.json")
    from diffusers import StableDiffusionPipeline

    device, dtype = device_and_dtype(settings)
    without_checker = {"safety_checker": None, "requires_safety_checker": False} if settings.close_safety else {}
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, dtype=dtype, local_files_only=True, **without_checker
        )
    except Exception as error:  # the libraries raise what they like about a broken file
        raise LoadError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error
    pipeline.to(device)
    return Components(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder.eval(),
        unet=pipeline.unet.eval(),
        vae=pipeline.vae.eval(),
        scheduler_config=dict(pipeline.scheduler.config),
        safety_checker=pipeline.safety_checker.eval() if pipeline.safety_checker is not None else None,
        feature_extractor=pipeline.feature_extractor,
    )

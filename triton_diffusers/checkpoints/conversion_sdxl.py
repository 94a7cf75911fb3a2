"""The conversion of an SDXL checkpoint in one file: a second text encoder, and a UNet that takes sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from triton_diffusers.checkpoints import shapes
from triton_diffusers.checkpoints.conversion import Conversion, read_family
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.statements import Statements

_PADS = {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}


class SdxlConversion(Conversion):
    """A conversion of Stable Diffusion XL."""

    _projects = True
    _pipeline = "StableDiffusionXL"
    _more_components: Mapping[str, Any] = {
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "force_zeros_for_empty_prompt": True,
    }

    def _generation(self, unet_config: Mapping[str, Any]) -> int:
        return 0

    def _shared(
        self, model_class: Any, shape: dict[str, Any], tensors: Mapping[str, torch.Tensor], said: Statements
    ) -> dict[str, Any]:
        return read_family("sdxl")

    def _write_text_encoder(self, family: Mapping[str, Any], unet_width: int) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        first, second = shapes.clip_config(self._tensors), shapes.open_clip_config(self._tensors)
        second["projection_dim"] = shapes.projection_width(self._tensors)
        widths = first["hidden_size"], second["hidden_size"]
        if sum(widths) != unet_width:
            raise LoadError(
                f"{self._source}: its unet takes text states of width {unet_width}, and its text encoders have the "
                f"widths {widths[0]} and {widths[1]}: they are of two models"
            )
        config = CLIPTextConfig(**self._config("text_encoder", first, family["text_encoder"]))
        self._write_text_model(CLIPTextModel, config, self._clip_tensors(), "text_encoder")
        config = CLIPTextConfig(**self._config("text_encoder_2", second, family["text_encoder_2"]))
        tensors = self._open_clip_tensors(config)
        self._write_text_model(CLIPTextModelWithProjection, config, tensors, "text_encoder_2")

    def _write_tokenizers(self, family: Mapping[str, Any]) -> None:
        for tokenizer, text_encoder in _PADS.items():
            if not (self._folder / tokenizer).is_dir():
                self._write_tokenizer(family[tokenizer], text_encoder, tokenizer)

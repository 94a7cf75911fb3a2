"""Base class of engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from triton_diffusers.adapters.lora import target_modules
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.safety import square_views
from triton_diffusers.errors import EngineFailure
from triton_diffusers.families.family import Family


class CheckpointEngine:
    """Base of all engines: facts about the checkpoint, and its safety checker in PyTorch.

    It needs no weights of text encoders, denoiser and VAE.
    """

    def __init__(self, components: Components) -> None:
        self._components = components

    @property
    def family(self) -> Family:
        return self._components.family

    @property
    def tokenizer(self) -> Any:
        return self._components.tokenizer

    @property
    def lora_targets(self) -> Mapping[str, tuple[int, ...]]:
        return {
            path: tuple(layer.weight.shape)
            for name, module in self._components.networks.items()
            for path, layer in target_modules(name, module)
        }

    @torch.inference_mode()
    def is_unsafe(self, pixels: np.ndarray[Any, Any]) -> bool:
        checker, extractor = self._components.safety_checker, self._components.feature_extractor
        if checker is None or extractor is None:
            return False
        parameter = next(checker.parameters())
        views = square_views(pixels)
        inputs = extractor(images=views, return_tensors="pt").pixel_values.to(parameter.device, parameter.dtype)
        embeddings: list[torch.Tensor] = []  # the checker itself would treat NaN as safe
        hook = checker.visual_projection.register_forward_hook(lambda module, args, output: embeddings.append(output))
        try:
            # The checker blackens its input, so give it a placeholder; the caller handles flagged images.
            _, flags = checker(images=np.zeros((len(views), 1, 1, 3), np.float32), clip_input=inputs)
        finally:
            hook.remove()
        if not all(map(_has_direction, embeddings)):
            raise EngineFailure("the model's safety checker gave NaN or infinite values, so the image is not returned")
        return any(flags)


def _has_direction(embedding: torch.Tensor) -> bool:
    """Return True if the checker can compare all rows: NaN, overflow and zeros are similar to nothing it looks for."""
    lengths = torch.nn.functional.normalize(embedding).float().norm(dim=-1)
    return bool((lengths > 0.5).all())

"""Small models in the original layout."""

from __future__ import annotations

import pytest
import torch

from tests.unit.checkpoints.original import original, text_encoder, unet, vae


@pytest.fixture(scope="module")
def first() -> dict[str, torch.Tensor]:
    """Return a small model shaped like Stable Diffusion 1.5."""
    return original(unet(), vae(), text_encoder())


@pytest.fixture(scope="module")
def second() -> dict[str, torch.Tensor]:
    """Return a small model shaped like Stable Diffusion 2.1, in half precision."""
    tensors = original(unet(second=True), vae(), text_encoder(act="gelu"), open_clip=True)
    return {name: tensor.half() for name, tensor in tensors.items()}

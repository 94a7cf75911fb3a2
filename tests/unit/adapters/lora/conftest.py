"""A model of a few layers, as the LoRA tests see it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

TARGETS: Mapping[str, tuple[int, ...]] = {
    "unet.conv_in": (8, 4, 3, 3),
    "unet.down_blocks.0.resnets.0.conv1": (10, 8, 3, 3),
    "unet.down_blocks.0.attentions.0.proj_in": (8, 8, 1, 1),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0": (8, 8),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj": (16, 8),
    "text_encoder.encoder.layers.0.self_attn.q_proj": (6, 6),
    "text_encoder.encoder.layers.0.self_attn.out_proj": (6, 6),
    "text_encoder.encoder.layers.0.mlp.fc1": (12, 6),
}


@pytest.fixture
def targets() -> Mapping[str, tuple[int, ...]]:
    return TARGETS

"""CLIP text encoder graph. Token embeddings stay outside, since textual inversion extends them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from triton_diffusers.adapters.lora import TEXT_ENCODER
from triton_diffusers.checkpoints.load import LoadError
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.lora import lora_applied, lora_inputs, lora_layouts

_MASKED = -1e9  # before softmax; infinity would give NaN for fully masked rows


class TextEncoderModule(nn.Module):
    """Text encoder from token embeddings to normalised hidden states of all layers.

    Inputs are embeddings (n, tokens, width), LoRA's down and up, and a mask (n, tokens) if the config uses one. The
    output is (layers, n, tokens, width).
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.layouts = lora_layouts(TEXT_ENCODER, encoder)

    def forward(self, embeddings: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        count = 2 * len(self.layouts)
        packed, mask = others[:count], others[count] if len(others) > count else None
        # Some versions of transformers nest everything one level deeper.
        text = getattr(self.encoder, "text_model", self.encoder)
        positions = text.embeddings.position_embedding.weight
        hidden = embeddings.to(positions.dtype) + positions
        later = torch.full((len(positions), len(positions)), _MASKED, dtype=hidden.dtype, device=hidden.device)
        hidden_places = later.triu(1)[None, None]
        if mask is not None:
            hidden_places = hidden_places + ((1 - mask) * _MASKED).to(hidden.dtype)[:, None, None]
        states = []
        with lora_applied(self.layouts, TEXT_ENCODER, self.encoder, packed):
            for layer in text.encoder.layers:
                hidden = layer(hidden, hidden_places)
                states.append(text.final_layer_norm(hidden))
        return torch.stack(states).float()


def text_encoder_graph(encoder: Any) -> Graph:
    """Return the graph with the weights of ``encoder``.

    Raises:
        LoadError: it is not a CLIP text encoder.
    """
    if encoder.config.model_type != "clip_text_model":
        raise LoadError(f"text_encoder: {type(encoder).__name__} is unsupported by compiled engines, expected CLIP's")
    module = TextEncoderModule(encoder)
    config = encoder.config
    tokens, width = config.max_position_embeddings, config.hidden_size
    mask = (Input("mask", torch.ones(3, tokens), {0: ROWS}),) if uses_mask(config) else ()
    embeddings = Input("embeddings", torch.zeros(3, tokens, width), {0: ROWS})
    return Graph(TEXT_ENCODER, module, (embeddings, *lora_inputs(module.layouts), *mask), ("states",))


def uses_mask(config: Any) -> bool:
    """Return True if a text encoder masks padding; Stable Diffusion's own do not."""
    return bool(getattr(config, "use_attention_mask", False))

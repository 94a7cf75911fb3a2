"""A checkpoint's networks as graphs: tensors in, tensors out, with LoRA among the inputs.

``GRAPHS`` makes them by name from the checkpoint's ``Components`` (in float32, on the CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from triton_diffusers.adapters.controlnet import CONTROLNET
from triton_diffusers.adapters.lora import TEXT_ENCODER, UNET
from triton_diffusers.checkpoints.load import Components, LoadError
from triton_diffusers.engines.graph_names import UNET_SHALLOW, VAE_DECODER, VAE_ENCODER
from triton_diffusers.engines.graphs.controlnet import controlnet_graph
from triton_diffusers.engines.graphs.graph import Graph, Input, Inputs
from triton_diffusers.engines.graphs.lora import MAX_RANK, LoraLayout, lora_layouts
from triton_diffusers.engines.graphs.residuals import no_residuals
from triton_diffusers.engines.graphs.text_encoder import text_encoder_graph, uses_mask
from triton_diffusers.engines.graphs.unet import shallow_unet_graph, unet_graph
from triton_diffusers.engines.graphs.vae import vae_decoder_graph, vae_encoder_graph

__all__ = [
    "GRAPHS",
    "MAX_RANK",
    "Graph",
    "Input",
    "Inputs",
    "LoraLayout",
    "lora_layouts",
    "no_residuals",
    "uses_mask",
]


def _text_encoder(components: Components) -> Graph:
    if not (entry := components.family.entry).compiles:
        raise LoadError(f"{entry.name} is not supported by compiled engines yet; the eager engine serves it")
    return text_encoder_graph(components.text_encoder)


GRAPHS: Mapping[str, Callable[[Components], Graph]] = {
    TEXT_ENCODER: _text_encoder,
    UNET: lambda components: unet_graph(components.denoiser),
    UNET_SHALLOW: lambda components: shallow_unet_graph(components.denoiser),
    CONTROLNET: lambda components: controlnet_graph(components.denoiser, components.family.latents.pixels),
    VAE_ENCODER: lambda components: vae_encoder_graph(components.vae, components.family.latents),
    VAE_DECODER: lambda components: vae_decoder_graph(components.vae, components.family.latents),
}

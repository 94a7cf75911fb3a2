"""Transformer projections as matrix products of tokens.

Stable Diffusion 1.x projects by 1×1 convolutions on pixels, with an extra reordering copy each way when compiled.
Version 2.x already has linear layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.nn import functional

from triton_diffusers.engines.graphs.patching import Attribute, patched


@contextmanager
def linear_projections(network: nn.Module) -> Iterator[None]:
    """Replace projections of transformers in ``network`` by linear layers with equal weights inside this context."""
    attributes: list[Attribute] = []
    for module in network.modules():
        if isinstance(module, Transformer2DModel) and not module.use_linear_projection:
            layers = module.proj_in, module.proj_out
            attributes += [(layer, "forward", partial(_linear, layer)) for layer in layers]
            attributes.append((module, "use_linear_projection", True))
    with patched(attributes):
        yield


def _linear(convolution: nn.Conv2d, tokens: torch.Tensor) -> torch.Tensor:
    weight = convolution.weight
    return functional.linear(tokens, weight.reshape(weight.shape[:2]), convolution.bias)

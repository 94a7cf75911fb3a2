"""Projections into and out of a transformer as matrix products of tokens.

Stable Diffusion 1.x has 1×1 convolutions there, and tokens are made of pixels after the first and before the last of
them; compiled, each way is one more copy into another order. Version 2.x has linear layers on the inner side already.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.nn import functional

from triton_diffusers.engines.graphs.changed import Attribute, changed


@contextmanager
def linear_projections(network: nn.Module) -> Iterator[None]:
    """Within this, transformers in ``network`` have linear projections, with the weights of their convolutions."""
    attributes: list[Attribute] = []
    for module in network.modules():
        if isinstance(module, Transformer2DModel) and not module.use_linear_projection:
            layers = module.proj_in, module.proj_out
            attributes += [(layer, "forward", partial(_linear, layer)) for layer in layers]
            attributes.append((module, "use_linear_projection", True))
    with changed(attributes):
        yield


def _linear(convolution: nn.Conv2d, tokens: torch.Tensor) -> torch.Tensor:
    weight = convolution.weight
    return functional.linear(tokens, weight.reshape(weight.shape[:2]), convolution.bias)

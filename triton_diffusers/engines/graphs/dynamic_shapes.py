"""Size-agnostic tracing of networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from triton_diffusers.engines.graphs.patching import Attribute, patched
from triton_diffusers.engines.graphs.upsampling import can_double, convolve_double

# No side is divisible by this many halvings, so diffusers' UNet always takes upsampling sizes from its skip
# connections, as needed for odd sides.
_HALVINGS = 40


@contextmanager
def any_size(network: nn.Module) -> Iterator[None]:
    """Make ``network`` size-agnostic inside this context.

    It only removes size checks of diffusers' upsampling (memory format, form of the scale) that do not affect the
    result.
    """
    upsamplers = [module for module in network.modules() if isinstance(module, Upsample2D) and _is_plain(module)]
    attributes: list[Attribute] = [(module, "forward", partial(_upsample, module)) for module in upsamplers]
    if hasattr(network, "num_upsamplers"):
        attributes.append((network, "num_upsamplers", _HALVINGS))
    with patched(attributes):
        yield


def _is_plain(module: Any) -> bool:
    return bool(module.interpolate and module.norm is None and not module.use_conv_transpose)


def _upsample(module: Any, hidden: torch.Tensor, output_size: Any = None, *_: Any, **__: Any) -> torch.Tensor:
    convolution: nn.Conv2d | None = None
    if module.use_conv:
        convolution = module.conv if module.name == "conv" else module.Conv2d_0
    if output_size is None and can_double(convolution):
        return convolve_double(convolution, hidden)
    larger = functional.interpolate(hidden, size=output_size, scale_factor=None if output_size else 2.0)
    return larger if convolution is None else convolution(larger)

"""One trace of a network for pictures of all sides and for any number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from triton_diffusers.engines.graphs.changed import Attribute, changed
from triton_diffusers.engines.graphs.doubling import can_double, convolve_double

# A side that is a multiple of this many halvings cannot come, so diffusers' UNet lets every upsampling follow the size
# of its skip connection, as it has to where a side cannot be halved without a remainder.
_HALVINGS = 40


@contextmanager
def all_sides(network: nn.Module) -> Iterator[None]:
    """Within this, nothing in ``network`` decides by the size of what it is given.

    What diffusers' upsampling decides by it (memory formats, how to tell the scale) does not change the result.
    """
    upsamplers = [module for module in network.modules() if isinstance(module, Upsample2D) and _is_plain(module)]
    attributes: list[Attribute] = [(module, "forward", partial(_upsample, module)) for module in upsamplers]
    if hasattr(network, "num_upsamplers"):
        attributes.append((network, "num_upsamplers", _HALVINGS))
    with changed(attributes):
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

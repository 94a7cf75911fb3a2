"""Group normalization in OpenVINO's operations."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension


def norm_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``group_norm`` without scale and shift."""
    return ConversionExtension("aten.group_norm.default", _group_norm)


def _group_norm(context: Any) -> Any:
    # OpenVINO computes its own operation in the same way, but with shapes that it reads off the data. Where a shape
    # depends on numbers, it keeps more of what is in memory: an eighth in the autoencoder.
    data = context.get_input(0)
    groups, eps = context.get_values_from_const_input(1), context.get_values_from_const_input(4)
    shape = data.get_partial_shape()
    channels, sides = shape[1].get_length(), shape.rank.get_length() - 2
    # In a reshape, 0 is the size that the data have there: the first side is in the fourth place in all of these.
    apart = ops.reshape(ops.unsqueeze(data, _ints(1)), _ints(0, groups, channels // groups, *[0] * sides), True)
    normal = ops.mvn(apart, _ints(*range(2, sides + 3)), True, eps, "inside_sqrt")
    together = ops.reshape(normal, _ints(0, 1, channels, *[0] * sides), True)
    return [ops.squeeze(together, _ints(1)).output(0)]


def _ints(*values: int) -> Any:
    return ops.constant(np.array(values, np.int64))


def interleave_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``interleave``."""
    return ConversionExtension("triton_diffusers.interleave.default", _interleave)


def _interleave(context: Any) -> Any:
    return [ops.depth_to_space(context.get_input(0), "blocks_first", 2).output(0)]


# How the names of the operations begin: of all, and of those that add.
RESIDUAL_NAMES = "residual_"
RESIDUAL_SUMS = f"{RESIDUAL_NAMES}sum_"


def residual_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``add_residual``."""
    numbers = count()
    return ConversionExtension("triton_diffusers.add_residual.default", lambda context: _add(context, next(numbers)))


def _add(context: Any, number: int) -> Any:
    hidden, residual = context.get_input(0), context.get_input(1)
    summed = ops.add(hidden, residual)
    summed.set_friendly_name(f"{RESIDUAL_SUMS}{number}")
    # The shape is known anyway. But with another reader of `hidden` than the sum, OpenVINO does not take the sum for a
    # part of the convolution before it, which would have no broadcasting.
    return [ops.reshape(summed, ops.shape_of(hidden), False).output(0)]

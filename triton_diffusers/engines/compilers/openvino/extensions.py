"""OpenVINO conversions of custom operations."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension


def norm_extension() -> ConversionExtension:
    """Return the conversion of ``group_norm`` without scale and shift."""
    return ConversionExtension("aten.group_norm.default", _group_norm)


def _group_norm(context: Any) -> Any:
    # OpenVINO's own conversion reads shapes from the data at run time, and then keeps more memory: an eighth more in
    # the autoencoder.
    data = context.get_input(0)
    groups, eps = context.get_values_from_const_input(1), context.get_values_from_const_input(4)
    shape = data.get_partial_shape()
    channels, sides = shape[1].get_length(), shape.rank.get_length() - 2
    # In a reshape, 0 copies the input's size, so the first side must be at the same axis (3) in all of these.
    apart = ops.reshape(ops.unsqueeze(data, ints(1)), ints(0, groups, channels // groups, *[0] * sides), True)
    normal = ops.mvn(apart, ints(*range(2, sides + 3)), True, eps, "inside_sqrt")
    together = ops.reshape(normal, ints(0, 1, channels, *[0] * sides), True)
    return [ops.squeeze(together, ints(1)).output(0)]


def ints(*values: int) -> Any:
    """Return a constant vector."""
    return ops.constant(np.array(values, np.int64))


def interleave_extension() -> ConversionExtension:
    """Return the conversion of ``interleave``."""
    return ConversionExtension("triton_diffusers.interleave.default", _interleave)


def _interleave(context: Any) -> Any:
    return [ops.depth_to_space(context.get_input(0), "blocks_first", 2).output(0)]


# Name prefixes: of all operations, and of the sums.
RESIDUAL_NAMES = "residual_"
RESIDUAL_SUMS = f"{RESIDUAL_NAMES}sum_"


def residual_extension() -> ConversionExtension:
    """Return the conversion of ``add_residual``."""
    numbers = count()
    return ConversionExtension("triton_diffusers.add_residual.default", lambda context: _add(context, next(numbers)))


def _add(context: Any, number: int) -> Any:
    hidden, residual = context.get_input(0), context.get_input(1)
    summed = ops.add(hidden, residual)
    summed.set_friendly_name(f"{RESIDUAL_SUMS}{number}")
    # The shape is unchanged. A second reader of `hidden` keeps OpenVINO from fusing the sum into the preceding
    # convolution, which would not support broadcasting.
    return [ops.reshape(summed, ops.shape_of(hidden), False).output(0)]

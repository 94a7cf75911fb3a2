"""Group normalization in OpenVINO's operations."""

from __future__ import annotations

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

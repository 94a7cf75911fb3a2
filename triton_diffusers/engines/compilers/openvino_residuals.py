"""Residuals of ControlNets in OpenVINO's operations."""

from __future__ import annotations

from itertools import count
from typing import Any

from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension

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

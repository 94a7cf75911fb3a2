"""Residuals of ControlNets in OpenVINO's operations."""

from __future__ import annotations

from itertools import count
from typing import Any

from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension

RESIDUAL_NAMES = "residual_"  # how the names of the operations begin


def residual_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``add_residual``."""
    numbers = count()
    return ConversionExtension("triton_diffusers.add_residual.default", lambda context: _add(context, next(numbers)))


def _add(context: Any, number: int) -> Any:
    summed = ops.add(context.get_input(0), context.get_input(1))
    summed.set_friendly_name(f"{RESIDUAL_NAMES}sum_{number}")
    return [summed.output(0)]

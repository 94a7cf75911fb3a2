"""Doubled pictures in OpenVINO's operations."""

from __future__ import annotations

from typing import Any

from openvino import opset13 as ops
from openvino.frontend.pytorch import ConversionExtension


def interleave_extension() -> ConversionExtension:
    """How OpenVINO is to convert ``interleave``."""
    return ConversionExtension("triton_diffusers.interleave.default", _interleave)


def _interleave(context: Any) -> Any:
    return [ops.depth_to_space(context.get_input(0), "blocks_first", 2).output(0)]

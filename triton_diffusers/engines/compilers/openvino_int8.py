"""Quantisation to int8 by NNCF, with ranges that calibration inputs show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from triton_diffusers.engines.compilers.openvino_lora import LORA_NAMES
from triton_diffusers.engines.compilers.openvino_residuals import RESIDUAL_NAMES
from triton_diffusers.engines.graphs import Inputs

os.environ.setdefault("NNCF_CI", "1")  # else it reports to its makers what it does

import nncf


def quantized(model: Any, calibration: Sequence[Inputs]) -> Any:
    """An OpenVINO model whose matrix products and convolutions are int8.

    What LoRAs and ControlNets add stays as it is. Raises ``ValueError`` without calibration inputs.
    """
    if not calibration:
        raise ValueError("int8 needs calibration inputs")
    return nncf.quantize(
        model,
        nncf.Dataset([tuple(tensor.numpy() for tensor in inputs) for inputs in calibration]),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        # What a request brings was not there to be calibrated with.
        ignored_scope=nncf.IgnoredScope(patterns=[f"{LORA_NAMES}.*", f"{RESIDUAL_NAMES}.*"], validate=False),
    )

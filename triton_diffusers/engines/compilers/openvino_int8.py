"""Quantization to int8 by NNCF: of all numbers, with ranges that calibration inputs show, or of weights alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from triton_diffusers.engines.compilers.openvino_lora import LORA_NAMES
from triton_diffusers.engines.compilers.openvino_residuals import RESIDUAL_NAMES

os.environ.setdefault("NNCF_CI", "1")  # else it reports to its makers what it does

import nncf

if TYPE_CHECKING:
    from triton_diffusers.engines.graphs import Inputs


def quantized(model: Any, calibration: Sequence[Inputs]) -> Any:
    """An OpenVINO model whose matrix products and convolutions are int8, those of queries and keys among them.

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
        ignored_scope=nncf.IgnoredScope(
            # What a request brings was not there to be calibrated with.
            patterns=[f"{LORA_NAMES}.*", f"{RESIDUAL_NAMES}.*"],
            validate=False,
        ),
    )


def with_small_weights(model: Any) -> Any:
    """An OpenVINO model that keeps the weights of linear layers in int8, and computes with what they stand for."""
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)

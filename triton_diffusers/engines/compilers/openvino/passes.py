"""Rewriting of OpenVINO models: fixed shapes, attention, weights and int8."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nncf
import torch
from openvino import PartialShape
from openvino import opset13 as ops

from triton_diffusers.engines.compilers.openvino.extensions import RESIDUAL_NAMES, RESIDUAL_SUMS
from triton_diffusers.engines.compilers.openvino.lora import LORA_NAMES, LORA_SUMS

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes
    from triton_diffusers.engines.graphs import Inputs

os.environ.setdefault("NNCF_CI", "1")  # disables NNCF's telemetry

_ATTENTION = "ScaledDotProductAttention"
_QUERIES, _KEYS = 0, 1
# Operations that may lie between a layer's output and its heads.
_REORDERING = {"Reshape", "Transpose", "Unsqueeze", "Squeeze"}


def specialise(model: Any, shapes: Shapes) -> None:
    """Specialise ``model`` to static ``shapes`` and strip its LoRA and ControlNet inputs.

    With static sizes, OpenVINO fuses more operations and splits attention better.

    Raises:
        RuntimeError: ``model`` needs an input without a shape.
    """
    for operation in model.get_ops():
        # The quantization of a sum has the same name with a suffix.
        if operation.get_type_name() == "Add" and operation.get_friendly_name().startswith((LORA_SUMS, RESIDUAL_SUMS)):
            operation.output(0).replace(operation.input_value(0))
    for parameter in model.get_parameters():
        if not parameter.output(0).get_names() & shapes.keys():
            model.remove_parameter(parameter)
    model.reshape({name: PartialShape(list(shape)) for name, shape in shapes.items()})


def keep_attention_precise(model: Any) -> None:
    """Remove the quantization of queries and keys from the attention of ``model``."""
    for attention in model.get_ops():
        if attention.get_type_name() == _ATTENTION:
            for index in (_QUERIES, _KEYS):
                _bypass(attention.input_value(index).get_node())


def _bypass(node: Any) -> None:
    while node.get_type_name() in _REORDERING:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        node.output(0).replace(node.input_value(0))


def bind_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace the inputs of ``model`` named in ``weights`` by constants that share the weights' memory.

    Raises:
        ValueError: a weight is not an input.
        RuntimeError: a weight has an incompatible shape.
    """
    inputs = {port.any_name: port.get_node() for port in model.inputs}
    if unknown := sorted(weights.keys() - inputs.keys()):
        raise ValueError(f"the graph has no weights {', '.join(unknown[:3])}")
    for name, weight in weights.items():
        constant = ops.constant(weight.float().contiguous().numpy(), shared_memory=True)
        constant.set_friendly_name(name)
        for reader in inputs[name].output(0).get_target_inputs():
            reader.replace_source_output(constant.output(0))
        model.remove_parameter(inputs[name])
    model.validate_nodes_and_infer_types()


def quantized(model: Any, calibration: Sequence[Inputs]) -> Any:
    """Return an int8 model: matrix products and convolutions, including those of queries and keys.

    Products of LoRAs and ControlNets are not quantized.

    Raises:
        ValueError: there are no calibration inputs.
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
            # LoRAs and ControlNets of later requests are unknown during calibration.
            patterns=[f"{LORA_NAMES}.*", f"{RESIDUAL_NAMES}.*"],
            validate=False,
        ),
    )


def with_small_weights(model: Any) -> Any:
    """Return a model with linear weights stored in int8 and decompressed for computation."""
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)

"""A graph for one shape of its inputs.

Where it knows the sizes, OpenVINO joins more operations into one, and knows better how to divide attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import PartialShape

from triton_diffusers.engines.compilers.openvino.extensions import RESIDUAL_SUMS
from triton_diffusers.engines.compilers.openvino.lora import LORA_SUMS

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes
import os
from collections.abc import Mapping, Sequence

import nncf
import torch
from openvino import opset13 as ops

from triton_diffusers.engines.compilers.openvino.extensions import RESIDUAL_NAMES
from triton_diffusers.engines.compilers.openvino.lora import LORA_NAMES

if TYPE_CHECKING:
    from triton_diffusers.engines.graphs import Inputs


def fix(model: Any, shapes: Shapes) -> None:
    """Leave the inputs in ``shapes`` alone to ``model``, with just these shapes, and with them what adds the others.

    Those are LoRA's and ControlNets'; raises ``RuntimeError`` if ``model`` reads another one.
    """
    for operation in model.get_ops():
        # What quantizes a sum has its name, and a suffix.
        if operation.get_type_name() == "Add" and operation.get_friendly_name().startswith((LORA_SUMS, RESIDUAL_SUMS)):
            operation.output(0).replace(operation.input_value(0))
    for parameter in model.get_parameters():
        if not parameter.output(0).get_names() & shapes.keys():
            model.remove_parameter(parameter)
    model.reshape({name: PartialShape(list(shape)) for name, shape in shapes.items()})


_ATTENTION = "ScaledDotProductAttention"
_QUERIES, _KEYS = 0, 1
# What may be between a layer's output and its heads.
_REORDERING = {"Reshape", "Transpose", "Unsqueeze", "Squeeze"}


def keep_attention_precise(model: Any) -> None:
    """Let the attention of ``model`` read its queries and keys as they are, whatever their quantization."""
    for attention in model.get_ops():
        if attention.get_type_name() == _ATTENTION:
            for index in (_QUERIES, _KEYS):
                _bypass(attention.input_value(index).get_node())


def _bypass(node: Any) -> None:
    while node.get_type_name() in _REORDERING:
        node = node.input_value(0).get_node()
    if node.get_type_name() == "FakeQuantize":
        node.output(0).replace(node.input_value(0))


def put_in(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Make constants of those inputs of an OpenVINO model that are named like weights, which are left where they are.

    Raises ``ValueError`` if a weight is no input, and ``RuntimeError`` if it does not fit.
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


os.environ.setdefault("NNCF_CI", "1")  # else it reports to its makers what it does


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

"""Weights in the place of a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from openvino import opset13 as ops


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

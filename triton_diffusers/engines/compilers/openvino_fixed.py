"""A graph for one shape of its inputs.

Where it knows the sizes, OpenVINO joins more operations into one, and knows better how to divide attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import PartialShape

from triton_diffusers.engines.compilers.openvino_lora import LORA_SUMS
from triton_diffusers.engines.compilers.openvino_residuals import RESIDUAL_SUMS

if TYPE_CHECKING:
    from triton_diffusers.engines.compilers.protocol import Shapes


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

"""The wire: every input and output of the server's models, and the models that stand in for each other.

Sending an input's ``default`` is the same as leaving it out. The client always sends all of them, since Triton puts
only those requests into one batch that set the same inputs.
"""

from __future__ import annotations

from triton_diffusers_client.field_types import DataType, Default, InputField, OutputField, Value
from triton_diffusers_client.wire import (
    CONTROL_INPUTS,
    CONTROL_OUTPUTS,
    INPUTS,
    JOBS_INPUTS,
    JOBS_OUTPUTS,
    OUTPUTS,
)

__all__ = [
    "CONTROL_INPUTS",
    "CONTROL_MODELS",
    "CONTROL_OUTPUTS",
    "DEFAULT_MODELS",
    "INPUTS",
    "JOBS_INPUTS",
    "JOBS_OUTPUTS",
    "OUTPUTS",
    "TRANSLATING_MODELS",
    "DataType",
    "Default",
    "InputField",
    "OutputField",
    "Value",
]

# Models used unless the caller names one: the first that the server has. Ensembles translate Chinese.
DEFAULT_MODELS = ("ensemble", "sd_base")
# Replacements of a model for requests with ControlNets, and for requests to translate.
CONTROL_MODELS = {"sd_base": "sd_controlnet", "ensemble": "ensemble_controlnet"}
TRANSLATING_MODELS = {"sd_base": "ensemble", "sd_controlnet": "ensemble_controlnet"}

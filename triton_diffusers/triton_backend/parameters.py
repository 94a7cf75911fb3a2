"""Settings that a ``config.pbtxt`` carries."""

from __future__ import annotations

import json
from collections.abc import Mapping

from triton_diffusers.api.contract import EXAMPLE_PARAMETER, PROBE_PARAMETER


def settings_of(model_config: str) -> Mapping[str, str]:
    """The settings among the parameters of a model config, given as the JSON that Triton hands to a model."""
    parameters = json.loads(model_config).get("parameters", {})
    return {
        name: parameter.get("string_value", "")
        for name, parameter in parameters.items()
        # Upper-case ones are the Python backend's own.
        if name.islower() and name not in (PROBE_PARAMETER, EXAMPLE_PARAMETER)
    }

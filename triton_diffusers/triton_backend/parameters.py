"""Parameters that a ``config.pbtxt`` carries."""

from __future__ import annotations

import json
from collections.abc import Mapping

from triton_diffusers.api.contract import settings_among


def settings_of(model_config: str) -> Mapping[str, str]:
    """Return the settings among the parameters of a model config, given as the JSON that Triton hands to a model."""
    parameters = json.loads(model_config).get("parameters", {})
    return settings_among({name: parameter.get("string_value", "") for name, parameter in parameters.items()})

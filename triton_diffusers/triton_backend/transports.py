"""Transports of requests: Triton passes those of ``generate`` and of ``infer`` to a model alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_diffusers.api.contract import FORWARDED_HEADERS
from triton_diffusers.settings import Settings


def parameters_of(request: pb_utils.InferenceRequest) -> Mapping[str, Any]:
    """Return the parameters of a request: those that the caller set, and the headers that Triton passes on."""
    return dict(json.loads(request.parameters() or "{}"))


def is_plain_json(parameters: Mapping[str, Any], settings: Settings) -> bool:
    """Return True if a request with these parameters came by ``generate``; False as well if Triton does not tell."""
    return settings.headers_forwarded and not any(map(is_forwarded, parameters))


def is_forwarded(name: str) -> bool:
    """Return True if a parameter of this name is a header that Triton passes on."""
    return name.lower() in FORWARDED_HEADERS

"""Errors in the web UI's form."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.dialects.a1111.json_response import AsciiJSONResponse
from triton_diffusers.gateway.faults import Fault

_INVALID = 400
_UNPROCESSABLE = 422  # the web UI's status for fields that are invalid or unsupported
_UNAUTHORIZED = 401


class Unsupported(InvalidRequest):
    """An option of the web UI that this server does not have."""

    def __init__(self, field: str, value: Any, hint: str = "") -> None:
        super().__init__(field, value, f"this server does not support it{hint and f'; {hint}'}")


def render(fault: Fault) -> Response:
    """Return a fault in the web UI's form."""
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    if fault.status == _UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="API key as password"'
    status = _UNPROCESSABLE if fault.status == _INVALID else fault.status
    kind = "HTTPException" if status < 500 else "RuntimeError"
    return AsciiJSONResponse(
        {"error": kind, "detail": fault.message, "body": "", "errors": fault.message}, status, headers
    )

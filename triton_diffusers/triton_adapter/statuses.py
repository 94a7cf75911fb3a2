"""Errors as Triton statuses: the one table."""

from __future__ import annotations

import logging

import triton_python_backend_utils as pb_utils

from triton_diffusers.errors import Busy, Cancelled, EngineFailure, InvalidRequest, NotFound, TritonDiffusersError

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 1000

_STATUSES = (
    (InvalidRequest, pb_utils.TritonError.INVALID_ARG),
    (NotFound, pb_utils.TritonError.NOT_FOUND),
    (Busy, pb_utils.TritonError.UNAVAILABLE),
    (Cancelled, pb_utils.TritonError.CANCELLED),
)


def error_response(error: Exception) -> pb_utils.InferenceResponse:
    """The response that tells a caller of an error; what is not in the table is the server's fault."""
    if not isinstance(error, TritonDiffusersError):
        logger.error("a request failed; this is a bug", exc_info=error)
        # Its text is not for the caller: libraries name the server's files and insides.
        error = EngineFailure("the request failed; the server's log says why")
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), pb_utils.TritonError.INTERNAL)
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)[:_LONGEST_MESSAGE], status))

"""Errors as Triton statuses: the one table.

Triton's ``generate`` answers every error of a model with the HTTP status 400. So the message for a caller of plain JSON
ends with the status that ``infer`` would send, if that is another one: ``… [UNAVAILABLE]``.
"""

from __future__ import annotations

import logging

import triton_python_backend_utils as pb_utils

from triton_diffusers.errors import Busy, Cancelled, EngineFailure, InvalidRequest, NotFound, TritonDiffusersError

logger = logging.getLogger(__name__)

_LONGEST_MESSAGE = 1000

_INVALID, _INTERNAL = "INVALID_ARG", "INTERNAL"
_STATUSES = (
    (InvalidRequest, _INVALID),
    (NotFound, "NOT_FOUND"),
    (Busy, "UNAVAILABLE"),
    (Cancelled, "CANCELLED"),
)


def error_response(error: Exception, *, plain_json: bool = False) -> pb_utils.InferenceResponse:
    """Return the response that tells a caller of an error; what is not in the table is the server's fault.

    ``plain_json``: the request came by ``generate``, whose callers see no status.
    """
    if not isinstance(error, TritonDiffusersError):
        logger.error("a request failed; this is a bug", exc_info=error)
        # Its text is not for the caller: libraries name the server's files and insides.
        error = EngineFailure("the request failed; the server's log says why")
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), _INTERNAL)
    message = str(error)[:_LONGEST_MESSAGE]
    if plain_json and status != _INVALID:
        message = f"{message} [{status}]"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, status)))

"""Errors as Triton responses.

Triton's ``generate`` answers every error of a model with the HTTP status 400. So the message for a caller of plain JSON
ends with the status that ``infer`` would send, if that is another one: ``… [UNAVAILABLE]``.
"""

from __future__ import annotations

import logging

import triton_python_backend_utils as pb_utils

from triton_diffusers.api.statuses import status_of
from triton_diffusers.errors import EngineFailure, TritonDiffusersError

logger = logging.getLogger(__name__)

_MAX_MESSAGE_CHARACTERS = 1000

_INVALID = "INVALID_ARGUMENT"
_TRITON_NAMES = {_INVALID: "INVALID_ARG"}  # where pb_utils' name is another one


def error_response(error: Exception, *, plain_json: bool = False) -> pb_utils.InferenceResponse:
    """Return the response for an error; one that is not in the table is the server's fault.

    ``plain_json``: the request came by ``generate``, whose callers see no status.
    """
    if not isinstance(error, TritonDiffusersError):
        logger.error("a request failed; this is a bug", exc_info=error)
        # Its text may disclose server paths and internals.
        error = EngineFailure("the request failed; the server's log says why")
    status = status_of(error).grpc
    message = str(error)[:_MAX_MESSAGE_CHARACTERS]
    if plain_json and status != _INVALID:
        message = f"{message} [{status}]"
    code = getattr(pb_utils.TritonError, _TRITON_NAMES.get(status, status))
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

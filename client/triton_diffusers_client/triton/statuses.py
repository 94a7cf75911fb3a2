"""The mapping of Triton's statuses and messages to the client's errors.

Triton tells more in its messages than in its statuses, so messages are looked at first. Over HTTP, for example, a
cancelled request is a 400 like a bad field, and a model whose process died is a 500 like any other failure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tritonclient.utils import InferenceServerException

from triton_diffusers_client.errors import (
    BusyError,
    CancelledError,
    ClientError,
    ConnectionFailedError,
    InvalidRequestError,
    NotAuthorizedError,
    NotFoundError,
    NotSupportedError,
    RequestTimeoutError,
    ServerError,
    ServerRestartingError,
    UnreachableError,
)
from triton_diffusers_client.triton import server_errors

# The server's own errors, and those of Triton and of proxies.
HTTP_STATUSES: Mapping[int, type[ClientError]] = {
    **server_errors.HTTP_STATUSES,
    401: NotAuthorizedError,
    403: NotAuthorizedError,
    413: InvalidRequestError,
    429: BusyError,
    499: CancelledError,
    501: NotSupportedError,
    502: ConnectionFailedError,
    504: RequestTimeoutError,
}

GRPC_STATUSES: Mapping[str, type[ClientError]] = {
    **server_errors.GRPC_STATUSES,
    "UNAUTHENTICATED": NotAuthorizedError,
    "PERMISSION_DENIED": NotAuthorizedError,
    "UNIMPLEMENTED": NotSupportedError,
    "RESOURCE_EXHAUSTED": BusyError,
    "DEADLINE_EXCEEDED": RequestTimeoutError,
}

_Patterns = tuple[tuple[re.Pattern[str], type[ClientError]], ...]

_MESSAGES: _Patterns = (
    (
        re.compile(
            r"stub process .*is not healthy|has no available versions|is not at ready state|server not ready|"
            r"server is stopping",
            re.IGNORECASE,
        ),
        ServerRestartingError,
    ),
    (re.compile(r"^[^:]*\bcancelled: its timeout of [^:]* is over \(timeout_seconds\)"), RequestTimeoutError),
    # Only before the first colon: the rest may be a caller's value.
    (re.compile(r"^[^:]*\bcancelled\b", re.IGNORECASE), CancelledError),
)

# gRPC's own words for what happens below the server; by its status alone it is as UNAVAILABLE as a busy server.
_GRPC_CONNECTIONS: _Patterns = (
    (
        re.compile(r"failed to connect|errors? resolving|(name|dns) resolution|handshake", re.IGNORECASE),
        UnreachableError,
    ),
    (
        re.compile(
            r"socket closed|connection (reset|timed out|aborted)|broken pipe|stream removed|goaway|channel closed",
            re.IGNORECASE,
        ),
        ConnectionFailedError,
    ),
)


_ENSEMBLE = re.compile(r"^in ensemble '[^']*', ")
_UNKNOWN_MODEL = re.compile(r"unknown model: '(?P<model>[^']*)' is not found", re.IGNORECASE)


def is_unknown_model(error: ClientError, model: str) -> bool:
    """Return True if an error says that the server has no such model, not even one that is being loaded."""
    found = _UNKNOWN_MODEL.search(str(error)) if isinstance(error, NotFoundError) else None
    return found is not None and found["model"] == model


def from_http(status: int, message: str) -> ClientError:
    """Return the error for an HTTP answer other than 200."""
    message = _without_ensemble(message)
    return (_by_message(message) or HTTP_STATUSES.get(status, ServerError))(message)


def from_grpc(error: InferenceServerException) -> ClientError:
    """Return the error for what ``tritonclient.grpc`` raises."""
    message = _without_ensemble(str(error.message()))
    status = str(error.status()).removeprefix("StatusCode.")
    patterns = _GRPC_CONNECTIONS + _MESSAGES if status == "UNAVAILABLE" else _MESSAGES
    return (_by_message(message, patterns) or GRPC_STATUSES.get(status, ServerError))(message)


def _without_ensemble(message: str) -> str:
    """Return the message of a model, without the prefix of the ensemble that called it."""
    return _ENSEMBLE.sub("", message)


def _by_message(message: str, patterns: _Patterns = _MESSAGES) -> type[ClientError] | None:
    return next((error for pattern, error in patterns if pattern.search(message)), None)

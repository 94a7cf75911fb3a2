"""The gateway's errors, and failures on the way to it, as the client's errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx2

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
    UnreachableError,
)
from triton_diffusers_client.gateway.effects import Reply

_STATUSES: Mapping[int, type[ClientError]] = {
    400: InvalidRequestError,
    401: NotAuthorizedError,
    403: NotAuthorizedError,
    404: NotFoundError,
    405: NotSupportedError,
    409: CancelledError,
    413: InvalidRequestError,
    421: NotAuthorizedError,
    422: InvalidRequestError,
    429: BusyError,
    501: NotSupportedError,
    502: ConnectionFailedError,
    503: BusyError,
    504: ConnectionFailedError,  # of a proxy; the gateway's own is only for synchronous requests of other dialects
}
# The API's codes of invalid fields and images.
_INVALID_CODES = (460, 462)
_TIME_IS_OVER = re.compile(r"^[^:]*\bcancelled: its timeout of ")
_MAX_SHOWN_CHARACTERS = 200
_MAX_RETRY_SECONDS = 3600.0


def error_of_reply(reply: Reply) -> ClientError:
    """Return the error for a reply whose status is not 2xx."""
    kind = _STATUSES.get(reply.status, ServerError)
    document = _error_document(reply.content)
    if document is None:
        text = " ".join(reply.content.decode(errors="replace").split())[:_MAX_SHOWN_CHARACTERS]
        error = kind(f"status {reply.status}: {text or 'an empty answer'}")
    else:
        error = kind(str(document.get("message", "")))
        if isinstance(error, InvalidRequestError):
            error.field, error.value, error.rule = (document.get(name) for name in ("field", "value", "rule"))
    error.retry_after = _retry_after(reply.headers.get("retry-after", ""))
    return error


def error_of_job(job: Mapping[str, Any]) -> ClientError:
    """Return the error of an ended job without a result."""
    state, error = job["state"], job.get("error") or {}
    message = str(error.get("message") or f"job {job['id']}: it is {state}")
    if state == "cancelled":
        return CancelledError(f"job {job['id']}: it was cancelled")
    if state == "expired" or _TIME_IS_OVER.search(message):
        return RequestTimeoutError(message)
    if state == "failed" and error.get("code") in _INVALID_CODES:
        return InvalidRequestError(message)
    return ServerError(message)


def error_of_transport(error: httpx2.TransportError, netloc: str) -> ClientError:
    """Return the error for a failure on the way."""
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol):
        return UnreachableError(f"cannot reach {netloc}: {_reason(error)}")
    if isinstance(error, httpx2.TimeoutException):
        return ConnectionFailedError(f"{netloc}: no answer")
    return ConnectionFailedError(f"{netloc}: {_reason(error)}")


def _error_document(content: bytes) -> Mapping[str, Any] | None:
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return error if isinstance(error, dict) and "message" in error else None


def _retry_after(text: str) -> float | None:
    """Return the seconds of a ``Retry-After``; a date is ignored, since clocks differ."""
    return min(float(text), _MAX_RETRY_SECONDS) if text.isascii() and text.isdecimal() else None


def _reason(error: BaseException) -> str:
    """Return the system's own words, if it is the system that has failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and not cause.strerror.startswith("Connect call"):
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = str(error) or type(error).__name__
    return "the answer is not HTTP" if not text.isprintable() or text.startswith("illegal ") else text

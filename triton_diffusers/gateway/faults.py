"""Errors as every dialect can tell them."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from http import HTTPStatus

from triton_diffusers.api.statuses import INVALID_FIELD, SERVER_ERROR, status_of
from triton_diffusers.errors import Busy, Cancelled, InvalidRequest, TimedOut, TritonDiffusersError
from triton_diffusers.gateway.jobs.errors import BoundReached, TableUnavailable, TooManyJobs

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An error of a request: ``code`` is the API's own; invalid fields have ``field``, ``value`` and ``rule``."""

    status: int
    code: int = INVALID_FIELD
    message: str
    field: str = ""
    value: str = ""
    rule: str = ""
    retry_after: int | None = None

    @property
    def type(self) -> str:
        """Return the kind of error, such as ``not_found``: the name of its HTTP status."""
        return HTTPStatus(self.status).name.lower()


class Refused(Exception):
    """A request ends with this fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def fault_of(error: Exception) -> Fault:
    """Return the fault that a caller is told of; errors that are not the caller's are logged."""
    if isinstance(error, Refused):
        return error.fault
    if not isinstance(error, TritonDiffusersError):
        logger.error("a request failed; this is a bug", exc_info=error)
        return Fault(status=500, code=SERVER_ERROR, message="the request failed; the gateway's log says why")
    row = status_of(error)
    fault = Fault(
        status=_status(error, row.http),
        code=row.code,
        message=str(error),
        retry_after=_retry_after(error),
    )
    if isinstance(error, InvalidRequest):
        return Fault(
            status=fault.status,
            code=fault.code,
            message=fault.message,
            field=error.field,
            value=error.value,
            rule=error.rule,
        )
    return fault


def _retry_after(error: Exception) -> int | None:
    if isinstance(error, BoundReached) and error.retry_after is not None:
        return max(1, math.ceil(error.retry_after))
    return _RETRY_SECONDS if isinstance(error, Busy | TableUnavailable) else None


def _status(error: Exception, http: int) -> int:
    """Return the HTTP status; Triton's table has 400 for ends that are not the caller's mistake."""
    if isinstance(error, TimedOut):
        return HTTPStatus.GATEWAY_TIMEOUT
    if isinstance(error, TableUnavailable):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, TooManyJobs | BoundReached):  # the caller's own limit, unlike a gateway that is busy
        return HTTPStatus.TOO_MANY_REQUESTS
    return HTTPStatus.CONFLICT if isinstance(error, Cancelled) else http

"""Errors of the server by status."""

# Made from triton_diffusers/api/ by `make generated`; do not edit.

from __future__ import annotations

from collections.abc import Mapping

from triton_diffusers_client.errors import (
    BusyError,
    CancelledError,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
)

GRPC_STATUSES: Mapping[str, type[ClientError]] = {
    "CANCELLED": CancelledError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": NotFoundError,
    "INTERNAL": ServerError,
    "UNAVAILABLE": BusyError,
}

# The message of a cancelled job distinguishes it from an invalid request, which has the same HTTP status.
HTTP_STATUSES: Mapping[int, type[ClientError]] = {
    400: InvalidRequestError,
    404: NotFoundError,
    500: ServerError,
    503: BusyError,
}

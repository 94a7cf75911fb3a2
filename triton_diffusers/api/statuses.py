"""The table that maps errors to a gRPC status, an HTTP status and the API's own error code."""

from __future__ import annotations

from dataclasses import dataclass

from triton_diffusers.errors import (
    Busy,
    Cancelled,
    InvalidImage,
    InvalidRequest,
    NotFound,
    TimedOut,
)

# The API's own error codes.
INVALID_FIELD = 460
INVALID_IMAGE = 462
SERVER_ERROR = 469


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """The statuses of a kind of error.

    ``http`` is the status of Triton's ``infer``; ``client_error`` names the exception that the client raises.
    """

    kind: type[Exception]
    grpc: str
    http: int
    code: int
    client_error: str
    help: str


# The first row whose kind an error is an instance of applies; the last row is for everything else.
STATUSES: tuple[ErrorStatus, ...] = (
    ErrorStatus(InvalidImage, "INVALID_ARGUMENT", 400, INVALID_IMAGE, "InvalidRequestError", "an image is invalid, too large or cannot be fetched"),
    ErrorStatus(InvalidRequest, "INVALID_ARGUMENT", 400, INVALID_FIELD, "InvalidRequestError", "a field's value is invalid"),
    ErrorStatus(NotFound, "NOT_FOUND", 404, INVALID_FIELD, "NotFoundError", "a file of the model directory, a preprocessor's weights or, of `jobs`, the task does not exist"),
    ErrorStatus(Busy, "UNAVAILABLE", 503, SERVER_ERROR, "BusyError", "the queue is full, the server is stopping, or an engine process has died and is started again: try again in some seconds"),
    ErrorStatus(TimedOut, "CANCELLED", 400, SERVER_ERROR, "RequestTimeoutError", "the job's timeout is over"),
    ErrorStatus(Cancelled, "CANCELLED", 400, SERVER_ERROR, "CancelledError", "the job was cancelled"),
    ErrorStatus(Exception, "INTERNAL", 500, SERVER_ERROR, "ServerError", "any other error is the server's fault"),
)  # fmt: skip


def status_of(error: Exception) -> ErrorStatus:
    """Return the row of the table for an error."""
    return next(row for row in STATUSES if isinstance(error, row.kind))

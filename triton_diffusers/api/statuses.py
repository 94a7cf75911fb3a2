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
    ErrorStatus(InvalidImage, "INVALID_ARGUMENT", 400, 462, "InvalidRequestError", "an image is invalid, too large or cannot be fetched"),
    ErrorStatus(InvalidRequest, "INVALID_ARGUMENT", 400, 460, "InvalidRequestError", "a field's value is invalid"),
    ErrorStatus(NotFound, "NOT_FOUND", 404, 460, "NotFoundError", "a file of the model directory, a preprocessor's weights or, of `jobs`, the task does not exist"),
    ErrorStatus(Busy, "UNAVAILABLE", 503, 469, "BusyError", "the queue is full, the server is stopping, or the engine loop has failed and the model is being restarted: try again in some seconds"),
    ErrorStatus(TimedOut, "CANCELLED", 400, 469, "RequestTimeoutError", "the job's timeout is over"),
    ErrorStatus(Cancelled, "CANCELLED", 400, 469, "CancelledError", "the job was cancelled"),
    ErrorStatus(Exception, "INTERNAL", 500, 469, "ServerError", "any other error is the server's fault"),
)  # fmt: skip


def status_of(error: Exception) -> ErrorStatus:
    """Return the row of the table for an error."""
    return next(row for row in STATUSES if isinstance(error, row.kind))

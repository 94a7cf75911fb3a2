"""Triton's statuses and messages (of a real server) mapped to the client's exceptions."""

from __future__ import annotations

import pytest
from tritonclient.utils import InferenceServerException

from triton_diffusers_client import (
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
from triton_diffusers_client.triton.statuses import from_grpc, from_http

# What either transport says of the same thing: HTTP status, gRPC status, message.
BOTH = [
    (400, "INVALID_ARGUMENT", "steps: 0 is invalid: must be between 1 and 150", InvalidRequestError),
    (400, "INVALID_ARGUMENT", "func_name: 'cancelled' is invalid: must be one of: t2i", InvalidRequestError),
    (501, "UNIMPLEMENTED", "doesn't support models with decoupled transaction policy", NotSupportedError),
    (404, "NOT_FOUND", "task_id: no job of 'x' is known", NotFoundError),
    (404, "NOT_FOUND", "Request for unknown model: 'nope' is not found", NotFoundError),
    (503, "UNAVAILABLE", "the queue is full", BusyError),
    (401, "UNAUTHENTICATED", "no key", NotAuthorizedError),
    (403, "PERMISSION_DENIED", "another key", NotAuthorizedError),
    (400, "CANCELLED", "the job was cancelled", CancelledError),
    (400, "CANCELLED", "in ensemble 'ensemble', the job was cancelled", CancelledError),
    (
        400,
        "CANCELLED",
        "in ensemble 'ensemble', the job was cancelled: its timeout of 0.5 s is over (timeout_seconds)",
        RequestTimeoutError,
    ),
    (400, "CANCELLED", "the server is stopping; send the request again", ServerRestartingError),
    (500, "INTERNAL", "Stub process 'sd_base_0_0' is not healthy.", ServerRestartingError),
    (404, "NOT_FOUND", "Request for unknown model: 'sd_base' has no available versions", ServerRestartingError),
    (400, "UNAVAILABLE", "Request for unknown model: 'sd_base' version 1 is not at ready state", ServerRestartingError),
    (
        503,
        "UNAVAILABLE",
        "Server is stopping, scheduler for model has stopped accepting new inference requests",
        ServerRestartingError,
    ),
    (500, "INTERNAL", "ValueError: no", ServerError),
    (418, "DATA_LOSS", "never heard of", ServerError),
]


@pytest.mark.parametrize(("status", "_grpc", "message", "expected"), BOTH)
def test_http(status: int, _grpc: str, message: str, expected: type[ClientError]) -> None:
    error = from_http(status, message)
    assert type(error) is expected
    assert str(error) == message.removeprefix("in ensemble 'ensemble', ")


@pytest.mark.parametrize(("_http", "status", "message", "expected"), BOTH)
def test_grpc(_http: int, status: str, message: str, expected: type[ClientError]) -> None:
    error = from_grpc(InferenceServerException(message, status=f"StatusCode.{status}"))
    assert type(error) is expected
    assert str(error) == message.removeprefix("in ensemble 'ensemble', ")


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
            UnreachableError,
        ),
        ("UNAVAILABLE", "errors resolving nowhere.invalid:1: [field:hostname lookup error]", UnreachableError),
        ("UNAVAILABLE", "Stream removed (Socket closed)", ConnectionFailedError),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", ConnectionFailedError),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", RequestTimeoutError),
        ("RESOURCE_EXHAUSTED", "too much", BusyError),
    ],
)
def test_grpc_statuses_map_to_errors(status: str, message: str, expected: type[ClientError]) -> None:
    assert type(from_grpc(InferenceServerException(message, status=f"StatusCode.{status}"))) is expected


def test_only_passing_errors_are_retried() -> None:
    retried = {error for error in every_error(ClientError) if error.retryable}
    assert retried == {BusyError, ServerRestartingError, ConnectionFailedError, UnreachableError}


def test_errors_fit_pythons_own() -> None:
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert issubclass(ConnectionFailedError, ConnectionError)


def every_error(root: type[ClientError]) -> set[type[ClientError]]:
    return {root}.union(*(every_error(error) for error in root.__subclasses__()))

"""The table of errors: every error has one row, and the codes are the API's."""

from __future__ import annotations

import pytest

from triton_diffusers import errors
from triton_diffusers.api.statuses import STATUSES, status_of
from triton_diffusers.errors import InvalidImage, InvalidRequest, NotTranslated, TimedOut


@pytest.mark.parametrize(
    ("error", "grpc", "http", "code"),
    [
        (InvalidRequest("steps", 0, "must be between 1 and 150"), "INVALID_ARGUMENT", 400, 460),
        (InvalidImage("image", b"", "must be an image"), "INVALID_ARGUMENT", 400, 462),
        (errors.NotFound("no such file"), "NOT_FOUND", 404, 460),
        (errors.Busy("the queue is full"), "UNAVAILABLE", 503, 469),
        (errors.Cancelled("the job was cancelled"), "CANCELLED", 400, 469),
        (TimedOut(1.0), "CANCELLED", 400, 469),
        (errors.EngineFailure("no memory"), "INTERNAL", 500, 469),
        (NotTranslated("prompt"), "INTERNAL", 500, 469),
        (ValueError("a bug"), "INTERNAL", 500, 469),
    ],
)
def test_status_of_an_error(error: Exception, grpc: str, http: int, code: int) -> None:
    row = status_of(error)
    assert (row.grpc, row.http, row.code) == (grpc, http, code)


def test_no_row_is_hidden_by_one_before_it() -> None:
    for position, row in enumerate(STATUSES):
        assert not any(issubclass(row.kind, earlier.kind) for earlier in STATUSES[:position])

"""Statuses and messages of error responses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from unittest.mock import MagicMock

import pytest

from triton_diffusers.errors import InvalidRequest


def test_an_error_that_nobody_foresaw_is_told_to_the_log_alone(
    backend: MagicMock, adapter: Callable[[str], ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    adapter("statuses").error_response(ValueError("/srv/models/secret"))
    backend.TritonError.assert_called_once_with(
        "the request failed; the server's log says why", backend.TritonError.INTERNAL
    )
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "/srv/models/secret" in caplog.text


def test_a_callers_mistake_is_told_to_the_caller_alone(
    backend: MagicMock, adapter: Callable[[str], ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    error = InvalidRequest("steps", 0, "must be between 1 and 150")
    adapter("statuses").error_response(error)
    backend.TritonError.assert_called_once_with(str(error), backend.TritonError.INVALID_ARG)
    assert not caplog.records

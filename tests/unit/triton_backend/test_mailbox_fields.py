"""Fields of a request in the mailbox: read once, checked, and warned of."""

from __future__ import annotations

from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.conftest import result_with
from tests.unit.triton_backend.played import Client, asked, error, outputs


def test_a_request_is_read_once(opened: Any, mailbox: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images may have many megabytes of text."""
    read = MagicMock(wraps=mailbox.read_values)
    monkeypatch.setattr("triton_diffusers.api.decode.read_values", read, raising=False)
    monkeypatch.setattr(mailbox, "read_values", read)
    opened.execute([asked(steps=7)])
    read.assert_called_once()


def test_unknown_fields_are_warned_of(opened: Any, client: Client, backend: MagicMock) -> None:
    opened.execute([asked(parameters={"stesp": 20})])
    client.end(result_with(warnings=("prompt: cut",)))
    assert outputs(backend)["warnings"] == [
        b"'stesp' is not a field of this model and was ignored; did you mean steps?",
        b"prompt: cut",
    ]


def test_fields_of_controlnets_are_refused_by_a_model_without_them(opened: Any, backend: MagicMock) -> None:
    """Plain JSON hands them over as parameters, which would be ignored."""
    opened.execute([asked(parameters={"process_func": "canny"})])
    message, status = error(backend)
    assert message == "process_func: 'canny' is invalid: this model has no ControlNets; sd_controlnet has"
    assert status is backend.TritonError.INVALID_ARG


@pytest.mark.parametrize(
    ("store", "fields", "warned"),
    [
        ("", {}, True),
        ("", {"use_base64": True}, False),
        ("", {"return_images": True}, False),
        ("results", {}, False),
        ("results", {"store_images": False}, True),
    ],
)
def test_images_that_go_nowhere_are_told_in_the_warnings(
    opened: Any, client: Client, backend: MagicMock, store: str, fields: dict[str, bool], warned: bool
) -> None:
    opened._settings = opened._settings.model_copy(update={"store": store})
    opened.execute([asked(**fields)])
    client.end(result_with())
    assert [b"no image is stored" in text for text in outputs(backend)["warnings"]] == [True] * warned


@pytest.mark.parametrize(
    ("field", "microseconds", "seconds"),
    [(0.0, 0, 0.0), (5.0, 0, 5.0), (0.0, 2_500_000, 2.5), (5.0, 2_500_000, 2.5), (1.5, 2_500_000, 1.5)],
)
def test_timeout_is_the_shorter_one_of_the_field_and_tritons_own(
    opened: Any, client: Client, field: float, microseconds: int, seconds: float
) -> None:
    opened.execute([asked(timeout_seconds=field, timeout_microseconds=microseconds)])
    assert client.pending[0].request.timeout_seconds == seconds

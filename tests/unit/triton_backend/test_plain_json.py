"""Requests and errors in Triton's plain JSON, which carries neither bytes nor statuses."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.conftest import result_with
from tests.unit.triton_backend.played import Client, asked, error, outputs
from triton_diffusers.errors import Busy, InvalidRequest


@pytest.fixture
def told_of_headers(opened: Any) -> Any:
    """Return a mailbox on a Triton that passes headers on."""
    opened._settings = opened._settings.model_copy(update={"headers_forwarded": True})
    return opened


def test_bytes_are_refused_in_plain_json(told_of_headers: Any, client: Client, backend: MagicMock) -> None:
    told_of_headers.execute([asked(return_images=True)])
    message, status = error(backend)
    assert message.startswith("return_images: True ")
    assert message.endswith("use_base64 instead")
    assert status is backend.TritonError.INVALID_ARG
    assert client.pending == []


@pytest.mark.parametrize("header", ["Host", "host", "user-agent"])
def test_bytes_are_returned_to_callers_whose_headers_are_known(
    told_of_headers: Any, client: Client, backend: MagicMock, header: str
) -> None:
    told_of_headers.execute([asked(return_images=True, parameters={header: "a"})])
    client.end(result_with(images=(b"image",)))
    replied = outputs(backend)
    assert replied["images"] == [b"image"]
    assert replied["warnings"] == [], "a header is not a misspelt field"


def test_bytes_are_returned_where_triton_does_not_pass_headers_on(
    opened: Any, client: Client, backend: MagicMock
) -> None:
    opened.execute([asked(return_images=True)])
    client.end(result_with(images=(b"image",)))
    assert outputs(backend)["images"] == [b"image"]


@pytest.mark.parametrize(("parameters", "mark"), [({}, " [UNAVAILABLE]"), ({"Host": "a"}, "")])
def test_an_error_names_its_status_in_plain_json_alone(
    told_of_headers: Any, client: Client, backend: MagicMock, parameters: dict[str, str], mark: str
) -> None:
    told_of_headers.execute([asked(parameters=parameters)])
    client.end(Busy("the queue is full"))
    backend.TritonError.assert_called_once_with(f"the queue is full{mark}", backend.TritonError.UNAVAILABLE)


def test_invalid_arguments_need_no_mark(told_of_headers: Any, client: Client, backend: MagicMock) -> None:
    told_of_headers.execute([asked()])
    client.end(InvalidRequest("image", b"x", "not an image"))
    message, status = error(backend)
    assert (message, status) == ("image: b'x' is invalid: not an image", backend.TritonError.INVALID_ARG)

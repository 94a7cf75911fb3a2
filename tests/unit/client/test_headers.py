"""Headers of the caller's: what is taken, and that no secret is told."""

from __future__ import annotations

from typing import Any

import pytest

from triton_diffusers_client.headers import make_headers


def test_headers_and_key() -> None:
    assert make_headers(None, None) == make_headers({}, "") == {}
    assert make_headers({"X-Team": " art "}, "secret") == {"x-team": "art", "authorization": "Bearer secret"}


@pytest.mark.parametrize(
    "headers",
    [
        {"": "a"},
        {"a b": "c"},
        {"a:": "b"},
        {"a\nb": "c"},
        {"Content-Length": "3"},
        {"transfer-encoding": "chunked"},
        {"Inference-Header-Content-Length": "3"},
        {"grpc-trace-bin": "a"},
        {1: "a"},
    ],
)
def test_a_name_that_is_invalid(headers: Any) -> None:
    with pytest.raises(ValueError, match=r"^headers: .* is invalid"):
        make_headers(headers, None)


@pytest.mark.parametrize("value", ["secret\nHost: x", "secret\r", "secret\0", "secret-é", 5])
def test_an_invalid_value_is_not_told(value: Any) -> None:
    if isinstance(value, str):
        value = f"more{value}more"
    for arguments in ({"a": value}, None), ({}, value):
        with pytest.raises(ValueError, match="is invalid: it must be printable ASCII") as caught:
            make_headers(*arguments)  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)


def test_two_authorizations_are_refused() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        make_headers({"Authorization": "a"}, "b")

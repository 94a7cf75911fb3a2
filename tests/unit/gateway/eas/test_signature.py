"""Signatures of the SDK, tokens, digests of bodies."""

from __future__ import annotations

import hashlib

import pytest

from triton_diffusers.gateway.dialects.eas.signature import is_authorized, is_digest_of, verify_eas_signature

BODY = '{"a":"中"}'.encode()
SIGNATURE = "V91UgU/ikxWyUjaA7QY1N37JLY0="
HEADERS = {
    "content-md5": "e0fa74430936a8e2dd3736daacbda15d",
    "content-type": "application/octet-stream",
    "date": "Sun, 29 Nov 2026 07:20:37 GMT",
    "authorization": f"EAS {SIGNATURE}",
}
PATH = "/api/predict/svc"


def test_a_signature_of_the_sdk_is_valid() -> None:
    assert hashlib.md5(BODY, usedforsecurity=False).hexdigest() == HEADERS["content-md5"]
    assert verify_eas_signature("NDJk", SIGNATURE, method="POST", path=PATH, headers=HEADERS)
    assert is_authorized("NDJk", method="POST", path=PATH, headers=HEADERS)


@pytest.mark.parametrize(
    ("token", "method", "path", "changes"),
    [
        ("NDJl", "POST", PATH, {}),
        ("NDJk", "PUT", PATH, {}),
        ("NDJk", "POST", "/api/predict/other", {}),
        ("NDJk", "POST", PATH, {"content-md5": "e0fa74430936a8e2dd3736daacbda15e"}),
        ("NDJk", "POST", PATH, {"content-type": "text/plain"}),
        ("NDJk", "POST", PATH, {"date": ""}),
        ("NDJk", "POST", PATH, {"authorization": "EAS "}),
        ("NDJk", "POST", PATH, {"authorization": "EAS ä"}),
    ],
)
def test_a_signature_of_anything_else_is_not(token: str, method: str, path: str, changes: dict[str, str]) -> None:
    assert not is_authorized(token, method=method, path=path, headers={**HEADERS, **changes})


@pytest.mark.parametrize(
    ("authorization", "valid"),
    [
        ("NDJk", True),
        (" NDJk ", True),
        ("Bearer NDJk", True),
        ("bearer  NDJk", True),
        ("Basic NDJk", False),
        ("", False),
    ],
)
def test_a_token_may_be_shown_as_it_is(authorization: str, valid: bool) -> None:
    assert is_authorized("NDJk", method="GET", path=PATH, headers={"authorization": authorization}) is valid


@pytest.mark.parametrize(
    ("content_md5", "valid"),
    [("900150983cd24fb0d6963f7d28e17f72", True), ("kAFQmDzST7DWlj99KOF/cg==", True), ("900150", False), ("", False)],
)
def test_a_digest_is_hexadecimal_or_base64(content_md5: str, valid: bool) -> None:
    assert is_digest_of(content_md5, b"abc") is valid

"""Signed URLs are valid for one path and for their time."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from triton_diffusers.gateway.signing import UrlSigner, signing_key

PATH = "/api/jobs/1/images/0.png"


def signed(signer: UrlSigner, path: str = PATH) -> tuple[str, str]:
    query = parse_qs(signer.query(path))
    return query["expires"][0], query["signature"][0]


def test_a_signed_path_is_allowed_until_it_expires() -> None:
    now = [1000.0]
    signer = UrlSigner(b"key", 60, lambda: now[0])
    expires, signature = signed(signer)
    assert signer.allows(PATH, expires, signature)
    now[0] += 59.9
    assert signer.allows(PATH, expires, signature)
    now[0] += 0.2
    assert not signer.allows(PATH, expires, signature)


@pytest.mark.parametrize("change", ["path", "expires", "signature", "empty", "text", "huge", "unicode", "key"])
def test_anything_changed_is_refused(change: str) -> None:
    signer = UrlSigner(b"key", 60)
    expires, signature = signed(signer)
    arguments = {
        "path": ("/api/jobs/2/images/0.png", expires, signature),
        "expires": (PATH, str(int(expires) + 1), signature),
        "signature": (PATH, expires, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        "empty": (PATH, "", ""),
        "text": (PATH, "soon", signature),
        "huge": (PATH, "9" * 5000, signature),
        "unicode": (PATH, expires, "é"),
        "key": (PATH, *signed(UrlSigner(b"other", 60))),
    }
    assert not signer.allows(*arguments[change])


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: signing_key("", folder), range(32)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_given_secret_is_the_same_everywhere(tmp_path: Path) -> None:
    assert signing_key("a", tmp_path / "one") == signing_key("a", tmp_path / "two") != signing_key("b", tmp_path)
    assert not list(tmp_path.iterdir())

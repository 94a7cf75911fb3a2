"""The tests' own object store: what other tests trust it to do, it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import oss2
import pytest

from tests.oss_server import OssServer, crc64_of

CONTENT = bytes(range(256)) * 4


@pytest.fixture
def server() -> Iterator[OssServer]:
    with OssServer() as server:
        server.put("a-bucket", "folder/图 1+.bin", CONTENT)
        server.put("a-bucket", "folder/deep/2", b"2")
        server.put("a-bucket", "other", b"3")
        yield server


def bucket(server: OssServer, auth: Any = oss2.AuthV4, secret: str | None = None) -> oss2.Bucket:
    return oss2.Bucket(
        auth(server.key_id, secret or server.key_secret),
        server.endpoint,
        "a-bucket",
        region=server.region,
        connect_timeout=5,
    )


def test_crc64_has_its_check_value() -> None:
    assert crc64_of(b"123456789") == 0x995DC9BBDF1939FA


@pytest.mark.parametrize("auth", [oss2.Auth, oss2.AuthV4])
def test_signatures_of_both_kinds_are_verified(server: OssServer, auth: Any) -> None:
    assert bucket(server, auth).get_object("folder/图 1+.bin").read() == CONTENT
    assert bucket(server, auth).put_object("a/b", b"x", headers={"Content-Type": "image/png"}).crc == crc64_of(b"x")
    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch):
        bucket(server, auth, "wrong").get_object("other")
    with pytest.raises(oss2.exceptions.SignatureDoesNotMatch):
        bucket(server, auth, "wrong").put_object("other", b"x")
    assert server.data("a-bucket", "other") == b"3"


def test_a_request_without_a_signature_is_refused(server: OssServer) -> None:
    with pytest.raises(oss2.exceptions.AccessDenied):
        oss2.Bucket(oss2.AnonymousAuth(), server.endpoint, "a-bucket").get_object("other")


@pytest.mark.parametrize(
    ("asked", "given"),
    [((0, 9), CONTENT[:10]), ((1000, None), CONTENT[1000:]), ((None, 7), CONTENT[-7:]), ((9, 9999), CONTENT[9:])],
)
def test_ranges(server: OssServer, asked: tuple[int | None, int | None], given: bytes) -> None:
    answer = bucket(server).get_object("folder/图 1+.bin", byte_range=asked)
    assert (answer.status, answer.read(), answer.content_length) == (206, given, len(given))


@pytest.mark.parametrize("auth", [oss2.Auth, oss2.AuthV4])
@pytest.mark.parametrize("page", [1, 2, 100])
def test_listing_in_pages(server: OssServer, auth: Any, page: int) -> None:
    everything = list(oss2.ObjectIteratorV2(bucket(server, auth), max_keys=page))
    assert [found.key for found in everything] == ["folder/deep/2", "folder/图 1+.bin", "other"]
    assert [found.size for found in everything] == [1, 1024, 1]
    level = oss2.ObjectIteratorV2(bucket(server, auth), prefix="folder/", delimiter="/", max_keys=page)
    assert [(found.key, found.is_prefix()) for found in level] == [("folder/deep/", True), ("folder/图 1+.bin", False)]


def test_missing_objects_are_not_found(server: OssServer) -> None:
    with pytest.raises(oss2.exceptions.NoSuchKey):
        bucket(server).get_object("nothing")
    assert not bucket(server).object_exists("nothing")
    bucket(server).delete_object("nothing")
    del server.buckets["a-bucket"]
    with pytest.raises(oss2.exceptions.NoSuchBucket):
        bucket(server).get_object("other")


def test_a_download_can_be_cut(server: OssServer) -> None:
    server.hang_up(after_bytes=100, method="GET")
    answer = bucket(server).get_object("folder/图 1+.bin")
    with pytest.raises(OSError, match="100 bytes read"):
        answer.read()


def test_a_digest_that_does_not_fit_is_refused(server: OssServer) -> None:
    with pytest.raises(oss2.exceptions.ServerError, match="InvalidDigest"):
        bucket(server).put_object("new", b"x", headers={"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert "new" not in server.keys("a-bucket")

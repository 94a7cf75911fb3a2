"""The sizes and contents of answers: endless, broken, compressed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from tests.unit.links.links import FAILED, Serve, fetched, refused
from tests.unit.links.local_server import Answer, ok


def endless(headers: bytes, piece: bytes) -> Answer:
    def answer(_: bytes) -> Iterator[bytes]:
        yield headers
        while True:
            yield piece

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(10_000)),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", bytes(10_000)),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2710\r\n" + bytes(10_000) + b"\r\n"),
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1000),
    ],
)
def test_an_endless_body_ends_at_the_limit(serve: Serve, answer: Answer) -> None:
    server = serve(answer)
    assert refused(server, max_image_megabytes=0.02) == "at most 0.02 MB"
    server.stop()
    assert server.sent < 30_000_000  # the rest is in the buffers of the connection


def test_the_limit_itself_is_allowed(serve: Serve) -> None:
    assert len(fetched(serve(ok(bytes(20_000))), max_image_megabytes=0.02)) == 20_000
    assert refused(serve(ok(bytes(20_001))), max_image_megabytes=0.02) == "at most 0.02 MB"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_a_compressed_answer_is_refused(serve: Serve, encoding: str) -> None:
    bomb = gzip.compress(bytes(1_000_000))
    server = serve(ok(bomb, f"content-encoding: {encoding}"))
    assert refused(server) == "its host must not compress the answer (Content-Encoding)"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na pic",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nan image",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"an image",
        b"\x00" * 200_000,
    ],
)
def test_a_broken_answer_is_refused(serve: Serve, answer: bytes) -> None:
    assert refused(serve(answer)) == FAILED


def test_bytes_after_the_content_length_are_ignored(serve: Serve) -> None:
    assert fetched(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nan image and more")) == b"an image"


@pytest.mark.parametrize("status", [201, 204, 206, 300, 301, 304, 401, 403, 404, 407, 500, 503])
def test_only_status_200_has_the_image(serve: Serve, status: int) -> None:
    server = serve(f"HTTP/1.1 {status} Status\r\nConnection: close\r\n\r\n".encode())
    assert refused(server) == f"its host must answer with status 200, not {status}"

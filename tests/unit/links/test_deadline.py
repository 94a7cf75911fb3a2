"""Whatever is slow ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from tests.unit.links.links import HOST, TRUSTS_NOBODY, Serve, refusal, refused
from tests.unit.links.local_server import Answer, drip, redirect
from tests.waiting import WITHIN
from triton_diffusers.errors import InvalidImage
from triton_diffusers.links.fetcher import LinkFetcher
from triton_diffusers.links.url import IPAddress
from triton_diffusers.settings import Settings


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"", b""),
        drip(b"", b"H"),
        drip(b"HTTP/1.1 200 OK\r\n", b"a"),
        drip(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        drip(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n", b"a"),
    ],
)
def test_every_slow_server_times_out(serve: Serve, answer: Answer) -> None:
    assert refused(serve(answer), link_seconds=0.4) == "must be fetched within 0.4 seconds"


def test_slow_redirects_have_one_time_together(serve: Serve) -> None:
    def answer(_: bytes) -> Iterator[bytes]:
        time.sleep(0.15)
        yield redirect("/")

    assert refused(serve(answer), link_seconds=0.4, link_redirects=20) == "must be fetched within 0.4 seconds"


def test_a_slow_name_server_is_not_waited_for() -> None:
    given_up, answered = threading.Event(), []

    def resolver(host: str) -> Sequence[IPAddress]:
        answered.append(given_up.wait(WITHIN))
        return [ip_address("127.0.0.1")]

    fetcher = LinkFetcher(Settings(link_seconds=0.2), resolver=resolver, ssl_context=TRUSTS_NOBODY)
    with pytest.raises(InvalidImage, match=r"must be fetched within 0\.2 seconds"):
        fetcher.fetch("image_link", f"http://{HOST}/")
    assert answered == []
    given_up.set()


@pytest.mark.parametrize("pieces", [[b""], [b"\x16\x03\x03\x40\x00"]])
def test_a_slow_handshake_ends(pieces: list[bytes]) -> None:
    """The server begins a long record of TLS, and sends it byte by byte, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def handshake() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(pieces[0])
                    for _ in range(100):
                        time.sleep(0.05)
                        connection.sendall(b"\x02" if pieces[0] else b"")
                        if connection.recv(65536) == b"":
                            return
                except OSError:
                    return

        pool.submit(handshake)
        link = f"https://{HOST}:{listener.getsockname()[1]}/"
        assert refusal(link, link_seconds=0.4) == "must be fetched within 0.4 seconds"

"""A port that speaks another protocol than the URL says is told from a server that is away."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.waiting import WITHIN
from triton_diffusers_client import Client, ConnectionFailedError, UnreachableError, WrongProtocolError
from triton_diffusers_client.address import Address
from triton_diffusers_client.protocols import wrong_protocol

SETTINGS = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x10\0\0"
HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
ALERT = b"\x15\x03\x03\0\x02\x02\x46"


@contextmanager
def speaking(words: bytes) -> Iterator[int]:
    """Return a port whose server says the same to everybody, once it has heard something."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(1)
                self.request.sendall(words)
                self.request.shutdown(socket.SHUT_WR)
                while self.request.recv(4096):
                    pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("words", "scheme", "advice"),
    [
        (SETTINGS, "http", "speaks gRPC, not HTTP: use grpc://"),
        (SETTINGS, "https", "speaks gRPC, not HTTPS: use grpc://"),
        (HTTP, "grpc", "speaks HTTP, not gRPC: use http://"),
        (HTTP, "https", "speaks HTTP, not HTTPS: use http://"),
        (ALERT, "http", "speaks TLS: use https://"),
        (ALERT, "grpc", "speaks TLS: use grpcs://"),
        (HTTP, "http", ""),
        (SETTINGS, "grpc", ""),
        (ALERT, "https", ""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "http", ""),
        (b"", "http", ""),
    ],
)
def test_advice(words: bytes, scheme: str, advice: str) -> None:
    with speaking(words) as port:
        error = wrong_protocol(Address(scheme, "127.0.0.1", port))
        assert (str(error) if error else "") == (f"127.0.0.1:{port} {advice}127.0.0.1:{port}" if advice else "")


def test_an_unused_port_is_unreachable(unused_port: int) -> None:
    assert wrong_protocol(Address("grpc", "127.0.0.1", unused_port)) is None
    with Client(f"grpc://127.0.0.1:{unused_port}") as client, pytest.raises(UnreachableError):
        client.jobs()


@pytest.mark.parametrize(("words", "scheme"), [(SETTINGS, "http"), (HTTP, "grpc"), (HTTP, "https")])
def test_the_client_raises_it_and_does_not_try_again(words: bytes, scheme: str) -> None:
    with (
        speaking(words) as port,
        Client(f"{scheme}://127.0.0.1:{port}", timeout=WITHIN) as client,
        pytest.raises(WrongProtocolError, match="speaks"),
    ):
        client.generate("x")


def test_an_answer_that_is_not_http_has_no_control_characters() -> None:
    with (
        speaking(b"\x00\x1b[31m\r\n") as port,
        Client(f"127.0.0.1:{port}", retries=0) as client,
        pytest.raises(ConnectionFailedError, match=f"^127.0.0.1:{port}: the answer is not HTTP$"),
    ):
        client.jobs()

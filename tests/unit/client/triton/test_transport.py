"""The HTTP transport against a real, small HTTP server that does what Triton's neighbours do."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.waiting import WITHIN
from triton_diffusers_client import (
    CancelledError,
    Client,
    ClientError,
    ConnectionFailedError,
    InvalidRequestError,
    NotAuthorizedError,
    RequestTimeoutError,
    ServerError,
    UnreachableError,
)
from triton_diffusers_client.address import Address, Interface
from triton_diffusers_client.fields import JOBS_INPUTS
from triton_diffusers_client.triton.http_transport import HttpTransport
from triton_diffusers_client.triton.tensors import encode

NO_JOBS = encode({}, JOBS_INPUTS, batched=False)
ANSWER = json.dumps(
    {"outputs": [{"name": "step", "datatype": "INT64", "shape": [2], "data": [3, 4]}]}
).encode()  # fmt: skip

Behaviour = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        server.peers.append(self.client_address[1])
        server.behaviour(self)

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """``peers`` are the client's ports: one for each connection."""

    behaviour: Behaviour

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.peers: list[int] = []
        self.bodies: list[bytes] = []
        self.over = threading.Event()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        server.behaviour = lambda handler: handler.answer(ANSWER)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def transport(server: Server) -> Iterator[HttpTransport]:
    transport = HttpTransport(Address("http", "127.0.0.1", server.server_port))
    yield transport
    transport.close()


def ask(transport: HttpTransport, timeout: float | None = WITHIN) -> list[int]:
    result: list[int] = transport.call("jobs", NO_JOBS, timeout).result()["step"].tolist()
    return result


def test_headers_and_the_time_that_is_left_go_with_every_call(server: Server) -> None:
    seen: list[tuple[str | None, str | None]] = []

    def note(handler: Handler) -> None:
        seen.append((handler.headers["Authorization"], handler.headers["X-Team"]))
        handler.answer(b'{"error": "another key"}', 403)

    server.behaviour = note
    url = f"triton+http://127.0.0.1:{server.server_port}"
    with Client(url, api_key="secret", headers={"X-Team": "art"}, retries=0) as client:
        for call in (client.jobs, lambda: client.generate("x", timeout=2.5)):
            with pytest.raises(NotAuthorizedError, match=r"^another key$"):
                call()
    assert seen == [("Bearer secret", "art")] * 2
    (microseconds,) = re.findall(rb'"timeout":(\d+)', server.bodies[-1])
    assert 2_000_000 < int(microseconds) <= 2_500_000


def test_a_connection_is_used_again(server: Server, transport: HttpTransport) -> None:
    assert [ask(transport) for _ in range(3)] == [[3, 4]] * 3
    assert len(set(server.peers)) == 1


def test_threads_share_a_transport(server: Server, transport: HttpTransport) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.05)
        handler.answer(ANSWER)

    server.behaviour = slow
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: ask(transport), range(32))) == [[3, 4]] * 32
    assert len(set(server.peers)) <= 8


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(server: Server, transport: HttpTransport) -> None:
    def close_soon(handler: Handler) -> None:
        handler.answer(ANSWER)
        handler.close_connection = True

    server.behaviour = close_soon
    ask(transport)
    time.sleep(0.1)
    assert ask(transport) == [3, 4]
    assert len(set(server.peers)) == 2


def test_a_connection_that_breaks(server: Server, transport: HttpTransport) -> None:
    def hang_up(handler: Handler) -> None:
        handler.close_connection = True

    server.behaviour = hang_up
    with pytest.raises(ConnectionFailedError, match=f"127.0.0.1:{server.server_port}: "):
        ask(transport)


def test_time_is_over(server: Server, transport: HttpTransport) -> None:
    server.behaviour = lambda handler: server.over.wait(WITHIN) and None
    with pytest.raises(RequestTimeoutError):
        ask(transport, timeout=0.2)


def test_cancelling_ends_the_waiting(server: Server, transport: HttpTransport) -> None:
    server.behaviour = lambda handler: server.over.wait(WITHIN) and None
    call = transport.call("jobs", NO_JOBS, None)
    threading.Timer(0.2, call.cancel).start()
    with pytest.raises(CancelledError):
        call.result()


def test_cancelled_before_it_is_sent(server: Server, transport: HttpTransport) -> None:
    call = transport.call("jobs", NO_JOBS, None)
    call.cancel()
    with pytest.raises(CancelledError):
        call.result()
    assert server.peers == []


@pytest.mark.parametrize(
    ("body", "status", "error", "message"),
    [
        (b'{"error": "steps: no"}', 400, InvalidRequestError, "^steps: no$"),
        (b"<h1>Bad\n Gateway</h1>", 502, ConnectionFailedError, "^<h1>Bad Gateway</h1>$"),
        (b"", 500, ServerError, "^an empty answer$"),
        (b"[]", 500, ServerError, r"^\[\]$"),
        (b"hello", 200, ServerError, "none of Triton's: hello"),
        (b"{}", 200, ServerError, "none of Triton's"),
    ],
)
def test_answers_without_tensors_are_errors(
    server: Server, transport: HttpTransport, body: bytes, status: int, error: type[ClientError], message: str
) -> None:
    server.behaviour = lambda handler: handler.answer(body, status)
    with pytest.raises(error, match=message):
        ask(transport)


def test_binary_tensors(server: Server, transport: HttpTransport) -> None:
    values = np.array([5, 6], np.int64).tobytes()
    output = {"name": "step", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": len(values)}}
    header = json.dumps({"outputs": [output]}).encode()

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Inference-Header-Content-Length", str(len(header)))
        handler.send_header("Content-Length", str(len(header + values)))
        handler.end_headers()
        handler.wfile.write(header + values)

    server.behaviour = behave
    assert ask(transport) == [5, 6]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_never_answered_is_not_waited_for(
    scheme: str, unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(f"{scheme}://127.0.0.1:{unused_port}") as client, pytest.raises(UnreachableError):
        client.jobs()
    assert "trying again" not in caplog.text


def test_a_server_that_was_there_is_waited_for(server: Server) -> None:
    answers = iter([(b'{"error": "the queue is full"}', 503), (b'{"error": "action: no"}', 400)])
    server.behaviour = lambda handler: handler.answer(*next(answers))
    with (
        Client(f"triton+http://127.0.0.1:{server.server_port}") as client,
        pytest.raises(InvalidRequestError, match=r"^action: no$"),
    ):
        client.jobs()
    assert len(server.peers) == 2


def test_a_closed_client(server: Server) -> None:
    with Client(f"triton+http://127.0.0.1:{server.server_port}") as client:
        pass
    with pytest.raises(ClientError, match="closed"):
        client.jobs()


@pytest.mark.parametrize(
    ("url", "address", "netloc"),
    [
        ("127.0.0.1:9", Address("http", "127.0.0.1", 9), "127.0.0.1:9"),
        ("server", Address("http", "server", 8080), "server:8080"),
        ("triton+http://server", Address("http", "server", 8000, "", Interface.TRITON), "server:8000"),
        ("gateway+https://server", Address("https", "server", 443, "", Interface.GATEWAY), "server:443"),
        ("https://server/triton/", Address("https", "server", 443, "/triton"), "server:443"),
        ("grpc://server", Address("grpc", "server", 8001, "", Interface.TRITON), "server:8001"),
        ("grpcs://[::1]:9", Address("grpcs", "::1", 9, "", Interface.TRITON), "[::1]:9"),
    ],
)
def test_urls(url: str, address: Address, netloc: str) -> None:
    assert Address.parse(url) == address
    assert address.netloc == netloc
    assert address.secure == (url.split("://")[0] in ("https", "grpcs", "gateway+https"))


@pytest.mark.parametrize("url", ["", "ftp://server", "http://", "grpc://server/path", "http://u:p@server", "x:port"])
def test_invalid_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"url|[Pp]ort"):
        Address.parse(url)

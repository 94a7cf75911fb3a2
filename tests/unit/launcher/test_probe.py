"""Meanings of the answers to a probe. The messages are Triton 2.51's own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.waiting import WITHIN
from triton_diffusers.launcher.endpoint import TritonEndpoint, error_text
from triton_diffusers.launcher.probe import Answer, Health, Probe


@pytest.mark.parametrize(
    ("status", "text", "health"),
    [
        (200, "", Health.WELL),
        (400, "Stub process 'sd_base_0_0' is not healthy.", Health.DEAD),
        (500, "in ensemble 'ensemble', Stub process 'sd_base_0_0' is not healthy.", Health.DEAD),
        (404, "Request for unknown model: 'sd_base' has no available versions", Health.UNLOADED),
        (400, "Request for unknown model: 'sd_base' is not found", Health.UNLOADED),
        (400, "[request id: <id_unknown>] expected 3 inputs but got 1 inputs for model 'sd_base'", Health.REFUSED),
        (500, "prompt: too long", Health.REFUSED),
    ],
)
def test_health(status: int, text: str, health: Health) -> None:
    assert Answer(status, text).health is health


@pytest.mark.parametrize(
    ("body", "message"),
    [('{"error":"Stub\\nis gone"}', "Stub is gone"), ("<html>\nno", "<html> no"), ("[]", "[]"), ("", "")],
)
def test_error_text_is_one_line(body: str, message: str) -> None:
    assert error_text(body) == message


@pytest.fixture
def serving() -> Iterator[Callable[[int, bytes, threading.Event], TritonEndpoint]]:
    """Start a server that answers every POST alike, once an event is set."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, body: bytes, go: threading.Event) -> TritonEndpoint:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                go.wait(WITHIN)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return TritonEndpoint("127.0.0.1", server.server_port, 1, "key")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_one_probe_is_waited_for_again_and_again(
    serving: Callable[[int, bytes, threading.Event], TritonEndpoint],
) -> None:
    go = threading.Event()
    begun = time.monotonic()
    probe = Probe(serving(400, b'{"error":"Stub process is not healthy."}', go), "a model/with a name", {"prompt": "x"})
    assert probe.wait(0.05) is None
    assert probe.wait(0.05) is None
    assert 0.1 <= probe.age <= time.monotonic() - begun
    go.set()
    answer = probe.wait(WITHIN)
    assert answer == Answer(400, "Stub process is not healthy.")


def test_server_that_goes_away_is_an_oserror() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = Probe(TritonEndpoint("127.0.0.1", listener.getsockname()[1], 1, "key"), "model", {})
        accepted, _ = listener.accept()
        accepted.recv(4096)
        accepted.close()
        with pytest.raises(OSError, match=r"."):
            probe.wait(WITHIN)
        endpoint = TritonEndpoint("127.0.0.1", listener.getsockname()[1], 1, "key")
    assert not endpoint.is_ready()
    with pytest.raises(OSError, match=r"."):
        endpoint.is_model_ready("model")
    with pytest.raises(OSError, match=r"."):
        endpoint.unload("model")

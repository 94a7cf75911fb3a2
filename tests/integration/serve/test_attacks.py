"""Requests that crash this Triton, or a model process under it: the service is back within seconds, every time."""

from __future__ import annotations

import contextlib
import http.client
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.integration.conftest import RunningTriton
from tests.integration.serve.processes import family, is_gone
from tests.integration.serve.request import LOST, generate, was_lost
from tests.waiting import WITHIN, until

MAX_STRIKES = 6
SLEEP = {"name": "sleep", "datatype": "FP32", "shape": [1], "data": [0]}


def post(server: RunningTriton, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Send a request, whatever becomes of it."""
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=30)
    # A server that writes a core as it dies may keep the connection for longer than the timeout.
    with contextlib.closing(connection), contextlib.suppress(*LOST, TimeoutError):
        connection.request("POST", path, body, headers or {})
        connection.getresponse().read()


def infer(server: RunningTriton, **body: Any) -> None:
    post(server, "/v2/models/mirror/infer", json.dumps(body).encode())


def nest_deeply(server: RunningTriton) -> None:
    """RapidJSON recurses once for each bracket."""
    post(server, "/v2/models/mirror/generate", b"[" * 200_000)


def overflow_length(server: RunningTriton) -> None:
    """Return the product of the shape is more than a vector can hold."""
    infer(server, inputs=[SLEEP, {"name": "list", "datatype": "FP32", "shape": [2**63 - 1, 2], "data": [1]}])


def classify_nothing(server: RunningTriton) -> None:
    """Triton divides by the number of elements."""
    infer(server, inputs=[SLEEP], outputs=[{"name": "nothing", "parameters": {"classification": 3}}])


def overflow_size(server: RunningTriton) -> None:
    """Return the size in bytes wraps to 0, which is what is sent; the model process dies of it."""
    request = service_pb2.ModelInferRequest(model_name="mirror")
    for name, shape, content in (("sleep", [1], struct.pack("<f", 0)), ("list", [2**62], b"")):
        request.inputs.add(name=name, datatype="FP32", shape=shape)
        request.raw_input_contents.append(content)
    with grpc.insecure_channel(server.grpc_url) as channel, contextlib.suppress(grpc.RpcError):
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=WITHIN)


ATTACKS: list[Callable[[RunningTriton], None]] = [nest_deeply, overflow_length, classify_nothing, overflow_size]


def processes(server: RunningTriton) -> list[int]:
    """Return the server's processes, or none while it is between two of them."""
    with contextlib.suppress(ValueError):
        return family(server)
    return []


def answers(server: RunningTriton) -> bool:
    with contextlib.suppress(*LOST, OSError, ValueError):  # an answer may be cut short
        return generate(server, "mirror", sleep=0)[0] == 200
    return False


def strike(attack: Callable[[RunningTriton], None], server: RunningTriton) -> None:
    """Attack until one of the server's processes has died: one that meets a restart may be lost on its way."""
    before = until(lambda: processes(server), "the server's processes exist")
    for _ in range(MAX_STRIKES):
        attack(server)
        with contextlib.suppress(AssertionError):
            until(lambda: any(map(is_gone, before)), "something has died", within=WITHIN / MAX_STRIKES)
            return
    pytest.fail("nothing has died")


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_service_comes_back(
    attack: Callable[[RunningTriton], None], start: Callable[..., RunningTriton], crowd: ThreadPoolExecutor
) -> None:
    server = start()
    waiting = crowd.submit(generate, server, "steps", seconds=3)
    for _ in range(2):
        strike(attack, server)
        until(lambda: answers(server), "the service is back")
    # The neighbour's request was answered or lost, and not by its own timeout.
    assert was_lost(waiting) or waiting.result()[0] == 200
    assert server.process.poll() is None

"""Requests to a server, and how they end when something dies meanwhile."""

from __future__ import annotations

import http.client
import json
import re
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from tests.integration.calls import CALL_SECONDS
from tests.integration.conftest import RunningTriton
from tests.waiting import WITHIN

RETRYABLE = re.compile(r"Stub process .* is not healthy|unknown model|is not ready|no available versions")
# A process that is killed while it holds a lock in the shared memory takes Triton with it: rare, and survived as well.
LOST = (ConnectionError, http.client.HTTPException)
LOST_OVER_GRPC = "StatusCode.UNAVAILABLE"


def call(
    server: RunningTriton, path: str, body: Any = None, timeout: float = CALL_SECONDS, *, with_key: bool = False
) -> tuple[int, Any]:
    """POST ``body`` (GET without one); the status and the JSON of the answer, None if it is empty."""
    address = urlsplit(server.http_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout)
    headers = {"triton-diffusers-key": server.control_key} if with_key else {}
    try:
        connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


def generate(server: RunningTriton, model: str, timeout: float = CALL_SECONDS, **inputs: Any) -> tuple[int, Any]:
    return call(server, f"/v2/models/{model}/generate", inputs, timeout)


def infer_over_grpc(server: RunningTriton, model: str, seconds: float) -> tuple[str, Any]:
    """Like ``generate`` for the models ``steps`` and ``chain``, over gRPC; an error is its status and message."""
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        tensor = grpc_client.InferInput("seconds", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.full((1, 1), seconds, np.float32))
        try:
            result = client.infer(model, [tensor], client_timeout=CALL_SECONDS)
        except InferenceServerException as error:
            return str(error.status()), {"error": error.message()}
        return "OK", {"pid": int(result.as_numpy("pid").item())}


def pid_of(server: RunningTriton, model: str) -> int:
    """Return the number of a model's process, from the model itself."""
    status, answer = generate(server, model, **({"sleep": 0} if model == "mirror" else {"seconds": 0}))
    assert status == 200, answer
    return int(json.loads(answer["seen"])["pid"] if model == "mirror" else answer["pid"])


def was_lost(future: Future[tuple[Any, Any]]) -> bool:
    """Return True if a request ended in an error that a client retries."""
    try:
        status, answer = future.result(WITHIN)
    except LOST:
        return True
    return status == LOST_OVER_GRPC or ("error" in answer and RETRYABLE.search(answer["error"]) is not None)


def ended_well(future: Future[tuple[Any, Any]]) -> bool:
    """Return True if a request got its answer, or an error that a client retries."""
    return was_lost(future) or future.result()[0] in (200, "OK")

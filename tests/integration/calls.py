"""Calling a server in every way there is: gRPC and HTTP with tensors, JSON to ``generate``, and the ``jobs`` model."""

from __future__ import annotations

import base64
import http.client
import io
import itertools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from PIL import Image

from tests.integration.conftest import RunningTriton
from tests.waiting import WITHIN, until
from triton_diffusers.api.contract import CONTRACTS, JOBS_INPUTS, JOBS_OUTPUTS, Input

# Longer than a wait for an end: an answer that never comes is not mistaken for an error of the server's.
CALL_SECONDS = 2 * WITHIN
MODELS = ("sd_base", "ensemble")

_NUMPY_TYPES: Mapping[str, Any] = {
    "STRING": np.object_,
    "BYTES": np.object_,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}
# Fields of the models that draw; not all have all.
_GENERATING = CONTRACTS["sd_controlnet"]
_WIRE_TYPES = {"STRING": "BYTES", "BYTES": "BYTES", "INT64": "INT64", "FP32": "FP32", "BOOL": "BOOL"}
_OWNER = re.compile('model="sd_base"|worker="0"')  # labels of metrics
_numbers = itertools.count()


def small(**changes: Any) -> dict[str, Any]:
    """Return a request that takes a fraction of a second, with a task of its own and its image in the reply.

    Equal images are equal files: none carries its parameters.
    """
    fields = {"task_id": f"task-{next(_numbers)}", "prompt": "a red apple", "steps": 3, "width": 64, "height": 64}
    return {**fields, "seed": "7", "return_images": True, "embed_metadata": False, **changes}


def tensors(kind: ModuleType, fields: Mapping[str, Any], table: Sequence[Input], *, batched: bool) -> list[Any]:
    """Return the inputs of a request, for tritonclient's ``grpc`` or ``http``."""
    inputs = []
    for declared in table:
        if declared.name not in fields:
            continue
        value = fields[declared.name]
        elements = list(value) if isinstance(value, list | tuple) else [value]
        if declared.datatype in ("STRING", "BYTES"):
            elements = [element.encode() if isinstance(element, str) else element for element in elements]
        array = np.array([elements] if batched else elements, dtype=_NUMPY_TYPES[declared.datatype])
        tensor = kind.InferInput(declared.name, array.shape, _WIRE_TYPES[declared.datatype])
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    assert len(inputs) == len(fields), "a field is not in the contract"
    return inputs


def values(result: Any, table: Sequence[Any]) -> dict[str, Any]:
    """Return the outputs of a result, in Python's types: a list for a list, text as text (but for images)."""
    found: dict[str, Any] = {}
    for declared in table:
        array = result.as_numpy(declared.name)
        if array is None:
            array = result.as_numpy(f"reply_{declared.name}")  # as an ensemble calls it
        if array is None:
            continue
        elements = array.reshape(-1).tolist()
        if declared.datatype == "STRING":
            elements = [element.decode() for element in elements]
        found[declared.name] = elements if declared.many else elements[0]
    return found


@dataclass
class Pending:
    """A request that was sent over gRPC and is not waited for yet."""

    call: Any
    _answered: threading.Event
    _answer: list[Any]

    def result(self) -> dict[str, Any]:
        """Return the reply's values; raises what the server answered."""
        assert self._answered.wait(WITHIN), "no answer came"
        result, error = self._answer
        if error is not None:
            raise error
        return values(result, _GENERATING.outputs)

    @property
    def answered(self) -> bool:
        return self._answered.is_set()

    def cancel(self) -> None:
        """Give it up, as a client that hangs up does."""
        self.call.cancel()


class Calls:
    """One server's callers."""

    def __init__(self, server: RunningTriton) -> None:
        self.server = server
        self.client = grpc_client.InferenceServerClient(_address(server.grpc_url))

    def close(self) -> None:
        self.client.close()

    def grpc(self, model: str = "sd_base", **fields: Any) -> dict[str, Any]:
        """Infer over gRPC."""
        return self.send(model, **fields).result()

    def send(self, model: str = "sd_base", *, sequence_id: int = 0, **fields: Any) -> Pending:
        """Start an inference over gRPC; with a ``sequence_id`` it begins and ends a sequence."""
        answered, answer = threading.Event(), []

        def take(result: Any, error: Any) -> None:
            answer.extend((result, error))
            answered.set()

        inputs = tensors(grpc_client, fields, _GENERATING.inputs, batched=True)
        call = self.client.async_infer(
            model,
            inputs,
            take,
            client_timeout=CALL_SECONDS,
            sequence_id=sequence_id,
            sequence_start=sequence_id != 0,
            sequence_end=sequence_id != 0,
        )
        return Pending(call, answered, answer)

    def http(self, model: str = "sd_base", **fields: Any) -> dict[str, Any]:
        """Infer over HTTP, tensors as binary."""
        client = http_client.InferenceServerClient(_address(self.server.http_url), network_timeout=CALL_SECONDS)
        try:
            return values(
                client.infer(model, tensors(http_client, fields, _GENERATING.inputs, batched=True)), _GENERATING.outputs
            )
        finally:
            client.close()

    def post(self, path: str, body: bytes, within: float = CALL_SECONDS) -> tuple[int, bytes]:
        """POST anything; status and body."""
        connection = http.client.HTTPConnection(_address(self.server.http_url), timeout=within)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def generate(self, model: str, body: Mapping[str, Any], within: float = CALL_SECONDS) -> tuple[int, dict[str, Any]]:
        """POST plain JSON to a model's ``generate``; status and reply."""
        status, reply = self.post(f"/v2/models/{model}/generate", json.dumps(body).encode(), within)
        return status, json.loads(reply)

    def jobs(self, action: str = "list", **fields: Any) -> list[dict[str, Any]]:
        """Ask the ``jobs`` model; one dictionary for each job."""
        inputs = tensors(grpc_client, {"action": action, **fields}, JOBS_INPUTS, batched=False)
        columns = values(self.client.infer("jobs", inputs, client_timeout=CALL_SECONDS), JOBS_OUTPUTS)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def job(self, task_id: str) -> dict[str, Any]:
        """Return the one job of a task; an empty state if there is none yet."""
        found = [job for job in self.jobs() if job["task_id"] == task_id]
        return found[0] if found else {"state": "", "step": 0}

    def wait_for_job(self, task_id: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Poll until a job fits."""
        until(lambda: condition(self.job(task_id)))
        return self.job(task_id)

    def wait_until_idle(self) -> None:
        """Poll until no job is in flight."""
        until(lambda: all(job["state"] not in ("queued", "running") for job in self.jobs()))

    def metrics(self) -> dict[str, float]:
        """Return the ``sd_…`` metrics of ``sd_base`` and of the only engine, by name and further labels."""
        time.sleep(0.5)  # the models hand them to Triton every quarter of a second
        with urlopen(self.server.metrics_url, timeout=WITHIN) as reply:
            lines = reply.read().decode().splitlines()
        found = {}
        for line in lines:
            if line.startswith("sd_"):
                name, _, value = line.rpartition(" ")
                found[_OWNER.sub("", name).replace("{,", "{").replace(",}", "}").replace("{}", "")] = float(value)
        return found


def opened(data: bytes) -> Image.Image:
    """Return an image, decoded."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    """Return an image's pixels: uint8 (height, width, 3)."""
    return np.asarray(opened(data).convert("RGB"))


def from_base64(text: str) -> bytes:
    """URL-safe base64, and nothing else."""
    assert not set(text) & set("+/")
    return base64.b64decode(text, altchars=b"-_", validate=True)


def png(image: Image.Image) -> bytes:
    """Return an image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def psnr(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Peak signal-to-noise ratio of uint8 pixels, in dB."""
    assert one.shape == other.shape
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _address(url: str) -> str:
    return urlsplit(url).netloc or url

"""The Triton server beside the runner, over gRPC: one client for the runner's life.

A call is never cancelled by gRPC's own means: Triton 2.51 can crash then, or forget the place of the call in a model's
sequence batcher. The ``jobs`` model ends the job instead, and the call gets its answer.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from triton_diffusers.api.contract import CONTRACTS, JOBS_INPUTS, JOBS_OUTPUTS, Output
from triton_diffusers.api.description import DESCRIBE, ModelDescription
from triton_diffusers.runner.tensors import input_tensors, output_values

T = TypeVar("T")

_MODELS: Final = ("ensemble", "ensemble_controlnet", "sd_base", "sd_controlnet")
# The model that takes an ensemble's requests where Triton has no translator.
WITHOUT_TRANSLATOR: Final = {"ensemble": "sd_base", "ensemble_controlnet": "sd_controlnet"}

_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # After a failure gRPC fails all calls without trying, for up to two minutes; a restart takes seconds.
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A machine that is gone sends nothing: ask, also while a job runs for minutes.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]
_ENSEMBLE_PREFIX = "reply_"
_CALL_SECONDS = 10.0  # of calls that Triton answers in milliseconds, or something is wrong


class TritonError(Exception):
    """An error that Triton has answered; ``status`` is the gRPC status, such as ``INVALID_ARGUMENT``."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job on Triton; ``state`` is that of the ``jobs`` model."""

    state: str
    step: int
    steps: int
    images_done: int
    message: str


class Triton:
    """A connection to a Triton server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = triton.InferenceServerClient(address, channel_args=_CHANNEL_OPTIONS)
        self._calls: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()

    async def models(self) -> frozenset[str]:
        """Return the models that make images and are ready. Raises ``TritonError`` if Triton cannot be reached."""
        asked = [self._call(self._client.is_model_ready(name, client_timeout=_CALL_SECONDS)) for name in _MODELS]
        return frozenset(name for name, ready in zip(_MODELS, await asyncio.gather(*asked), strict=True) if ready)

    async def describe(self, model: str) -> ModelDescription:
        """Return the description of ``sd_base`` or ``sd_controlnet``. Raises ``TritonError``."""
        values = {"task_id": DESCRIBE, "func_name": DESCRIBE}
        outputs = [output for output in CONTRACTS[model].outputs if output.name == "parameters"]
        result = await self._call(
            self._client.infer(
                model,
                input_tensors(values, CONTRACTS[model].inputs, batched=True),
                outputs=[triton.InferRequestedOutput(output.name) for output in outputs],
                client_timeout=_CALL_SECONDS,
            )
        )
        return ModelDescription.from_json(json.loads(output_values(result, outputs)["parameters"]))

    async def generate(self, model: str, values: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the outputs of a request. Raises ``TritonError``."""
        contract = CONTRACTS[model]
        outputs = [output for output in contract.outputs if output.name != "images_base64"]
        result = await self._call(
            self._client.infer(
                model,
                input_tensors(values, contract.inputs, batched=True),
                outputs=[triton.InferRequestedOutput(output.name) for output in outputs],
                headers=dict(headers),
            )
        )
        return {
            _own_name(output): value
            for output, value in zip(outputs, output_values(result, outputs).values(), strict=True)
        }

    async def progress(self) -> dict[str, Progress]:
        """Return the progress of each task, of its newest job if there are several. Raises ``TritonError``."""
        columns = await self._jobs(action="list")
        found: dict[str, Progress] = {}
        for index, task_id in enumerate(columns["task_id"]):
            row = {name: values[index] for name, values in columns.items()}
            entry = Progress(row["state"], row["step"], row["steps"], row["images_done"], row["error_msg"])
            found.setdefault(task_id, entry)
        return found

    async def preview(self, task_id: str) -> bytes:
        """Ask for a preview and return the one that was made last, a JPEG; empty until there is one."""
        columns = await self._jobs(action="progress", task_id=task_id, preview=True)
        return base64.urlsafe_b64decode(columns["preview"][0])

    async def cancel(self, task_id: str) -> bool:
        """End all jobs of a task; return False if Triton does not know it. Raises ``TritonError``."""
        try:
            await self._jobs(action="cancel", task_id=task_id)
        except TritonError as error:
            if error.status == "NOT_FOUND":
                return False
            raise
        return True

    async def _jobs(self, **values: Any) -> dict[str, Any]:
        wanted = [output for output in JOBS_OUTPUTS if output.name != "preview" or "preview" in values]
        result = await self._call(
            self._client.infer(
                "jobs",
                input_tensors(values, JOBS_INPUTS, batched=False),
                outputs=[triton.InferRequestedOutput(output.name) for output in wanted],
                client_timeout=_CALL_SECONDS,
            )
        )
        return output_values(result, wanted)

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the answer; a caller that is cancelled leaves the call to end by itself."""
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(task)
        except InferenceServerException as error:
            raise _error(error) from error


def _own_name(output: Output) -> str:
    return output.name.removeprefix(_ENSEMBLE_PREFIX)


def _error(error: InferenceServerException) -> TritonError:
    status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
    message = str(error.message() or "")
    if message.startswith("in ensemble '"):
        message = message.partition("', ")[2]
    return TritonError(status, message)

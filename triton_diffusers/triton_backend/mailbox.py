"""The mailbox of a generating model: takes Triton's requests, and answers each when the engine has ended it.

``execute`` never waits. A request is kept with its response sender, and answered by a thread of the engine's client.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import triton_python_backend_utils as pb_utils

from triton_diffusers.adapters import places
from triton_diffusers.api.contract import CONTROL_INPUTS, PROBE, Contract
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.description import DESCRIBE, ModelDescription
from triton_diffusers.api.reply import reply_values
from triton_diffusers.api.request import GenerationResult
from triton_diffusers.api.unknown import unknown_fields
from triton_diffusers.engine_process.address import engine_addresses
from triton_diffusers.engine_process.client import EngineClient, Outcome, PendingRequest
from triton_diffusers.engine_process.messages import Metrics
from triton_diffusers.engine_process.supervisor import EngineSupervisor
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import Settings
from triton_diffusers.triton_backend.metrics import MetricsExporter
from triton_diffusers.triton_backend.statuses import error_response
from triton_diffusers.triton_backend.tensors import input_arrays, output_tensors
from triton_diffusers.triton_backend.transports import is_forwarded, is_plain_json, parameters_of

logger = logging.getLogger(__name__)

_HANG_SECONDS = 60.0  # that an engine process may be silent; the launcher has an option for it
_NOT_KEPT = "no image is stored, and none is in the reply: ask for use_base64 or return_images"


@dataclass(slots=True, eq=False)
class _HeldRequest:
    """A request that waits for its answer. ``warnings`` are those of its fields; the engine adds its own."""

    sender: Any
    wanted: tuple[str, ...]
    plain_json: bool = False
    return_images: bool = False
    use_base64: bool = False
    warnings: tuple[str, ...] = ()
    pending: PendingRequest | None = None
    sending: threading.Lock = field(default_factory=threading.Lock)
    is_sent: bool = False


class Mailbox:
    """Handler of one generating model."""

    def __init__(self, name: str, contract: Contract, settings: Settings, environment: Mapping[str, str]) -> None:
        """Connect to the engines, and return when one is ready. ``environment`` holds the settings, for them.

        Raises:
            EngineUnavailable: the model cannot be loaded.
        """
        self._contract = contract
        self._unsupported = {field.name for field in CONTROL_INPUTS} - {field.name for field in contract.inputs}
        self._settings = settings
        self._name = name
        self._lock = threading.Lock()
        self._entries: set[_HeldRequest] = set()
        self._closing = threading.Event()
        addresses = engine_addresses(settings)
        with ExitStack() as made:
            board = JobBoard(settings.runtime_dir, settings.job_history_seconds)
            made.callback(board.close)
            self._exporter = MetricsExporter()  # metrics that are not released crash the process at its end
            made.callback(self._exporter.close)
            for address in addresses:
                # Idle while another process holds the engine's lock: the launcher, or another model.
                supervisor = EngineSupervisor(address, environment, hang_seconds=_HANG_SECONDS)
                supervisor.start()
                made.callback(supervisor.stop)
            self._engines = EngineClient(name, addresses, settings, board, self._exporter.export)
            made.callback(self._engines.close)
            self._engines.start()
            self._resources = made.pop_all()
        threading.Thread(target=self._watch_cancellations, name="cancellations", daemon=True).start()

    def close(self) -> None:
        """End all requests, and the engines if they are this process's."""
        self._closing.set()
        self._resources.close()

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[None]:
        """Take the requests; each is answered later."""
        for request in requests:
            self._take(request)
        return [None] * len(requests)

    def _take(self, request: pb_utils.InferenceRequest) -> None:
        entry = _HeldRequest(request.get_response_sender(), tuple(request.requested_output_names()))
        try:
            self._submit(request, entry)
        except Exception as error:  # noqa: BLE001  # one bad request must not fail its neighbours
            refused = ("requests", (("model", self._name), ("outcome", "refused")))
            self._exporter.export(Metrics({refused: 1.0}, {}))
            self._send(entry, error_response(error, plain_json=entry.plain_json))

    def _submit(self, request: pb_utils.InferenceRequest, entry: _HeldRequest) -> None:
        parameters = parameters_of(request)
        entry.plain_json = is_plain_json(parameters, self._settings)
        # Plain JSON that is not an input of the model comes as a parameter, if it is not a list, and does nothing.
        if strays := sorted(parameters.keys() & self._unsupported):
            raise InvalidRequest(strays[0], parameters[strays[0]], "this model has no ControlNets; sd_controlnet has")
        values = read_values(input_arrays(request), self._contract.inputs)
        if values["func_name"] == PROBE:
            self._send(entry, self._response(entry, {"success": 1}))
            return
        if values["func_name"] == DESCRIBE:
            description = json.dumps(self._description().to_json())
            self._send(entry, self._response(entry, {"success": 1, "parameters": description}))
            return
        entry.return_images, entry.use_base64 = values["return_images"], values["use_base64"]
        if entry.return_images and entry.plain_json:
            raise InvalidRequest("return_images", True, "JSON cannot carry bytes; ask for use_base64 instead")
        values["timeout_seconds"] = _shorter(values["timeout_seconds"], request.timeout() / 1e6)
        generation = decode_request(values, self._settings, self._engines.defaults)
        with_images = entry.return_images or entry.use_base64
        entry.warnings = unknown_fields([name for name in parameters if not is_forwarded(name)], self._contract.inputs)
        if not ((self._settings.store and values["store_images"]) or with_images):
            entry.warnings = (*entry.warnings, _NOT_KEPT)
        with self._lock:
            entry.pending = self._engines.submit(
                generation, lambda outcome: self._answer(entry, outcome), with_images=with_images
            )
            self._entries.add(entry)

    def _description(self) -> ModelDescription:
        folder = self._settings.model_folder
        return ModelDescription(
            name=self._settings.model_name,
            defaults=self._engines.defaults,
            loras=tuple(places.loras(folder)),
            controlnets=tuple(places.controlnets(folder)),
            embeddings=tuple(places.embeddings(folder)),
        )

    def _answer(self, entry: _HeldRequest, outcome: Outcome) -> None:
        with self._lock:  # which ``_submit`` holds until the entry is complete
            self._entries.discard(entry)
        if entry.pending is None:
            raise RuntimeError("a request that was never submitted has ended")
        try:
            if isinstance(outcome, GenerationResult):
                result = replace(outcome, warnings=(*entry.warnings, *outcome.warnings))
                values = reply_values(
                    entry.pending.request, result, return_images=entry.return_images, use_base64=entry.use_base64
                )
                response = self._response(entry, values)
            else:
                response = error_response(outcome, plain_json=entry.plain_json)
        except Exception as error:  # noqa: BLE001  # a request without an answer would wait for ever
            response = error_response(error, plain_json=entry.plain_json)
        self._send(entry, response)

    def _response(self, entry: _HeldRequest, values: Mapping[str, Any]) -> pb_utils.InferenceResponse:
        outputs = [output for output in self._contract.outputs if output.name in values]
        return pb_utils.InferenceResponse(output_tensors(values, outputs, entry.wanted, batched=True))

    def _send(self, entry: _HeldRequest, response: pb_utils.InferenceResponse) -> None:
        with entry.sending:
            entry.is_sent = True
            entry.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _watch_cancellations(self) -> None:
        """Pass on cancellations of callers that Triton knows of; below an ensemble it knows of none."""
        while not self._closing.wait(self._settings.poll_seconds):
            with self._lock:
                entries = list(self._entries)
            for entry in entries:
                with entry.sending:  # asked about a request that has been answered, tritonserver crashes
                    is_cancelled = not entry.is_sent and entry.sender.is_cancelled()
                if is_cancelled and entry.pending is not None:
                    self._engines.cancel(entry.pending)


def _shorter(one: float, other: float) -> float:
    """Return the shorter one of two timeouts, where 0 is none."""
    return min(one or other, other or one)

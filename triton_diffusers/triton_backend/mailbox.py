"""The mailbox between Triton's iterative sequences and the engine loop.

Triton calls ``execute`` again and again with the requests that are not answered yet. The mailbox submits those that it
has not seen, waits a moment for any job to end, answers the requests whose jobs have ended, and reschedules the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triton_diffusers.api.contract import CONTROL_INPUTS, LOOP_HAS_ENDED, PROBE, Contract
from triton_diffusers.api.decode import decode_request, read_values
from triton_diffusers.api.reply import reply_values
from triton_diffusers.api.unknown import unknown_fields
from triton_diffusers.errors import Cancelled, EngineFailure, InvalidRequest
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.inflight.trial import try_out
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.optimize.optimizer import Optimizer, build_command, build_environment
from triton_diffusers.settings import Settings
from triton_diffusers.triton_backend.metrics import TritonTelemetry
from triton_diffusers.triton_backend.optimizing import OptimizerOnBoard
from triton_diffusers.triton_backend.statuses import error_response
from triton_diffusers.triton_backend.tensors import input_arrays, output_tensors
from triton_diffusers.triton_backend.transports import is_forwarded, is_plain_json, parameters_of

# Triton hands in a rescheduled request again at once, or when requests with other inputs have had their call: seconds.
_COMES_BACK_WITHIN = 1.0

_NOT_KEPT = "no image is stored, and none is in the reply: ask for use_base64 or return_images"

# What a request is known by when Triton hands it in again: the id of its sequence, the client's id of the request, the
# task and the prompt. The sequence's id alone would be Triton's own and unique, but a client may choose one, even that
# of somebody else's request, and must not get another's image.
_Key = tuple[int, str, bytes, bytes]


@dataclass(slots=True)
class _Letter:
    """A request that waits for its job's end. ``seen`` is when Triton last handed it in (monotonic seconds).

    ``warnings`` are those of what was sent; the job adds its own.
    """

    job: Job
    return_images: bool
    use_base64: bool
    plain_json: bool
    warnings: tuple[str, ...]
    seen: float = field(default_factory=time.monotonic)


class Mailbox:
    """Serves one generating model."""

    def __init__(self, name: str, contract: Contract, settings: Settings, choice: EngineChoice) -> None:
        """Raises ``LoadError`` if the model cannot be loaded."""
        self._contract = contract
        self._not_ours = {field.name for field in CONTROL_INPUTS} - {field.name for field in contract.inputs}
        self._settings = settings
        self._letters: dict[_Key, _Letter] = {}
        self._closing = threading.Event()
        with ExitStack() as made:  # what is given back if something fails: metrics that are left crash the process
            self._telemetry = TritonTelemetry(name)
            made.callback(self._telemetry.close)
            self._board = JobBoard(settings.runtime_dir, settings.job_history_seconds)
            made.callback(self._board.close)
            make_engine = partial(choice.make, partial(try_out, settings=settings))
            self._loop = EngineLoop(make_engine, settings, name=name, board=self._board, telemetry=self._telemetry)
            self._loop.start()
            made.callback(self._loop.stop)
            self._optimizer = Optimizer(
                choice,
                self._loop.swap,
                (self._telemetry, OptimizerOnBoard(name, self._board)),
                lambda target: build_command(settings, target, force=choice.needs_force),
                build_environment(settings),
            )
            self._optimizer.start()
            made.pop_all()
        threading.Thread(target=self._watch_orphans, name="orphans", daemon=True).start()

    def close(self) -> None:
        """Cancel what is in flight and stop the engine."""
        self._closing.set()
        self._optimizer.stop()
        self._loop.stop()
        self._board.close()
        self._telemetry.close()

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse | None]:
        """Answer or reschedule each request."""
        # Read once: with many requests in flight, reading tensors is most of what this thread takes from the steps.
        keys = [_key(request) for request in requests]
        answers = [self._take_in(request, key) for request, key in zip(requests, keys, strict=True)]
        if not any(answers):
            recently = time.monotonic() - _COMES_BACK_WITHIN
            # A letter that nobody fetches, though its job has ended, must not keep this from waiting.
            watched = [
                letter for letter in self._letters.values() if letter.seen > recently or not letter.job.state.ended
            ]
            self._loop.wait((letter.job for letter in watched), self._settings.poll_seconds)
        responses = [
            answer or self._answer(request, key) for request, key, answer in zip(requests, keys, answers, strict=True)
        ]
        for key in [key for key, letter in self._letters.items() if self._is_orphan(letter)]:
            self._loop.cancel(self._letters.pop(key).job)
        return responses

    def _take_in(self, request: pb_utils.InferenceRequest, key: _Key) -> pb_utils.InferenceResponse | None:
        """Submit a request that is new, or pass on its cancellation; a response only if it ends here already."""
        letter = self._letters.get(key)
        if letter is not None:
            letter.seen = time.monotonic()
            if request.is_cancelled():
                self._loop.cancel(letter.job)
            return None
        plain_json = False
        try:
            parameters = parameters_of(request)
            plain_json = is_plain_json(parameters, self._settings)
            return self._submit(request, key, parameters, plain_json)
        except Exception as error:  # noqa: BLE001  # one bad request must not fail its neighbours
            self._telemetry.request_ended("refused", 0.0, 0.0)
            return error_response(error, plain_json=plain_json)

    def _submit(
        self, request: pb_utils.InferenceRequest, key: _Key, parameters: Mapping[str, Any], plain_json: bool
    ) -> pb_utils.InferenceResponse | None:
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            # Triton would not take it back, and it would never be answered.
            raise InvalidRequest("sequence_end", True, "a request is a sequence of its own: set no sequence flags")
        # Plain JSON that is no input of the model comes as a parameter, if it is no list, and does nothing.
        if strays := sorted(parameters.keys() & self._not_ours):
            raise InvalidRequest(strays[0], parameters[strays[0]], "this model has no ControlNets; sd_controlnet has")
        values = read_values(input_arrays(request), self._contract.inputs)
        if values["func_name"] == PROBE:
            return self._probe(request)
        if values["return_images"] and plain_json:
            raise InvalidRequest("return_images", True, "JSON cannot carry bytes; ask for use_base64 instead")
        values["timeout_seconds"] = _shorter(values["timeout_seconds"], request.timeout() / 1e6)
        job = self._loop.submit(decode_request(values, self._settings, self._loop.defaults))
        warnings = unknown_fields([name for name in parameters if not is_forwarded(name)], self._contract.inputs)
        stored = self._settings.store and values["store_images"]
        if not (stored or values["return_images"] or values["use_base64"]):
            warnings = (*warnings, _NOT_KEPT)
        self._letters[key] = _Letter(job, values["return_images"], values["use_base64"], plain_json, warnings)
        return None

    def _probe(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        if not self._loop.alive:
            return error_response(EngineFailure(LOOP_HAS_ENDED))
        success = [output for output in self._contract.outputs if output.name == "success"]
        return pb_utils.InferenceResponse(output_tensors({"success": 1}, success, ["success"], batched=True))

    def _answer(self, request: pb_utils.InferenceRequest, key: _Key) -> pb_utils.InferenceResponse | None:
        """The response to a request whose job has ended; otherwise None, and Triton hands it in again."""
        letter = self._letters[key]
        job = letter.job
        if not job.state.ended and request.is_cancelled():
            # Looked at here as well, since Triton drops a request that is cancelled while it is rescheduled.
            self._loop.cancel(job)
            del self._letters[key]
            return error_response(Cancelled("the client has cancelled the request"), plain_json=letter.plain_json)
        if not job.state.ended:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return None
        del self._letters[key]
        if job.result is None:
            return error_response(
                job.error or EngineFailure("the job ended without a result"), plain_json=letter.plain_json
            )
        result = replace(job.result, warnings=(*letter.warnings, *job.result.warnings))
        values = reply_values(result, return_images=letter.return_images, use_base64=letter.use_base64)
        return pb_utils.InferenceResponse(
            output_tensors(values, self._contract.outputs, request.requested_output_names(), batched=True)
        )

    def _is_orphan(self, letter: _Letter) -> bool:
        """Triton stops handing in a request that its client has given up; its job must not run on."""
        return letter.seen < time.monotonic() - self._settings.orphan_seconds

    def _watch_orphans(self) -> None:
        """Cancel orphans' jobs while ``execute`` is not called: a thread of its own."""
        while not self._closing.wait(self._settings.orphan_seconds / 4):
            for letter in list(self._letters.values()):
                if self._is_orphan(letter):
                    self._loop.cancel(letter.job)


def _shorter(one: float, other: float) -> float:
    """Return the shorter one of two timeouts, where 0 is none."""
    return min(one or other, other or one)


def _key(request: pb_utils.InferenceRequest) -> _Key:
    sequence, task_id, prompt = (_first(request, name) for name in ("CORRID", "task_id", "prompt"))
    return int(sequence), request.request_id(), task_id, prompt


def _first(request: pb_utils.InferenceRequest, name: str) -> Any:
    """The first element of an input; nothing if it is missing, which Triton does not always refuse."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    array = tensor.as_numpy() if tensor is not None else np.array([])
    return array.flat[0] if array.size else b""

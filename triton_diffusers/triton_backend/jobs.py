"""The ``jobs`` model: progress, cancellation and a list of all jobs of the server."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import triton_python_backend_utils as pb_utils

from triton_diffusers.api.contract import JOBS_INPUTS, JOBS_OUTPUTS
from triton_diffusers.api.decode import check, read_values
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.jobs.board import BoardEntry, JobBoard
from triton_diffusers.settings import Settings
from triton_diffusers.triton_backend.statuses import error_response
from triton_diffusers.triton_backend.tensors import input_arrays, output_tensors
from triton_diffusers.triton_backend.transports import is_plain_json, parameters_of


class JobsHandler:
    """Handler of questions about the jobs of all models of the server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._board = JobBoard(settings.runtime_dir, settings.job_history_seconds)

    def close(self) -> None:
        """Release the board."""
        self._board.close()

    def execute(self, requests: Sequence[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        plain_json = False
        try:
            plain_json = is_plain_json(parameters_of(request), self._settings)
            values = read_values(input_arrays(request), JOBS_INPUTS)
            action = check(JOBS_INPUTS[0], values["action"], self._settings)
            entries = self._act(action, values["task_id"], preview=values["preview"])
        except Exception as error:  # noqa: BLE001  # one bad request must not fail its neighbours
            return error_response(error, plain_json=plain_json)
        columns = {output.name: [_column(entry, output.name) for entry in entries] for output in JOBS_OUTPUTS}
        return pb_utils.InferenceResponse(
            output_tensors(columns, JOBS_OUTPUTS, request.requested_output_names(), batched=False)
        )

    def _act(self, action: str, task_id: str, *, preview: bool) -> Sequence[BoardEntry]:
        if action == "list":
            return self._board.entries()
        if not task_id:
            raise InvalidRequest("task_id", task_id, f"{action} needs the task's id")
        if action == "cancel":
            self._board.cancel(task_id)
        elif preview:
            self._board.want_preview(task_id)
        entries = self._board.entries(task_id)
        if not entries:
            raise NotFound(f"task_id: no job of {task_id!r} is known")
        return entries


def _column(entry: BoardEntry, name: str) -> object:
    if name == "preview":
        return base64.urlsafe_b64encode(entry.preview or b"")
    return getattr(entry, name)

"""Engines and Triton's requests that a test plays."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from tests.unit.conftest import DEFAULTS, tensors
from triton_diffusers.api.contract import CONTRACTS
from triton_diffusers.engine_process.client import PendingRequest
from triton_diffusers.settings import Settings


class Client:
    """Stands in for the client of the engines."""

    defaults = DEFAULTS

    def __init__(self) -> None:
        self.pending: list[PendingRequest] = []
        self.cancelled: list[PendingRequest] = []
        self.failure: Exception | None = None
        self.start = MagicMock()
        self.close = MagicMock()

    def submit(self, request: Any, on_end: Any, *, with_images: bool) -> PendingRequest:
        if self.failure is not None:
            raise self.failure
        self.pending.append(PendingRequest(request, with_images, on_end))
        return self.pending[-1]

    def cancel(self, pending: PendingRequest) -> None:
        self.cancelled.append(pending)

    def end(self, outcome: Any) -> None:
        """End the only request."""
        (pending,) = self.pending
        pending.on_end(outcome)


def box(mailbox: ModuleType, **settings: Any) -> Any:
    return mailbox.Mailbox("sd_base", CONTRACTS["sd_base"], Settings(**settings), {"SETTING": "value"})


def asked(**fields: Any) -> MagicMock:
    """One of Triton's requests, not cancelled, with the parameters that are not inputs; all outputs are wanted."""
    parameters = fields.pop("parameters", {})
    timeout_microseconds = fields.pop("timeout_microseconds", 0)
    made = MagicMock()
    made.inputs.return_value = [
        MagicMock(**{"name.return_value": name, "as_numpy.return_value": array})
        for name, array in tensors(**fields).items()
    ]
    made.parameters.return_value = json.dumps(parameters)
    made.timeout.return_value = timeout_microseconds
    made.requested_output_names.return_value = [output.name for output in CONTRACTS["sd_base"].outputs]
    made.get_response_sender.return_value.is_cancelled.return_value = False
    return made


def sender_of(request: MagicMock) -> MagicMock:
    sender: MagicMock = request.get_response_sender.return_value
    return sender


def outputs(backend: MagicMock) -> dict[str, Any]:
    """Return the outputs of the last response, by name."""
    return {name: array.tolist()[0] for name, array in (call.args for call in backend.Tensor.call_args_list)}


def error(backend: MagicMock) -> tuple[str, Any]:
    """Return the message and status of the only error."""
    backend.TritonError.assert_called_once()
    message, status = backend.TritonError.call_args.args
    return message, status

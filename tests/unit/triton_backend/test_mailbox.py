"""A generating model's mailbox: a start that fails leaves nothing in the process, and requests get their answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.conftest import DEFAULTS, ROOT, result_with, tensors
from tests.unit.waiting import until
from triton_diffusers.api.contract import CONTRACTS, PROBE
from triton_diffusers.engine_process.client import EngineUnavailable, PendingRequest
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, InvalidRequest
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


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def mailbox(adapter: Callable[[str], ModuleType], client: Client, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = adapter("mailbox")
    monkeypatch.setattr(module, "MetricsExporter", MagicMock())
    monkeypatch.setattr(module, "JobBoard", MagicMock())
    monkeypatch.setattr(module, "EngineSupervisor", MagicMock())
    monkeypatch.setattr(module, "EngineClient", MagicMock(return_value=client))
    return module


def box(mailbox: ModuleType, **settings: Any) -> Any:
    return mailbox.Mailbox("sd_base", CONTRACTS["sd_base"], Settings(**settings), {"SETTING": "value"})


@pytest.fixture
def opened(mailbox: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """Return a mailbox before engines that the test plays."""
    made = box(mailbox, runtime_dir=tmp_path, poll_seconds=0.01)
    yield made
    made.close()


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


def test_an_engine_that_cannot_be_loaded_leaves_nothing(mailbox: ModuleType, client: Client, tmp_path: Path) -> None:
    client.start.side_effect = EngineUnavailable("no weights")
    with pytest.raises(EngineUnavailable, match="no weights"):
        box(mailbox, runtime_dir=tmp_path)
    client.close.assert_called_once_with()
    mailbox.EngineSupervisor.return_value.stop.assert_called_once_with()
    mailbox.MetricsExporter.return_value.close.assert_called_once_with()
    mailbox.JobBoard.return_value.close.assert_called_once_with()
    assert "cancellations" not in {thread.name for thread in threading.enumerate()}


def test_each_device_has_a_supervisor_with_the_settings(mailbox: ModuleType, tmp_path: Path) -> None:
    made = box(mailbox, runtime_dir=tmp_path, device="cuda:0,cuda:1")
    calls = mailbox.EngineSupervisor.call_args_list
    assert [(call.args[0].device, call.args[1]) for call in calls] == [
        ("cuda:0", {"SETTING": "value"}),
        ("cuda:1", {"SETTING": "value"}),
    ]
    made.close()
    assert mailbox.EngineSupervisor.return_value.stop.call_count == 2


def test_a_request_is_answered_when_the_engine_has_ended_it(opened: Any, client: Client, backend: MagicMock) -> None:
    request = asked(steps=7, use_base64=True)
    assert opened.execute([request]) == [None]
    sender = sender_of(request)
    sender.send.assert_not_called()
    (pending,) = client.pending
    assert (pending.request.steps, pending.request.width, pending.with_images) == (7, DEFAULTS.side, True)
    client.end(result_with(images=(b"image",)))
    sender.send.assert_called_once_with(
        backend.InferenceResponse.return_value, flags=backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    )
    replied = outputs(backend)
    assert replied.keys() == {output.name for output in CONTRACTS["sd_base"].outputs}
    assert (replied["task_id"], replied["images_base64"]) == ([b"a-task"], [b"aW1hZ2U="])


def test_an_error_of_the_engine_is_answered_with_its_status(opened: Any, client: Client, backend: MagicMock) -> None:
    opened.execute([request := asked()])
    client.end(Busy("the queue is full"))
    sender_of(request).send.assert_called_once()
    assert error(backend) == ("the queue is full", backend.TritonError.UNAVAILABLE)


def test_requests_are_answered_in_any_order_each_to_its_own_caller(opened: Any, client: Client) -> None:
    requests = [asked(task_id=str(number)) for number in range(3)]
    assert opened.execute(requests) == [None] * 3
    for number in (2, 0, 1):
        client.pending[number].on_end(result_with())
        answered = [sender_of(request).send.call_count for request in requests]
        assert answered[number] == 1
    assert answered == [1, 1, 1]


@pytest.mark.parametrize(
    ("fields", "with_images"),
    [({}, False), ({"use_base64": True}, True), ({"return_images": True}, True), ({"store_images": False}, False)],
)
def test_images_are_fetched_from_the_engine_only_for_the_reply(
    opened: Any, client: Client, fields: dict[str, bool], with_images: bool
) -> None:
    opened.execute([asked(**fields)])
    assert client.pending[0].with_images is with_images


def test_a_bad_request_is_answered_at_once_and_fails_no_neighbour(
    opened: Any, client: Client, backend: MagicMock, mailbox: ModuleType
) -> None:
    bad, good = asked(steps=-1), asked()
    assert opened.execute([bad, good]) == [None, None]
    sender_of(bad).send.assert_called_once()
    sender_of(good).send.assert_not_called()
    message, status = error(backend)
    assert message.startswith("steps: -1 is invalid")
    assert status is backend.TritonError.INVALID_ARG
    assert len(client.pending) == 1
    (counted,) = (call.args[0] for call in mailbox.MetricsExporter.return_value.export.call_args_list)
    assert counted.added == {("requests", (("model", "sd_base"), ("outcome", "refused"))): 1.0}


def test_a_full_queue_is_answered_as_busy(opened: Any, client: Client, backend: MagicMock) -> None:
    client.failure = Busy("128 requests wait")
    opened.execute([request := asked()])
    sender_of(request).send.assert_called_once()
    assert error(backend) == ("128 requests wait", backend.TritonError.UNAVAILABLE)


def test_a_reply_that_cannot_be_made_is_answered_with_an_error(
    opened: Any, client: Client, backend: MagicMock, mailbox: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "reply_values", MagicMock(side_effect=ValueError("/secret")))
    opened.execute([request := asked()])
    client.end(result_with())
    sender_of(request).send.assert_called_once()
    assert error(backend) == ("the request failed; the server's log says why", backend.TritonError.INTERNAL)


def test_a_probe_is_answered_without_an_engine(opened: Any, client: Client, backend: MagicMock) -> None:
    client.failure = EngineFailure("it is dead")
    opened.execute([request := asked(func_name=PROBE)])
    sender_of(request).send.assert_called_once()
    backend.TritonError.assert_not_called()
    assert outputs(backend) == {"success": [1]}


def test_triton_is_not_asked_about_a_request_that_has_been_answered(opened: Any, client: Client) -> None:
    """It would crash."""
    events: list[str] = []
    asking, may_continue = threading.Event(), threading.Event()
    sender = sender_of(request := asked(task_id="a", prompt="a red apple"))

    def is_cancelled() -> bool:
        asking.set()
        assert may_continue.wait(10)
        events.append("asked")
        return False

    sender.is_cancelled.side_effect = is_cancelled
    sender.send.side_effect = lambda *arguments, **flags: events.append("sent")
    opened.execute([request])
    assert asking.wait(10)
    answering = threading.Thread(target=client.end, args=(Cancelled("the job was cancelled"),))
    answering.start()
    answering.join(0.2)
    assert events == []
    may_continue.set()
    answering.join(10)
    calls = sender.is_cancelled.call_count
    time.sleep(0.1)  # ten looks at the cancellations
    assert events[-1] == "sent"
    assert sender.is_cancelled.call_count == calls


def test_callers_that_triton_knows_to_be_gone_cancel_their_requests(opened: Any, client: Client) -> None:
    gone, waiting, ended = asked(task_id="gone"), asked(task_id="waiting"), asked(task_id="ended")
    opened.execute([gone, waiting, ended])
    client.pending[2].on_end(result_with())
    for request in (gone, ended):
        sender_of(request).is_cancelled.return_value = True
    until(lambda: client.cancelled)
    assert {pending.request.task_id for pending in client.cancelled} == {"gone"}
    client.pending[0].on_end(Cancelled("the job was cancelled"))
    sender_of(gone).send.assert_called_once()


def test_closing_ends_the_engines_of_this_process(mailbox: ModuleType, client: Client, tmp_path: Path) -> None:
    box(mailbox, runtime_dir=tmp_path).close()
    client.close.assert_called_once_with()
    mailbox.EngineSupervisor.return_value.stop.assert_called_once_with()
    mailbox.MetricsExporter.return_value.close.assert_called_once_with()


def test_a_request_is_read_once(opened: Any, mailbox: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images may have many megabytes of text."""
    read = MagicMock(wraps=mailbox.read_values)
    monkeypatch.setattr("triton_diffusers.api.decode.read_values", read, raising=False)
    monkeypatch.setattr(mailbox, "read_values", read)
    opened.execute([asked(steps=7)])
    read.assert_called_once()


def test_unknown_fields_are_warned_of(opened: Any, client: Client, backend: MagicMock) -> None:
    opened.execute([asked(parameters={"stesp": 20})])
    client.end(result_with(warnings=("prompt: cut",)))
    assert outputs(backend)["warnings"] == [
        b"'stesp' is not a field of this model and was ignored; did you mean steps?",
        b"prompt: cut",
    ]


def test_fields_of_controlnets_are_refused_by_a_model_without_them(opened: Any, backend: MagicMock) -> None:
    """Plain JSON hands them over as parameters, which would be ignored."""
    opened.execute([asked(parameters={"process_func": "canny"})])
    message, status = error(backend)
    assert message == "process_func: 'canny' is invalid: this model has no ControlNets; sd_controlnet has"
    assert status is backend.TritonError.INVALID_ARG


@pytest.mark.parametrize(
    ("store", "fields", "warned"),
    [
        ("", {}, True),
        ("", {"use_base64": True}, False),
        ("", {"return_images": True}, False),
        ("results", {}, False),
        ("results", {"store_images": False}, True),
    ],
)
def test_images_that_go_nowhere_are_told_in_the_warnings(
    opened: Any, client: Client, backend: MagicMock, store: str, fields: dict[str, bool], warned: bool
) -> None:
    opened._settings = opened._settings.model_copy(update={"store": store})
    opened.execute([asked(**fields)])
    client.end(result_with())
    assert [b"no image is stored" in text for text in outputs(backend)["warnings"]] == [True] * warned


@pytest.mark.parametrize(
    ("field", "microseconds", "seconds"),
    [(0.0, 0, 0.0), (5.0, 0, 5.0), (0.0, 2_500_000, 2.5), (5.0, 2_500_000, 2.5), (1.5, 2_500_000, 1.5)],
)
def test_timeout_is_the_shorter_one_of_the_field_and_tritons_own(
    opened: Any, client: Client, field: float, microseconds: int, seconds: float
) -> None:
    opened.execute([asked(timeout_seconds=field, timeout_microseconds=microseconds)])
    assert client.pending[0].request.timeout_seconds == seconds


@pytest.fixture
def told_of_headers(opened: Any) -> Any:
    """Return a mailbox on a Triton that passes headers on."""
    opened._settings = opened._settings.model_copy(update={"headers_forwarded": True})
    return opened


def test_bytes_are_refused_in_plain_json(told_of_headers: Any, client: Client, backend: MagicMock) -> None:
    told_of_headers.execute([asked(return_images=True)])
    message, status = error(backend)
    assert message.startswith("return_images: True ")
    assert message.endswith("use_base64 instead")
    assert status is backend.TritonError.INVALID_ARG
    assert client.pending == []


@pytest.mark.parametrize("header", ["Host", "host", "user-agent"])
def test_bytes_are_returned_to_callers_whose_headers_are_known(
    told_of_headers: Any, client: Client, backend: MagicMock, header: str
) -> None:
    told_of_headers.execute([asked(return_images=True, parameters={header: "a"})])
    client.end(result_with(images=(b"image",)))
    replied = outputs(backend)
    assert replied["images"] == [b"image"]
    assert replied["warnings"] == [], "a header is not a misspelt field"


def test_bytes_are_returned_where_triton_does_not_pass_headers_on(
    opened: Any, client: Client, backend: MagicMock
) -> None:
    opened.execute([asked(return_images=True)])
    client.end(result_with(images=(b"image",)))
    assert outputs(backend)["images"] == [b"image"]


@pytest.mark.parametrize(("parameters", "mark"), [({}, " [UNAVAILABLE]"), ({"Host": "a"}, "")])
def test_an_error_names_its_status_in_plain_json_alone(
    told_of_headers: Any, client: Client, backend: MagicMock, parameters: dict[str, str], mark: str
) -> None:
    told_of_headers.execute([asked(parameters=parameters)])
    client.end(Busy("the queue is full"))
    backend.TritonError.assert_called_once_with(f"the queue is full{mark}", backend.TritonError.UNAVAILABLE)


def test_invalid_arguments_need_no_mark(told_of_headers: Any, client: Client, backend: MagicMock) -> None:
    told_of_headers.execute([asked()])
    client.end(InvalidRequest("image", b"x", "not an image"))
    message, status = error(backend)
    assert (message, status) == ("image: b'x' is invalid: not an image", backend.TritonError.INVALID_ARG)


@pytest.mark.parametrize("module", ["triton_diffusers.triton_backend.mailbox", "triton_diffusers.launcher.launcher"])
def test_a_process_beside_the_engine_imports_no_torch(module: str) -> None:
    """A crash of PyTorch or a driver then costs no request, and a model process is small and starts at once."""
    program = (
        "import sys; from unittest.mock import MagicMock; sys.modules['triton_python_backend_utils'] = MagicMock();"
        f"import {module}; print(*sorted({{'torch', 'diffusers', 'transformers', 'openvino'}} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []

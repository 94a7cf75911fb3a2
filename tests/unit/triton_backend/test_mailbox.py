"""A generating model's mailbox: a start that fails leaves nothing in the process, and requests get their answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.conftest import DEFAULTS, ROOT, result_with
from tests.unit.triton_backend.played import Client, asked, box, error, outputs, sender_of
from tests.waiting import WITHIN, until
from triton_diffusers.api.contract import CONTRACTS, PROBE
from triton_diffusers.api.description import DESCRIBE, ModelDescription
from triton_diffusers.engine_process.client import EngineUnavailable
from triton_diffusers.errors import Busy, Cancelled, EngineFailure


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


def test_a_description_names_defaults_and_adapters(
    mailbox: ModuleType, client: Client, backend: MagicMock, tmp_path: Path
) -> None:
    model = tmp_path / "paper"
    for name in ("lora/a.pt", "lora/sub/pytorch_lora_weights.bin", "controlnets/b/diffusion_pytorch_model.bin"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).touch()
    made = box(mailbox, runtime_dir=tmp_path, model_dir=model)
    made.execute([asked(func_name=DESCRIBE)])
    (text,) = outputs(backend)["parameters"]
    assert ModelDescription.from_json(json.loads(text)) == ModelDescription(
        name="paper", defaults=DEFAULTS, loras=("lora/a.pt", "lora/sub"), controlnets=("controlnets/b",)
    )
    made.close()


def test_triton_is_not_asked_about_a_request_that_has_been_answered(opened: Any, client: Client) -> None:
    """It would crash."""
    events: list[str] = []
    asking, may_continue = threading.Event(), threading.Event()
    sender = sender_of(request := asked(task_id="a", prompt="a red apple"))

    def is_cancelled() -> bool:
        asking.set()
        assert may_continue.wait(WITHIN)
        events.append("asked")
        return False

    sender.is_cancelled.side_effect = is_cancelled
    sender.send.side_effect = lambda *arguments, **flags: events.append("sent")
    opened.execute([request])
    assert asking.wait(WITHIN)
    answering = threading.Thread(target=client.end, args=(Cancelled("the job was cancelled"),))
    answering.start()
    answering.join(0.2)
    assert events == []
    may_continue.set()
    answering.join(WITHIN)
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


@pytest.mark.parametrize("module", ["triton_diffusers.triton_backend.mailbox", "triton_diffusers.launcher.launcher"])
def test_a_process_beside_the_engine_imports_no_torch(module: str) -> None:
    """A crash of PyTorch or a driver then costs no request, and a model process is small and starts at once."""
    program = (
        "import sys; from unittest.mock import MagicMock; sys.modules['triton_python_backend_utils'] = MagicMock();"
        f"import {module}; print(*sorted({{'torch', 'diffusers', 'transformers', 'openvino'}} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []

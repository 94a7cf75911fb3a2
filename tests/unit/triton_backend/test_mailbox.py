"""A generating model's mailbox: a start that fails leaves nothing in the process, and what requests are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from tests.unit.conftest import ROOT, request_for, tensors
from triton_diffusers.api.contract import CONTRACTS, PROBE
from triton_diffusers.api.request import GenerationResult, ModelDefaults
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.errors import Busy
from triton_diffusers.launcher.probe import Answer, Health
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.optimize.optimizer import Optimizer
from triton_diffusers.settings import Settings


@pytest.fixture
def mailbox(adapter: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = adapter("mailbox")
    monkeypatch.setattr(module, "TritonTelemetry", MagicMock(wraps=module.TritonTelemetry))
    monkeypatch.setattr(module, "JobBoard", MagicMock())
    return module


def box(mailbox: ModuleType, **settings: Any) -> Any:
    read = Settings(**settings)
    return mailbox.Mailbox("sd_base", CONTRACTS["sd_base"], read, EngineChoice(read))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_model_that_cannot_be_loaded_leaves_nothing(mailbox: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        box(mailbox, model_dir=tmp_path, runtime_dir=tmp_path)
    mailbox.TritonTelemetry.assert_called_once()
    assert not threads() & {"metrics", "engine", "optimizer"}
    mailbox.JobBoard.return_value.close.assert_called_once_with()


def test_an_optimizer_that_cannot_begin_leaves_nothing(
    mailbox: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(optimizer: Optimizer) -> None:
        raise RuntimeError("no thread")

    monkeypatch.setattr(Optimizer, "start", fail)
    with pytest.raises(RuntimeError, match="no thread"):
        box(mailbox, model_dir=ROOT / "models" / "emoji", runtime_dir=tmp_path)
    assert not threads() & {"metrics", "engine"}
    mailbox.JobBoard.return_value.close.assert_called_once_with()


def asked(**fields: Any) -> MagicMock:
    """One of Triton's requests, not cancelled and without flags, with the parameters that are no inputs."""
    parameters = fields.pop("parameters", {})
    timeout_microseconds = fields.pop("timeout_microseconds", 0)
    made = MagicMock()
    made.inputs.return_value = [
        MagicMock(**{"name.return_value": name, "as_numpy.return_value": array})
        for name, array in tensors(**fields).items()
    ]
    made.parameters.return_value = json.dumps(parameters)
    made.flags.return_value = 0
    made.is_cancelled.return_value = False
    made.timeout.return_value = timeout_microseconds
    return made


@pytest.fixture
def opened(mailbox: ModuleType, backend: MagicMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A mailbox before a loop that is none."""
    for name in ("EngineLoop", "Optimizer"):
        monkeypatch.setattr(mailbox, name, MagicMock())
    backend.get_input_tensor_by_name.side_effect = lambda request, name: (
        MagicMock(**{"as_numpy.return_value": np.array([[7]])}) if name == "CORRID" else None
    )
    backend.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
    made = box(mailbox, runtime_dir=tmp_path)
    made._loop.defaults = ModelDefaults(side=64)
    yield made
    made.close()


def test_a_probe_tells_the_launcher_that_the_loop_has_ended(opened: Any, backend: MagicMock) -> None:
    opened._loop.alive = False
    opened.execute([asked(func_name=PROBE)])
    (message, _) = backend.TritonError.call_args.args
    assert Answer(500, message).health is Health.DEAD


def result(**changes: Any) -> GenerationResult:
    fields = dict.fromkeys(("images", "is_nsfw", "image_urls", "oss_urls", "warnings"), ())
    times = {"queue_seconds": 0.0, "run_seconds": 0.0}
    return GenerationResult(**{**fields, **times, "request": request_for(), "optimized": False, **changes})


def test_a_request_is_read_once(opened: Any, mailbox: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images may have many megabytes of text."""
    read = MagicMock(wraps=mailbox.read_values)
    monkeypatch.setattr("triton_diffusers.api.decode.read_values", read, raising=False)
    monkeypatch.setattr(mailbox, "read_values", read)
    opened._loop.submit.return_value.result = result()
    opened.execute([asked(steps=7)])
    read.assert_called_once()
    (request,) = opened._loop.submit.call_args.args
    assert (request.steps, request.width) == (7, 64)


def test_what_is_no_field_is_told_in_the_warnings(opened: Any, backend: MagicMock) -> None:
    opened._loop.submit.return_value.result = result(warnings=("prompt: cut",))
    request = asked(parameters={"stesp": 20})
    request.requested_output_names.return_value = ["warnings"]
    opened.execute([request])
    (name, array) = backend.Tensor.call_args.args
    assert (name, array.tolist()) == (
        "warnings",
        [[b"'stesp' is not a field of this model and was ignored; did you mean steps?", b"prompt: cut"]],
    )


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
    opened: Any, backend: MagicMock, store: str, fields: dict[str, bool], warned: bool
) -> None:
    opened._settings = opened._settings.model_copy(update={"store": store})
    opened._loop.submit.return_value.result = result(warnings=())
    request = asked(**fields)
    request.requested_output_names.return_value = ["warnings"]
    opened.execute([request])
    (_, array) = backend.Tensor.call_args.args
    assert [b"no image is stored" in text for text in array.ravel()] == [True] * warned


@pytest.mark.parametrize(
    ("field", "microseconds", "seconds"),
    [(0.0, 0, 0.0), (5.0, 0, 5.0), (0.0, 2_500_000, 2.5), (5.0, 2_500_000, 2.5), (1.5, 2_500_000, 1.5)],
)
def test_timeout_is_the_shorter_one_of_the_field_and_tritons_own(
    opened: Any, field: float, microseconds: int, seconds: float
) -> None:
    opened._loop.submit.return_value.result = result()
    opened.execute([asked(timeout_seconds=field, timeout_microseconds=microseconds)])
    (request,) = opened._loop.submit.call_args.args
    assert request.timeout_seconds == seconds


@pytest.fixture
def told_of_headers(opened: Any) -> Any:
    """A mailbox on a Triton that passes headers on."""
    opened._settings = opened._settings.model_copy(update={"headers_forwarded": True})
    opened._loop.submit.return_value.result = result()
    return opened


def test_bytes_are_refused_in_plain_json(told_of_headers: Any, backend: MagicMock) -> None:
    told_of_headers.execute([asked(return_images=True)])
    (message, status) = backend.TritonError.call_args.args
    assert message.startswith("return_images: True ")
    assert message.endswith("use_base64 instead")
    assert status is backend.TritonError.INVALID_ARG
    told_of_headers._loop.submit.assert_not_called()


@pytest.mark.parametrize("header", ["Host", "host", "user-agent"])
def test_bytes_are_returned_to_callers_whose_headers_are_known(
    told_of_headers: Any, backend: MagicMock, header: str
) -> None:
    request = asked(return_images=True, parameters={header: "a"})
    request.requested_output_names.return_value = ["warnings"]
    told_of_headers.execute([request])
    backend.TritonError.assert_not_called()
    (name, array) = backend.Tensor.call_args.args
    assert (name, array.tolist()) == ("warnings", [[]]), "a header is not a misspelt field"


def test_bytes_are_returned_where_triton_does_not_pass_headers_on(opened: Any, backend: MagicMock) -> None:
    opened._loop.submit.return_value.result = result()
    opened.execute([asked(return_images=True)])
    backend.TritonError.assert_not_called()


@pytest.mark.parametrize(("parameters", "mark"), [({}, " [UNAVAILABLE]"), ({"Host": "a"}, "")])
def test_an_error_names_its_status_in_plain_json_alone(
    told_of_headers: Any, backend: MagicMock, parameters: dict[str, str], mark: str
) -> None:
    told_of_headers._loop.submit.side_effect = Busy("the queue is full")
    told_of_headers.execute([asked(parameters=parameters)])
    backend.TritonError.assert_called_once_with(f"the queue is full{mark}", backend.TritonError.UNAVAILABLE)

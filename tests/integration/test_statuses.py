"""The status of every kind of failure, over every transport, of a model and of its ensemble; the client's error too."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.calls import MODELS, Calls, small
from tests.integration.conftest import RunningTriton, TritonStarter
from tests.waiting import WITHIN, until
from triton_diffusers_client import (
    BusyError,
    CancelledError,
    Client,
    ClientError,
    InvalidRequestError,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
)

LONG = {"steps": 150, "image_num": 8}
STORE = "store"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    folder = tmp_path_factory.mktemp("statuses")
    starter = TritonStarter(folder)
    try:
        yield starter(
            env={
                "TRITON_DIFFUSERS_MAX_QUEUE": "1",
                "TRITON_DIFFUSERS_MAX_IMAGES_IN_FLIGHT": str(LONG["image_num"]),
                "TRITON_DIFFUSERS_STORE": str(folder / STORE),
            }
        )
    finally:
        starter.end()


@pytest.fixture(scope="module")
def calls(server: RunningTriton) -> Iterator[Calls]:
    opened_calls = Calls(server)
    yield opened_calls
    opened_calls.close()


@contextmanager
def full_queue(calls: Calls) -> Generator[None]:
    """One request that runs, and one that waits: all that the server takes."""
    running, waiting = small(**LONG), small(**LONG)
    sent = [calls.send(**running)]
    calls.wait_for_job(running["task_id"], lambda job: job["state"] == "running")
    sent.append(calls.send(**waiting))
    calls.wait_for_job(waiting["task_id"], lambda job: job["state"] == "queued")
    yield
    for fields in (waiting, running):
        calls.jobs("cancel", task_id=fields["task_id"])
    until(lambda: all(each.answered for each in sent))


@contextmanager
def broken_store(calls: Calls) -> Generator[None]:
    incoming = calls.server.runtime_dir.parents[1] / STORE / ".incoming"
    aside = incoming.with_name("aside")
    incoming.rename(aside)
    yield
    aside.rename(incoming)


def nothing(calls: Calls) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Failure:
    """How it comes about, and what callers are told."""

    message: str
    grpc: str
    http: int
    mark: str
    raised: type[ClientError]
    fields: Mapping[str, Any]
    state: Callable[[Calls], AbstractContextManager[None]] = nothing


FAILURES = {
    "a bad value": Failure("steps: -1 is", "INVALID_ARGUMENT", 400, "", InvalidRequestError, {"steps": -1}),
    "a missing file": Failure(
        "lora_path: 'none.safetensors'", "NOT_FOUND", 404, "NOT_FOUND", NotFoundError, {"lora_path": "none.safetensors"}
    ),
    "a timeout": Failure(
        "its timeout of 0.25 s is over",
        "CANCELLED",
        400,
        "CANCELLED",
        RequestTimeoutError,
        {**LONG, "timeout_seconds": 0.25},
    ),
    "a full queue": Failure("1 requests wait already", "UNAVAILABLE", 503, "UNAVAILABLE", BusyError, {}, full_queue),
    "a broken store": Failure("cannot be stored", "INTERNAL", 500, "INTERNAL", ServerError, {}, broken_store),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_statuses_of_failures_in_every_transport(calls: Calls, kind: str) -> None:
    failure = FAILURES[kind]
    with failure.state(calls):
        for model in MODELS:
            with pytest.raises(InferenceServerException, match=failure.message) as caught:
                calls.grpc(model, **small(**failure.fields))
            assert caught.value.status() == f"StatusCode.{failure.grpc}"
            with pytest.raises(InferenceServerException, match=failure.message) as caught:
                calls.http(model, **small(**failure.fields))
            assert caught.value.status() == str(failure.http)
            # Triton answers each of a model's errors so; the message carries the status.
            status, reply = calls.generate(model, {**small(**failure.fields), "return_images": False})
            assert status == 400
            assert failure.message in reply["error"]
            assert reply["error"].endswith(f" [{failure.mark}]") or not failure.mark
            for url in (calls.server.http_url, f"grpc://{calls.server.grpc_url}"):
                with Client(url, model=model, retries=0) as client, pytest.raises(failure.raised) as raised:
                    client.generate(**{**small(**failure.fields), "embed_metadata": False})
                assert type(raised.value) is failure.raised, url


@pytest.mark.parametrize("model", MODELS)
def test_statuses_of_a_job_that_somebody_cancels(calls: Calls, model: str) -> None:
    body = {**small(**LONG), "return_images": False}
    with Client(calls.server.http_url, model=model) as client:
        job = client.submit(**{**body, "task_id": f"{body['task_id']}-http"})
        until(lambda: job.status().model)  # empty until the server knows the job
        client.cancel(job.task_id)
        with pytest.raises(CancelledError):
            job.result(WITHIN)


@pytest.mark.parametrize("model", MODELS)
def test_bytes_are_refused_in_plain_json_alone(calls: Calls, model: str) -> None:
    status, reply = calls.generate(model, small())
    assert (status, "return_images: True" in reply["error"], "use_base64" in reply["error"]) == (400, True, True)
    assert calls.http(model, **small())["images"]
    assert calls.grpc(model, **small())["images"]


# Triton's answers to a body before a model sees it. The reference page has this table.
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"seed": 42}, 500, "Unable to parse JSON bytes array: attempt to access JSON non-string as string"),
        ({"negative_prompt": None}, 500, "Unable to parse JSON bytes array"),
        ({"steps": 20.0}, 500, "Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer"),
        ({"steps": "20"}, 500, "Unable to parse 'data': attempt to access JSON non-signed-integer"),
        ({"steps": None}, 500, "Unable to parse 'data': attempt to access JSON non-signed-integer"),
        ({"cfg_scale": "7"}, 500, "Unable to parse 'data': attempt to access JSON non-number as double"),
        ({"use_base64": 1}, 500, "Unable to parse 'data': attempt to access JSON non-boolean as boolean"),
        ({"styles": ["x"]}, 400, "parameter 'styles' has invalid type"),
        ({"override_settings": {"a": 1}}, 400, "parameter 'override_settings' has invalid type"),
        ({"styles": None}, 400, "parameter 'styles' has invalid type"),
        (b"{", 500, "failed to parse the request JSON buffer"),
        (b"", 500, "failed to parse the request JSON buffer"),
        (b"[1]", 500, "attempt to get members for non-object"),
    ],
    ids=str,
)
def test_tritons_own_answers_to_plain_json(
    calls: Calls, model: str, fields: dict[str, Any] | bytes, status: int, message: str
) -> None:
    body = fields if isinstance(fields, bytes) else json.dumps({**small(return_images=False), **fields}).encode()
    answered, reply = calls.post(f"/v2/models/{model}/generate", body)
    assert (answered, message in json.loads(reply)["error"]) == (status, True), reply


def test_an_unknown_model_is_not_found(calls: Calls) -> None:
    assert calls.generate("sdxl", small())[0] == 404
    for url in (calls.server.http_url, f"grpc://{calls.server.grpc_url}"):
        with Client(url, model="sdxl", retries=0) as client, pytest.raises(NotFoundError, match="sdxl"):
            client.generate("a red apple")


def test_an_unknown_task_is_not_found(calls: Calls) -> None:
    status, reply = calls.generate("jobs", {"action": "progress", "task_id": "nobody"})
    assert (status, reply["error"]) == (400, "task_id: no job of 'nobody' is known [NOT_FOUND]")

"""Progress, cancellation, previews and the list of jobs, while requests run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.calls import MODELS, Calls, from_base64, opened, small
from tests.integration.conftest import RunningTriton
from tests.waiting import until


@pytest.fixture(scope="module")
def calls(triton: RunningTriton) -> Iterator[Calls]:
    opened_calls = Calls(triton)
    yield opened_calls
    opened_calls.close()


def cancelled(error: InferenceServerException) -> bool:
    return error.status() == "StatusCode.CANCELLED" and "the job was cancelled" in error.message()


@pytest.mark.parametrize("model", MODELS)
def test_progress_and_cancellation(calls: Calls, model: str) -> None:
    fields = small(steps=150, image_num=4)
    task_id = fields["task_id"]
    sent = calls.send(model, **fields)
    first = calls.wait_for_job(task_id, lambda job: job["state"] == "running" and job["step"] > 0)
    assert (first["model"], first["steps"], first["image_num"], first["images_done"]) == ("sd_base", 600, 4, 0)
    assert first["elapsed_seconds"] > 0
    later = calls.wait_for_job(task_id, lambda job: job["step"] > first["step"])
    assert later["elapsed_seconds"] > first["elapsed_seconds"]
    (told,) = calls.jobs("progress", task_id=task_id)
    assert told["step"] >= later["step"]
    (told,) = calls.jobs("cancel", task_id=task_id)
    assert told["task_id"] == task_id
    with pytest.raises(InferenceServerException) as caught:
        sent.result()
    assert cancelled(caught.value)
    (told,) = calls.jobs("progress", task_id=task_id)
    assert (told["state"], told["error_msg"]) == ("cancelled", "the job was cancelled")
    assert told["step"] < 600


def test_a_finished_job_is_told(calls: Calls) -> None:
    fields = small(image_num=2, steps=3)
    calls.grpc(**fields)
    (told,) = calls.jobs("progress", task_id=fields["task_id"])
    assert (told["state"], told["step"], told["steps"], told["images_done"]) == ("succeeded", 6, 6, 2)
    assert (told["error_msg"], told["preview"]) == ("", "")
    ended = told["elapsed_seconds"]
    (told,) = calls.jobs("cancel", task_id=fields["task_id"])
    assert (told["state"], told["elapsed_seconds"]) == ("succeeded", ended), "what has ended cannot be cancelled"


def test_a_failed_job_is_told(calls: Calls) -> None:
    fields = small(scheduler="LCM", steps=60)
    with pytest.raises(InferenceServerException):
        calls.grpc(**fields)
    (told,) = calls.jobs("progress", task_id=fields["task_id"])
    assert told["state"] == "failed"
    assert told["error_msg"].startswith("steps: 60 is invalid")


def test_the_list_has_the_newest_first(calls: Calls) -> None:
    tasks = [small(steps=1) for _ in range(3)]
    for fields in tasks:
        calls.grpc(**fields)
    assert [job["task_id"] for job in calls.jobs()][:3] == [fields["task_id"] for fields in reversed(tasks)]
    assert calls.jobs("list", task_id="is ignored")


def test_two_jobs_of_one_task_are_cancelled_together(calls: Calls) -> None:
    fields = small(steps=150, image_num=2)
    pending = [calls.send(**fields), calls.send("ensemble", **fields)]
    until(lambda: len([job for job in calls.jobs() if job["task_id"] == fields["task_id"]]) == 2)
    other = calls.send(**small(steps=2))
    assert len(calls.jobs("cancel", task_id=fields["task_id"])) == 2
    for sent in pending:
        with pytest.raises(InferenceServerException) as caught:
            sent.result()
        assert cancelled(caught.value)
    assert other.result()["success"] == 1


def test_a_preview_of_a_running_job(calls: Calls) -> None:
    fields = small(steps=150, width=256, height=128)
    sent = calls.send(**fields)
    calls.wait_for_job(fields["task_id"], lambda job: job["step"] > 2)
    assert calls.jobs("progress", task_id=fields["task_id"])[0]["preview"] == "", "nobody has asked yet"
    until(lambda: calls.jobs("progress", task_id=fields["task_id"], preview=True)[0]["preview"])
    image = opened(from_base64(calls.jobs("progress", task_id=fields["task_id"])[0]["preview"]))
    assert (image.format, image.size) == ("JPEG", (128, 64))
    calls.jobs("cancel", task_id=fields["task_id"])
    with pytest.raises(InferenceServerException):
        sent.result()


@pytest.mark.parametrize("action", ["progress", "cancel"])
def test_an_unknown_task_is_not_found(calls: Calls, action: str) -> None:
    with pytest.raises(InferenceServerException, match="no job of 'nobody' is known") as caught:
        calls.jobs(action, task_id="nobody")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize(
    ("action", "task_id", "message"),
    [
        ("stop", "a", "action: 'stop' is invalid: must be one of: list, progress, cancel"),
        ("", "", "action: '' is invalid"),
        ("progress", "", "task_id: '' is invalid: progress needs the task's id"),
        ("cancel", "", "task_id: '' is invalid: cancel needs the task's id"),
        ("\0", "a", "action: '.x00' is invalid"),
    ],
)
def test_a_bad_question_is_refused(calls: Calls, action: str, task_id: str, message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        calls.jobs(action, task_id=task_id)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_json(calls: Calls) -> None:
    calls.grpc(**(fields := small()))
    status, reply = calls.generate("jobs", {"action": "progress", "task_id": fields["task_id"]})
    assert (status, reply["state"], reply["task_id"]) == (200, "succeeded", fields["task_id"])
    status, reply = calls.generate("jobs", {})
    assert status == 200
    assert fields["task_id"] in reply["task_id"]

"""Following jobs: their progress, and the ends of several, when streams break."""

from __future__ import annotations

import httpx2
import pytest

from tests.unit.client.gateway.conftest import Script, events, fault, job, shown, step
from triton_diffusers_client import (
    Client,
    ConnectionFailedError,
    JobState,
    NotAuthorizedError,
    NotFoundError,
)


def test_a_broken_stream_is_resumed_after_its_last_event(script: Script, client: Client) -> None:
    script.answers = [
        shown("running"),
        shown("running"),
        events(step(3, 1), step(4, 2), broken=True),
        httpx2.ConnectError("refused"),
        events(step(6, 5)),
        shown("running", progress={"step": 5, "steps": 10, "images_done": 0}),
        events(("succeeded", 8, {})),
        shown("succeeded"),
    ]
    seen = [(now.state, now.step) for now in client.job("j").progress()]
    running, succeeded = JobState.RUNNING, JobState.SUCCEEDED
    assert seen == [(running, 0), (running, 1), (running, 2), (running, 5), (succeeded, 0)]
    streams = [request for request in script.requests if request.url.path.endswith("/events")]
    assert [request.headers.get("last-event-id") for request in streams] == [None, "4", "4", "6"]


def test_a_stream_without_more_events_ends_with_the_jobs_state(script: Script, client: Client) -> None:
    script.answers = [shown("running"), shown("running"), httpx2.Response(204), shown("failed")]
    assert [now.state for now in client.job("j").progress()] == [JobState.RUNNING, JobState.FAILED]


def test_a_stream_that_breaks_each_time_is_given_up(script: Script) -> None:
    with Client("gateway+http://gateway:8080", retries=2) as client:
        script.answers = [shown("running"), shown("running"), *(httpx2.ReadError("reset") for _ in range(3))]
        changes = client.job("j").progress()
        assert next(changes).state is JobState.RUNNING
        with pytest.raises(ConnectionFailedError):
            next(changes)
    assert len(script.pauses) == 2


def test_an_error_instead_of_a_stream_is_raised(script: Script, client: Client) -> None:
    script.answers = [shown("running"), shown("running"), fault(403, "another key")]
    with pytest.raises(NotAuthorizedError, match="another key"):
        list(client.job("j").progress())


def test_the_place_in_the_queue_is_told_as_it_changes(script: Script, client: Client) -> None:
    places = [{"ahead": ahead, "wait_seconds": 2.0 * ahead} for ahead in (2, 2, 2, 1)]
    script.answers = [*(shown("queued", position=place) for place in places), shown("cancelled")]
    seen = [(now.state, now.position, now.wait_seconds) for now in client.job("j").progress()]
    queued = JobState.QUEUED
    assert seen == [(queued, 2, 4.0), (queued, 1, 2.0), (JobState.CANCELLED, None, None)]


def test_previews_come_with_the_progress(script: Script, client: Client) -> None:
    script.answers = [
        shown("running"),
        shown("running"),
        httpx2.Response(204),
        events(step(3, 1), step(4, 2), step(5, 3), ("succeeded", 6, {})),
        httpx2.Response(200, content=b"\xff\xd8one"),
        httpx2.Response(204),
        fault(500, "no preview"),
        shown("succeeded"),
    ]
    previews = [now.preview and now.preview.data for now in client.job("j").progress(previews=True)]
    assert previews == [None, b"\xff\xd8one", b"\xff\xd8one", b"\xff\xd8one", None]


def test_jobs_that_end_are_found_without_asking_for_each(script: Script, client: Client) -> None:
    ids = [f"j{number}" for number in range(50)]
    batch = httpx2.Response(202, json={"jobs": [job(id=each) for each in ids]})
    in_flight = httpx2.Response(200, json={"jobs": [job(id=each) for each in ids if each != "j30"], "cursor": None})
    script.answers = [batch, shown(id="j0"), in_flight, shown("failed", id="j30", ended=105.0)]
    jobs = client.submit_many(["an apple"] * 50)
    ended = client.as_completed(jobs)
    assert next(ended).id == "j30"
    assert script.calls[1:] == ["GET /api/jobs/j0", "GET /api/jobs", "GET /api/jobs/j30"]


def test_a_job_that_was_deleted_meanwhile_is_not_waited_for(script: Script, client: Client) -> None:
    gone = fault(404, "job 'j' does not exist")
    script.answers = [shown("queued", 202), gone, gone]
    (ended,) = client.as_completed([client.submit("an apple")])
    with pytest.raises(NotFoundError):
        ended.result()

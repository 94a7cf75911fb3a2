"""Exchanges with a gateway that fails, of the client that blocks: retries, resumed streams, jobs that are given up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx2
import pytest

from triton_diffusers_client import (
    BusyError,
    CancelledError,
    Client,
    ConnectionFailedError,
    InvalidRequestError,
    JobState,
    NotAuthorizedError,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
    UnreachableError,
    WrongProtocolError,
)
from triton_diffusers_client import client as module
from triton_diffusers_client.gateway.driver import Driver

Answer = httpx2.Response | BaseException
BASE = "http://inside:1"


def job(state: str = "queued", **changes: Any) -> dict[str, Any]:
    """Return a job as the gateway shows it."""
    result = None
    if state == "succeeded":
        result = {
            "images": [{"url": f"{BASE}/api/jobs/j/images/0.png?signature=s", "is_nsfw": False}],
            "control_images": [],
            "oss_url": ["file:///a.png"],
            "seed": "7",
            "prompt": "an apple",
            "parameters": {"steps": 2},
            "profile": "exact",
            "use_blade": False,
            "queue_seconds": 0.5,
            "run_seconds": 1.5,
        }
    shown = {
        "id": "j",
        "task_id": "mine",
        "model": "ensemble",
        "state": state,
        "image_num": 1,
        "created": 100.0,
        "ended": None,
        "progress": {"step": 0, "steps": 0, "images_done": 0, "fraction": 0.0},
        "position": None,
        "result": result,
        "error": None,
        "warnings": [],
        "links": {"self": f"{BASE}/api/jobs/j"},
    }
    return shown | changes


def shown(state: str = "queued", status: int = 200, **changes: Any) -> httpx2.Response:
    return httpx2.Response(status, json=job(state, **changes))


def fault(status: int, message: str, headers: dict[str, str] | None = None, **parts: Any) -> httpx2.Response:
    return httpx2.Response(status, json={"error": {"message": message, **parts}}, headers=headers)


class Script:
    """A gateway that answers each request with the next of its answers, and notes the requests and the pauses."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[httpx2.Request] = []
        self.pauses: list[float] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        if not self.answers:
            raise AssertionError(f"nothing is left to answer {request.method} {request.url}")
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(module, "Driver", lambda netloc: Driver(netloc, httpx2.MockTransport(made)))
    monkeypatch.setattr("triton_diffusers_client.gateway.driver.time.sleep", made.pauses.append)
    return made


@pytest.fixture
def client(script: Script) -> Iterator[Client]:
    with Client("gateway+http://gateway:8080", api_key="secret") as made:
        yield made


def events(*sent: tuple[str, int, dict[str, Any]], broken: bool = False) -> httpx2.Response:
    """Return a stream of events; a broken one ends with an error."""

    def content() -> Iterator[bytes]:
        for kind, number, data in sent:
            yield f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n".encode()
        if broken:
            raise httpx2.ReadError("connection reset")

    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=content())


def step(number: int, done: int) -> tuple[str, int, dict[str, Any]]:
    return "progress", number, {"step": done, "steps": 10, "images_done": 0, "at": 101.0}


@pytest.mark.parametrize(
    "failure",
    [
        httpx2.ReadError("reset"),
        httpx2.ReadTimeout("slow"),
        fault(503, "the table is away"),
        httpx2.Response(502, text="bad gateway"),
        httpx2.Response(504, text="timeout"),
    ],
)
def test_a_repeated_submission_is_one_job(script: Script, client: Client, failure: Answer) -> None:
    script.answers = [shown(), failure, failure, shown("queued", 202)]
    client.progress("j")
    assert client.submit("an apple").id == "j"
    first, *others = script.requests[1:]
    assert len(others) == 2
    keys = {request.headers["idempotency-key"] for request in script.requests[1:]}
    assert len(keys) == 1
    assert {request.content for request in others} == {first.content}
    assert json.loads(first.content)["seed"].isdecimal()
    assert script.pauses[1] > script.pauses[0] > 0


def test_a_busy_gateway_is_asked_again_when_it_says(script: Script, client: Client) -> None:
    script.answers = [fault(429, "too many jobs", {"Retry-After": "30"}), shown("queued", 202)]
    client.submit("an apple")
    assert script.pauses == [30.0]
    script.answers = [fault(429, "too many jobs", {"Retry-After": "30"})]
    with pytest.raises(BusyError, match="too many jobs") as caught:
        client.progress("j", timeout=1)
    assert caught.value.retry_after == 30


def test_two_submissions_are_two_jobs(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), shown("queued", 202)]
    client.submit("an apple", seed=1)
    client.submit("an apple", seed=1)
    assert len({request.headers["idempotency-key"] for request in script.requests}) == 2


def test_an_error_of_the_request_is_not_repeated(script: Script, client: Client) -> None:
    script.answers = [fault(400, "steps: 0 is invalid: no", field="steps", value="0", rule="no")]
    with pytest.raises(InvalidRequestError) as caught:
        client.generate("an apple", steps=0)
    assert (caught.value.field, caught.value.value, caught.value.rule) == ("steps", "0", "no")
    assert script.calls == ["POST /api/jobs"]


def test_images_are_asked_for_where_the_gateway_was_reached(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), shown("succeeded"), httpx2.Response(200, content=b"\x89PNG")]
    generation = client.generate("an apple")
    assert (generation.images[0].data, generation.images[0].seed) == (b"\x89PNG", 7)
    last = script.requests[-1]
    assert str(last.url) == "http://gateway:8080/api/jobs/j/images/0.png?signature=s"
    assert last.headers["authorization"] == "Bearer secret"


def test_the_key_goes_to_no_other_host(script: Script, client: Client) -> None:
    document = job("succeeded")
    document["result"]["images"][0]["url"] = "https://bucket.example/a.png"
    script.answers = [httpx2.Response(200, json=document), httpx2.Response(200, content=b"\x89PNG")]
    client.job("j").result()
    assert script.requests[-1].url.host == "bucket.example"
    assert "authorization" not in script.requests[-1].headers
    assert "secret" not in repr(client)


def test_images_that_nobody_wants_are_not_fetched(script: Script, client: Client) -> None:
    script.answers = [shown("succeeded", 202)]
    generation = client.generate("an apple", return_images=False)
    assert (generation.images, generation.is_nsfw, len(script.calls)) == ((), (False,), 1)


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), SystemExit()])
def test_an_interrupted_submission_is_found_by_its_key_and_cancelled(
    script: Script, client: Client, ending: BaseException
) -> None:
    script.answers = [ending, shown("queued", 202), shown("cancelled")]
    with pytest.raises(type(ending)):
        client.generate("an apple")
    assert script.calls == ["POST /api/jobs", "POST /api/jobs", "POST /api/jobs/j/cancel"]
    assert script.requests[0].headers["idempotency-key"] == script.requests[1].headers["idempotency-key"]


def test_an_interrupted_wait_cancels_the_job(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), KeyboardInterrupt(), shown("running")]
    with pytest.raises(KeyboardInterrupt):
        client.generate("an apple")
    assert script.calls[-1] == "POST /api/jobs/j/cancel"


def test_a_gateway_that_is_away_does_not_hide_the_interruption(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), KeyboardInterrupt(), httpx2.ConnectError("refused")]
    with pytest.raises(KeyboardInterrupt):
        client.generate("an apple")


def test_an_interrupted_wait_for_a_job_in_the_background_leaves_it(script: Script, client: Client) -> None:
    script.answers = [shown("queued", 202), KeyboardInterrupt()]
    handle = client.submit("an apple")
    with pytest.raises(KeyboardInterrupt):
        handle.result()
    assert script.calls == ["POST /api/jobs", "GET /api/jobs/j"]


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


def test_a_deletion_whose_answer_was_lost_has_happened(script: Script, client: Client) -> None:
    script.answers = [shown("failed"), shown("failed"), httpx2.ReadError("reset"), fault(404, "no such job")]
    client.job("j").delete()
    assert script.calls[-2:] == ["DELETE /api/jobs/j"] * 2


@pytest.mark.parametrize(
    ("state", "kind"),
    [("cancelled", CancelledError), ("expired", RequestTimeoutError), ("dead", ServerError), ("failed", ServerError)],
)
def test_each_end_without_a_result_is_an_error(
    script: Script, client: Client, state: str, kind: type[Exception]
) -> None:
    script.answers = [shown(state)]
    with pytest.raises(kind, match=r"^job j: it ") as caught:
        client.job("j").result()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<h1>hello</h1>"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={}),
        shown("odd"),
        httpx2.Response(307, headers={"location": "https://elsewhere.example/"}),
    ],
)
def test_nonsense_is_the_servers_fault(script: Script, client: Client, answer: Answer) -> None:
    script.answers = [answer]
    with pytest.raises(ServerError):
        client.progress("j")
    assert len(script.calls) == 1


LIVE = httpx2.Response(200, json={"status": "live"})
TRITON = httpx2.Response(200, json={"name": "triton", "extensions": []})
NOTHING = httpx2.Response(404, json={"error": "Not Found"})


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([LIVE], "gateway"),
        ([NOTHING, TRITON], "triton"),
        ([httpx2.Response(200, text="<h1>hello</h1>"), TRITON], "triton"),
        ([fault(503, "starting"), LIVE], "gateway"),
    ],
)
def test_a_server_is_asked_once_what_it_is(script: Script, answers: Sequence[Answer], found: str) -> None:
    script.answers = list(answers)
    with Client("http://server/path") as client:
        assert client.interface == found
        assert client.interface == found
    assert len(script.calls) == len(answers)
    assert script.calls[0] == "GET /path/health/live"


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([NOTHING, NOTHING], WrongProtocolError),
        ([fault(401, "another key")], NotAuthorizedError),
        ([httpx2.ConnectError("refused")], UnreachableError),
    ],
)
def test_a_server_that_is_not_known_yet_is_asked_again(
    script: Script, answers: Sequence[Answer], kind: type[Exception]
) -> None:
    script.answers = [*answers, LIVE]
    with Client("http://server") as client:
        with pytest.raises(kind):
            client.jobs()
        assert client.interface == "gateway"


@pytest.mark.parametrize(
    "url", ["triton+http://server", "triton+https://server", "grpc://server", "gateway+http://server"]
)
def test_a_url_that_says_it_is_believed(script: Script, url: str) -> None:
    with Client(url) as client:
        assert client.interface in url or url.startswith("grpc")
    assert script.calls == []


def test_the_environment_has_the_url_and_the_key(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_URL", "gateway+http://elsewhere:9")
    monkeypatch.setenv("TRITON_DIFFUSERS_API_KEY", "from-environment")
    calls: list[Callable[[], Client]] = [
        Client,
        lambda: Client(api_key="given"),
        lambda: Client(headers={"Authorization": "Basic x"}),
    ]
    for make in calls:
        script.answers = [shown()]
        with make() as client:
            client.progress("j")
    assert {request.url.host for request in script.requests} == {"elsewhere"}
    keys = [request.headers["authorization"] for request in script.requests]
    assert keys == ["Bearer from-environment", "Bearer given", "Basic x"]
